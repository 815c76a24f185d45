"""What a pretrained BERT puts in place of [MASK]."""

from collections.abc import Sequence
from typing import NamedTuple

import keras
import numpy as np
from tokenizers import Tokenizer

from official_models.common.errors import InputError

MASK = "[MASK]"


class Filling(NamedTuple):
    """The likeliest tokens for the first [MASK] of a text."""

    text: str
    tokens: list[str]
    probabilities: list[float]

    def __str__(self) -> str:
        best = ", ".join(
            f"{token} {probability:.0%}"
            for token, probability in zip(
                self.tokens, self.probabilities, strict=True
            )
        )
        return f"{self.text}\n    {best}"


def encode(text: str, tokenizer: Tokenizer, max_seq_length: int) -> list[int]:
    """[CLS] text [SEP], with the mask token's id for each [MASK].

    Raises:
        InputError: there is no [MASK], or it lies beyond `max_seq_length`.
    """
    if MASK not in text:
        raise InputError(f"--fill {text!r}: expected at least one {MASK}")
    mask_id = tokenizer.token_to_id(MASK)
    ids = [tokenizer.token_to_id("[CLS]")]
    for i, part in enumerate(text.split(MASK)):
        ids += [mask_id] if i else []
        ids += tokenizer.encode(part, add_special_tokens=False).ids
    ids = [*ids[: max_seq_length - 1], tokenizer.token_to_id("[SEP]")]
    if mask_id not in ids:
        raise InputError(
            f"--fill {text!r}: {MASK} is beyond the {max_seq_length} tokens "
            "that the model reads"
        )
    return ids


def fill_masks(
    model: keras.Model,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    *,
    max_seq_length: int,
    top: int = 5,
) -> list[Filling]:
    """The `top` likeliest tokens for the first [MASK] of each text.

    Args:
        model: a `bert_pretrainer`.
        tokenizer: the one it was trained with.
        texts: each with a [MASK].
        max_seq_length: T, at most the model's.
        top: how many tokens.

    Returns:
        A `Filling` for each text.

    Raises:
        InputError: as `encode`.
    """
    if not texts:
        return []
    rows = [encode(text, tokenizer, max_seq_length) for text in texts]
    ids = np.zeros((len(rows), max_seq_length), "int32")
    for i, row in enumerate(rows):
        ids[i, : len(row)] = row
    positions = (ids == tokenizer.token_to_id(MASK)).argmax(1)
    inputs = {
        "input_ids": ids,
        "input_mask": (ids != 0).astype("int32"),
        "segment_ids": np.zeros_like(ids),
        "masked_lm_positions": positions[:, np.newaxis].astype("int32"),
    }
    logits = model.predict(inputs, verbose=0)["masked_lm"][:, 0]  # [B, V]
    logits = logits.astype("float64") - logits.max(1, keepdims=True)
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    best = np.argsort(-probabilities, 1)[:, :top]
    return [
        Filling(
            text,
            [tokenizer.id_to_token(int(token)) for token in best[i]],
            probabilities[i, best[i]].tolist(),
        )
        for i, text in enumerate(texts)
    ]
