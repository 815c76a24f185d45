"""The flags that choose a strategy for several devices, and the strategy."""

import json
import math
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import keras
import tensorflow as tf
from absl import flags

from official_models.common import (
    data_parallel,
    files,
    model_parallel,
    readers,
)
from official_models.common.errors import InputError, first_line
from official_models.common.flags import without_effect
from official_models.common.readers import Reader
from tf_lamb import multi_worker, sharding

FLAGS = flags.FLAGS
ON_JAX = ("data_parallel", "model_parallel")
NAMES = ("none", "mirrored", "multi_worker", "tpu", *ON_JAX)
Strategy = tf.distribute.Strategy | data_parallel.Distributed


def define_flags() -> None:
    """Defines the flags."""
    flags.DEFINE_enum(
        "strategy",
        "none",
        list(NAMES),
        "none: one device; mirrored: the GPUs of this machine; multi_worker: "
        "one process a machine, as TF_CONFIG says; tpu: a Cloud TPU; "
        "data_parallel: all devices, with KERAS_BACKEND=jax; model_parallel: "
        "these too, weights split over --mesh.",
    )
    flags.DEFINE_string(
        "mesh",
        None,
        "AxB, such as 2x4: A parts of a batch times B of the weights; all "
        "devices of --strategy model_parallel.",
    )
    flags.DEFINE_boolean(
        "shard_state",
        False,
        "Split the state of LAMB and LARS over the devices that share a batch "
        "too (ZeRO-1), with --strategy data_parallel or model_parallel.",
    )
    flags.DEFINE_list(
        "devices",
        [],
        "Devices of --strategy mirrored, such as GPU:0,GPU:1. Default: all.",
    )
    flags.DEFINE_string(
        "tpu",
        "",
        "TPU of --strategy tpu: its name or grpc:// address. Default: the one "
        "of this machine.",
    )
    flags.DEFINE_integer(
        "steps_per_execution",
        1,
        "Batches in one call of the compiled step: on a TPU as many as "
        "--log_every.",
        1,
    )
    flags.DEFINE_string(
        "job_addresses",
        "",
        "Where the processes of --strategy data_parallel meet: host:port of "
        "the first; auto: as the Cloud TPU says.",
    )
    flags.DEFINE_integer("num_processes", None, "Number of those processes.", 1)
    flags.DEFINE_integer(
        "process_id", None, "Number of this process among them, from 0.", 0
    )
    # Where the replicas are; how many there are is in a run's facts.
    without_effect("devices", "tpu", "steps_per_execution")
    without_effect("job_addresses", "num_processes", "process_id")
    without_effect("mesh", "shard_state")


def from_flags(layouts: model_parallel.Layouts | None = None) -> Strategy:
    """The strategy of the flags.

    Call it before TensorFlow or JAX runs anything.

    Args:
        layouts: of the model's variables, for --strategy model_parallel, as
            `model_parallel.layout_map` takes them.

    Raises:
        InputError: it does not exist here, or a flag is of another strategy.
    """
    for name, strategy in (
        ("devices", "mirrored"),
        ("tpu", "tpu"),
        ("job_addresses", "data_parallel"),
        ("num_processes", "data_parallel"),
        ("process_id", "data_parallel"),
        ("mesh", "model_parallel"),
    ):
        if FLAGS[name].present and FLAGS.strategy != strategy:
            raise InputError(
                f"--{name}: for --strategy {strategy}, not {FLAGS.strategy}"
            )
    if FLAGS.shard_state and FLAGS.strategy not in ON_JAX:
        raise InputError(
            "--shard_state: for --strategy data_parallel or model_parallel, "
            f"not {FLAGS.strategy}"
        )
    if FLAGS.strategy in ON_JAX and not on_jax():
        raise InputError(
            f"--strategy {FLAGS.strategy}: Keras runs on "
            f"{keras.config.backend()}; start with KERAS_BACKEND=jax"
        )
    if FLAGS.strategy in ("mirrored", "multi_worker", "tpu") and on_jax():
        raise InputError(
            f"--strategy {FLAGS.strategy}: needs TensorFlow, but Keras runs on "
            "JAX; start with KERAS_BACKEND=tensorflow or give data_parallel"
        )
    make = {
        "none": tf.distribute.get_strategy,
        "mirrored": _mirrored,
        "multi_worker": _multi_worker,
        "tpu": _tpu,
        "data_parallel": lambda: data_parallel.make(
            FLAGS.job_addresses, FLAGS.num_processes, FLAGS.process_id
        ),
        "model_parallel": lambda: model_parallel.make(FLAGS.mesh, layouts),
    }
    strategy = make[FLAGS.strategy]()
    if FLAGS.shard_state and not can_stop(strategy):
        raise InputError(
            "--shard_state: in one process only: a checkpoint needs the whole "
            f"state, of which each of the {strategy.process[1]} has a part"
        )
    return strategy


