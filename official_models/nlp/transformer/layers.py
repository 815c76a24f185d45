"""The layers of a post-LN Transformer, as BERT has them.

Axes: B batch, T tokens, H hidden, N heads, D = H / N, I intermediate.

References:
    https://arxiv.org/abs/1706.03762
    https://arxiv.org/abs/1810.04805
    https://github.com/google-research/bert (`modeling.py`)
"""

from typing import Protocol

from keras import initializers

from official_models.common import ops
from official_models.common.layer import ConfiguredLayer, registration

register = registration("tf_lamb_models.transformer")

# A key beyond the attention mask has this added to its logit; its exponential
# relative to any real logit is an exact zero in every dtype in use.
MASKED_LOGIT = -10000.0


class TransformerConfig(Protocol):
    """What the layers read of their configuration; `BertConfig` has it all.

    Attributes:
        hidden_size: H, a multiple of `num_heads`.
        num_heads: N.
        intermediate_size: I, the width inside the feed-forward block.
        hidden_dropout: Rate on hidden states, in [0, 1).
        attention_dropout: Rate on attention probabilities, in [0, 1).
        initializer_range: Standard deviation of a new matrix.
        layer_norm_epsilon: Added to the variance.
        gelu: "tanh" or "erf".
    """

    hidden_size: int
    num_heads: int
    intermediate_size: int
    hidden_dropout: float
    attention_dropout: float
    initializer_range: float
    layer_norm_epsilon: float
    gelu: str


def gelu(x, kind: str):
    """Gaussian error linear unit.

    "erf" is exact, x (1 + erf(x / sqrt 2)) / 2; "tanh" approximates it by
    x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2.

    Args:
        x: [...], floating point.
        kind: "tanh" or "erf".

    Returns:
        [...], the dtype of `x`.

    References:
        https://arxiv.org/abs/1606.08415, section 2
    """
    return ops.gelu(x, approximate=kind == "tanh")


def attention_bias(mask, dtype):
    """What is added to attention logits: 0, or `MASKED_LOGIT` for padding.

    Args:
        mask: 1 for a real token, 0 for padding, [B, T].
        dtype: Of the result.

    Returns:
        [B, 1, 1, T].
    """
    return (1.0 - ops.cast(mask, dtype)[:, None, None, :]) * MASKED_LOGIT


class TransformerPart(ConfiguredLayer):
    """A layer of a Transformer, whose `config` is a `TransformerConfig`."""

    def add_matrix(self, name: str, shape: tuple[int, ...]):
        """Adds a variable drawn from a truncated normal."""
        initializer = initializers.TruncatedNormal(
            stddev=self.config.initializer_range, seed=self.seed_for(name)
        )
        return self.add_weight(name=name, shape=shape, initializer=initializer)

    def add_bias(self, name: str, size: int):
        """Adds a vector of zeros that stays in the variable dtype."""
        return self.add_weight(
            name=name, shape=(size,), initializer="zeros", **ops.UNCAST
        )

    def add_dropout(self, rate: float, name: str = "dropout"):
        """Makes a dropout inside this layer; `name` seeds it."""
        return Dropout(rate, seed=self.seed_for(name), dtype=self.dtype_policy)


Dropout = register(ops.Dropout)


