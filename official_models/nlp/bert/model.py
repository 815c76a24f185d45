"""BERT (Devlin et al., 2018): the encoder, and its two pretraining heads.

Axes: B batch, T tokens, H hidden, V vocabulary, P masked-language-model
predictions per sequence.

Variables carry the names of Google's published checkpoints, such as
`bert/encoder/layer_0/attention/self/query/kernel`, and their shapes.

References:
    https://arxiv.org/abs/1810.04805
    https://github.com/google-research/bert (`run_pretraining.py`)
"""

import keras

from official_models.common import ops
from official_models.nlp.transformer.layers import (
    SIZES,
    Bert,
    BertConfig,
    BertLayer,
    Dense,
    LayerNorm,
    gelu,
    register,
)

__all__ = [
    "SIZES",
    "BertConfig",
    "bert_encoder",
    "bert_pretrainer",
    "pretrainer_layers",
    "pretraining_losses",
    "pretraining_metrics",
]


@register
class MaskedLM(BertLayer):
    """Logits LN(gelu(h W + b)) E^T + output_bias of the masked tokens.

    h [B, P, H] are the hidden states at the predicted positions and E [V, H]
    the word embeddings.
    """

    @property
    def widths(self) -> tuple[int, int]:
        """Of the hidden states and of the word embeddings."""
        return self.config.hidden_size, self.config.hidden_size

    def build(self, input_shape=None):
        hidden, size = self.widths
        self.output_bias = self.add_bias("output_bias", self.config.vocab_size)
        self.transform = self.child(Dense, size, name="dense")
        self.norm = self.child(LayerNorm, name="LayerNorm")
        with ops.name_scope("transform"):
            ops.build_child(self.transform, (None, hidden))
            ops.build_child(self.norm, None)

    def call(self, sequence, positions, words):
        one_hot = ops.one_hot(
            positions, ops.shape(sequence)[1], dtype=self.compute_dtype
        )  # [B, P, T]
        x = ops.matmul(one_hot, sequence)  # [B, P, H]
        # Flat, since XLA on CPU is slow to sum [B, P, V] over two axes.
        x = ops.reshape(x, (-1, self.widths[0]))  # [B P, H]
        x = self.norm(gelu(self.transform(x), self.config.gelu))
        logits = ops.matmul(x, ops.transpose(words))  # [B P, V]
        logits = ops.cast(logits, self.variable_dtype)
        logits = ops.add(logits, self.output_bias)
        num_predictions = ops.shape(positions)[1]
        return ops.reshape(
            logits, (-1, num_predictions, self.config.vocab_size)
        )  # [B, P, V]


@register
class NextSentence(BertLayer):
    """Logits pooled W^T + b that the second segment is 0 next or 1 random."""

    def build(self, input_shape=None):
        self.output_weights = self.add_matrix(
            "output_weights", (2, self.config.hidden_size)
        )
        self.output_bias = self.add_bias("output_bias", 2)

    def call(self, pooled):
        logits = ops.matmul(pooled, ops.transpose(self.output_weights))
        logits = ops.cast(logits, self.variable_dtype)
        return ops.add(logits, self.output_bias)


@register
class PretrainingHeads(BertLayer):
    """Both heads as one layer, named "cls".

    Attributes:
        MASKED_LM: class of the head of the masked tokens.
        PAIR: what the head of the sentence pair says, the name of its output.
    """

    MASKED_LM = MaskedLM
    PAIR = "next_sentence"

    def build(self, input_shape=None):
        self.masked_lm = self.child(self.MASKED_LM, name="predictions")
        pair = self.child(NextSentence, name="seq_relationship")
        setattr(self, self.PAIR, pair)
        ops.build_child(self.masked_lm, None)
        ops.build_child(pair, None)

    def call(self, sequence, pooled, words, positions):
        return {
            "masked_lm": self.masked_lm(sequence, positions, words),
            self.PAIR: getattr(self, self.PAIR)(pooled),
        }

    def compute_output_spec(self, sequence, pooled, words, positions):
        predicted = (*positions.shape, self.config.vocab_size)  # [B, P, V]
        return {
            "masked_lm": keras.KerasTensor(predicted, self.variable_dtype),
            self.PAIR: keras.KerasTensor(
                (pooled.shape[0], 2), self.variable_dtype
            ),
        }


def id_inputs(*names: str) -> dict:
    """Symbolic int32 inputs [B, None] by name."""
    return {
        name: keras.Input((None,), dtype="int32", name=name) for name in names
    }


def bert_encoder(
    config: BertConfig, *, seed: int = 0, dtype=None
) -> keras.Model:
    """The encoder with its pooler.

    Args:
        config: sizes and rates.
        seed: fixes the initial weights and the dropout masks.
        dtype: Keras dtype policy; None is the global one.

    Returns:
        A model from `input_ids`, `input_mask`, `segment_ids`, each [B, T]
        int32, to `sequence_output` [B, T, H] and `pooled_output` [B, H].
    """
    inputs = id_inputs("input_ids", "input_mask", "segment_ids")
    sequence, pooled, _ = Bert(config, seed, name="bert", dtype=dtype)(**inputs)
    return keras.Model(
        inputs,
        {"sequence_output": sequence, "pooled_output": pooled},
        name="bert_encoder",
    )


