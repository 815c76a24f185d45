r"""Local SGD: workers train alone and average their weights every few updates.

Worker `i` of `n` takes `H` updates of its own on its own data,
$w_i \leftarrow w_i - \eta\, u_i$, and then all workers set
$w_i \leftarrow \frac1n \sum_j w_j$. One all-reduce of the weights takes the
place of `H` all-reduces of gradients.

A callback cannot do this to a model that was made under a strategy's scope:
its replicas share every variable, and its optimizer adds up their gradients.
So each worker is a process with a model of its own, made outside of the scope;
the strategy is used for the averages alone.

References:
  Stich 2019 (arXiv:1805.09767); Lin et al. 2020 (arXiv:1808.07217); Yu et al.
  2019 (arXiv:1905.03817), with momentum.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from tf_lamb import check, multi_worker
from tf_lamb.diagnostics.every import EveryUpdates

__all__ = ["LocalSGD"]


class LocalSGD(EveryUpdates):
    """Averages weights over workers every `steps` updates.

    At the beginning every worker gets the chief's weights; at the end of
    `fit` the weights are averaged once more, so that all workers have the same
    model. In a custom loop, call `set_model(model)` before the first batch,
    `record(model)` after each one, and `close()` at the end. All floating-point
    variables of the model are averaged, moving statistics of batch
    normalisation too. The optimizer's moments stay each worker's own: with
    plain SGD and with momentum, whose updates are linear in the gradients,
    `steps=1` is synchronous SGD to rounding; with LAMB, LARS or Adam it is
    not, because each worker's step is normalised by its own gradients.

    Every worker needs data of its own (`dataset.shard(n, i)`) and as many
    batches as the others. Keras 3 on TensorFlow, tf_keras, and `tf.keras` of
    TensorFlow 2.15.

    Args:
      steps: `H`, updates between averages, >= 1. Where several are taken at
        once (`steps_per_execution`), at the next end of an execution.
      strategy: `tf.distribute.MultiWorkerMirroredStrategy`, made at the start
        of each worker's program, with `TF_CONFIG` as TensorFlow documents it.

    Raises:
      ValueError: an argument is none of these; in training, on every worker:
        the model was made under a strategy's scope, or workers have done
        different numbers of updates.

    Example:
      Without `TF_CONFIG` there is one worker, which averages with itself.

      >>> import keras, numpy as np, tensorflow as tf, tf_lamb
      >>> strategy = tf.distribute.MultiWorkerMirroredStrategy()
      >>> layers = [keras.Input((2,)), keras.layers.Dense(1)]
      >>> model = keras.Sequential(layers)
      >>> model.compile(keras.optimizers.SGD(0.1), "mse")
      >>> local = tf_lamb.LocalSGD(4, strategy)
      >>> history = model.fit(
      ...     np.ones((16, 2)), np.ones((16, 1)), batch_size=2, verbose=0,
      ...     callbacks=[local],
      ... )
      >>> local.averages  # after updates 4 and 8
      2
    """

    def __init__(self, steps: int, strategy: Any) -> None:
        super().__init__(check.count("steps", steps))
        if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
            raise ValueError(
                f"strategy: expected a MultiWorkerMirroredStrategy, got "
                f"{type(strategy).__name__}: the replicas of other strategies "
                "share their variables and cannot train apart."
            )
        self._strategy = strategy
        self.averages = 0
        self._averaged_at: int | None = None

    def set_model(self, model: Any) -> None:
        """Called by Keras: gives the model the chief's weights.

        Raises:
          ValueError: the model was made under a strategy's scope.
        """
        super().set_model(model)
        if type(model.distribute_strategy) is not type(_no_strategy()):
            raise ValueError(
                "LocalSGD: expected a model that was made outside of "
                "strategy.scope(), so that each worker has its own, got one "
                f"under {type(model.distribute_strategy).__name__}."
            )
        self._exchange(tf.distribute.ReduceOp.SUM)
        self._averaged_at = None

    def close(self) -> None:
        """Averages once more, unless the last update has been."""
        if self._averaged_at != self.step:
            self._record(None)

    def _record(self, loss: float | None) -> None:
        # First: workers that are not at the same update must not mix.
        done = multi_worker.gather(self._strategy, [self.step]).ravel()
        if len(set(done.tolist())) > 1:
            # So that the end of training, which follows, waits for no one.
            self._averaged_at = self.step
            raise ValueError(
                f"LocalSGD: the workers have done {done.tolist()} updates; "
                "give each as many batches (repeat() and steps_per_epoch)."
            )
        self._exchange(tf.distribute.ReduceOp.MEAN)
        self._averaged_at = self.step
        self.averages += 1

    def _exchange(self, operation: Any) -> None:
        """Replaces weights by the mean of all, or, for a sum, the chief's."""
        before = self.model.get_weights()
        floats = [
            i
            for i, variable in enumerate(self.model.weights)
            if "float" in str(variable.dtype)
        ]
        if not floats:
            return
        # One vector, so one all-reduce; float64 only where a weight has it.
        wide = any(before[i].dtype == np.float64 for i in floats)
        dtype = np.float64 if wide else np.float32
        parts = [before[i].astype(dtype).ravel() for i in floats]
        vector = np.concatenate(parts)
        mean = operation is tf.distribute.ReduceOp.MEAN
        # The first of the chief's devices; the others' are worth nothing.
        counted = [mean or multi_worker.is_chief(self._strategy)]

        def value(_: Any) -> Any:
            count, counted[0] = counted[0], mean
            return tf.constant(vector if count else np.zeros_like(vector))

        spread = self._strategy.experimental_distribute_values_from_function
        found = self._strategy.reduce(operation, spread(value), axis=None)
        ends = np.cumsum([part.size for part in parts])[:-1]
        after = list(before)
        for i, part in zip(floats, np.split(found.numpy(), ends)):
            after[i] = part.reshape(before[i].shape).astype(before[i].dtype)
        self.model.set_weights(after)


def _no_strategy() -> Any:
    """TensorFlow's strategy where no scope is entered."""
    with tf.init_scope():
        return tf.distribute.get_strategy()
