"""BERT for fine-tuning: a classifier of texts, and a finder of answers.

Axes: B batch, T tokens, H hidden, K labels.

Variables carry the names of Google's fine-tuned checkpoints: `output_weights`
and `output_bias` of a classifier, both under `cls/squad/` of the other.

References:
    https://arxiv.org/abs/1810.04805, sections 4.1 and 4.2
    https://github.com/google-research/bert (`run_classifier.py`,
    `run_squad.py`)
"""

import keras
from keras import initializers

from official_models.common import ops
from official_models.common.layer import functional, registration, seed_of
from official_models.nlp.bert.config import BertConfig
from official_models.nlp.bert.model import Bert, id_inputs
from official_models.nlp.transformer.layers import TransformerPart

register = registration("tf_lamb_models.bert")


@register
class Classifier(TransformerPart):
    """Logits dropout(pooled) W^T + b, with W = `output_weights` [K, H]."""

    def __init__(self, num_labels: int, *args, dropout=0.1, **kwargs):
        super().__init__(*args, **kwargs)
        self.num_labels = num_labels
        self.rate = dropout
        matrix = initializers.TruncatedNormal(
            stddev=self.config.initializer_range,
            seed=seed_of(f"{self.seed}:output_weights"),
        )
        # Not in `build`, whose variables have the layer's name before theirs.
        self.output_weights = ops.add_root_weight(
            self,
            "output_weights",
            (num_labels, self.config.hidden_size),
            matrix,
        )
        self.output_bias = ops.add_root_weight(
            self, "output_bias", (num_labels,), initializers.Zeros()
        )

    def build(self, input_shape=None):
        self.dropout = self.add_dropout(self.rate)

    def call(self, pooled):
        x = ops.cast(self.dropout(pooled), self.variable_dtype)
        weights = ops.convert_to_tensor(self.output_weights)
        logits = ops.matmul(x, ops.transpose(weights))
        return ops.add(logits, ops.convert_to_tensor(self.output_bias))

    def compute_output_spec(self, pooled):
        shape = (pooled.shape[0], self.num_labels)
        return keras.KerasTensor(shape, self.variable_dtype)

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "num_labels": self.num_labels,
            "dropout": self.rate,
        }


@register
class Span(TransformerPart):
    """Logits h W^T + b of each token: first of the answer, last of it."""

    def build(self, input_shape=None):
        self.output_weights = self.add_matrix(
            "output_weights", (2, self.config.hidden_size)
        )
        self.output_bias = self.add_bias("output_bias", 2)

    def call(self, sequence):
        logits = ops.matmul(sequence, ops.transpose(self.output_weights))
        logits = ops.cast(logits, self.variable_dtype)
        logits = ops.add(logits, self.output_bias)  # [B, T, 2]
        return {
            "start_logits": logits[:, :, 0],
            "end_logits": logits[:, :, 1],
        }


@register
class SpanHeads(TransformerPart):
    """The span head under the name "cls" of the published checkpoints."""

    def build(self, input_shape=None):
        self.span = self.child(Span, name="squad")
        ops.build_child(self.span, None)

    def call(self, sequence):
        return self.span(sequence)

    def compute_output_spec(self, sequence):
        return {
            name: keras.KerasTensor(sequence.shape[:2], self.variable_dtype)
            for name in ("start_logits", "end_logits")
        }


def classifier_layers(
    config: BertConfig,
    num_labels: int,
    *,
    dropout: float = 0.1,
    seed: int = 0,
    dtype=None,
) -> tuple[Bert, Classifier]:
    """The two layers of `bert_classifier`, for a TPUEstimator's `model_fn`."""
    return (
        Bert(config, seed, name="bert", dtype=dtype),
        Classifier(
            num_labels,
            config,
            seed,
            dropout=dropout,
            name="classifier",
            dtype=dtype,
        ),
    )


def span_layers(
    config: BertConfig, *, seed: int = 0, dtype=None
) -> tuple[Bert, SpanHeads]:
    """The two layers of `bert_span`, for a TPUEstimator's `model_fn`."""
    return (
        Bert(config, seed, name="bert", dtype=dtype),
        SpanHeads(config, seed, name="cls", dtype=dtype),
    )


def bert_classifier(
    config: BertConfig,
    num_labels: int,
    *,
    dropout: float = 0.1,
    seed: int = 0,
    dtype=None,
) -> keras.Model:
    """BERT with a linear layer on its pooled output.

    Args:
        config: sizes and rates.
        num_labels: K, 2 or more; 1 for a regression.
        dropout: rate on the pooled output, in [0, 1).
        seed: fixes the initial weights and the dropout masks.
        dtype: Keras dtype policy; None is the global one.

    Returns:
        A model from `input_ids`, `input_mask`, `segment_ids`, each [B, T]
        int32, to logits [B, K] in the variable dtype.

    Raises:
        ValueError: an argument is out of range.
    """
    bert, head = classifier_layers(
        config, num_labels, dropout=dropout, seed=seed, dtype=dtype
    )
    return classifier_model(bert, head, "bert_classifier")


def classifier_model(
    encoder: TransformerPart, head: Classifier, name: str
) -> keras.Model:
    """An encoder with a classifier, as `bert_classifier` describes it.

    Raises:
        ValueError: as there.
    """
    labels, dropout = head.num_labels, head.rate
    if labels < 1:
        raise ValueError(f"num_labels: got {labels}, expected 1 or more")
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout: got {dropout}, expected 0 <= rate < 1")
    inputs = id_inputs("input_ids", "input_mask", "segment_ids")
    outputs, policy = head(encoder(**inputs)[1]), encoder.dtype_policy
    return functional(inputs, outputs, name=name, dtype_policy=policy)


def bert_span(config: BertConfig, *, seed: int = 0, dtype=None) -> keras.Model:
    """BERT with the logits of an answer's first and last token.

    Args:
        config: sizes and rates.
        seed: fixes the initial weights and the dropout masks.
        dtype: Keras dtype policy; None is the global one.

    Returns:
        A model from `input_ids`, `input_mask`, `segment_ids`, each [B, T]
        int32, to `start_logits` and `end_logits`, each [B, T] in the variable
        dtype.
    """
    bert, head = span_layers(config, seed=seed, dtype=dtype)
    return span_model(bert, head, "bert_span")


def span_model(
    encoder: TransformerPart, head: SpanHeads, name: str
) -> keras.Model:
    """An encoder with a finder of answers, as `bert_span` describes it."""
    inputs = id_inputs("input_ids", "input_mask", "segment_ids")
    outputs, policy = head(encoder(**inputs)[0]), encoder.dtype_policy
    return functional(inputs, outputs, name=name, dtype_policy=policy)
