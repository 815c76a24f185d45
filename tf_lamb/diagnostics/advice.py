r"""Which batch and which rate: from a model and data, before it is trained.

    python -m tf_lamb.diagnostics advise MODEL DATA --output_dir runs/advice

The gradient noise scale says how large a batch is useful: at that batch a
training takes twice the fewest possible steps and twice the fewest possible
examples; above it, more examples buy few steps. It is measured at the weights
as they are and again after some steps of training, because it grows. A short
rate-range test, in which LAMB's rate rises from step to step, finds a rate at
one batch, and the square-root rule carries it to others.

References:
  McCandlish et al. 2018 (arXiv:1812.06162); Smith 2017 (arXiv:1506.01186), the
  range test; You et al. 2020 (arXiv:1904.00962), the untuned rule.
"""

from __future__ import annotations

import math
from typing import Any, Callable, NamedTuple, Sequence

import numpy as np

from tf_lamb import check, figures, schedules
from tf_lamb.diagnostics import noise_scale, probe
from tf_lamb.diagnostics.examples import Examples

__all__ = ["RateRange", "Row", "Trial", "in_words", "plot", "rows", "summarize"]

SMOOTHING = 0.8  # of the losses of a range test, a step's share of the next
SAFETY = 10.0  # the rate of the least loss over the advised one


class RateRange(NamedTuple):
    """What range tests found.

    Attributes:
      rates: of each step, `[steps]`.
      losses: smoothed, of each test, `[tests, steps]`; NaN from where it
        diverged.
      least: the rate at which each test's loss is least, `[tests]`.
      rate: advised: the geometric mean of `least`, over 10.
      lower: the smallest of `least`, over 10.
      upper: the largest of `least`, over 10.
    """

    rates: np.ndarray
    losses: np.ndarray
    least: np.ndarray
    rate: float
    lower: float
    upper: float


def summarize(rates: Sequence[float], losses: Any) -> RateRange:
    """The rate that range tests advise.

    Args:
      rates: of each step, ascending, `[steps]`.
      losses: of each test and step, `[tests, steps]`; NaN or infinite from
        where it diverged.

    Raises:
      ValueError: a test has no finite loss.
    """
    smooth = np.full(np.shape(losses), math.nan)
    for test, out in zip(np.asarray(losses, np.float64), smooth):
        mean = 0.0
        for k, loss in enumerate(test):
            if not math.isfinite(loss):
                break
            mean = SMOOTHING * mean + (1 - SMOOTHING) * loss
            out[k] = mean / (1 - SMOOTHING ** (k + 1))
    if np.isnan(smooth[:, 0]).any():
        raise ValueError(
            "losses: expected a finite loss at the smallest rate, got none; "
            "are the data finite, and is the model's loss?"
        )
    least = np.asarray(rates)[np.nanargmin(smooth, axis=1)]
    middle = float(np.exp(np.log(least).mean()))
    return RateRange(
        np.asarray(rates),
        smooth,
        least,
        middle / SAFETY,
        float(least.min()) / SAFETY,
        float(least.max()) / SAFETY,
    )


class Trial:
    """Trains a model for a few steps with LAMB; `close` sets it back.

    Args:
      model: of Keras 3, compiled with its loss.
      batch_size: examples of a step.
    """

    def __init__(self, model: Any, batch_size: int) -> None:
        self._model = model
        self._batch_size = check.count("batch_size", batch_size)
        self._weights = model.get_weights()
        self._compiled = model.optimizer, model.jit_compile
        # Of dropout: each training draws the same, one that resumes too.
        self._random = probe.random_states(model)

    def train(
        self,
        rates: Sequence[float],
        examples: Examples,
        progress: Callable[[int], None] = lambda step: None,
    ) -> list[float]:
        """Trains from the weights at the beginning, a step for each rate.

        Args:
          rates: of LAMB, one a step.
          examples: from which batches are drawn.
          progress: called after each step with its number, from 1.

        Returns:
          The loss of each batch before its step; NaN from where one is not
          finite or is above 4 times the least, where the training stops.
        """
        import tf_lamb

        model, losses = self._model, [math.nan] * len(rates)
        self._reset()
        probe.exchange(
            model,
            tf_lamb.LAMB(
                _schedule(rates),
                weight_decay=0.01,
                exclude_from_weight_decay="biases_and_norms",
            ),
            probe.backend_of(model) == "jax",  # elsewhere it would be slow
        )
        for k in range(len(rates)):
            x, y, weight = examples.draw(self._batch_size)
            model.reset_metrics()  # Keras 3.10 would give the mean so far.
            logs = model.train_on_batch(x, y, weight, return_dict=True)
            loss = float(logs["loss"])
            least = np.nanmin([*losses, loss])
            if not math.isfinite(loss) or loss > 4 * abs(least) + 1e-12:
                break
            losses[k] = loss
            progress(k + 1)
        return losses

    def close(self) -> None:
        """Gives the model its weights, optimizer and loss again."""
        self._reset()
        probe.exchange(self._model, *self._compiled)

    def _reset(self) -> None:
        self._model.set_weights(self._weights)
        for variable, value in self._random:
            variable.assign(value)


def _schedule(rates: Sequence[float]) -> Any:
    """A schedule with these rates."""
    import keras

    steps = list(range(len(rates) - 1))
    if not steps:
        return float(rates[0])
    return keras.optimizers.schedules.PiecewiseConstantDecay(
        steps, [float(r) for r in rates]
    )