@register
class Dense(TransformerPart):
    """y = x W + b, with W = `kernel` [inputs, outputs] and b = `bias`."""

    def __init__(self, outputs: int, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.outputs = outputs

    def build(self, input_shape):
        self.kernel = self.add_matrix("kernel", (input_shape[-1], self.outputs))
        self.bias = self.add_weight(
            name="bias", shape=(self.outputs,), initializer="zeros"
        )

    def call(self, x):
        # On TensorFlow `ops.add` is its BiasAdd, whose gradient sums the rows
        # up to seven times as fast as that of `+` does.
        return ops.add(ops.matmul(x, self.kernel), self.bias)

    def get_config(self) -> dict:
        return {**super().get_config(), "outputs": self.outputs}


@register
class LayerNorm(TransformerPart):
    """y = gamma (x - mean) / sqrt(var + epsilon) + beta over the last axis.

    var = mean((x - mean)^2) is written out because `tf.nn.moments`, and with
    it `keras.layers.LayerNormalization` on TensorFlow, stops the gradient of
    the mean: first derivatives come out right and second derivatives wrong.
    All of it is computed in the variable dtype, float32 in mixed precision.

    References:
        https://arxiv.org/abs/1607.06450, equation 3
    """

    def build(self, input_shape=None):
        size = self.config.hidden_size
        self.gamma = self.add_weight(
            name="gamma", shape=(size,), initializer="ones", **ops.UNCAST
        )
        self.beta = self.add_bias("beta", size)

    def call(self, x):
        x = ops.cast(x, self.variable_dtype)
        y = self._normalised(x)
        return ops.cast(y, self.compute_dtype)

    def _normalised(self, x):
        epsilon = self.config.layer_norm_epsilon
        y = ops.native_layer_norm(x, self.gamma, self.beta, epsilon)
        if y is not None:
            return y
        centred = x - ops.mean(x, axis=-1, keepdims=True)
        # [..., 1]
        var = ops.mean(centred * centred, axis=-1, keepdims=True)
        inverse = ops.rsqrt(var + epsilon)
        return ops.add(centred * inverse * self.gamma, self.beta)


@register
class SelfAttention(TransformerPart):
    """softmax(Q K^T / sqrt(D) + bias) V for each head.

    The softmax is taken in the variable dtype, float32 in mixed precision. R
    is the number of queries, T but for who needs only the first ones.

    References:
        https://arxiv.org/abs/1706.03762, equation 1
    """

    def build(self, input_shape=None):
        size = self.config.hidden_size
        self.query, self.key, self.value = (
            self.child(Dense, size, name=name)
            for name in ("query", "key", "value")
        )
        for layer in (self.query, self.key, self.value):
            ops.build_child(layer, (None, None, size))
        self.dropout = self.add_dropout(self.config.attention_dropout)

    def call(self, x, bias, uniform=None, rows=None):
        """The context [B, R, H]; arguments as of `probabilities`."""
        probabilities = self.probabilities(x, bias, uniform, rows)
        context = ops.einsum(
            "bnts,bsnd->btnd", self.dropout(probabilities), self.values(x)
        )
        hidden = self.config.hidden_size
        return ops.reshape(context, (-1, ops.shape(context)[1], hidden))

    def probabilities(self, x, bias, uniform=None, rows=None):
        """The attention map of each head, before dropout.

        Args:
            x: [B, T, H].
            bias: From `attention_bias`, [B, 1, 1, T].
            uniform: Boolean [N]: heads whose map is replaced by 1 / L in the
                columns of the L real tokens, and 0 in those of padding. None
                for no head.
            rows: R, how many queries, from the first one on; None for all T.

        Returns:
            [B, N, R, T] in the compute dtype; each row sums to 1.
        """
        query = self._by_head(self.query(x if rows is None else x[:, :rows]))
        key = self._by_head(self.key(x))
        size = self.config.hidden_size // self.config.num_heads
        logits = ops.einsum("btnd,bsnd->bnts", query * size**-0.5, key)
        logits = ops.cast(logits, self.variable_dtype)  # [B, N, R, T]
        logits = logits + ops.cast(bias, self.variable_dtype)
        found = ops.softmax(logits)
        if uniform is not None:
            even = ops.cast(bias == 0, self.variable_dtype)
            even = even / ops.sum(even, axis=-1, keepdims=True)
            off = ops.cast(uniform, "bool")[None, :, None, None]
            found = ops.where(off, even, found)
        return ops.cast(found, self.compute_dtype)

    def values(self, x):
        """What each head sums up of [B, T, H]: V, [B, T, N, D]."""
        return self._by_head(self.value(x))

    def _by_head(self, x):
        heads = self.config.num_heads
        size = self.config.hidden_size // heads
        return ops.reshape(x, (-1, ops.shape(x)[1], heads, size))


@register
class ResidualOutput(TransformerPart):
    """y = LN(residual + dropout(x W + b)): the end of either sub-block."""

    def build(self, input_shape):
        self.dense = self.child(Dense, self.config.hidden_size, name="dense")
        self.norm = self.child(LayerNorm, name="LayerNorm")
        ops.build_child(self.dense, input_shape)
        ops.build_child(self.norm, None)
        self.dropout = self.add_dropout(self.config.hidden_dropout)

    def call(self, x, residual):
        return self.norm(residual + self.dropout(self.dense(x)))


@register
class TransformerLayer(TransformerPart):
    """Self-attention, then a feed-forward block, each ending in LN."""

    def build(self, input_shape=None):
        hidden = (None, None, self.config.hidden_size)
        inner = (None, None, self.config.intermediate_size)
        self.attention = self.child(SelfAttention, name="self")
        self.attention_output = self.child(ResidualOutput, name="output")
        self.intermediate = self.child(Dense, inner[-1], name="dense")
        self.feed_forward_output = self.child(ResidualOutput, name="output")
        with ops.name_scope("attention"):
            ops.build_child(self.attention, None)
            ops.build_child(self.attention_output, hidden)
        with ops.name_scope("intermediate"):
            ops.build_child(self.intermediate, hidden)
        ops.build_child(self.feed_forward_output, inner)

    def call(self, x, bias, uniform=None, rows=None):
        """The first R rows, [B, R, H]; arguments as of `SelfAttention`."""
        context = self.attention(x, bias, uniform, rows=rows)
        return self.after_attention(context, x if rows is None else x[:, :rows])

    def after_attention(self, context, x):
        """The rest of the layer.

        Args:
            context: Of `attention`, [B, R, H].
            x: The layer's input in the same rows.
        """
        x = self.attention_output(context, x)
        inner = gelu(self.intermediate(x), self.config.gelu)  # [B, R, I]
        return self.feed_forward_output(inner, x)


class Encoder(TransformerPart):
    """Layers that are applied one after the other, shared ones repeatedly.

    Args:
        *args: Of `TransformerPart`, as are keywords.
        uniform_heads: Pairs (layer, head), from 0, whose attention is replaced
            by 1 / L over the L real tokens, in training and after it. Values
            and output projection stay. It is saved with the model.

    Attributes:
        uniform_heads: As given. A change has an effect on what is traced
            from then on: compile the model again.
        applied: The layers in the order in which they are applied.
    """

    def __init__(self, *args, uniform_heads=(), **kwargs):
        super().__init__(*args, **kwargs)
        self.uniform_heads = tuple((int(i), int(j)) for i, j in uniform_heads)

    @property
    def applied(self) -> list:
        raise NotImplementedError

    def embedded(self, input_ids, segment_ids):
        """The input of the first layer, [B, T, H]."""
        raise NotImplementedError

    def pooled(self, x):
        """tanh(h_CLS W + b) of the last layer's [B, T, H]: [B, H]."""
        return ops.tanh(self.pooler(x[:, 0]))

    def apply_layers(self, x, bias):
        """The output of the last layer, [B, T, H]."""
        for i, layer in enumerate(self.applied):
            x = layer(x, bias, self.uniform_in(i))
        return x

    def uniform_in(self, place: int):
        """Of the layer at a place in `applied`: boolean [N], None for none."""
        off = [head for i, head in self.uniform_heads if i == place]
        if not off:
            return None
        heads = range(self.config.num_heads)
        return ops.convert_to_tensor([head in off for head in heads])

    def get_config(self) -> dict:
        # Models without it have the configuration that they always had.
        if not self.uniform_heads:
            return super().get_config()
        return {**super().get_config(), "uniform_heads": self.uniform_heads}
