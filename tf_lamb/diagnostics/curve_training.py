r"""Trains the bend of a curve between two models, whose ends stay.

A step draws `t` evenly from [0, 1] and a batch, and follows the gradient

$$\nabla_\theta L(\phi(t)) = \frac{\partial \phi(t)}{\partial \theta}\, \nabla
  L(\phi(t))$$

in training mode: with dropout, and batch normalisation by its batch.

References:
  Garipov et al. 2018 (arXiv:1802.10026), equation 2 and algorithm 1.
"""

from __future__ import annotations

import time
from typing import Any, Callable, NamedTuple

import numpy as np

from tf_lamb import check
from tf_lamb.diagnostics import probe
from tf_lamb.diagnostics.at_weights import AtWeights, compiled, tensor
from tf_lamb.diagnostics.curves import Weights, coefficients
from tf_lamb.diagnostics.examples import Examples, each

__all__ = ["OPTIMIZERS", "Trained", "train"]

OPTIMIZERS = ("lamb", "lars")

_SECONDS_BETWEEN_WRITES = 5.0


class Trained(NamedTuple):
    """A curve.

    Attributes:
      bend: weights.
      losses: of each step's batch at its place, `[steps]`.
    """

    bend: list[np.ndarray]
    losses: np.ndarray


def train(
    at: AtWeights,
    start: Weights,
    end: Weights,
    examples: Examples,
    *,
    kind: str = "bezier",
    steps: int = 300,
    batch_size: int = 128,
    optimizer: str = "lamb",
    rate: float = 0.01,
    seed: int = 0,
    kept: Callable[[dict[str, np.ndarray]], None] | None = None,
    before: dict[str, np.ndarray] | None = None,
    progress: Callable[[str], None] = lambda line: None,
) -> Trained:
    """Trains the bend, from the middle of the straight line.

    Args:
      at: of the model; its examples are not used.
      start: weights at 0.
      end: weights at 1.
      examples: from which batches are drawn.
      kind: "bezier" or "polychain".
      steps: of the optimizer, >= 1.
      batch_size: examples of a step.
      optimizer: "lamb" or "lars", of this package, without weight decay; biases
        and norm parameters have a trust ratio of 1.
      rate: its highest, after a tenth of all steps; it falls to 0.
      seed: of the places, and of the model's own random numbers.
      kept: called every few seconds, and at the end, with all that is needed to
        go on.
      before: what was kept.
      progress: called with a line of text.

    Raises:
      ValueError: an argument is out of its range, or a loss is not finite.
    """
    check.count("steps", steps)
    places = np.random.default_rng([seed, 1]).uniform(size=steps)
    bend = _Bend(at, start, end, _optimizer(optimizer, rate, steps))
    first, losses = bend.load(before or {}), np.full(steps, np.nan)
    losses[:first] = (before or {}).get("losses", losses)[:first]
    written = time.monotonic()
    for step in range(steps):
        batch = examples.draw(batch_size)
        if step < first:
            continue  # Drawn, so that the next batch is the one that it was.
        share = coefficients(kind, float(places[step]))
        losses[step] = bend.step(share, each(_tensor, batch))
        if not np.isfinite(losses[step]):
            raise ValueError(
                f"rate: the loss of step {step + 1} is not finite; expected a "
                f"rate at which a training stays finite, got {rate:g}; lower "
                "it."
            )
        progress(f"curve: step {step + 1}/{steps}, loss {losses[step]:.4g}")
        late = time.monotonic() - written > _SECONDS_BETWEEN_WRITES
        if kept and (late or step + 1 == steps):
            kept({**bend.state(step + 1), "losses": losses})
            written = time.monotonic()
    return Trained(bend.weights(), losses)


def _tensor(array: Any) -> Any:
    return tensor(array)


def _optimizer(name: str, rate: float, steps: int) -> Any:
    import tf_lamb

    check.one_of("optimizer", name, OPTIMIZERS)
    kind = {"lamb": tf_lamb.LAMB, "lars": tf_lamb.LARS}[name]
    schedule = tf_lamb.WarmupPolynomial(
        rate, total_steps=steps, warmup_steps=steps // 10
    )
    return kind(
        schedule,
        exclude_from_layer_adaptation="biases_and_norms",
        unmatched="ignore",
    )


