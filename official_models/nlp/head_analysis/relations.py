"""Which heads link the words of a relation, such as a verb and its subject.

Of one example, the largest attention between two linked words, in either
direction; its mean over the relation's examples is a head's score. Heads whose
score exceeds the 99th percentile of all heads' are named.

Axes: T tokens, L layers, N heads.

References:
    Kovaleva et al. 2019 (arXiv:1908.08593), section 4.3
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from official_models.common import files
from official_models.common.errors import InputError
from official_models.nlp.bert.finetuning import features
from official_models.nlp.bert.finetuning.fit import training
from official_models.nlp.datasets.glue import Example
from official_models.nlp.head_analysis import maps as attention_maps
from official_models.nlp.head_analysis.attention_to import Words

PERCENTILE = 99
EXPECTED = (
    'expected {"relations": [{"name": "...", "examples": [{"texts": ["..."], '
    '"pairs": [["word", "word"], ...]}, ...]}, ...]}'
)


class Relation(NamedTuple):
    """The examples of a relation.

    Attributes:
        name: Of the relation.
        inputs: {name in `TOKENS`: int32 [M, T]}.
        links: Of each example, pairs of boolean [T]: the tokens of the one
            word and of the other.
    """

    name: str
    inputs: dict[str, np.ndarray]
    links: list[list[tuple[np.ndarray, np.ndarray]]]


def read_relations(
    path: str | os.PathLike, tokenizer, max_seq_length: int
) -> list[Relation]:
    """The relations in a JSON file; the module's `EXPECTED` has its form.

    Args:
        path: The file. An example has one text or two; every occurrence of a
            pair's words counts.
        tokenizer: Of the model's vocabulary.
        max_seq_length: T; what is beyond is cut off.

    Raises:
        InputError: It has another form, or a word is not in its text.
    """
    given = files.read_json(path, EXPECTED)
    listed = given.get("relations") if isinstance(given, Mapping) else None
    if not isinstance(listed, list) or not listed:
        raise InputError(f"{path}: {EXPECTED}")
    words, found = Words(tokenizer), []
    for i, relation in enumerate(listed, 1):
        where = f"{path}: relation {i}"
        _check(where, relation)
        rows, links = [], []
        for j, example in enumerate(relation["examples"], 1):
            texts = Example(tuple(example["texts"]), None)
            (row,) = features.encode([texts], tokenizer, max_seq_length)
            rows.append(row)
            place = f"{where} ({relation['name'][:40]}), example {j}"
            links.append(_links(place, example, row, words))
        dtypes = dict.fromkeys(training.TOKENS, "int32")
        found.append(
            Relation(relation["name"], training.stacked(rows, dtypes), links)
        )
    names = [relation.name for relation in found]
    if len(set(names)) < len(names):
        raise InputError(f"{path}: two relations of one name; rename one")
    return found


def _check(where: str, relation: Any) -> None:
    """Raises `InputError` unless a relation has the expected form."""

    def strings(value, *lengths: int) -> bool:
        return (
            isinstance(value, list)
            and len(value) in lengths
            and all(isinstance(x, str) and x.strip() for x in value)
        )

    examples = (
        relation.get("examples") if isinstance(relation, Mapping) else None
    )
    if (
        not isinstance(examples, list)
        or not examples
        or not strings([relation.get("name")], 1)
    ):
        raise InputError(f"{where}: {EXPECTED}")
    for j, example in enumerate(examples, 1):
        pairs = example.get("pairs") if isinstance(example, Mapping) else None
        if (
            not isinstance(pairs, list)
            or not pairs
            or not strings(example.get("texts"), 1, 2)
            or not all(strings(pair, 2) for pair in pairs)
        ):
            raise InputError(f"{where}, example {j}: {EXPECTED}")


def _links(where: str, example: Mapping, row: Mapping, words: Words) -> list:
    ids = np.asarray(row["input_ids"])[: sum(row["input_mask"])]
    room = len(row["input_ids"])

    def places(word: str) -> np.ndarray:
        found = words.places(words.pieces(word), ids)
        if not found.any():
            text = " | ".join(example["texts"])
            raise InputError(
                f"{where}: {word[:40]!r} is not in the text {text[:80]!r} of "
                f"at most {room} tokens; expected words as they stand there"
            )
        return np.pad(found, (0, room - len(ids)))

    return [(places(a), places(b)) for a, b in example["pairs"]]


def score(
    maps: np.ndarray, links: Sequence[tuple[np.ndarray, np.ndarray]]
) -> np.ndarray:
    """An example's largest attention between linked words, [L, N].

    Args:
        maps: [L, N, T, T].
        links: Pairs of boolean [T].
    """
    linked = np.zeros(maps.shape[-2:], bool)
    for one, other in links:
        both = one[: len(linked), None] & other[None, : len(linked)]
        linked |= both | both.T
    return maps[..., linked].max(axis=-1)


def scores(
    relation: Relation,
    read: Callable[[attention_maps.Batch], np.ndarray],
    batch_size: int,
) -> np.ndarray:
    """Each head's score of a relation, [L, N].

    Args:
        relation: From `read_relations`.
        read: A batch's maps, [B, L, N, T, T].
        batch_size: B.
    """
    mean = attention_maps.Mean()
    for batch in attention_maps.batches_of(relation.inputs, batch_size):
        for found, row in zip(read(batch), batch.rows):
            mean.add(score(found, relation.links[row]))
    return mean.value()


def named(scores: np.ndarray) -> dict[str, Any]:
    """Which heads stand out: `threshold`, `above` and `best`.

    Args:
        scores: [L, N].
    """
    threshold = float(np.percentile(scores, PERCENTILE))
    above = np.argwhere(scores > threshold)
    best = np.unravel_index(scores.argmax(), scores.shape)
    return {
        "threshold": threshold,
        "above": above.tolist(),
        "best": [int(i) for i in best],
    }