class Row(NamedTuple):
    """What is advised for a batch.

    Attributes:
      batch_size: examples of a step.
      rate: of LAMB: the range test's, by the square-root rule.
      untuned_bert: the LAMB paper's rate for BERT's pretraining.
      untuned_imagenet: the LAMB paper's rate for ResNet-50.
      warmup_bert: the paper's share of all steps, for BERT's pretraining.
      steps_factor: steps over those at an infinite batch.
      examples_factor: examples over the fewest possible.
    """

    batch_size: int
    rate: float
    untuned_bert: float
    untuned_imagenet: float
    warmup_bert: float
    steps_factor: float
    examples_factor: float


def rows(
    found: noise_scale.NoiseScale, rate: float, batch_size: int, most: int = 7
) -> list[Row]:
    """Advice for batches two apart in powers of two, around the noise scale.

    Args:
      found: the noise scale.
      rate: of LAMB at `batch_size`.
      batch_size: examples of a step of the range test.
      most: rows.
    """
    middle = found.value if math.isfinite(found.value) else found.lower
    power = round(math.log2(max(middle, 2 ** (most // 2))))
    sizes = [2 ** (power + k - most // 2) for k in range(most)]
    return [_row(found, rate, batch_size, size) for size in sizes]


def _row(
    found: noise_scale.NoiseScale, rate: float, base: int, size: int
) -> Row:
    bert = schedules.untuned_bert(size)
    scaled = schedules.scale_learning_rate(
        rate, base_batch_size=base, global_batch_size=size
    )
    return Row(
        size,
        scaled,
        bert.learning_rate,
        schedules.untuned_imagenet(size).learning_rate,
        bert.warmup,
        found.steps_factor(size),
        found.examples_factor(size),
    )


def in_words(
    start: noise_scale.NoiseScale,
    trained: noise_scale.NoiseScale,
    rate_range: RateRange,
    batch_size: int,
    train_steps: int,
) -> str:
    """The advice, a paragraph.

    Args:
      start: at the weights as they were.
      trained: after training.
      rate_range: of the range tests.
      batch_size: examples of their steps.
      train_steps: steps before `trained`.
    """
    useful = schedules.scale_learning_rate(
        rate_range.rate,
        base_batch_size=batch_size,
        global_batch_size=max(1, round(min(trained.value, 2**40))),
    )
    bert = schedules.untuned_bert(batch_size)
    steps, data = (
        trained.steps_factor(batch_size),
        trained.examples_factor(batch_size),
    )
    if math.isinf(trained.upper):
        largest = (
            f"The measurement does not bound the noise scale from above: the "
            f"largest useful batch is at least {trained.lower:,.0f}; take more "
            "records or a larger batch to say more."
        )
    else:
        largest = (
            f"The largest useful batch is about {trained.value:,.0f} examples; "
            f"there LAMB's rate is {useful:.2g} by the square-root rule."
        )
    return (
        f"The gradient noise scale is {_shown(start)} examples at the weights "
        f"given, and {_shown(trained)} after {train_steps} steps of training. "
        f"{largest} A batch of {batch_size:,} takes {steps:.2f} times the "
        f"fewest possible steps and {data:.2f} times the fewest possible "
        f"examples. At that batch the range test's loss is least at a rate "
        f"of {10 * rate_range.rate:.2g}; begin with a tenth of it, "
        f"{rate_range.rate:.2g} (tests: {rate_range.lower:.2g} to "
        f"{rate_range.upper:.2g}), and warm up. The LAMB paper's untuned rule "
        f"for BERT gives {bert.learning_rate:.2g} with a warmup of "
        f"{100 * bert.warmup:.2g}% of all steps. The noise scale grows during "
        "training, and a range test of a few steps sees only its beginning: "
        "these are places from which to begin tuning."
    )


def _shown(found: noise_scale.NoiseScale) -> str:
    upper = "unbounded" if math.isinf(found.upper) else f"{found.upper:,.0f}"
    value = "unknown" if math.isinf(found.value) else f"{found.value:,.0f}"
    return f"{value} (95%: {found.lower:,.0f} to {upper})"


def plot(
    path: Any,
    start: noise_scale.NoiseScale,
    trained: noise_scale.NoiseScale,
    rate_range: RateRange,
    batch_size: int,
) -> None:
    """Draws the range tests, and steps and examples against the batch.

    Args:
      path: of a PNG file.
      start: at the weights as they were.
      trained: after training.
      rate_range: of the range tests.
      batch_size: examples of their steps.
    """
    figure = figures.new("advice.plot", 10, 3.8)
    left, right = figure.subplots(1, 2)
    for losses in rate_range.losses:
        left.semilogx(rate_range.rates, losses)
    left.axvspan(rate_range.lower, rate_range.upper, alpha=0.2)
    left.axvline(rate_range.rate, linestyle="--")
    left.set_xlabel("LAMB's rate (dashed: advised, shaded: range of tests)")
    left.set_ylabel("loss, smoothed")
    left.set_title(f"Rate-range test, batch {batch_size:,}")
    for name, found in (("weights given", start), ("trained", trained)):
        if not (math.isfinite(found.value) and found.value > 0):
            continue
        sizes = found.value * np.logspace(-2, 2, 100)
        line = right.loglog(
            1 + sizes / found.value,
            1 + found.value / sizes,
            label=f"{name}: {_shown(found)}",
        )[0]
        at = batch_size / found.value
        right.plot(1 + at, 1 + 1 / at, "o", color=line.get_color())
    right.set_xlabel("examples over the fewest possible")
    right.set_ylabel("steps over the fewest possible")
    right.set_title(f"What a batch costs (dots: batch {batch_size:,})")
    right.legend(fontsize="small")
    figures.save(figure, path)
