"""Batches of rows of about the same length, without most of their padding.

A self-attention layer gives real tokens the same numbers whatever padding
follows them, so that columns which hold only padding cost time and change
nothing but the order of sums (and which masks dropout draws).

Axes: N examples, B rows of a batch, T tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from official_models.common.backend import PyDataset

MASK = "input_mask"
# Every length is traced (on JAX, and with --jit_compile, compiled) once.
_LENGTHS = (16, 24, 32, 48, 64, 96, 128, 192, 256, 384)
_POOL = 64


def lengths_of(inputs: Mapping[str, np.ndarray]) -> np.ndarray:
    """Tokens before the padding at the end, int [N], at least 1.

    Args:
        inputs: With `input_mask` [N, T], 1 = real token.
    """
    mask = inputs[MASK] != 0
    padding = mask[:, ::-1].argmax(axis=1)
    return np.where(mask.any(axis=1), mask.shape[1] - padding, 1)


def bucket_of(length: int, longest: int) -> int:
    """The columns that are kept for rows of `length` tokens, up to T."""
    return next((n for n in _LENGTHS if length <= n < longest), longest)


def trimmed(
    inputs: Mapping[str, np.ndarray], columns: int
) -> dict[str, np.ndarray]:
    """The first columns of each array, [N, columns]."""
    return {name: array[:, :columns] for name, array in inputs.items()}


def by_length(
    lengths: np.ndarray,
    order: np.ndarray,
    batch_size: int,
    rng: np.random.Generator,
) -> list[np.ndarray]:
    """Cuts an order of rows into batches of rows of about the same length.

    The order is cut into parts of 64 batches; each is sorted by length and
    cut into batches, and the batches of all are shuffled. So each row is in
    one batch, and which rows meet differs from epoch to epoch.

    Args:
        lengths: Of all rows, [N].
        order: Rows, a multiple of `batch_size`.
        batch_size: B.
        rng: Draws the order of the batches.

    Returns:
        Rows of each batch.
    """
    pool = _POOL * batch_size
    found = []
    for first in range(0, len(order), pool):
        part = order[first : first + pool]
        part = part[lengths[part].argsort(kind="stable")]
        found += np.split(part, len(part) // batch_size)
    return [found[i] for i in rng.permutation(len(found))]


class Batches(PyDataset):
    """Rows of arrays, each batch without the columns that only pad it.

    Args:
        inputs: {name: [N, T]}, `input_mask` among them.
        labels: A tree of [N].
        rows: Of each batch.
    """

    def __init__(
        self,
        inputs: Mapping[str, np.ndarray],
        labels: Any,
        rows: Sequence[np.ndarray],
    ):
        super().__init__()
        self._inputs, self._labels = inputs, labels
        longest = inputs[MASK].shape[1]
        lengths = lengths_of(inputs)
        columns = [bucket_of(lengths[part].max(), longest) for part in rows]
        # On TensorFlow, Keras takes an axis of the first two batches that is
        # the same in both for one that never changes.
        other = next((i for i, n in enumerate(columns) if n != columns[0]), 0)
        first = [0, other] if other else [0]
        rest = [i for i in range(len(rows)) if i not in first]
        self._batches = [(rows[i], columns[i]) for i in first + rest]

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, index: int):
        rows, columns = self._batches[index]
        labels = keras.tree.map_structure(lambda x: x[rows], self._labels)
        part = {name: x[rows] for name, x in self._inputs.items()}
        return trimmed(part, columns), labels


def predict(
    model: keras.Model, inputs: Mapping[str, np.ndarray], batch_size: int
) -> Any:
    """The outputs of a model that has none of the axis T, in the rows' order.

    Args:
        model: From `inputs`.
        inputs: {name: [N, T]}, `input_mask` among them.
        batch_size: B.

    Returns:
        A tree of [N, ...].
    """
    longest = inputs[MASK].shape[1]
    lengths = lengths_of(inputs)
    columns = np.array([bucket_of(n, longest) for n in lengths])
    rows, found = [], []
    for n in np.unique(columns):
        rows.append(np.flatnonzero(columns == n))
        part = {name: x[rows[-1]] for name, x in inputs.items()}
        found.append(
            model.predict(trimmed(part, n), batch_size=batch_size, verbose=0)
        )
    back = np.concatenate(rows).argsort()
    return keras.tree.map_structure(
        lambda *parts: np.concatenate(parts)[back], *found
    )