def pretraining_model(
    encoder: BertLayer, heads: PretrainingHeads, name: str
) -> keras.Model:
    """An encoder with pretraining heads, as `bert_pretrainer` describes it."""
    inputs = id_inputs("input_ids", "input_mask", "segment_ids")
    positions = id_inputs("masked_lm_positions")
    return keras.Model(
        {**inputs, **positions},
        heads(*encoder(**inputs), positions["masked_lm_positions"]),
        name=name,
    )


def pretrainer_layers(
    config: BertConfig, *, seed: int = 0, dtype=None
) -> tuple[Bert, PretrainingHeads]:
    """The two layers of `bert_pretrainer`, "bert" and "cls".

    A TPUEstimator's `model_fn` calls them on its own tensors, because a TPU
    knows no placeholders, which a `keras.Model` makes there.

    Args:
        config: sizes and rates.
        seed: fixes the initial weights and the dropout masks.
        dtype: Keras dtype policy; None is the global one.
    """
    return (
        Bert(config, seed, name="bert", dtype=dtype),
        PretrainingHeads(config, seed, name="cls", dtype=dtype),
    )


def bert_pretrainer(
    config: BertConfig, *, seed: int = 0, dtype=None
) -> keras.Model:
    """The encoder with the masked-token and next-sentence heads.

    Args:
        config: sizes and rates.
        seed: fixes the initial weights and the dropout masks.
        dtype: Keras dtype policy; None is the global one.

    Returns:
        A model from `input_ids`, `input_mask`, `segment_ids` [B, T] and
        `masked_lm_positions` [B, P], int32, to the logits `masked_lm`
        [B, P, V] and `next_sentence` [B, 2], float32.
    """
    bert, heads = pretrainer_layers(config, seed=seed, dtype=dtype)
    return pretraining_model(bert, heads, "bert_pretrainer")


@register
class SparseCrossEntropy(keras.losses.Loss):
    """Mean of -log softmax(logits)[label], weighted by `sample_weight`.

    sum(w nll) / sum(w), and 0 where all weights are 0; to that end Google's
    code adds 1e-5 to the denominator. The gradient is written out because it
    then needs a softmax and nothing else, which a TensorFlow graph on CPU does
    in a third of the time of `keras.losses.SparseCategoricalCrossentropy`.

    Call arguments are labels [...] and logits [..., V].
    """

    def __init__(self, name: str = "sparse_cross_entropy", **kwargs):
        kwargs.setdefault("reduction", "mean_with_sample_weight")
        super().__init__(name=name, **kwargs)

    def call(self, y_true, y_pred):
        vocab_size = y_pred.shape[-1]
        labels = ops.reshape(ops.cast(y_true, "int32"), (-1,))  # [R]

        @ops.custom_gradient
        def nll(logits):
            top = ops.max(logits, axis=-1)
            # log sum exp(z) = max z - log max softmax(z); the latter is at
            # least 1 / V, so that its logarithm is safe.
            top_log_probability = ops.log(ops.max(ops.softmax(logits), axis=-1))

            def gradient(*args, upstream=None):
                if upstream is None:
                    (upstream,) = args
                target = ops.one_hot(labels, vocab_size, dtype=logits.dtype)
                return (ops.softmax(logits) - target) * upstream[:, None]

            values = top - top_log_probability - _pick(logits, labels)
            return values, gradient

        values = nll(ops.reshape(y_pred, (-1, vocab_size)))  # [R]
        return ops.reshape(values, ops.shape(y_true))


def _pick(logits, labels):
    """logits[..., label], [...]."""
    picked = ops.take_along_axis(logits, labels[..., None], axis=-1)
    return ops.squeeze(picked, -1)


@register
def is_top(y_true, y_pred):
    """1 where no logit exceeds that of the label, else 0.

    Unlike an argmax it counts a tie for the label. It takes half the time.

    Args:
        y_true: labels [...].
        y_pred: logits [..., V].

    Returns:
        [...], the dtype of `y_pred`.
    """
    label = _pick(y_pred, ops.cast(y_true, "int32"))
    return ops.cast(label == ops.max(y_pred, axis=-1), y_pred.dtype)


def pretraining_losses() -> dict[str, keras.losses.Loss]:
    """Losses of `bert_pretrainer` by output, for `compile(loss=...)`."""
    return {
        name: SparseCrossEntropy(name=name)
        for name in ("masked_lm", "next_sentence")
    }


def pretraining_metrics() -> dict[str, keras.metrics.Metric]:
    """Accuracies of `bert_pretrainer`, for `compile(weighted_metrics=...)`."""
    return {
        name: keras.metrics.MeanMetricWrapper(is_top, name="accuracy")
        for name in ("masked_lm", "next_sentence")
    }
