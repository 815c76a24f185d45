"""The attention maps of a model, batch by batch.

Axes: B batch, T tokens, L layers as they are applied, N heads, M examples.
Rows of a map are queries, columns keys.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import keras
import numpy as np

from official_models.nlp.bert.finetuning.fit import batches
from official_models.nlp.bert.finetuning.fit.training import TOKENS
from official_models.nlp.checkpoint import models
from official_models.nlp.transformer.layers import attention_bias

# Of each head's mean map, the queries and keys that are kept.
MEAN_TOKENS = 24


class Batch(NamedTuple):
    """Examples of about the same length.

    Attributes:
        rows: Their numbers, [B].
        inputs: {name in `TOKENS`: int32 [B, T]}.
        lengths: Tokens before the padding, [B].
    """

    rows: np.ndarray
    inputs: dict[str, np.ndarray]
    lengths: np.ndarray


def batches_of(
    inputs: Mapping[str, np.ndarray], batch_size: int, *, trim: bool = True
) -> list[Batch]:
    """Cuts examples into batches, the shortest first.

    Args:
        inputs: {name in `TOKENS`: int32 [M, T]}.
        batch_size: B; the last batch of a length may be smaller.
        trim: Whether columns that only pad a batch are left out.
    """
    lengths = batches.lengths_of(inputs)
    longest = inputs[TOKENS[0]].shape[1]
    columns = np.array([batches.bucket_of(n, longest) for n in lengths])
    if not trim:
        columns[:] = longest
    found = []
    for number in np.unique(columns):
        rows = np.flatnonzero(columns == number)
        for first in range(0, len(rows), batch_size):
            part = rows[first : first + batch_size]
            kept = {name: x[part] for name, x in inputs.items()}
            kept = batches.trimmed(kept, number)
            found.append(Batch(part, kept, lengths[part]))
    return found


class Maps(keras.layers.Layer):
    """From token ids, mask and segments to the maps [B, L, N, T, T].

    Each layer's own `probabilities` give its map, and the layer itself the
    input of the next one: the numbers of the model's forward pass.

    Args:
        encoder: A `transformer.layers.Encoder` that is built.
    """

    def __init__(self, encoder, **kwargs):
        super().__init__(**kwargs)
        self.encoder = encoder

    def call(self, input_ids, input_mask, segment_ids):
        encoder, found = self.encoder, []
        bias = attention_bias(input_mask, encoder.compute_dtype)
        x = encoder.embedded(input_ids, segment_ids)
        for i, layer in enumerate(encoder.applied):
            off = encoder.uniform_in(i)
            found.append(layer.attention.probabilities(x, bias, off))
            x = layer(x, bias, off)
        return keras.ops.stack(found, axis=1)

    def compute_output_spec(self, input_ids, input_mask, segment_ids):
        batch, tokens = input_ids.shape
        encoder = self.encoder
        sizes = len(encoder.applied), encoder.config.num_heads
        return keras.KerasTensor(
            (batch, *sizes, tokens, tokens), encoder.compute_dtype
        )


def functional(layer: keras.layers.Layer, inputs: dict) -> keras.Model:
    """A layer of symbolic inputs by name, as a model for `predict_on_batch`."""
    model = keras.Model(inputs, layer(**inputs))
    if keras.backend.backend() == "tensorflow":
        # XLA would compile every length of a batch, for seconds each.
        model.jit_compile = False
    return model


def reader(model: keras.Model) -> keras.Model:
    """A model of the maps of another, which is a BERT or an ALBERT of ours.

    Args:
        model: With or without a head; its weights are shared.
    """
    inputs = {
        name: keras.Input((None,), dtype="int32", name=name) for name in TOKENS
    }
    return functional(Maps(models.encoder_of(model)), inputs)


def read(maps: keras.Model, batch: Batch) -> np.ndarray:
    """The maps of a batch by a `reader`, float32 [B, L, N, T, T]."""
    return np.asarray(maps.predict_on_batch(batch.inputs), "float32")


def cropped(maps: np.ndarray, batch: Batch) -> Iterator[np.ndarray]:
    """Each example's maps without padding, [L, N, length, length]."""
    for found, length in zip(maps, batch.lengths):
        yield found[..., :length, :length]


class Mean:
    """A mean of arrays of one shape, and of how many.

    Attributes:
        number: How many were added.
    """

    def __init__(self) -> None:
        self.number = 0
        self._total: Any = 0.0

    def add(self, values: np.ndarray) -> None:
        """Adds one, in float64."""
        self._total = self._total + np.asarray(values, "float64")
        self.number += 1

    def value(self) -> np.ndarray:
        """The mean; there has to be one."""
        return self._total / self.number


class MeanMap:
    """The mean map of each head over examples of several lengths.

    A cell's mean is over the examples that have its query and its key.

    Args:
        size: Queries and keys that are kept, at most.
    """

    def __init__(self, size: int = MEAN_TOKENS):
        self._size = size
        self._total: Any = 0.0
        self._number: Any = 0.0

    def add(self, maps: np.ndarray) -> None:
        """Adds an example's, [L, N, length, length]."""
        size = min(self._size, maps.shape[-1])
        room = [(0, 0)] * 2 + [(0, self._size - size)] * 2
        part = maps[..., :size, :size].astype("float64")
        self._total = self._total + np.pad(part, room)
        ones = np.pad(np.ones((size, size)), room[2:])
        self._number = self._number + ones

    def value(self) -> np.ndarray:
        """[L, N, S, S], S being the longest example's length or `size`."""
        size = int((self._number[0] > 0).sum())
        total, number = (
            x[..., :size, :size] for x in (self._total, self._number)
        )
        return total / number
