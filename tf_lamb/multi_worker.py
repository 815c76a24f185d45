"""Training in several processes: `fit`, equal models, checkpoints, saving.

For `tf.distribute.MultiWorkerMirroredStrategy`, with Keras 3 or tf_keras:

    multi_worker.enable_fit()  # Keras 3 only
    model = multi_worker.build_same(strategy, make_model)
    steps = multi_worker.Checkpoint(folder, every=100)
    done = steps.restore(model)
    model.fit(dataset.skip(done), callbacks=[steps], ...)
    multi_worker.save(model, "model.keras")

Every worker has to make the same calls: to read a variable of which each worker
has a part is a collective operation.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any, Callable, Iterator, Mapping, Sequence, Union

import tensorflow as tf

from tf_lamb import check, loss_scaling, same_model
from tf_lamb.any_callback import AnyCallback

PathLike = Union[str, "os.PathLike[str]"]
_HINT = "start every worker with the same script, flags and versions"


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Whether this process is the one that writes files.

    Args:
      strategy: any strategy; without other workers there is one process.
    """
    resolver = strategy.cluster_resolver
    if resolver is None or not resolver.task_type:
        return True
    cluster = resolver.cluster_spec().as_dict()
    if "chief" in cluster:
        return resolver.task_type == "chief"
    return resolver.task_type == "worker" and resolver.task_id == 0


def _in_multi_worker_mode(strategy: tf.distribute.Strategy) -> bool:
    return (
        isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)
        and strategy.extended._in_multi_worker_mode()
    )


def enable_fit() -> None:
    """Makes Keras 3's `fit`, `evaluate` and `predict` work in several workers.

    Under MultiWorkerMirroredStrategy two functions of Keras 3 (seen in 3.15.1)
    raise, and a third lets a loss scaler decide by each worker's own gradients,
    so that a worker with an overflow waits for the others forever. This call
    replaces the three; under other strategies they work as before. Keras 2 does
    not need it: there the call does nothing.

    Raises:
      RuntimeError: this Keras has not the internals that are replaced.
    """
    import keras

    if keras.__version__.startswith("2."):
        return
    try:
        from keras.src.backend.tensorflow import trainer

        build = trainer.TensorFlowTrainer._maybe_symbolic_build
        reduce = trainer.reduce_per_replica
        loss_scaling.share_overflows()
    except (ImportError, AttributeError):
        raise RuntimeError(
            f"multi_worker.enable_fit: Keras {keras.__version__} has not the "
            "internals of Keras 3.15 that this replaces; train by a loop of "
            "your own with strategy.run, or install keras==3.15.1."
        ) from None
    if not hasattr(build, "_tf_lamb"):
        trainer.TensorFlowTrainer._maybe_symbolic_build = _local_build(build)
        trainer.reduce_per_replica = _scalar_reduce(reduce)


def _local_build(original: Callable[..., Any]) -> Any:
    """Mends that Keras reduces a batch, a tuple, over workers to see shapes."""

    @functools.wraps(original)
    def build(
        model: Any,
        iterator: Iterator[Any] | None = None,
        data_batch: Any = None,
    ) -> Any:
        strategy = model._distribute_strategy
        if iterator is None or not _in_multi_worker_mode(strategy):
            return original(model, iterator, data_batch)
        if model.steps_per_execution > 1:
            raise ValueError(
                f"steps_per_execution={model.steps_per_execution}: TensorFlow "
                "cannot run collective operations in the conditional loop that "
                "Keras 3 makes of several steps; compile the model with "
                "steps_per_execution=1 for several workers."
            )
        for *_, batches in iterator:  # two or three, by version
            # The first replica's part has the shapes, bar the batch size.
            batch = tf.nest.map_structure(
                lambda v: strategy.experimental_local_results(v)[0],
                next(batches),
            )
            break
        with strategy.scope():
            return model._symbolic_build(data_batch=batch)

    marked: Any = build
    marked._tf_lamb = True
    return marked


def _scalar_reduce(original: Callable[..., Any]) -> Any:
    """Mends that Keras averages metrics, which are scalars, along axis 0."""

    @functools.wraps(original)
    def reduce(
        values: Any, strategy: tf.distribute.Strategy, reduction: str
    ) -> Any:
        if reduction not in ("auto", "mean") or not _in_multi_worker_mode(
            strategy
        ):
            return original(values, strategy, reduction)
        return tf.nest.map_structure(
            lambda v: strategy.reduce(tf.distribute.ReduceOp.MEAN, v, None),
            values,
        )

    return reduce


def save(model: Any, path: PathLike) -> None:
    """Calls `model.save(path)` on all workers; only the chief's file is kept.

    The other workers have to take part, because variables of which each worker
    has a part are summed up when they are read.

    Args:
      model: a Keras model made under the strategy.
      path: a file that ends in `.keras` or `.h5`; its folder is made if it does
        not exist.
    """
    path = Path(path)
    strategy = model.distribute_strategy
    if not is_chief(strategy):
        with tempfile.TemporaryDirectory() as folder:
            model.save(str(Path(folder) / path.name))
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".writing-{path.name}")
    model.save(str(temporary))
    os.replace(temporary, path)


