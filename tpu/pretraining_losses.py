"""BERT's pretraining losses, their means, and the published metrics.

Axes: B batch, P predictions of a sequence, V vocabulary.
"""

import tensorflow as tf

tf1 = tf.compat.v1
# Output of a head -> label in the records. ALBERT's keep BERT's name.
LABELS = {
    "masked_lm": "masked_lm",
    "next_sentence": "next_sentence",
    "sentence_order": "next_sentence",
}


def losses(logits: dict, labels: dict) -> dict[str, tf.Tensor]:
    """-log softmax(logits)[label] by head: masked_lm [B, P], the pair's [B]."""
    return {
        name: tf.nn.sparse_softmax_cross_entropy_with_logits(
            labels[LABELS[name]], of_head
        )
        for name, of_head in logits.items()
    }


def means(values: dict, labels: dict) -> dict[str, tf.Tensor]:
    """Means by head, float32 scalars; of masked tokens, the weighted one."""
    weights = labels["masked_lm_weights"]
    found = {
        f"{name}_loss": tf.reduce_mean(value) for name, value in values.items()
    }
    found["masked_lm_loss"] = tf.math.divide_no_nan(
        tf.reduce_sum(weights * values["masked_lm"]), tf.reduce_sum(weights)
    )
    return found


def eval_metrics(logits: dict, labels: dict, values: dict) -> tuple:
    """The published four metrics, for a `TPUEstimatorSpec`."""
    weights = {name: tf.ones_like(value) for name, value in values.items()}
    weights["masked_lm"] = labels["masked_lm_weights"]
    tensors = {}
    for name, value in values.items():
        best = tf.argmax(logits[name], -1, tf.int32)
        right = tf.equal(best, labels[LABELS[name]])
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
