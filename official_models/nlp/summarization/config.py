"""Sizes of the layers on top of the encoder, and of communicating agents."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import ClassVar

from official_models.common.layer import Config, registration
from official_models.nlp.bert.config import size
from tf_lamb import check


@registration("tf_lamb_models.summarization")
@dataclasses.dataclass(frozen=True)
class SummarizerConfig(Config):
    """Sizes and rates of an extractive head, or of a decoder.

    Args:
        hidden_size: H, the encoder's; a multiple of `num_heads`.
        vocab_size: V of a decoder; a head has none.
        num_layers: 2 of the published head, 6 of the decoder.
        num_heads: N.
        intermediate_size: I, the width inside the feed-forward block.
        max_positions: Sentences of a document, or tokens of a summary, at
            most.
        hidden_dropout: Rate on hidden states, in [0, 1).
        attention_dropout: Rate on attention probabilities, in [0, 1).
        initializer_range: Standard deviation of a new matrix.
        layer_norm_epsilon: Added to the variance.
        gelu: "tanh" or "erf".

    Raises:
        ValueError: A value is out of range.
    """

    checks: ClassVar = {
        "hidden_size": size,
        "vocab_size": size,
        "num_layers": size,
        "num_heads": size,
        "intermediate_size": size,
        "max_positions": size,
        "hidden_dropout": check.decay_rate,
        "attention_dropout": check.decay_rate,
        "initializer_range": check.positive,
        "layer_norm_epsilon": check.positive,
        "gelu": partial(check.one_of, choices=("tanh", "erf")),
    }

    hidden_size: int
    vocab_size: int = 1
    num_layers: int = 2
    num_heads: int = 8
    intermediate_size: int = 2048
    max_positions: int = 512
    hidden_dropout: float = 0.1
    attention_dropout: float = 0.1
    initializer_range: float = 0.02
    layer_norm_epsilon: float = 1e-6
    gelu: str = "tanh"

    def __post_init__(self):
        super().__post_init__()
        if self.hidden_size % self.num_heads:
            raise ValueError(
                f"num_heads: got {self.num_heads}, expected a divisor of "
                f"hidden_size = {self.hidden_size}"
            )


@registration("tf_lamb_models.summarization")
@dataclasses.dataclass(frozen=True)
class AgentsConfig(Config):
    """Sizes of deep communicating agents; the defaults are our choice.

    Args:
        vocab_size: V.
        hidden_size: H.
        embedding_size: Of a word's vector.
        agents: M, parts of a document.
        contextual_layers: K; 0: agents do not communicate.
        extra_size: O, words of a document beyond the vocabulary, at most;
            their ids are V to V + O - 1.
        unknown_id: Whose vector such a word has where it is read.
        caa: Contextual agent attention: whether the word distribution knows
            the context of the token before, too.
        communicate: False: messages are zero, with the same parameters.
        initializer_range: Standard deviation of a new matrix that is not an
            LSTM's.

    Raises:
        ValueError: A value is out of range.
    """

    checks: ClassVar = {
        "vocab_size": size,
        "hidden_size": size,
        "embedding_size": size,
        "agents": size,
        "contextual_layers": partial(check.count, minimum=0),
        "extra_size": partial(check.count, minimum=0),
        "unknown_id": partial(check.count, minimum=0),
        "initializer_range": check.positive,
    }

    vocab_size: int
    hidden_size: int = 128
    embedding_size: int = 128
    agents: int = 3
    contextual_layers: int = 2
    extra_size: int = 0
    unknown_id: int = 0
    caa: bool = False
    communicate: bool = True
    initializer_range: float = 0.1

    def __post_init__(self):
        super().__post_init__()
        if self.unknown_id >= self.vocab_size:
            raise ValueError(
                f"unknown_id: got {self.unknown_id}, expected less than "
                f"vocab_size = {self.vocab_size}"
            )

    @property
    def extended_size(self) -> int:
        """E = V + O."""
        return self.vocab_size + self.extra_size