def build_same(
    strategy: tf.distribute.Strategy, make_model: Callable[[], Any]
) -> Any:
    """Makes the model under `strategy`, after a comparison of all workers.

    If models, optimizers or pattern lists differ between workers, the workers
    hang, or they fail far from the cause, because making a variable is already
    a collective operation. If only an activation or a loss differs, nothing
    shows it at all. Therefore the model is first made outside the strategy,
    described (`same_model.describe`), compared and dropped.

    Args:
      strategy: the strategy, the same kind on every worker.
      make_model: makes and compiles the model, and in it the optimizer; it is
        called twice.

    Returns:
      The model, made in `strategy.scope()`.

    Raises:
      ValueError: on every worker, if two differ; the message has the workers,
        the name of what differs, and both values.
    """
    model = make_model()
    described = same_model.describe(model)
    # So that layers of the second model are `dense` again, not `dense_1`.
    _reset_names(same_model.keras_of(model))
    del model
    _compare(strategy, described)
    with strategy.scope():
        return make_model()


def _reset_names(keras: Any) -> None:
    if hasattr(keras.backend, "reset_uids"):
        keras.backend.reset_uids()
        return
    from keras.src.utils import naming  # Keras 3

    naming.reset_uids()


def gather(strategy: tf.distribute.Strategy, codes: Sequence[int]) -> Any:
    """Each replica's vector of whole numbers, int32 `[replicas, length]`.

    Args:
      strategy: any strategy; every worker makes the same call.
      codes: as many on each worker.
    """
    values = strategy.experimental_distribute_values_from_function(
        lambda _: tf.constant([list(codes)], tf.int32)
    )
    return strategy.gather(values, axis=0).numpy()


def _compare(
    strategy: tf.distribute.Strategy, described: Mapping[str, Any]
) -> None:
    """Raises ValueError on every worker if two workers' descriptions differ."""
    text = json.dumps(described).encode("utf-8")
    longest = int(gather(strategy, [len(text)]).max())
    rows = gather(strategy, list(text.ljust(longest)))
    workers = [json.loads(bytes(row.tolist()).decode()) for row in rows]
    first = workers[0]
    for i, other in enumerate(workers):
        for name in [*first, *(n for n in other if n not in first)]:
            a, b = (x.get(name, "none") for x in (first, other))
            if a != b:
                raise ValueError(
                    f"workers disagree on {name}: replica 0 has {a!r}, "
                    f"replica {i} has {b!r}; {_HINT}."
                )


class Checkpoint(AnyCallback):
    """Saves a checkpoint every `every` steps, from which all workers resume.

    A checkpoint has the weights, the optimizer (with the sums of an unfinished
    accumulation) and the count of steps. The chief's files are kept, those of
    the other workers are dropped. If a worker dies, the job ends, because the
    others cannot finish a collective operation without it. Start all workers
    again: they resume from the last checkpoint, on the same batches if the data
    come in the same order.

    Args:
      folder: where the checkpoints are; all workers must see it.
      every: steps between checkpoints, >= 1.
      keep: how many checkpoints are kept.

    Raises:
      ValueError: `every` is not a whole number >= 1.
    """

    _supports_tf_logs = True  # It reads none.

    def __init__(self, folder: PathLike, every: int, keep: int = 2) -> None:
        self.folder = Path(folder)
        self.every = check.count("every", every)
        self.keep = keep
        self.step = 0
        self._manager: Any = None

    def restore(self, model: Any) -> int:
        """Restores the last checkpoint, if there is one.

        Args:
          model: compiled, made under the strategy.

        Returns:
          How many steps are done: as many batches have to be skipped.
        """
        strategy = model.distribute_strategy
        # Keras 3's loss scaler would make its variables a second time.
        if not getattr(model.optimizer, "built", False):
            with strategy.scope():
                model.optimizer.build(model.trainable_variables)
        self._step = tf.Variable(0, dtype=tf.int64, trainable=False)
        checkpoint = tf.train.Checkpoint(
            model=model, optimizer=model.optimizer, step=self._step
        )
        self._scratch: str | None = None
        folder: PathLike = self.folder
        if not is_chief(strategy):
            self._scratch = folder = tempfile.mkdtemp()
        self._manager = tf.train.CheckpointManager(
            checkpoint, str(folder), max_to_keep=self.keep
        )
        latest = tf.train.latest_checkpoint(str(self.folder))
        if latest:
            checkpoint.restore(latest).assert_existing_objects_matched()
        self.step = int(self._step.numpy())
        return self.step

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Called by Keras: counts the step, and saves when it is time.

        Raises:
          ValueError: `restore` was not called.
        """
        if self._manager is None:
            raise ValueError(
                "multi_worker.Checkpoint: call restore(model) before fit, and "
                "skip as many batches as it returns."
            )
        self.step += 1
        if self.step % self.every == 0:
            self._step.assign(self.step)
            self._manager.save(checkpoint_number=self.step)

    def on_train_end(self, logs: Any = None) -> None:
        """Called by Keras: removes the files of workers but the chief's."""
        if self._scratch:
            shutil.rmtree(self._scratch, ignore_errors=True)
