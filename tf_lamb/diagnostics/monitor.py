"""What each layer does while it trains, and alarms where it goes wrong."""

from __future__ import annotations

import importlib.util
import os
import warnings
from pathlib import Path
from typing import Any, Callable, Mapping, Sequence

import numpy as np

from tf_lamb import check, wrapped
from tf_lamb.callbacks import StepTable
from tf_lamb.diagnostics import every as counting
from tf_lamb.diagnostics import examples, heat_map
from tf_lamb.diagnostics import probe as probes
from tf_lamb.diagnostics.alarms import Alarms, Record

__all__ = ["TrainingMonitor"]

# Tables, each `NAME.csv`, and attributes of a `Record`.
_TABLES = {
    "weight_norm": "weight_norms",
    "gradient_norm": "gradient_norms",
    "update_ratio": "update_ratios",
    "trust_ratio": "trust_ratios",
}


class TrainingMonitor(counting.EveryUpdates):
    r"""Writes `|w|`, `|g|`, `|update| / |w|` and trust ratios, by variable.

    It works with each Keras, on each backend, in `fit` or in a loop of one's
    own (`record`, `close`), with any optimizer, and around loss scalers. It
    never changes the training: the step's program is the same, and no variable
    is assigned to. Every `every` updates it

    - takes the weights before and after the update: `|w|` after it, and
      `|update| / |w|` with the weights before it: all that the update did,
      weight decay included; LAMB's rate, where a ratio is not bounded;
    - computes a gradient of `batch_size` examples of `data` at the weights
      after it, in inference mode, with the loss of `compile`: `|g|`, without
      loss scaling or clipping, whatever the optimizer, the accumulation and the
      replicas are;
    - reads the `trust_ratios` that LAMB and LARS of this package remember.

    Tables go to `log_dir`: `weight_norm.csv`, `gradient_norm.csv`,
    `update_ratio.csv`, `trust_ratio.csv`, one column a variable and one row a
    record (`callbacks.read_table` reads them). What cannot be shown is said
    once: `|g|` without `data`, trust ratios of other optimizers.

    Args:
      log_dir: folder of the tables and pictures, made if it does not exist.
      data: examples for `|g|`: `(x, y)` or `(x, y, sample_weight)` of arrays,
        or batches of them (`examples.Examples`); None: no `|g|` and no alarm
        of it.
      every: updates between records, >= 1.
      batch_size: examples of the gradient, >= 1.
      loss: function of `(y, y_pred)` in place of the loss of `compile`.
      tensorboard: whether to write scalars to `log_dir` for TensorBoard, and
        the heat maps at the end (needs TensorFlow).
      histograms: whether to write a histogram of each weight too, which copies
        all weights to the host.
      png: whether to draw a heat map of each table at the end, variables x
        steps (needs matplotlib).
      alarms: what is looked for (`alarms.Alarms`); None: the defaults.
      first_step: the last update before those of this run, >= 0; later rows of
        the tables are dropped.

    Under `steps_per_execution`, `|update|` is that of all updates of one
    execution. Under several workers each measures, and the chief writes.

    Raises:
      ValueError: an argument is out of its range.

    Example:
      >>> import keras, numpy as np, tempfile, tf_lamb
      >>> from tf_lamb.callbacks import read_table
      >>> model = keras.Sequential(
      ...     [keras.Input((3,)), keras.layers.Dense(2, name="head")],
      ...     name="net",
      ... )
      >>> model.compile(tf_lamb.LAMB(0.01), "mse")
      >>> data, folder = (np.ones((8, 3)), np.ones((8, 2))), tempfile.mkdtemp()
      >>> monitor = tf_lamb.TrainingMonitor(folder, data, 2, batch_size=4)
      >>> history = model.fit(
      ...     *data, batch_size=2, verbose=0, callbacks=[monitor]
      ... )
      >>> table = read_table(folder + "/gradient_norm.csv")
      >>> {name: [step for step, _ in points] for name, points in table.items()}
      {'net/head/kernel': [2, 4], 'net/head/bias': [2, 4]}
    """

    def __init__(
        self,
        log_dir: str | os.PathLike[str],
        data: Any = None,
        every: int = 100,
        *,
        batch_size: int = 32,
        loss: Callable[[Any, Any], Any] | None = None,
        tensorboard: bool = False,
        histograms: bool = False,
        png: bool = False,
        alarms: Alarms | None = None,
        first_step: int = 0,
    ) -> None:
        super().__init__(every, first_step)
        self.log_dir = Path(log_dir)
        self._batch_size = check.count("batch_size", batch_size)
        self._data = None if data is None else examples.Examples(data)
        if loss is not None and not callable(loss):
            raise check.refuse("loss", loss, "a function of (y, y_pred)")
        self._loss = loss
        self._tensorboard = check.flag("tensorboard", tensorboard)
        self._histograms = check.flag("histograms", histograms)
        if self._histograms and not self._tensorboard:
            raise ValueError(
                "histograms: they are written for TensorBoard; expected "
                "tensorboard=True too."
            )
        self._png = check.flag("png", png)
        for name, wanted, module in (
            ("tensorboard", self._tensorboard, "tensorflow"),
            ("png", self._png, "matplotlib"),
        ):
            if wanted and importlib.util.find_spec(module) is None:
                raise ValueError(
                    f"{name}: it needs {module}, which is not installed; "
                    f"install it, or leave {name} out."
                )
        if alarms is not None and not isinstance(alarms, Alarms):
            raise check.refuse("alarms", alarms, "an Alarms, or None")
        self._alarms = alarms or Alarms()
        self._probe: probes.Probe | None = None
        self._weights_before: Sequence[Any] | None = None
        self._tables: dict[str, StepTable] = {}
        self._writer: Any = None
        self._said: set[str] = set()

    def set_model(self, model: Any) -> None:
        """Called by Keras: the model that is trained."""
        if model is not self.model:
            self._probe, self._weights_before = None, None
        super().set_model(model)

    def activations(self, x: Any) -> dict[str, float]:
        """The variance of each layer's output, in inference mode.

        Args:
          x: inputs, as the model takes them, a batch.

        Returns:
          {layer: variance over all examples and elements}, in order. Layers
          with several outputs or none of a floating dtype are left out; of a
          layer that is called several times, it is that of one call.

        Raises:
          ValueError: the model is neither functional nor sequential.
        """
        model = self.model
        if model is None or not getattr(model, "inputs", None):
            raise ValueError(
                "activations: expected a functional or sequential model, got "
                f"{type(model).__name__}; its layers' outputs are not known."
            )
        probes.sync(model)
        base = next(c for c in type(model).__mro__ if c.__name__ == "Model")
        layers = _outputs(model)
        # A list of one input would make Keras warn of an array.
        inputs = model.inputs[0] if len(model.inputs) == 1 else model.inputs
        found = base(inputs, list(layers.values()))(x, training=False)
        found = found if isinstance(found, (list, tuple)) else [found]
        arrays = {n: probes.to_numpy(a) for n, a in zip(layers, found)}
        return {
            name: float(np.var(array.astype(np.float64)))
            for name, array in arrays.items()
            if array.dtype.kind not in "biu"
        }

    def close(self) -> None:
        """Draws the pictures and closes files; `fit` does it at its end."""
        if self._png and counting.is_chief(self.model):
            for name, table in self._tables.items():
                picture = table.path.with_suffix(".png")
                heat_map.plot_heat_map(table.path, picture)
                self._write_picture(name, picture)
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _before(self) -> None:
        if self.model.trainable_variables:
            self._weights_before = self._probing().copies()

    def _probing(self) -> probes.Probe:
        if self._probe is None or not self._probe.is_current():
            self._probe = probes.Probe(self.model, self._loss)
            self._weights_before = None
        return self._probe

    def _record(self, loss: float | None) -> None:
        record = self._measure(loss)
        if not counting.is_chief(self.model):
            return
        for message in self._alarms.find(record):
            warnings.warn(message, stacklevel=2)
        for name, attribute in _TABLES.items():
            values = getattr(record, attribute)
            if values is None or not len(values):
                continue
            if not isinstance(values, Mapping):
                values = dict(zip(record.keys, map(float, values)))
            self._table(name, record.keys).write(self.step, values)
            self._write_scalars(name, values)
        if self._histograms:
            self._write_histograms(record.keys)

    def _measure(self, loss: float | None) -> Record:
        probe, model = self._probing(), self.model
        weights, ratios = probe.weight_norms(), None
        if self._weights_before is not None:
            ratios = probe.relative_change(self._weights_before)
            self._weights_before = None
        gradients = None
        if self._data is None:
            self._say("no data were given: |g| and its alarms are left out")
        else:
            batch = self._data.draw(self._batch_size)
            gradients = np.sqrt(probe.piece_norms(batch, self._batch_size)[1])
        ours = wrapped.find_optimizers(model)
        if not ours:
            self._say("no LAMB or LARS of tf_lamb: trust ratios are left out")
        return Record(
            self.step,
            probes.keys(model),
            [len(v.shape) for v in model.trainable_variables],
            weights,
            gradients,
            ratios,
            _by_key(model, [(x, x.trust_ratios) for x in ours]),
            _by_key(model, [(x, _bounds(x)) for x in ours]),
            loss,
        )

    def _say(self, message: str) -> None:
        if message not in self._said:
            self._said.add(message)
            warnings.warn(f"TrainingMonitor: {message}.", stacklevel=2)

    def _table(self, name: str, keys: Sequence[str]) -> StepTable:
        if name not in self._tables or self._tables[name].columns[1:] != [
            *keys
        ]:
            self._tables[name] = StepTable(
                self.log_dir / f"{name}.csv",
                keys,
                max(self.step - 1, 0)
                if name in self._tables
                else self._first_step,
                renumbered=True,
            )
        return self._tables[name]

    def _summary(self) -> Any:
        import tensorflow as tf

        if self._writer is None:
            self._writer = tf.summary.create_file_writer(str(self.log_dir))
        return tf.summary

    def _write_scalars(self, name: str, values: Mapping[str, float]) -> None:
        if self._tensorboard:
            summary = self._summary()
            with self._writer.as_default(step=self.step):
                for key, value in values.items():
                    summary.scalar(f"{name}/{key}", value)

    def _write_histograms(self, keys: Sequence[str]) -> None:
        summary = self._summary()
        with self._writer.as_default(step=self.step):
            for key, variable in zip(keys, self.model.trainable_variables):
                summary.histogram(f"weights/{key}", probes.to_numpy(variable))

    def _write_picture(self, name: str, path: Path) -> None:
        if self._tensorboard:
            import tensorflow as tf

            summary = self._summary()
            image = tf.io.decode_png(tf.io.read_file(str(path)), 3)
            with self._writer.as_default(step=self.step):
                summary.image(f"heat_map/{name}", image[None])