def _mirrored() -> tf.distribute.Strategy:
    # TensorFlow's collectives are one group a process: a second strategy on
    # CPUs, as tests have it, would meet the first one's.
    on_cpus = bool(FLAGS.devices) and all(
        "CPU" in device.upper() for device in FLAGS.devices
    )
    try:
        return tf.distribute.MirroredStrategy(
            FLAGS.devices or None,
            tf.distribute.HierarchicalCopyAllReduce() if on_cpus else None,
        )
    except (ValueError, RuntimeError, AssertionError) as error:
        raise InputError(f"--devices {','.join(FLAGS.devices)}: {error}") from (
            error
        )


def _multi_worker() -> tf.distribute.Strategy:
    try:
        config = json.loads(os.environ.get("TF_CONFIG", ""))
        config["cluster"], config["task"]["type"], config["task"]["index"]
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(
            "--strategy multi_worker: TF_CONFIG: expected a JSON object with "
            f"cluster and task (type, index), the same cluster on all: {error}"
        ) from error
    multi_worker.enable_fit()
    return tf.distribute.MultiWorkerMirroredStrategy()


def _tpu() -> tf.distribute.Strategy:
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(
            tpu=FLAGS.tpu or "local"
        )
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
        return tf.distribute.TPUStrategy(resolver)
    # The resolver asks a cloud's servers, whose errors are of many kinds.
    except Exception as error:
        raise InputError(
            f"--tpu {FLAGS.tpu!r}: no TPU there ({first_line(error)}); needs "
            "TensorFlow built for TPUs, on a Cloud TPU's host"
        ) from error


def on_jax() -> bool:
    """Whether Keras runs on JAX."""
    return keras.config.backend() == "jax"


def is_alone(strategy: Strategy) -> bool:
    """Whether it is TensorFlow's default: one device, nothing distributed."""
    return strategy is tf.distribute.get_strategy()


def is_chief(strategy: Strategy) -> bool:
    """Whether this process is the one that writes files."""
    if isinstance(strategy, data_parallel.Distributed):
        return strategy.process[0] == 0
    return multi_worker.is_chief(strategy)


def can_stop(strategy: Strategy) -> bool:
    """Whether this process can save and stop without the others."""
    if isinstance(strategy, data_parallel.Distributed):
        return strategy.process[1] == 1
    return not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)


def facts(strategy: Strategy) -> dict:
    """What of the strategy decides the weights, as a run's folder has it.

    On JAX one program runs, whatever devices it is partitioned for: a run is
    resumed on others, to rounding.
    """
    readers_count = reader_of(strategy).count
    if on_jax():
        return {"strategy": "none", "replicas": 1, "readers": readers_count}
    replicas = strategy.num_replicas_in_sync
    # Each draws its own masks and augmentation.
    return {"replicas": replicas, "readers": readers_count}


def shard_state(optimizer: keras.optimizers.Optimizer) -> None:
    """Has an optimizer, not built yet, split its state by --shard_state.

    Raises:
        InputError: it is not LAMB or LARS.
    """
    if not FLAGS.shard_state:
        return
    try:
        sharding.shard_state(optimizer)
    except TypeError as error:
        raise InputError(
            "--shard_state: for LAMB and LARS, not "
            f"{type(optimizer).__name__}; give --optimizer lamb"
        ) from error


def compiles_step(jit_compile: bool) -> bool:
    """What `compile(jit_compile=...)` gets: strategies of TensorFlow compile
    the step themselves or not at all; without XLA, JAX runs op by op."""
    return on_jax() or (jit_compile and FLAGS.strategy == "none")


def compile_arguments() -> dict:
    """What the flags say of how a step runs, for `model.compile`."""
    return {
        "jit_compile": compiles_step(FLAGS.jit_compile),
        "steps_per_execution": FLAGS.steps_per_execution,
    }


