"""BERT's pretraining losses, their means, and the published metrics.

Axes: B batch, P predictions of a sequence, V vocabulary.
"""

import tensorflow as tf

tf1 = tf.compat.v1


def losses(logits: dict, labels: dict) -> dict[str, tf.Tensor]:
    """-log softmax(logits)[label]: masked_lm [B, P], next_sentence [B]."""
    return {
        name: tf.nn.sparse_softmax_cross_entropy_with_logits(
            labels[name], logits[name]
        )
        for name in ("masked_lm", "next_sentence")
    }


def means(values: dict, labels: dict) -> dict[str, tf.Tensor]:
    """Means by head, float32 scalars; of masked tokens, the weighted one."""
    weights = labels["masked_lm_weights"]
    return {
        "masked_lm_loss": tf.math.divide_no_nan(
            tf.reduce_sum(weights * values["masked_lm"]),
            tf.reduce_sum(weights),
        ),
        "next_sentence_loss": tf.reduce_mean(values["next_sentence"]),
    }


def eval_metrics(logits: dict, labels: dict, values: dict) -> tuple:
    """The published four metrics, for a `TPUEstimatorSpec`."""
    weights = {
        "masked_lm": labels["masked_lm_weights"],
        "next_sentence": tf.ones_like(values["next_sentence"]),
    }
    tensors = {}
    for name, value in values.items():
        best = tf.argmax(logits[name], -1, tf.int32)
        right = tf.equal(best, labels[name])
        tensors[f"{name}_accuracy"] = tf.cast(right, tf.float32)
        tensors[f"{name}_loss"] = value
        tensors[f"{name}_weights"] = weights[name]

    def metric_fn(**tensors):
        return {
            f"{name}_{what}": tf1.metrics.mean(
                tensors[f"{name}_{what}"], tensors[f"{name}_weights"]
            )
            for name in weights
            for what in ("accuracy", "loss")
        }

    return metric_fn, tensors
