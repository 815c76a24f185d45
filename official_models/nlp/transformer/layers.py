"""The layers of BERT (Devlin et al., 2018): a post-LN Transformer encoder.

Axes: B batch, T tokens, H hidden, N heads, D = H / N, I intermediate,
V vocabulary.

References:
    https://arxiv.org/abs/1810.04805
    https://github.com/google-research/bert (`modeling.py`)
"""

import dataclasses
import zlib
from typing import ClassVar

import keras
from keras import initializers, layers

from official_models.common import ops

register = keras.saving.register_keras_serializable(package="tf_lamb_models")

# Hidden states beyond the attention mask get this logit; its exponential
# relative to any real logit is an exact zero in every dtype in use.
MASKED_LOGIT = -10000.0

SIZES = {
    "tiny": (2, 128, 2, 512),
    "mini": (4, 256, 4, 1024),
    "small": (4, 512, 8, 2048),
    "medium": (8, 512, 8, 2048),
    "base": (12, 768, 12, 3072),
    "large": (24, 1024, 16, 4096),
}


@dataclasses.dataclass(frozen=True)
class BertConfig:
    """Sizes and rates of one BERT.

    Args:
        vocab_size: V.
        hidden_size: H, a multiple of `num_heads`.
        num_layers: number of Transformer layers.
        num_heads: N.
        intermediate_size: I, the width inside the feed-forward block.
        max_position_embeddings: longest sequence, in tokens.
        type_vocab_size: number of segment ids.
        hidden_dropout: rate on hidden states, in [0, 1).
        attention_dropout: rate on attention probabilities, in [0, 1).
        initializer_range: standard deviation of a new matrix.
        layer_norm_epsilon: added to the variance.
        gelu: "tanh" (Google's approximation) or "erf" (Hugging Face's).

    Attributes:
        sizes: {name: (num_layers, hidden_size, num_heads, intermediate_size)}
            of the published ones.
        published_vocab_size: V of those.

    Raises:
        ValueError: a value is out of range.
    """

    sizes: ClassVar[dict[str, tuple[int, int, int, int]]] = SIZES
    published_vocab_size: ClassVar[int] = 30522

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
        for name, value in dataclasses.asdict(self).items():
            if name == "gelu":
                valid, expected = value in ("tanh", "erf"), "'tanh' or 'erf'"
            elif name.endswith("dropout"):
                valid, expected = 0 <= value < 1, "0 <= rate < 1"
            else:
                valid, expected = value > 0, "more than 0"
            if not valid:
                raise ValueError(f"{name}: got {value!r}, expected {expected}")
        if self.hidden_size % self.num_heads:
            raise ValueError(
                f"hidden_size: got {self.hidden_size}, expected a multiple of "
                f"num_heads = {self.num_heads}"
            )

    @classmethod
    def of_size(cls, name: str, vocab_size: int | None = None, **changes):
        """The published size `name` of `sizes`, with `changes` on top.

        Args:
            name: one of `sizes`.
            vocab_size: V; None for the published one.
            changes: other arguments.

        Raises:
            ValueError: no such size.
        """
        if name not in cls.sizes:
            raise ValueError(
                f"size: got {name!r}, expected one of {', '.join(cls.sizes)}"
            )
        fields = ("num_layers", "hidden_size", "num_heads", "intermediate_size")
        published = dict(zip(fields, cls.sizes[name]))
        published["vocab_size"] = vocab_size or cls.published_vocab_size
        return cls(**{**published, **changes})


def gelu(x, kind: str):
    """Gaussian error linear unit.

    "erf" is exact, x (1 + erf(x / sqrt 2)) / 2; "tanh" approximates it by
    x (1 + tanh(sqrt(2 / pi) (x + .044715 x^3))) / 2.

    Args:
        x: [...], floating point.
        kind: "tanh" or "erf".

    Returns:
        [...], the dtype of `x`.

    References:
        https://arxiv.org/abs/1606.08415, section 2
    """
    return ops.gelu(x, approximate=kind == "tanh")


class BertLayer(layers.Layer):
    """A layer that knows the model's configuration and seed."""

    def __init__(self, config: BertConfig, seed: int = 0, **kwargs):
        super().__init__(**kwargs)
        self.config = config
        self.seed = seed

    def child(self, cls, *args, **kwargs):
        """Makes a layer of this layer's configuration, seed and dtype."""
        return cls(
            *args, self.config, self.seed, dtype=self.dtype_policy, **kwargs
        )

    def seed_for(self, name: str) -> int:
        """A seed of its own for `name`, whatever else was seeded before."""
        path = ops.layer_path(self)
        return zlib.crc32(f"{self.seed}:{path}/{name}".encode()) >> 1

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
        """Makes a dropout layer of this layer's; `name` seeds it."""
        return Dropout(rate, seed=self.seed_for(name), dtype=self.dtype_policy)

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "config": dataclasses.asdict(self.config),
            "seed": self.seed,
        }

    @classmethod
    def from_config(cls, config):
        return super().from_config(
            {**config, "config": BertConfig(**config["config"])}
        )


