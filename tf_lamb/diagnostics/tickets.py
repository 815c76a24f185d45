r"""Lottery tickets: sparse networks that train as well as the whole one.

Iterative magnitude pruning with rewinding. From weights `w_0`, training to
step `k` gives `w_k`, to the end `w_T`. Each round masks the smallest of the
weights that are left in `w_T`, sets the others back to `w_k` and trains from
step `k` to the end. Two controls have as many weights left in each variable:
the same mask on new random weights, trained from the beginning, and a random
mask on `w_k`.

References:
  Frankle and Carbin 2019 (arXiv:1803.03635); Frankle et al. 2020
  (arXiv:1912.05671), rewinding.
"""

from __future__ import annotations

import math
from typing import Any, Callable, NamedTuple, Sequence

import numpy as np

from tf_lamb import check, figures, wrapped
from tf_lamb.diagnostics import masks, probe
from tf_lamb.diagnostics.examples import Examples

__all__ = ["KINDS", "Row", "Trainer", "initial_weights", "plot", "summary"]

# ticket, and the two controls.
KINDS = ("ticket", "reinitialised", "random_mask")
Weights = list[np.ndarray]


def initial_weights(model: Any, seed: int) -> Weights:
    """New random weights of a model, drawn by its initialisers.

    What no training changes stays: weights of frozen layers, and what layers
    adapted to data (`Normalization`).

    Args:
      model: of Keras 3, functional, sequential, or with `get_config`.
      seed: of the draw; it becomes Keras' seed.

    Returns:
      Values of `model.get_weights()`.

    Raises:
      ValueError: Keras cannot copy the model, or its initialisers draw the same
        for every seed.
    """
    import keras

    def draw(one: int) -> Weights:
        keras.utils.set_random_seed(one)
        try:
            copy = keras.models.clone_model(model)
            if not copy.built:
                copy.build(model.input_shape)
            found = copy.get_weights()
        except (ValueError, NotImplementedError, AttributeError) as error:
            text = str(error).strip().split("\n")[0][:160]
            raise ValueError(
                f"model: Keras cannot make it anew with random weights "
                f"({text}); give its class get_config."
            ) from error
        return [np.asarray(w) for w in found]

    found, other = draw(seed), draw(seed + 1)
    shapes = [w.shape for w in found]
    if shapes != [w.shape for w in model.get_weights()]:
        raise ValueError(
            "model: a copy that Keras made has other weights; make all of its "
            "layers in __init__ or by the functional interface."
        )
    if all(np.array_equal(a, b) for a, b in zip(found, other)):
        raise ValueError(
            "model: its initialisers draw the same weights for every seed; "
            "give them no seed of their own."
        )
    kept = {
        id(variable)
        for layer in model._flatten_layers()
        if not layer.trainable or hasattr(layer, "adapt")
        for variable in layer.weights
    }
    pairs = zip(model.weights, found, model.get_weights())
    return [own if id(v) in kept else new for v, new, own in pairs]


class Trainer:
    """Trains a model from given weights under masks; `close` sets it back.

    Each training has an optimizer of its own, of the model's kind and config,
    whose moments begin anew; its learning rate begins at the step where the
    training does.

    Args:
      model: of Keras 3, compiled with loss and optimizer.
      batch_size: examples of a step.
      steps: of a training from its beginning, `T`.
    """

    def __init__(self, model: Any, batch_size: int, steps: int) -> None:
        self._model = model
        self.batch_size = check.count("batch_size", batch_size)
        self.steps = check.count("steps", steps)
        self._weights = model.get_weights()
        self._compiled = model.optimizer, model.jit_compile
        # Of dropout: each training draws the same again.
        self._random = probe.random_states(model)

    def train(
        self,
        weights: Weights,
        left: masks.Masks,
        examples: Examples,
        *,
        first: int = 0,
        last: int | None = None,
        progress: Callable[[int], None] = lambda step: None,
    ) -> Weights:
        """Trains; the model has the weights of the end afterwards.

        Args:
          weights: of the model at step `first`; pruned ones are set to 0.
          left: masks, by place in `model.trainable_variables`; `{}`: none.
          examples: whose first `first` batches are left out.
          first: the step at which it begins.
          last: the step at which it ends; None: `steps`.
          progress: called with the number of the step after each.

        Returns:
          Values of `model.get_weights()`.
        """
        model = self._model
        model.set_weights(weights)
        for variable, value in self._random:
            variable.assign(value)
        trained = model.trainable_variables
        masked = {id(trained[i]): (trained[i], m) for i, m in left.items()}
        for variable, mask in masked.values():
            variable.assign(probe.to_numpy(variable) * mask)
        optimizer = masks.masked_optimizer(self._compiled[0], masked)
        _begin_rate_at(optimizer, first)
        # Compiled by XLA on JAX only: elsewhere that is slow for few steps.
        probe.exchange(model, optimizer, probe.backend_of(model) == "jax")
        for k in range(self.steps if last is None else last):
            x, y, weight = examples.draw(self.batch_size)
            if k >= first:
                model.train_on_batch(x, y, weight)
                progress(k + 1)
        return [np.asarray(w) for w in model.get_weights()]

    def score(self, data: Any, metric: str | None = None) -> tuple[str, float]:
        """A metric of the model on held-out examples: its name and value.

        Args:
          data: `(x, y, sample_weight or None)`.
          metric: its name; None: the first that the model is compiled with,
            or the loss, if there is none.

        Raises:
          ValueError: there is no such metric.
        """
        x, y, weight = data
        found = self._model.evaluate(
            x,
            y,
            sample_weight=weight,
            batch_size=self.batch_size,
            return_dict=True,
            verbose=0,
        )
        others = [name for name in found if name != "loss"]
        name = metric or (others or ["loss"])[0]
        if name not in found:
            raise ValueError(
                f"--metric {name}: expected one of {', '.join(sorted(found))}."
            )
        return name, float(found[name])

    def trained(self) -> Weights:
        """Weights of all trainable variables, as they are."""
        return [probe.to_numpy(v) for v in self._model.trainable_variables]

    def close(self) -> None:
        """Gives the model its weights and optimizer again."""
        self._model.set_weights(self._weights)
        probe.exchange(self._model, *self._compiled)


