"""What layers and losses want of torch itself, where one operation does more.

Without a compiler each operation reads and writes its whole array. Models get
these through `common.ops`.
"""

import keras
import torch


def native_layer_norm(x, gamma, beta, epsilon: float):
    """gamma (x - mean) / sqrt(var + epsilon) + beta over the last axis.

    Its derivatives are right to the second order.

    Args:
        x: [..., H].
        gamma: [H], of the dtype of `x`.
        beta: [H], of the dtype of `x`.
        epsilon: Added to the biased variance.

    Returns:
        [..., H], the dtype of `x`.
    """
    gamma, beta = map(keras.ops.convert_to_tensor, (gamma, beta))
    return torch.nn.functional.layer_norm(
        x, (x.shape[-1],), gamma, beta, epsilon
    )


def native_nll(logits, labels):
    """-log softmax(logits)[label].

    Args:
        logits: [R, V].
        labels: In [0, V), integers [R].

    Returns:
        [R], the dtype of `logits`.
    """
    return torch.nn.functional.cross_entropy(
        logits, labels.long(), reduction="none"
    )
