"""The gradient noise scale along a run, from the gradients of single examples.

B_simple = tr(Sigma) / |G|^2 (McCandlish et al. 2018, arXiv:1812.06162): Sigma
is the covariance of an example's gradient, G the mean. |G|^2 is estimated
without the mean's own noise, which is tr(Sigma) / n.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.enough_steps.runs import Program, loss, scaled

EXAMPLES, _CHUNK = 16_384, 512
AFTER = (1, 5, 20)  # epochs


def noise_scale(model, weights, images, labels) -> float:
    """B_simple in examples, from n examples; infinite where |G|^2 is not seen.

    Args:
        model: The network.
        weights: Its trainable ones.
        images: Of n >= 2 examples.
        labels: Their classes, [n].
    """

    def gradient(image, label):
        def of(w):
            return loss(model, w, scaled(image[None]), label[None])

        found = jax.tree.leaves(jax.grad(of)(weights))
        return jnp.concatenate([jnp.ravel(x) for x in found])

    @jax.jit
    def sums(images, labels):
        found = jax.vmap(gradient)(images, labels)
        return found.sum(0), jnp.square(found).sum()

    total: Any = 0.0
    squares, number = 0.0, len(labels)
    for i in range(0, number, _CHUNK):
        part, square = sums(images[i : i + _CHUNK], labels[i : i + _CHUNK])
        total = total + np.asarray(part, "float64")
        squares += float(square)
    mean = total / number
    trace = (squares - number * mean @ mean) / (number - 1)
    signal = mean @ mean - trace / number
    return float(trace / signal) if signal > 0 else float("inf")


def along(
    program: Program,
    rate: float,
    seed: int,
    after_epoch: Callable[[], None],
    epochs: Sequence[int] = AFTER,
) -> dict[str, Any]:
    """The noise scale after some epochs of a run.

    Args:
        program: Of the run.
        rate: Peak rate.
        seed: Of weights and order.
        after_epoch: Called after each epoch.
        epochs: After which of them it is measured.

    Returns:
        "epochs" and "noise_scale", a list each.
    """
    found, done = [], 0

    def measured():
        nonlocal done
        done += 1
        if done in epochs:
            weights = [w[0] for w in program.weights]
            images = program.images[:EXAMPLES]
            labels = program.labels[:EXAMPLES]
            found.append(noise_scale(program.model, weights, images, labels))
        after_epoch()

    program.train([rate], [seed], measured)
    return {
        "epochs": list(epochs),
        "noise_scale": [x if np.isfinite(x) else None for x in found],
        "examples": min(EXAMPLES, len(program.labels)),
        "batch": program.batch,
        "rate": rate,
    }