def _begin_rate_at(optimizer: Any, first: int) -> None:
    """Makes a schedule of the learning rate begin at a later step."""
    import keras

    optimizer = wrapped.innermost(optimizer)
    schedule = optimizer._learning_rate
    kind: Any = keras.optimizers.schedules.LearningRateSchedule
    if not (first and isinstance(schedule, kind)):
        return

    class Later(kind):
        def __call__(self, step: Any) -> Any:
            return schedule(step + first)

        def get_config(self) -> dict[str, Any]:
            return {}

    optimizer.learning_rate = Later()


class Row(NamedTuple):
    """Scores of one kind of network at one sparsity.

    Attributes:
      kind: of `KINDS`.
      round: of pruning; 0 is the whole network.
      sparsity: share of the prunable weights that are 0, mean over seeds.
      mean: of the finite scores; NaN where there are none.
      deviation: over seeds, standard; NaN for one.
      low: the least finite score.
      high: the largest.
      seeds: how many were trained.
      diverged: how many of them have a score that is not finite.
    """

    kind: str
    round: int
    sparsity: float
    mean: float
    deviation: float
    low: float
    high: float
    seeds: int
    diverged: int


def summary(cells: Sequence[dict[str, Any]]) -> list[Row]:
    """Mean and spread over seeds.

    Args:
      cells: with `kind`, `round`, `sparsity` and `score` (None: not finite).
    """
    groups: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for cell in cells:
        groups.setdefault((cell["kind"], cell["round"]), []).append(cell)
    rows = []
    for (kind, number), found in groups.items():
        scores = [math.nan if c["score"] is None else c["score"] for c in found]
        finite = [s for s in scores if math.isfinite(s)]
        spread = np.std(finite, ddof=1) if len(finite) > 1 else math.nan
        rows.append(
            Row(
                kind,
                number,
                float(np.mean([c["sparsity"] for c in found])),
                float(np.mean(finite)) if finite else math.nan,
                float(spread),
                min(finite, default=math.nan),
                max(finite, default=math.nan),
                len(scores),
                len(scores) - len(finite),
            )
        )
    return sorted(rows, key=lambda r: (KINDS.index(r.kind), r.round))


def plot(path: Any, rows: Sequence[Row], metric: str) -> None:
    """Draws the score against the weights that are left.

    Args:
      path: of a PNG file.
      rows: of `summary`.
      metric: name of the score.
    """
    figure = figures.new("tickets.plot", 7, 4.5)
    axes = figure.add_subplot()
    whole = [r for r in rows if r.round == 0]
    for kind in KINDS:
        found = [r for r in rows if r.kind == kind and r.round]
        # All begin at the whole network.
        found = [r for r in whole + found if math.isfinite(r.mean)]
        left = [100 * (1 - r.sparsity) for r in found]
        means = np.array([r.mean for r in found])
        low, high = ([getattr(r, n) for r in found] for n in ("low", "high"))
        axes.errorbar(
            left,
            means,
            yerr=[means - low, np.array(high) - means],
            marker="o",
            markersize=4,
            capsize=3,
            label=kind.replace("_", " "),
        )
    axes.set_xscale("log")
    axes.invert_xaxis()
    axes.set_xlabel("weights left, percent")
    axes.set_ylabel(f"{metric}, held out (bars: least to largest of seeds)")
    axes.legend()
    figures.save(figure, path)
