"""The layers of a pre-LN Transformer, as PreSumm has them above BERT.

Axes: B batch, T tokens (or sentences), S tokens attended to, H hidden, N
heads, D = H / N, I intermediate.

References:
    Liu, Lapata 2019 (arXiv:1908.08345), and its code
"""

from __future__ import annotations

import numpy as np

from official_models.common import ops
from official_models.common.layer import registration
from official_models.nlp.transformer.layers import (
    Dense,
    LayerNorm,
    SelfAttention,
    TransformerPart,
    gelu,
)

register = registration("tf_lamb_models.summarization")


def sinusoid(length: int, size: int) -> np.ndarray:
    """Positions that are added to a sequence, float32 [length, size].

    sin(p / 10000^(2i / size)) in column 2i, cos of the same in 2i + 1, for
    positions p from 0 on.

    References:
        https://arxiv.org/abs/1706.03762, section 3.5
    """
    position = np.arange(length)[:, None]
    rate = 10000.0 ** (-np.arange(0, size, 2) / size)
    found = np.zeros((length, size))
    found[:, 0::2] = np.sin(position * rate)
    found[:, 1::2] = np.cos(position * rate)[:, : size // 2]
    return found.astype("float32")


@register
class Attention(SelfAttention):
    """softmax(Q K^T / sqrt(D) + bias) V of each head, and an output matrix."""

    def build(self, input_shape=None):
        super().build(input_shape)
        size = self.config.hidden_size
        self.output_dense = self.child(Dense, size, name="output")
        ops.build_child(self.output_dense, (None, None, size))

    def keys_values(self, x):
        """K and V of [B, S, H], each [B, S, N, D]."""
        return self._by_head(self.key(x)), self._by_head(self.value(x))

    def call(self, x, keys, values, bias):
        """What the queries of `x` find, [B, T, H].

        Args:
            x: [B, T, H].
            keys: Of `keys_values`, like `values`; [B, S, N, D].
            values: [B, S, N, D].
            bias: Added to the logits, broadcast to [B, N, T, S].
        """
        size = self.config.hidden_size // self.config.num_heads
        query = self._by_head(self.query(x)) * size**-0.5
        logits = ops.einsum("btnd,bsnd->bnts", query, keys)
        logits = ops.cast(logits, self.variable_dtype)
        logits = logits + ops.cast(bias, self.variable_dtype)
        # Keras warns of a softmax of one number: that of a first token.
        is_first = logits.shape[-1] == 1
        found = ops.ones_like(logits) if is_first else ops.softmax(logits)
        found = self.dropout(ops.cast(found, self.compute_dtype))
        context = ops.einsum("bnts,bsnd->btnd", found, values)
        shape = (-1, ops.shape(context)[1], self.config.hidden_size)
        return self.output_dense(ops.reshape(context, shape))


@register
class FeedForward(TransformerPart):
    """x + dropout(W2 dropout(gelu(W1 LN(x))))."""

    def build(self, input_shape=None):
        config = self.config
        self.norm = self.child(LayerNorm, name="LayerNorm")
        self.inner = self.child(Dense, config.intermediate_size, name="inner")
        self.outer = self.child(Dense, config.hidden_size, name="outer")
        ops.build_child(self.norm, None)
        ops.build_child(self.inner, (None, None, config.hidden_size))
        ops.build_child(self.outer, (None, None, config.intermediate_size))
        rate = config.hidden_dropout
        self.dropout_1 = self.add_dropout(rate, "dropout_1")
        self.dropout_2 = self.add_dropout(rate, "dropout_2")

    def call(self, x):
        inner = gelu(self.inner(self.norm(x)), self.config.gelu)  # [B, T, I]
        return x + self.dropout_2(self.outer(self.dropout_1(inner)))


@register
class SentenceLayer(TransformerPart):
    """x + dropout(attention(LN(x))), then a feed-forward block.

    Args:
        *args: Of `TransformerPart`, as are keywords.
        norm_first: False: without the LN before the attention, as layer 0.
    """

    def __init__(self, *args, norm_first: bool = True, **kwargs):
        super().__init__(*args, **kwargs)
        self.norm_first = norm_first

    def build(self, input_shape=None):
        if self.norm_first:
            self.norm = self.child(LayerNorm, name="LayerNorm")
            ops.build_child(self.norm, None)
        self.attention = self.child(Attention, name="attention")
        self.feed_forward = self.child(FeedForward, name="feed_forward")
        ops.build_child(self.attention, None)
        ops.build_child(self.feed_forward, None)
        self.dropout = self.add_dropout(self.config.hidden_dropout)

    def call(self, x, bias):
        """[B, T, H]; `bias` as of `Attention`."""
        normed = self.norm(x) if self.norm_first else x
        keys, values = self.attention.keys_values(normed)
        found = self.attention(normed, keys, values, bias)
        return self.feed_forward(x + self.dropout(found))

    def get_config(self) -> dict:
        return {**super().get_config(), "norm_first": self.norm_first}


@register
class DecoderLayer(TransformerPart):
    """Attention to the tokens before, to the document, a feed-forward block.

    Each is added to its input, after a LN of what goes into it.
    """

    def build(self, input_shape=None):
        self.norm = self.child(LayerNorm, name="LayerNorm")
        self.attention = self.child(Attention, name="self")
        self.cross_norm = self.child(LayerNorm, name="cross_LayerNorm")
        self.cross = self.child(Attention, name="cross")
        self.feed_forward = self.child(FeedForward, name="feed_forward")
        for layer in (
            *(self.norm, self.attention),
            *(self.cross_norm, self.cross, self.feed_forward),
        ):
            ops.build_child(layer, None)
        rate = self.config.hidden_dropout
        self.dropout_1 = self.add_dropout(rate, "dropout_1")
        self.dropout_2 = self.add_dropout(rate, "dropout_2")

    def call(self, x, before, memory, bias, memory_bias):
        """One pass over some tokens.

        Args:
            x: [B, T, H].
            before: Keys and values of earlier tokens, each [B, P, N, D]; None
                for no token.
            memory: Keys and values of the document, each [B, S, N, D].
            bias: Of the P + T tokens, broadcast to [B, N, T, P + T].
            memory_bias: Of the document, broadcast to [B, N, T, S].

        Returns:
            [B, T, H], and the keys and values of all P + T tokens.
        """
        normed = self.norm(x)
        keys, values = self.attention.keys_values(normed)
        if before is not None:
            keys = ops.concatenate([before[0], keys], axis=1)
            values = ops.concatenate([before[1], values], axis=1)
        x = x + self.dropout_1(self.attention(normed, keys, values, bias))
        found = self.cross(self.cross_norm(x), *memory, memory_bias)
        x = x + self.dropout_2(found)
        return self.feed_forward(x), (keys, values)
