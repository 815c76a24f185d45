"""Many runs of one optimizer at one batch, in one JAX program.

R runs differ in seed and rate. Weights and state have a leading axis R, over
which `vmap` maps a step; a `scan` goes through an epoch. So the R runs cost one
compilation, and small matrix products become larger ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.enough_steps import network, optimizers

# Of Fashion-MNIST's training pixels, 14 x 14.
MEAN, DEVIATION = 73.0, 84.0


class Split(NamedTuple):
    """Images uint8 [N, side, side] and labels int32 [N] of both parts."""

    train: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]


def steps_of(examples: int, batch: int) -> int:
    """Whole batches of an epoch."""
    return examples // batch


def schedule(step, total: int, warmup: int, decays: bool = True):
    """Factor of the rate in update `step`, counted from 0.

    It rises linearly over `warmup` updates, then falls linearly to 0 at `total`
    where it `decays`.
    """
    rise = jnp.minimum(1.0, (step + 1) / max(warmup, 1))
    if not decays:
        return rise
    fall = (total - step) / max(total - warmup, 1)
    return jnp.minimum(rise, fall)


def loss(model, weights, images, labels):
    """Mean cross-entropy of scaled images [B, side, side], labels [B]."""
    logits, _ = model.stateless_call(weights, [], images)
    found = jax.nn.log_softmax(logits)
    return -jnp.mean(jnp.take_along_axis(found, labels[:, None], -1))


def scaled(images):
    """Pixels uint8 to float32, of mean 0 and deviation 1 over the data."""
    return (images.astype("float32") - MEAN) / DEVIATION


class Program:
    """R runs of one optimizer at one batch.

    Args:
        name: Of the optimizer.
        batch: Examples of an update.
        epochs: Of each run.
        warmup: Updates.
        split: Data of all runs.

    Attributes:
        model: The network.
        weights: After the last epoch, each with a leading axis R; the next one
            takes their memory.
        total: Updates of a run.
    """

    def __init__(
        self, name: str, batch: int, epochs: int, warmup: int, split: Split
    ):
        self.name, self.batch, self.epochs = name, batch, epochs
        self.images, self.labels = (jnp.asarray(x) for x in split.train)
        self.test = tuple(jnp.asarray(x) for x in split.test)
        self.steps = steps_of(len(self.images), batch)
        if not self.steps:
            raise ValueError(
                f"batch {batch}: expected {len(self.images)} at most"
            )
        self.total = self.steps * epochs
        self.warmup = min(warmup, self.total)
        self.side = self.images.shape[1]
        self.model = network.build(0, self.side)
        self._optimizer = optimizers.make(name)
        self._optimizer.build(self.model.trainable_variables)
        rate = self._optimizer.learning_rate
        (self._rate_at,) = (
            i
            for i, v in enumerate(self._optimizer.variables)
            if v.path.endswith("learning_rate") and v.shape == rate.shape
        )
        self._epoch = jax.jit(self._run_epoch, donate_argnums=(0, 1))
        self.weights: list = []
        self._score = jax.jit(jax.vmap(self._accuracy))

    def _initial(self, seeds):
        """Weights and state, each with a leading axis R."""
        weights, states = [], []
        for seed in seeds:
            model = network.build(1000 * seed, self.side)
            optimizer = optimizers.make(self.name)
            optimizer.build(model.trainable_variables)
            weights.append([v.value for v in model.trainable_variables])
            states.append([v.value for v in optimizer.variables])
        return tuple(
            [jnp.stack(values) for values in zip(*found)]
            for found in (weights, states)
        )

    def _update(self, weights, state, rate, rows, step):
        images = scaled(self.images[rows])
        gradients = jax.grad(lambda w: loss(
            self.model, w, images, self.labels[rows]
        ))(weights)  # fmt: skip
        decays = self.name != "schedule_free"
        factor = schedule(step, self.total, self.warmup, decays)
        state = list(state)
        state[self._rate_at] = (rate * factor).astype("float32")
        return self._optimizer.stateless_apply(state, gradients, weights)

    def _run_epoch(self, weights, state, rates, orders, first):
        update = jax.vmap(self._update, (0, 0, 0, 0, None))

        def body(carry, inputs):
            rows, step = inputs
            weights, state = carry
            return update(weights, state, rates, rows, step), None

        runs = orders.shape[0]
        rows = orders[:, : self.steps * self.batch]
        rows = rows.reshape(runs, self.steps, self.batch).swapaxes(0, 1)
        steps = first + jnp.arange(self.steps)
        (weights, state), _ = jax.lax.scan(
            body, (weights, state), (rows, steps)
        )
        return weights, state

    def judged(self, weights, state):
        """The weights that are judged: the average, of Schedule-Free."""
        if self.name != "schedule_free":
            return weights
        beta = self._optimizer.beta_1
        at = {v.path: i for i, v in enumerate(self._optimizer.variables)}
        moments = [state[at[v.path]] for v in self._optimizer._momentums]
        return [(y - (1 - beta) * z) / beta for y, z in zip(weights, moments)]

    def _accuracy(self, weights, state):
        images, labels = self.test
        logits, _ = self.model.stateless_call(
            self.judged(weights, state), [], scaled(images)
        )
        right = jnp.mean(logits.argmax(-1) == labels)
        return jnp.where(jnp.isfinite(logits).all(), 100 * right, jnp.nan)

    def train(
        self,
        rates: Sequence[float],
        seeds: Sequence[int],
        after_epoch: Callable[[], None] = lambda: None,
    ) -> np.ndarray:
        """Trains all runs.

        Args:
            rates: Peak rate of each.
            seeds: Of each, for weights and order.
            after_epoch: Called after each.

        Returns:
            Accuracy in percent after each epoch, float [R, epochs]; NaN of a
            run whose logits are not finite.
        """
        weights, state = self._initial(seeds)
        # After the copies of initial values; one order a seed.
        generators = [np.random.default_rng(seed) for seed in seeds]
        peak = jnp.asarray(rates, "float32")
        scores = []
        for epoch in range(self.epochs):
            orders = np.stack(
                [g.permutation(len(self.images)) for g in generators]
            ).astype("int32")
            weights, state = self._epoch(
                weights, state, peak, orders, epoch * self.steps
            )
            scores.append(np.asarray(self._score(weights, state)))
            self.weights = weights
            after_epoch()
        return np.stack(scores, 1)
