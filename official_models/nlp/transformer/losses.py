"""The loss and the accuracy of logits over a vocabulary.

Axes: V vocabulary.
"""

import keras

from official_models.common import ops
from official_models.common.layer import registration

register = registration("tf_lamb_models.transformer")


@register
class SparseCrossEntropy(keras.losses.Loss):
    """Mean of -log softmax(logits)[label], weighted by `sample_weight`.

    sum(w nll) / sum(w), and 0 where all weights are 0; to that end Google's
    code adds 1e-5 to the denominator. The gradient is written out because it
    then needs a softmax and nothing else, which a TensorFlow graph on CPU does
    in a third of the time of `keras.losses.SparseCategoricalCrossentropy`;
    torch has an operation of its own.

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

        logits = ops.reshape(y_pred, (-1, vocab_size))
        values = ops.native_nll(logits, labels)  # [R]
        if values is None:
            values = nll(logits)
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