Dropout = register(ops.Dropout)


@register
class Dense(BertLayer):
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
class LayerNorm(BertLayer):
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
        centred = x - ops.mean(x, axis=-1, keepdims=True)
        # [..., 1]
        var = ops.mean(centred * centred, axis=-1, keepdims=True)
        inverse = ops.rsqrt(var + self.config.layer_norm_epsilon)
        y = ops.add(centred * inverse * self.gamma, self.beta)
        return ops.cast(y, self.compute_dtype)


@register
class Embeddings(BertLayer):
    """x = dropout(LN(word[id] + position[t] + token_type[segment]))."""

    def build(self, input_shape=None):
        config = self.config
        self.word_embeddings, self.position_embeddings, self.type_embeddings = (
            self.add_matrix(f"{name}_embeddings", (rows, config.hidden_size))
            for name, rows in (
                ("word", config.vocab_size),
                ("position", config.max_position_embeddings),
                ("token_type", config.type_vocab_size),
            )
        )
        self.norm = self.child(LayerNorm, name="LayerNorm")
        ops.build_child(self.norm, None)
        self.dropout = self.add_dropout(config.hidden_dropout)

    def call(self, input_ids, segment_ids):
        num_tokens = ops.shape(input_ids)[1]
        longest = self.config.max_position_embeddings
        if (input_ids.shape[1] or 0) > longest:
            raise ValueError(
                f"input_ids: got {num_tokens} tokens, expected at most "
                f"max_position_embeddings = {longest}"
            )
        x = ops.take(self.word_embeddings, input_ids, axis=0)  # [B, T, H]
        x = x + self.position_embeddings[:num_tokens]
        x = x + ops.take(self.type_embeddings, segment_ids, axis=0)
        return self.dropout(self.norm(x))


@register
class SelfAttention(BertLayer):
    """softmax(Q K^T / sqrt(D) + bias) V for each head.

    The softmax is taken in the variable dtype, float32 in mixed precision.

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

    def call(self, x, bias):
        heads, hidden = self.config.num_heads, self.config.hidden_size
        size, num_tokens = hidden // heads, ops.shape(x)[1]
        query, key, value = (
            ops.reshape(dense(x), (-1, num_tokens, heads, size))
            for dense in (self.query, self.key, self.value)
        )  # [B, T, N, D]
        logits = ops.einsum("btnd,bsnd->bnts", query * size**-0.5, key)
        logits = ops.cast(logits, self.variable_dtype)  # [B, N, T, T]
        logits = logits + ops.cast(bias, self.variable_dtype)
        probabilities = ops.cast(ops.softmax(logits), self.compute_dtype)
        context = ops.einsum(
            "bnts,bsnd->btnd", self.dropout(probabilities), value
        )
        return ops.reshape(context, (-1, num_tokens, hidden))  # [B, T, H]


@register
class ResidualOutput(BertLayer):
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
class TransformerLayer(BertLayer):
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

    def call(self, x, bias):
        x = self.attention_output(self.attention(x, bias), x)
        inner = gelu(self.intermediate(x), self.config.gelu)  # [B, T, I]
        return self.feed_forward_output(inner, x)


@register
class Bert(BertLayer):
    """The encoder as one layer, named "bert".

    Call arguments are `input_ids`, `input_mask` (1 = real token, 0 = padding)
    and `segment_ids`, each [B, T] int32. It returns the hidden states
    [B, T, H], the pooled first token tanh(h_CLS W + b) [B, H], and the word
    embeddings [V, H] for heads that tie their output matrix to them.
    """

    def build(self, input_shape=None):
        config = self.config
        self.embeddings = self.child(Embeddings, name="embeddings")
        self.encoder = [
            self.child(TransformerLayer, name=f"layer_{i}")
            for i in range(config.num_layers)
        ]
        self.pooler = self.child(Dense, config.hidden_size, name="dense")
        ops.build_child(self.embeddings, None)
        with ops.name_scope("encoder"):
            for layer in self.encoder:
                ops.build_child(layer, None)
        with ops.name_scope("pooler"):
            ops.build_child(self.pooler, (None, config.hidden_size))

    def call(self, input_ids, input_mask, segment_ids):
        mask = ops.cast(input_mask, self.compute_dtype)
        bias = (1.0 - mask[:, None, None, :]) * MASKED_LOGIT  # [B, 1, 1, T]
        x = self.embeddings(input_ids, segment_ids)
        for layer in self.encoder:
            x = layer(x, bias)
        pooled = ops.tanh(self.pooler(x[:, 0]))
        words = ops.convert_to_tensor(self.embeddings.word_embeddings)
        return x, pooled, ops.cast(words, self.compute_dtype)

    def compute_output_spec(self, input_ids, input_mask, segment_ids):
        batch, num_tokens = input_ids.shape
        vocab, size = self.config.vocab_size, self.config.hidden_size
        return tuple(
            keras.KerasTensor(shape, self.compute_dtype)
            for shape in (
                (batch, num_tokens, size),
                (batch, size),
                (vocab, size),
            )
        )