def _by_key(
    model: Any, tables: Sequence[tuple[Any, Mapping[str, Any]]]
) -> dict[str, Any]:
    """What optimizers have of their variables, by the model's keys.

    Two optimizers of one model may call different variables the same.
    """
    found = {}
    for optimizer, values in tables:
        theirs = list(optimizer.treatments) if values else []
        for key, variable in zip(probes.keys(model), model.trainable_variables):
            try:
                place = optimizer._index(variable) if theirs else None
            except ValueError:  # another optimizer's
                continue
            if place is not None and theirs[place] in values:
                found[key] = values[theirs[place]]
    return found


def _outputs(model: Any) -> dict[str, Any]:
    """Each layer's output in a model; a shared layer has others too."""
    graph = getattr(model, "_functional", None) or model
    nodes = {
        id(getattr(node, "operation", None) or node.layer): node
        for nodes in graph._nodes_by_depth.values()
        for node in nodes
    }
    outputs = {
        layer.name: examples.leaves(nodes[id(layer)].outputs)
        for layer in model.layers
        if id(layer) in nodes
    }
    return {
        name: found[0] for name, found in outputs.items() if len(found) == 1
    }


def _bounds(optimizer: Any) -> dict[str, tuple[float, float]]:
    """The bounds of each adapted variable's trust ratio, where it has some."""
    found = {}
    for key, treatment in optimizer.treatments.items():
        hyper: Any = optimizer
        if treatment.group is not None:
            hyper = optimizer._group_hypers[treatment.group]
        if treatment.adapt and hyper.trust_ratio_bounds:
            found[key] = hyper.trust_ratio_bounds
    return found
