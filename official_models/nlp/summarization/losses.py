"""Losses of the two kinds of summarizers.

Axes: B batch, S sentences, L tokens, V vocabulary. `sample_weight` is 1 for
what counts and 0 for padding.
"""

from __future__ import annotations

import math

import keras

from official_models.common import ops
from official_models.common.layer import registration

register = registration("tf_lamb_models.summarization")
PAD = 0


@register
class SentenceCrossEntropy(keras.losses.Loss):
    """Mean over all real sentences of the binary cross-entropy of logits.

    The published code adds the sentences of a batch up instead. Its gradient is
    this one times the number of the batch's sentences: a batch of many weighs
    more in the moments there, and clipping by norm acts on another length.

    Call arguments are labels 0 or 1 [B, S] and logits [B, S].
    """

    def __init__(self, name: str = "sentence_cross_entropy", **kwargs):
        kwargs.setdefault("reduction", "mean_with_sample_weight")
        super().__init__(name=name, **kwargs)

    def call(self, y_true, y_pred):
        labels = ops.cast(y_true, y_pred.dtype)
        # log(1 + exp(-|x|)) + max(x, 0) - x y
        return ops.softplus(y_pred) - y_pred * labels


@register
class LabelSmoothing(keras.losses.Loss):
    r"""Mean over tokens of KL(q || p) against a smoothed target.

    $$KL(q \| p) = -H(q) - \sum_v q_v \log p_v$$

    q is 1 - smoothing at the target, 0 at padding, smoothing / (V - 2) at
    every other token.

    Call arguments are labels [B, L] and logits [B, L, V].

    Args:
        smoothing: In [0, 1); 0: the cross-entropy.
        name: Of the loss.
        **kwargs: Of `keras.losses.Loss`.
    """

    def __init__(
        self, smoothing: float = 0.1, name: str = "label_smoothing", **kwargs
    ):
        if not 0 <= smoothing < 1:
            raise ValueError(
                f"smoothing: got {smoothing!r}, expected a number in [0, 1)"
            )
        kwargs.setdefault("reduction", "mean_with_sample_weight")
        super().__init__(name=name, **kwargs)
        self.smoothing = smoothing

    def call(self, y_true, y_pred):
        vocab = y_pred.shape[-1]
        off = self.smoothing / (vocab - 2)
        on = 1 - self.smoothing
        top = ops.logsumexp(y_pred, axis=-1)  # [B, L]
        labels = ops.cast(y_true, "int32")
        at_label = _pick(y_pred, labels) - top
        everywhere = ops.sum(y_pred, axis=-1) - vocab * top
        elsewhere = everywhere - at_label - (y_pred[..., PAD] - top)
        cross = -(on * at_label + off * elsewhere)
        return cross - entropy(self.smoothing, vocab)

    def get_config(self) -> dict:
        return {**super().get_config(), "smoothing": self.smoothing}


def _pick(logits, labels):
    """logits[..., label], [...]."""
    picked = ops.take_along_axis(logits, labels[..., None], axis=-1)
    return ops.squeeze(picked, -1)


def entropy(smoothing: float, vocab: int) -> float:
    """H(q) of a smoothed target, in nats."""
    if not smoothing:
        return 0.0
    off = smoothing / (vocab - 2)
    on = 1 - smoothing
    return -on * math.log(on) - smoothing * math.log(off)


@register
def token_cross_entropy(y_true, y_pred):
    """-log p of each label, [B, L] and [B, L, V] to [B, L]."""
    labels = ops.cast(y_true, "int32")
    return ops.logsumexp(y_pred, axis=-1) - _pick(y_pred, labels)


def perplexity_log() -> keras.metrics.Metric:
    """The mean of `token_cross_entropy`, whose exponential is perplexity."""
    return keras.metrics.MeanMetricWrapper(
        token_cross_entropy, name="cross_entropy"
    )