class _Bend:
    """The variables that are trained, and a step of them."""

    def __init__(
        self, at: AtWeights, start: Weights, end: Weights, optimizer: Any
    ) -> None:
        import keras

        self._at, self._optimizer = at, optimizer
        trained = at.model.trainable_variables
        self._ends = [
            [tensor(a, v) for a, v in zip(w, trained)] for w in (start, end)
        ]
        self._variables = [
            keras.Variable(
                ((a.astype(np.float64) + b) / 2).astype(a.dtype), name=v.name
            )
            for a, b, v in zip(start, end, trained)
        ]
        self._others = [
            tensor(a, v)
            for a, v in zip(at.others(), at.model.non_trainable_variables)
        ]
        optimizer.build(self._variables)
        backend = probe.backend_of(at.model)
        self._jax = backend == "jax"
        self._gradient = compiled(
            self._gradient_jax if self._jax else self._gradient_tensorflow,
            backend,
        )
        self._apply = compiled(
            optimizer.stateless_apply if self._jax else self._apply_tensorflow,
            backend,
        )

    def step(self, shares: tuple[float, float, float], batch: Any) -> float:
        """One step; the loss before it."""
        values = [v.value for v in self._variables]
        loss, gradients, self._others = self._gradient(
            [tensor(v) for v in values],
            self._ends,
            tensor(np.asarray(shares)),  # so that one program serves all places
            self._others,
            batch,
        )
        if self._jax:
            state = [v.value for v in self._optimizer.variables]
            values, state = self._apply(state, gradients, values)
            for variable, value in (
                *zip(self._variables, values),
                *zip(self._optimizer.variables, state),
            ):
                variable.assign(value)
        else:
            self._apply(gradients)
        return float(loss)

    def _loss(
        self, bend: Any, ends: Any, shares: Any, others: Any, batch: Any
    ) -> tuple[Any, Any]:
        import keras

        weights = []
        for w, theta, v in zip(ends[0], bend, ends[1]):
            a, b, c = keras.ops.unstack(keras.ops.cast(shares, w.dtype), 3)
            weights.append(a * w + b * theta + c * v)
        loss, _, after = self._at.loss(weights, others, batch, training=True)
        return loss, after

    def _gradient_jax(self, bend: Any, *rest: Any) -> Any:
        import jax

        both = jax.value_and_grad(self._loss, has_aux=True)
        (loss, after), gradients = both(bend, *rest)
        return loss, gradients, after

    def _gradient_tensorflow(self, bend: Any, *rest: Any) -> Any:
        import tensorflow as tf

        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(bend)
            loss, after = self._loss(bend, *rest)
        found = tape.gradient(loss, bend, unconnected_gradients="zero")
        return loss, [tf.convert_to_tensor(g) for g in found], after

    def _apply_tensorflow(self, gradients: Any) -> Any:
        self._optimizer.apply(gradients, self._variables)

    def weights(self) -> list[np.ndarray]:
        """The bend as it is now."""
        return [probe.to_numpy(v) for v in self._variables]

    def state(self, step: int) -> dict[str, np.ndarray]:
        """All that is needed to go on."""
        found = {"step": np.asarray(step)}
        for name, values in self._parts().items():
            for i, value in enumerate(values):
                found[f"{name}/{i}"] = probe.to_numpy(value)
        return found

    def load(self, found: dict[str, np.ndarray]) -> int:
        """Goes on from what `state` gave; the steps that were done."""
        if not found:
            return 0
        parts = self._parts()
        for name in ("bend", "optimizer"):
            for i, variable in enumerate(parts[name]):
                variable.assign(found[f"{name}/{i}"])
        self._others = [
            tensor(found[f"others/{i}"], v)
            for i, v in enumerate(self._at.model.non_trainable_variables)
        ]
        return int(found["step"])

    def _parts(self) -> dict[str, list[Any]]:
        return {
            "bend": self._variables,
            "optimizer": list(self._optimizer.variables),
            "others": self._others,
        }