def build(
    strategy: Strategy, make_model: Callable[[], keras.Model]
) -> keras.Model:
    """The model, made under the strategy; the same one in all processes."""
    if is_alone(strategy) or on_jax():
        return make_model()
    return multi_worker.build_same(strategy, make_model)


def save(strategy: Strategy, model: keras.Model, path: Path) -> None:
    """Writes a `.keras` file; only the chief's stays.

    It is written under a temporary name, then renamed. The others have to take
    part: Keras makes variables while it saves, for which JAX waits for all.
    """
    if not on_jax():
        multi_worker.save(model, path)
    elif is_chief(strategy):
        with files.replacing(path) as temporary:
            model.save(temporary)
    else:
        with tempfile.TemporaryDirectory() as folder:
            model.save(Path(folder) / path.name)


def reader_of(strategy: Strategy) -> Reader:
    """This process among those that read data."""
    if isinstance(strategy, data_parallel.Distributed):
        return Reader(*strategy.process)
    resolver = strategy.cluster_resolver
    if not isinstance(
        strategy, tf.distribute.MultiWorkerMirroredStrategy
    ) or not (resolver and resolver.task_type):
        return readers.ALONE
    cluster = resolver.cluster_spec().as_dict()
    tasks = [
        (kind, i)
        for kind in ("chief", "worker")
        for i in range(len(cluster.get(kind, ())))
    ]
    index = tasks.index((resolver.task_type, resolver.task_id))
    return Reader(index, len(tasks))


def check_batch(strategy: Strategy, name: str, batch_size: int) -> None:
    """Refuses a global batch that the replicas cannot share evenly.

    Raises:
        InputError: names the flag.
    """
    replicas = strategy.num_replicas_in_sync
    if batch_size % replicas:
        raise InputError(
            f"--{name} {batch_size}: expected a multiple of the {replicas} "
            "replicas"
        )


def round_up(strategy: Strategy, batch_size: int) -> int:
    """The next batch size that the replicas can share evenly."""
    replicas = strategy.num_replicas_in_sync
    return math.ceil(batch_size / replicas) * replicas


def distribute(
    strategy: Strategy,
    batch_size: int,
    make_dataset: Callable[[Reader], tf.data.Dataset],
):
    """Datasets of all processes as one that `fit` and `evaluate` take.

    Args:
        strategy: of `from_flags`.
        batch_size: of all replicas together.
        make_dataset: gives the batches of one reader, its part of each global
            batch.

    Returns:
        The dataset itself on one device and on JAX, else a distributed one.
    """
    if is_alone(strategy):
        return make_dataset(readers.ALONE)
    if isinstance(strategy, data_parallel.Distributed):
        return make_dataset(reader_of(strategy))
    size = batch_size // strategy.num_replicas_in_sync

    def pipeline(context):
        count = context.num_input_pipelines
        dataset = make_dataset(Reader(context.input_pipeline_id, count))
        if strategy.num_replicas_in_sync == count:
            return dataset
        return dataset.rebatch(size, drop_remainder=True)

    return strategy.distribute_datasets_from_function(pipeline)


def distribute_steps(
    strategy: Strategy, batch_size: int, make_dataset: Callable
) -> Callable:
    """What `Run.fit` takes, from a function of steps and reader.

    Args:
        strategy: of `from_flags`.
        batch_size: of all replicas together.
        make_dataset: gives one reader's part of the batches `first_step` to
            `last_step` - 1, from (first_step, last_step, reader).

    Returns:
        A function of (first_step, last_step).
    """

    def distributed(first_step, last_step):
        return distribute(
            strategy,
            batch_size,
            lambda reader: make_dataset(first_step, last_step, reader),
        )

    return distributed


def distribute_rows(strategy: Strategy, dataset: tf.data.Dataset):
    """Whole batches, which every process has alike, as `distribute` does it.

    Args:
        strategy: of `from_flags`.
        dataset: batches of a fixed size, a multiple of the replicas; each
            process keeps its own rows of them.
    """
    batch_size = tf.nest.flatten(dataset.element_spec)[0].shape[0]

    def rows_of(reader):
        if reader.count == 1:
            return dataset
        rows = readers.rows_of(reader, batch_size)
        return dataset.map(
            lambda *batch: tf.nest.map_structure(lambda x: x[rows], batch)
        )

    return distribute(strategy, batch_size, rows_of)
