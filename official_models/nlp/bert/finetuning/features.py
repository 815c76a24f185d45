"""BERT's features of examples.

Axes: N examples, T tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

from official_models.common.errors import InputError
from official_models.nlp.datasets.glue import Example


def kept_lengths(first: int, second: int, room: int) -> tuple[int, int]:
    """How many tokens of two texts stay, the longer one being cut first.

    Args:
        first: tokens of the first text.
        second: tokens of the second text.
        room: how many may stay together, 0 or more.

    Returns:
        Tokens of each that stay: what remains after taking tokens off the
        longer text, of equals the second, one at a time.
    """
    if first + second <= room:
        return first, second
    kept = min(first, max(room - second, (room + 1) // 2))
    return kept, room - kept


def encode(
    examples: Sequence[Example], tokenizer, max_seq_length: int
) -> list[dict[str, list[int]]]:
    """[CLS] a [SEP] b [SEP], padded: the features of BERT.

    Args:
        examples: of `read_split`.
        tokenizer: of `tokenizers`, with [CLS] and [SEP].
        max_seq_length: T, 5 or more for pairs.

    Returns:
        For each example `input_ids`, `input_mask`, `segment_ids` [T] and
        `label_ids` [1] (0 where there is none), integers.

    Raises:
        InputError: no room for a token of each text.
    """
    parts = len(examples[0].texts)
    room = max_seq_length - 1 - parts
    if room < parts:
        raise InputError(
            f"--max_seq_length {max_seq_length}: expected at least "
            f"{2 * parts + 1} for this task"
        )
    ids = [
        [
            row.ids
            for row in tokenizer.encode_batch(
                [example.texts[i] for example in examples],
                add_special_tokens=False,
            )
        ]
        for i in range(parts)
    ]
    cls, sep = (tokenizer.token_to_id(name) for name in ("[CLS]", "[SEP]"))
    rows = []
    for i, example in enumerate(examples):
        first = ids[0][i]
        second = ids[1][i] if parts == 2 else []
        a, b = kept_lengths(len(first), len(second), room)
        start = [cls, *first[:a], sep]
        rest = [*second[:b], sep] if parts == 2 else []
        rows.append(
            {
                **pad(start, rest, max_seq_length),
                "label_ids": [example.label or 0],
            }
        )
    return rows


def pad(
    first: list[int], second: list[int], max_seq_length: int
) -> dict[str, list[int]]:
    """Two segments of ids, up to T: `input_ids`, `input_mask`, `segment_ids`.

    Args:
        first: segment 0, at most T ids together with
        second: segment 1.
        max_seq_length: T.
    """
    used = len(first) + len(second)
    padding = [0] * (max_seq_length - used)
    return {
        "input_ids": [*first, *second, *padding],
        "input_mask": [1] * used + padding,
        "segment_ids": [0] * len(first) + [1] * len(second) + padding,
    }
