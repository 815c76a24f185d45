"""Heads without attention: their map is replaced by 1 / L over L real tokens.

Values and output projection stay, so that such a head adds the mean of its
values to every token; a head whose context is 0, as by `head_mask` of
transformers, is another thing.

`switch_off` does it to a model, for inference and training. `Sweep` measures
every head and every layer of a classifier by itself: it keeps the input of a
layer, so that nothing below is computed again; all heads of the layer share its
maps and values; and of the last layer only [CLS], which the classifier reads,
is computed.

Axes: B batch, T tokens, H hidden, D = H / N, L layers as they are applied,
N heads, K labels, M examples.

References:
    Kovaleva et al. 2019 (arXiv:1908.08593), section 4.5
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from official_models.common.errors import InputError
from official_models.nlp.bert.finetuning.fit.training import TOKENS
from official_models.nlp.checkpoint import models
from official_models.nlp.head_analysis.maps import Batch, functional
from official_models.nlp.transformer import heads
from official_models.nlp.transformer.layers import attention_bias


def switch_off(model: keras.Model, places: Iterable[Sequence[int]]) -> None:
    """Replaces the attention of heads, in training and after it.

    Args:
        model: A BERT or an ALBERT of ours. Compile it afterwards, also where
            it was compiled before. It is saved with its heads off.
        places: (layer, head), or (layer,) for all heads of a layer, from 0;
            none for a model as it was.

    Raises:
        ValueError: There is no such layer or head.
    """
    heads.switch_off(models.encoder_of(model), places)


class _Start(keras.layers.Layer):
    """The input of the first layer, [B, T, H]."""

    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder

    def call(self, input_ids, input_mask, segment_ids):
        del input_mask
        return self.encoder.embedded(input_ids, segment_ids)


class _Attended(keras.layers.Layer):
    """Of a layer's input: its context, and that of heads that are off.

    The first is [B, R, H], the second [B, 1, H]: the mean of each head's
    values over real tokens.
    """

    def __init__(self, encoder, place: int):
        super().__init__()
        self.encoder, self.place = encoder, place
        self.layer = encoder.applied[place]

    def call(self, x, input_mask):
        attention, hidden = self.layer.attention, x.shape[-1]
        bias = attention_bias(input_mask, self.encoder.compute_dtype)
        off = self.encoder.uniform_in(self.place)
        rows = 1 if self.place == len(self.encoder.applied) - 1 else None
        context = attention(x, bias, off, rows=rows)
        real = ops.cast(input_mask, x.dtype)
        real = real / ops.sum(real, axis=1, keepdims=True)
        even = ops.einsum("bs,bsnd->bnd", real, attention.values(x))
        return context, ops.reshape(even, (-1, 1, hidden))


class _Finished(keras.layers.Layer):
    """The rest of a layer, the layers above it, and the logits.

    Args:
        model: A classifier.
        place: Of the layer.
        alone: Whether the layer's output is wanted, and not the logits.
    """

    def __init__(self, model: keras.Model, place: int, alone: bool = False):
        super().__init__()
        self.encoder, self.place = models.encoder_of(model), place
        self.head = model.get_layer("classifier")
        self.alone = alone

    def call(self, x, input_mask, context, even, off):
        """`off` [B, H] is 1 in the columns of heads that are off, else 0."""
        layers = self.encoder.applied
        context = ops.where(off[:, None] > 0, even, context)
        x = layers[self.place].after_attention(
            context, x[:, : ops.shape(context)[1]]
        )
        if self.alone:
            return x
        bias = attention_bias(input_mask, self.encoder.compute_dtype)
        for i in range(self.place + 1, len(layers)):
            rows = 1 if i == len(layers) - 1 else None
            x = layers[i](x, bias, self.encoder.uniform_in(i), rows=rows)
        return self.head(self.encoder.pooled(x))


class Sweep:
    """The logits of a classifier with one head, or one layer, off.

    Begins at the first layer; `next_layer` goes to the one above. It holds the
    input, the context and the mean values of the present layer for all
    examples, up to 4 M (2 T + 1) H bytes.

    Args:
        model: A classifier.
        batches: Of the examples, from `maps.batches_of`.

    Attributes:
        layer: The present layer, from 0.
        sizes: (L, N).

    Raises:
        InputError: The model is no classifier.
    """

    def __init__(self, model: keras.Model, batches: Sequence[Batch]):
        if models.head_of_model(model) != "classifier":
            raise InputError(
                f"{model.name} has no classifier, whose accuracy could change; "
                "expected a fine-tuned model"
            )
        self._model, self._batches = model, batches
        self._encoder = models.encoder_of(model)
        config = self._encoder.config
        self.sizes = len(self._encoder.applied), config.num_heads
        self._hidden, self.layer = config.hidden_size, 0
        tokens = {
            name: keras.Input((None,), dtype="int32", name=name)
            for name in TOKENS
        }
        start = functional(_Start(self._encoder), tokens)
        self._x = [start.predict_on_batch(batch.inputs) for batch in batches]
        self._attend()

    def logits(self, heads: Iterable[int] = ()) -> np.ndarray:
        """With these heads of the present layer off, [M, K] in rows' order.

        Args:
            heads: From 0; none for the model as it is.
        """
        found = self._outputs(self._finish, heads)
        order = np.concatenate([batch.rows for batch in self._batches])
        return np.concatenate(found)[order.argsort()]

    def next_layer(self) -> None:
        """Goes to the layer above.

        Raises:
            ValueError: There is none.
        """
        if self.layer == self.sizes[0] - 1:
            raise ValueError("next_layer: the present layer is the last one")
        self._x = self._outputs(self._finisher(alone=True), ())
        self.layer += 1
        self._attend()

    def _attend(self) -> None:
        layer = _Attended(self._encoder, self.layer)
        attend = functional(layer, self._symbols("x", "input_mask"))
        self._contexts = [
            attend.predict_on_batch(
                {"x": x, "input_mask": batch.inputs["input_mask"]}
            )
            for x, batch in zip(self._x, self._batches)
        ]
        self._finish = self._finisher()

    def _finisher(self, alone: bool = False) -> keras.Model:
        names = "x", "input_mask", "context", "even", "off"
        layer = _Finished(self._model, self.layer, alone)
        return functional(layer, self._symbols(*names))

    def _symbols(self, *names: str) -> dict[str, Any]:
        shapes = {"input_mask": (None,), "off": (self._hidden,)}
        return {
            name: keras.Input(
                shapes.get(name, (None, self._hidden)),
                dtype="int32" if name == "input_mask" else "float32",
                name=name,
            )
            for name in names
        }

    def _outputs(self, finish, heads: Iterable[int]) -> list[np.ndarray]:
        off = np.zeros(self.sizes[1], "float32")
        off[list(heads)] = 1
        columns = np.repeat(off, self._hidden // self.sizes[1])
        return [
            finish.predict_on_batch(
                {
                    "x": x,
                    "input_mask": batch.inputs["input_mask"],
                    "context": context,
                    "even": even,
                    "off": np.tile(columns, (len(x), 1)),
                }
            )
            for x, batch, (context, even) in zip(
                self._x, self._batches, self._contexts
            )
        ]
