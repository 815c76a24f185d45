"""BERT's configuration: the published sizes, and `bert_config.json`."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from functools import partial
from typing import ClassVar

from official_models.common import files
from official_models.common.errors import InputError
from official_models.common.layer import Config, registration
from tf_lamb import check

# Layers, hidden, heads, intermediate.
SIZES = {
    "tiny": (2, 128, 2, 512),
    "mini": (4, 256, 4, 1024),
    "small": (4, 512, 8, 2048),
    "medium": (8, 512, 8, 2048),
    "base": (12, 768, 12, 3072),
    "large": (24, 1024, 16, 4096),
}


# Of an axis: larger than any that was published, and memory can hold it.
size = partial(check.count, maximum=2**24)


@registration("tf_lamb_models.bert")
@dataclasses.dataclass(frozen=True)
class BertConfig(Config):
    """Sizes and rates of one BERT.

    Args:
        vocab_size: V.
        hidden_size: H, a multiple of `num_heads`.
        num_layers: Number of Transformer layers.
        num_heads: N.
        intermediate_size: I, the width inside the feed-forward block.
        max_position_embeddings: Longest sequence, in tokens.
        type_vocab_size: Number of segment ids.
        hidden_dropout: Rate on hidden states, in [0, 1).
        attention_dropout: Rate on attention probabilities, in [0, 1).
        initializer_range: Standard deviation of a new matrix.
        layer_norm_epsilon: Added to the variance.
        gelu: "tanh" (Google's approximation) or "erf" (Hugging Face's).

    Attributes:
        sizes: {name: (num_layers, hidden_size, num_heads, intermediate_size)}
            of the published ones.
        published_vocab_size: V of those.

    Raises:
        ValueError: A value is out of range.
    """

    sizes: ClassVar[dict[str, tuple[int, int, int, int]]] = SIZES
    published_vocab_size: ClassVar[int] = 30522
    checks: ClassVar = {
        "vocab_size": size,
        "hidden_size": size,
        "num_layers": size,
        "num_heads": size,
        "intermediate_size": size,
        "max_position_embeddings": size,
        "type_vocab_size": size,
        "hidden_dropout": check.decay_rate,
        "attention_dropout": check.decay_rate,
        "initializer_range": check.positive,
        "layer_norm_epsilon": check.positive,
        "gelu": partial(check.one_of, choices=("tanh", "erf")),
    }

    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    intermediate_size: int
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    hidden_dropout: float = 0.1
    attention_dropout: float = 0.1
    initializer_range: float = 0.02
    layer_norm_epsilon: float = 1e-12
    gelu: str = "tanh"

    def __post_init__(self):
        super().__post_init__()
        if self.hidden_size % self.num_heads:
            raise ValueError(
                f"hidden_size: got {self.hidden_size}, expected a multiple of "
                f"num_heads = {self.num_heads}"
            )

    @classmethod
    def of_size(cls, name: str, vocab_size: int | None = None, **changes):
        """The published size `name` of `sizes`, with `changes` on top.

        Args:
            name: One of `sizes`.
            vocab_size: V; None for the published one.
            **changes: Other arguments.

        Raises:
            ValueError: There is no such size.
        """
        if name not in cls.sizes:
            raise ValueError(
                f"size: got {name!r}, expected one of {', '.join(cls.sizes)}"
            )
        fields = ("num_layers", "hidden_size", "num_heads", "intermediate_size")
        published = dict(zip(fields, cls.sizes[name]))
        published["vocab_size"] = vocab_size or cls.published_vocab_size
        return cls(**{**published, **changes})


# Name in the file -> name in `BertConfig`.
NAMES = {
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "num_hidden_layers": "num_layers",
    "num_attention_heads": "num_heads",
    "intermediate_size": "intermediate_size",
    "max_position_embeddings": "max_position_embeddings",
    "type_vocab_size": "type_vocab_size",
    "hidden_dropout_prob": "hidden_dropout",
    "attention_probs_dropout_prob": "attention_dropout",
    "initializer_range": "initializer_range",
    # Only Hugging Face's files have it.
    "layer_norm_eps": "layer_norm_epsilon",
}
REQUIRED = tuple(NAMES)[:5]
# Of an ALBERT only; the same in the file.
ALBERT_NAMES = (
    *("embedding_size", "num_hidden_groups", "inner_group_num", "shared_part"),
)
EXPECTED = "a bert_config.json"
# "hidden_act" -> `BertConfig.gelu`. What Google calls "gelu" is the
# approximation by tanh, what Hugging Face calls "gelu" is not.
GOOGLE_GELU = {"gelu": "tanh", "gelu_new": "tanh", "gelu_erf": "erf"}
HUGGING_FACE_GELU = {
    "gelu": "erf",
    "gelu_new": "tanh",
    "gelu_pytorch_tanh": "tanh",
}


def read_json(path: str | os.PathLike, expected: str = EXPECTED):
    """The values in a model's configuration file, on `gs://` too.

    Args:
        path: The file.
        expected: What it should be, for messages.

    Returns:
        {name: value}.

    Raises:
        InputError: It cannot be read, or is no JSON object.
    """
    found = files.read_json(path, f"expected {expected}")
    if not isinstance(found, dict):
        raise InputError(f"{path}: no JSON object; expected {expected}")
    return found


def make_config(
    path: str | os.PathLike,
    found: Mapping,
    cls: type[BertConfig] = BertConfig,
    *,
    gelu: Mapping[str, str] = GOOGLE_GELU,
    expected: str = EXPECTED,
    **more,
) -> BertConfig:
    """A configuration of what `read_json` found.

    Args:
        path: Where it was found, for messages.
        found: The file's values; other names than those of `NAMES` (such as
            `pooler_num_fc_layers`) are passed over.
        cls: `BertConfig`, or a class of it.
        gelu: What "hidden_act" means; it is "gelu" if the file has none.
        expected: What the file should be, for messages.
        **more: Further arguments of `cls`.

    Raises:
        InputError: A value is missing or out of range.
    """
    missing = [name for name in REQUIRED if name not in found]
    if missing:
        raise InputError(
            f"{path}: lacks {', '.join(missing)}; expected {expected}"
        )
    activation = found.get("hidden_act", "gelu")
    if not isinstance(activation, str) or activation not in gelu:
        raise InputError(
            f"{path}: hidden_act: got {activation!r}, expected one of "
            f"{', '.join(gelu)}"
        )
    values = {
        ours: found[name] for name, ours in NAMES.items() if name in found
    }
    try:
        return cls(**values, **more, gelu=gelu[activation])
    except (ValueError, TypeError) as error:
        raise InputError(f"{path}: {error}") from error


def file_values(config: BertConfig) -> dict:
    """A configuration as its file has it, but for "hidden_act".

    Args:
        config: Of a BERT or an ALBERT.
    """
    values = {name: getattr(config, ours) for name, ours in NAMES.items()}
    more = {n: getattr(config, n) for n in ALBERT_NAMES if hasattr(config, n)}
    return {**values, **more}


def write_config(path: str | os.PathLike, config: BertConfig) -> None:
    """Writes a `bert_config.json`, or an `albert_config.json`.

    `read_config` gives the same configuration back.

    Args:
        path: The file; on `gs://` too.
        config: Of a BERT or an ALBERT.
    """
    activation = {"tanh": "gelu", "erf": "gelu_erf"}[config.gelu]
    values = {**file_values(config), "hidden_act": activation}
    files.write_json(path, values)


def read_config(
    path: str | os.PathLike, *, gelu: Mapping[str, str] = GOOGLE_GELU
) -> BertConfig:
    """The configuration in a `bert_config.json`, on `gs://` too.

    Args:
        path: The file.
        gelu: What its "hidden_act" means: `GOOGLE_GELU`, or
            `HUGGING_FACE_GELU` for a `config.json` of `transformers`.

    Raises:
        InputError: It cannot be read, or holds something else.
    """
    found = read_json(path)
    if "embedding_size" in found:
        raise InputError(
            f"{path}: has an embedding_size, as an ALBERT's; expected "
            f"{EXPECTED}"
        )
    return make_config(path, found, gelu=gelu)
