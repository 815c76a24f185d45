"""The gradient noise scale of a model in training."""

from __future__ import annotations

import os
import warnings
from typing import Any, Callable, Mapping

import numpy as np

from tf_lamb import check, exclusion
from tf_lamb.callbacks import StepTable
from tf_lamb.diagnostics import every as counting
from tf_lamb.diagnostics import examples, noise_scale
from tf_lamb.diagnostics import probe as probes
from tf_lamb.diagnostics.noise_scale import NoiseScale

__all__ = ["GradientNoiseScale"]

_ALL = "all"
_COLUMNS = ("value", "lower", "upper", "gradient_squared", "trace")


class GradientNoiseScale(counting.EveryUpdates):
    r"""Measures the gradient noise scale `B_simple = tr Sigma / |G|^2`.

    Up to a batch of about `B_simple` examples, more data parallelism saves
    almost as many steps as it costs examples; at that batch, a run takes twice
    the fewest steps and twice the fewest examples; far above it, more examples
    save few steps (McCandlish et al. 2018).

    Every `every` updates it takes `big_batch` examples of `data`, cuts them
    into small batches of `small_batch`, and computes the gradient of each: the
    norms of these are of the small batch size, that of their mean is of the big
    one. That costs one gradient of `big_batch` examples, so `1 / every` of the
    run's own time where the run's batch is as large, and memory for two more
    gradients in float32. The optimizer's step is not looked into: the same
    numbers come out under accumulation, replicas, loss scaling, and with any
    optimizer, on each backend. The weights stay as they are, to the last bit.

    Gradients are those of inference mode: noise of dropout is not counted, and
    batch normalisation takes its moving statistics. The loss has to be a mean
    over examples.

    `|G|^2` and `tr Sigma` are averaged over the records, then divided
    (`noise_scale.estimate`). Both change in training; `decay` forgets old
    records. All are forgotten where another model, loss or set of trainable
    variables is trained, and in a run that is resumed, where the callback is a
    new one.

    Args:
      data: `(x, y)` or `(x, y, sample_weight)` of arrays, from which examples
        are drawn at random, or batches of them (`examples.Examples`).
      small_batch: examples of a small batch, >= 1.
      big_batch: examples of all of them, a multiple of `small_batch`, at least
        twice it.
      every: updates between records, >= 1.
      decay: a record's weight over that of the next, in (0, 1); None: all
        records count the same.
      groups: {name: regex of variable paths}: the noise scale of each group
        too; a variable belongs to the first that matches it.
      loss: function of `(y, y_pred)` in place of the loss of `compile`.
      csv_path: table of the estimates, a row a record; None: none.
      log_dir: folder for TensorBoard (needs TensorFlow); None: none.
      verbose: whether to print the result at the end of `fit`.
      first_step: the last update before those of this run, >= 0.

    Attributes:
      result: the `NoiseScale` of all variables; None before the first record.
      results: {group: its `NoiseScale`}; that of all is `"all"`.

    Raises:
      ValueError: an argument is out of its range; in training, a group has no
        variable.

    References:
      McCandlish et al. 2018 (arXiv:1812.06162).

    Example:
      >>> import keras, numpy as np, tf_lamb
      >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
      >>> model.compile(tf_lamb.LAMB(0.01), "mse")
      >>> x = np.random.default_rng(0).normal(size=(256, 3))
      >>> noise = tf_lamb.GradientNoiseScale((x, x[:, :1]), 2, 32, every=1)
      >>> history = model.fit(
      ...     x, x[:, :1], batch_size=32, verbose=0, callbacks=[noise]
      ... )  # doctest: +ELLIPSIS
      Gradient noise scale: ... examples (95%: ...), 8 records. ...
    """

    def __init__(
        self,
        data: Any,
        small_batch: int,
        big_batch: int,
        every: int = 100,
        *,
        decay: float | None = None,
        groups: Mapping[str, str] | None = None,
        loss: Callable[[Any, Any], Any] | None = None,
        csv_path: str | os.PathLike[str] | None = None,
        log_dir: str | os.PathLike[str] | None = None,
        verbose: bool = True,
        first_step: int = 0,
    ) -> None:
        super().__init__(every, first_step)
        self._examples = examples.Examples(data)
        self._small = check.count("small_batch", small_batch)
        self._big = check.count("big_batch", big_batch, 2 * self._small)
        if self._big % self._small:
            raise check.refuse(
                "big_batch", big_batch, f"a multiple of {self._small}"
            )
        if decay is not None and not 0 < check.share("decay", decay) < 1:
            raise check.refuse("decay", decay, "a number in (0, 1), or None")
        self._decay = decay
        self._patterns = _checked_groups(groups)
        if loss is not None and not callable(loss):
            raise check.refuse("loss", loss, "a function of (y, y_pred)")
        self._loss = loss
        self._csv_path, self._log_dir = csv_path, log_dir
        self._verbose = check.flag("verbose", verbose)
        self._table: StepTable | None = None
        self._writer: Any = None
        self._forget()

    @property
    def result(self) -> NoiseScale | None:
        """The noise scale of all variables."""
        return self.results.get(_ALL)

    def set_model(self, model: Any) -> None:
        """Called by Keras: records of another model are forgotten."""
        if model is not self.model:
            self._forget()
        super().set_model(model)

    def describe(self) -> str:
        """The results in words, one line a group."""
        lines = []
        for name, found in self.results.items():
            of = "" if name == _ALL else f" of {name!r}"
            lines.append(
                f"Gradient noise scale{of}: {found.value:.4g} examples (95%: "
                f"{found.lower:.4g} to {found.upper:.4g}), {found.records} "
                "records."
            )
        if self.result is not None:
            lines[0] += (
                " Up to a batch of about that size, more data parallelism "
                "pays; at it, steps and examples are twice the fewest."
            )
        return "\n".join(lines) or "Gradient noise scale: no record yet."

    def on_train_end(self, logs: Any = None) -> None:
        """Called by Keras: prints the result."""
        if self._verbose and counting.is_chief(self.model):
            print(self.describe())
        super().on_train_end(logs)

    def close(self) -> None:
        """Closes files; a custom loop calls it at its end."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _forget(self) -> None:
        self._probe: probes.Probe | None = None
        self._of: tuple[Any, list[int]] | None = None
        self._members: dict[str, list[int]] = {}
        self._norms: dict[str, list[tuple[float, float]]] = {}
        self.results: dict[str, NoiseScale] = {}

    def _record(self, loss: float | None) -> None:
        of = self.model.loss, [id(v) for v in self.model.trainable_variables]
        if self._probe is None or self._of != of:
            self._forget()
            self._of = of
            self._members = self._resolve()
            self._norms = {name: [] for name in self._members}
        if self._probe is None or not self._probe.is_current():
            self._probe = probes.Probe(self.model, self._loss)
        batch = self._examples.draw(self._big)
        pieces, whole = self._probe.piece_norms(batch, self._small)
        if not (np.isfinite(pieces).all() and np.isfinite(whole).all()):
            warnings.warn(
                f"GradientNoiseScale: update {self.step}: the gradient is not "
                "finite; the record is left out.",
                stacklevel=2,
            )
            return
        for name, members in self._members.items():
            small, big = pieces[:, members].sum(1).mean(), whole[members].sum()
            self._norms[name].append((float(small), float(big)))
            smalls, bigs = zip(*self._norms[name])
            self.results[name] = noise_scale.estimate(
                smalls, bigs, self._small, self._big, decay=self._decay
            )
        if counting.is_chief(self.model):
            self._write()

    def _resolve(self) -> dict[str, list[int]]:
        variables = self.model.trainable_variables
        members = {_ALL: list(range(len(variables)))}
        if self._patterns:
            places = exclusion.first_matches(
                list(self._patterns.values()),
                probes.keys(self.model),
                [tuple(v.shape) for v in variables],
                "raise",
            )
            for i, name in enumerate(self._patterns):
                members[name] = [j for j, p in enumerate(places) if p == i]
        return members

    def _write(self) -> None:
        values = {
            column if name == _ALL else f"{name}/{column}": getattr(
                found, column
            )
            for name, found in self.results.items()
            for column in _COLUMNS
        }
        if self._csv_path is not None:
            if self._table is None:
                self._table = StepTable(
                    self._csv_path, values, self._first_step
                )
            self._table.write(self.step, values)
        if self._log_dir is None:
            return
        import tensorflow as tf

        if self._writer is None:
            self._writer = tf.summary.create_file_writer(str(self._log_dir))
        with self._writer.as_default(step=self.step):
            for name, value in values.items():
                tf.summary.scalar(f"noise_scale/{name}", value)


def _checked_groups(groups: Any) -> dict[str, str]:
    if groups is None:
        return {}
    if not isinstance(groups, Mapping) or _ALL in groups:
        raise check.refuse(
            "groups", groups, "a dict {name: regex} without the name 'all'"
        )
    exclusion.check_patterns("groups", list(groups.values()))
    return dict(groups)
