"""A TPUEstimator job: where it runs, how it trains, evaluates and exports."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable, Iterator

import tensorflow as tf
from absl import flags

from official_models.common import checkpoint_list, files
from official_models.common.errors import InputError
from tpu import warm_start

tf1 = tf.compat.v1
FLAGS = flags.FLAGS


def resolver() -> tf.distribute.cluster_resolver.TPUClusterResolver | None:
    """The TPU of --tpu_name; None with --master or without --use_tpu.

    Raises:
        InputError: there is no such TPU.
    """
    if not FLAGS.use_tpu or FLAGS.master:
        return None
    try:
        found = tf.distribute.cluster_resolver.TPUClusterResolver(
            FLAGS.tpu_name, zone=FLAGS.tpu_zone, project=FLAGS.gcp_project
        )
        found.master()
        return found
    # It asks a cloud's servers, whose errors are of many kinds.
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"--tpu_name {FLAGS.tpu_name}: cannot be reached ({reason}); give "
            "its name with --tpu_zone and --gcp_project, or grpc://HOST:8470"
        ) from error


def run_config(folder: str) -> tf1.estimator.tpu.RunConfig:
    """The run of the flags.

    Raises:
        InputError: there is no such TPU.
    """
    return tf1.estimator.tpu.RunConfig(
        cluster=resolver(),
        master=FLAGS.master,
        model_dir=folder,
        tf_random_seed=FLAGS.seed,
        save_checkpoints_steps=FLAGS.save_checkpoints_steps,
        keep_checkpoint_max=FLAGS.keep_checkpoint_max,
        # The host call writes them; these would need a step on the host.
        save_summary_steps=None,
        log_step_count_steps=FLAGS.log_every or FLAGS.iterations_per_loop,
        tpu_config=tf1.estimator.tpu.TPUConfig(
            iterations_per_loop=FLAGS.iterations_per_loop,
            num_shards=FLAGS.num_tpu_cores if FLAGS.use_tpu else None,
            per_host_input_for_training=True,
        ),
    )


def make_folder(folder: str) -> None:
    """Makes the folder of a run, if it is not there.

    Raises:
        InputError: it cannot be made, or is a file.
    """
    try:
        tf.io.gfile.makedirs(folder)
    except tf.errors.OpError as error:
        raise InputError(
            f"{folder}: {error.message}; name a folder that can be written"
        ) from error


def estimator(
    model_fn: Callable,
    folder: str,
    *,
    predict_batch_size: int | None = None,
    params: dict | None = None,
) -> tf1.estimator.tpu.TPUEstimator:
    """The TPUEstimator of the flags.

    Args:
        model_fn: function of features, labels, mode, params.
        folder: of checkpoints and summaries.
        predict_batch_size: examples a batch of predictions, over all cores.
        params: what `model_fn` and the input functions get, beside
            "batch_size": the examples that one host is to give.

    Raises:
        InputError: the folder cannot be written, or there is no such TPU.
    """
    make_folder(folder)
    mended = checkpoint_list.mend(folder)
    if mended:
        print(mended, flush=True)
    # absl's handler would print each of its lines once more.
    logging.getLogger("tensorflow").propagate = False
    # The loops that TPUEstimator builds are those of TensorFlow 1.
    tf1.disable_control_flow_v2()
    if not FLAGS.use_tpu:
        # Else a run that is killed and resumed differs in its last bits.
        tf.config.experimental.enable_op_determinism()
    return tf1.estimator.tpu.TPUEstimator(
        _checked(model_fn, folder),
        config=run_config(folder),
        params=params,
        use_tpu=FLAGS.use_tpu,
        train_batch_size=FLAGS.train_batch_size,
        eval_batch_size=FLAGS.eval_batch_size,
        predict_batch_size=predict_batch_size,
        export_to_tpu=False,
    )


def _checked(model_fn: Callable, folder: str) -> Callable:
    """The `model_fn`, refusing a folder's checkpoint of another model."""

    @functools.wraps(model_fn)
    def checked(features, labels, mode, params):
        spec = model_fn(features, labels, mode, params)
        path = tf.train.latest_checkpoint(folder)
        if path:
            warm_start.check_own(path, tf1.global_variables())
        return spec

    return checked


def first_step(folder: str) -> int:
    """The step of the last checkpoint, 0 if there is none.

    An input function begins there, so that a resumed run sees the batches that
    an uninterrupted one would.

    Raises:
        InputError: the checkpoint cannot be read.
    """
    path = tf.train.latest_checkpoint(folder)
    if not path:
        return 0
    try:
        return int(tf.train.load_variable(path, "global_step"))
    # A file that was cut short is an IndexError.
    except (tf.errors.OpError, ValueError, LookupError, MemoryError) as error:
        raise InputError(
            f"{path}: no checkpoint of a job, or damaged "
            f"({str(error).splitlines()[0]}); name another folder, or remove "
            "its files and its line in 'checkpoint'"
        ) from error


def files_of_host(params: dict, paths: list[str]) -> tuple[int, list[str]]:
    """Index of the host that an input function is called for, and its files.

    Args:
        params: of the input function.
        paths: of all hosts' files, in order.

    Raises:
        InputError: there are fewer files than hosts.
    """
    index, count = host_of(params)
    if len(paths) < count:
        raise InputError(
            f"{paths[0]} ...: {len(paths)} files for {count} hosts; expected "
            "at least one for each: write the records in more files"
        )
    return index, paths[index::count]


def host_of(params: dict) -> tuple[int, int]:
    """Index of the host that an input function is called for, of how many.

    Args:
        params: of the input function.
    """
    context = params.get("context")
    if context is None:
        return 0, 1
    _, index, count, _ = context.current_input_fn_deployment()
    return index, count


def train(estimator, input_fn: Callable, total_steps: int) -> None:
    """Trains, or resumes training, until `total_steps` updates are made.

    Raises:
        InputError: the folder has a checkpoint of another model, or a damaged
            one; or a record is damaged.
    """
    folder = estimator.model_dir
    if first_step(folder) >= total_steps:
        return
    try:
        estimator.train(input_fn, max_steps=total_steps)
    except tf.errors.DataLossError as error:
        _refuse_damage(folder, error)


def _refuse_damage(folder: str, error: tf.errors.DataLossError) -> None:
    """Raises `InputError`: what was read is not what had been written."""
    if "RestoreV2" in str(error):
        raise InputError(
            f"{folder}: its last checkpoint is damaged; name another folder, "
            "or remove its files and its line in 'checkpoint'"
        ) from error
    raise InputError(
        f"a damaged record ({error.message.splitlines()[0]}); write the "
        "records again (--check_records names it)"
    ) from error


def train_and_evaluate(
    estimator,
    train_input_fn: Callable | None,
    eval_input_fn: Callable | None,
    *,
    total_steps: int,
    eval_steps: int | None,
    steps_between: int,
) -> dict:
    """Trains, with an evaluation after every `steps_between` updates.

    In turn, as a TPU needs it: `tf.estimator.train_and_evaluate` evaluates at
    each checkpoint, in the middle of a loop.

    Args:
        estimator: of `estimator`.
        train_input_fn: None for an evaluation only.
        eval_input_fn: None for training only.
        total_steps: updates of the run.
        eval_steps: batches of an evaluation; None for all that there are.
        steps_between: updates between evaluations.

    Returns:
        The metrics of the last evaluation, {} without one.
    """
    if train_input_fn is None:
        total_steps = 0
    step, metrics = first_step(estimator.model_dir), {}
    while True:
        # A resumed run evaluates where an uninterrupted one would.
        step = min((step // steps_between + 1) * steps_between, total_steps)
        if train_input_fn:
            train(estimator, train_input_fn, step)
        if eval_input_fn:
            metrics = evaluate(estimator, eval_input_fn, eval_steps)
        if step >= total_steps:
            return metrics


def evaluate(estimator, input_fn: Callable, steps: int | None) -> dict:
    """Evaluates the last checkpoint; also writes `eval_results.txt`.

    Args:
        estimator: of `estimator`.
        input_fn: of the evaluation.
        steps: batches; None for all that there are.

    Returns:
        Metrics by name, floats, and "global_step".

    Raises:
        InputError: there is no checkpoint.
    """
    folder = estimator.model_dir
    if not tf.train.latest_checkpoint(folder):
        raise InputError(f"{folder}: no checkpoint to evaluate; train first")
    try:
        metrics = estimator.evaluate(input_fn, steps=steps)
    except tf.errors.DataLossError as error:
        _refuse_damage(folder, error)
    metrics = {name: value.item() for name, value in sorted(metrics.items())}
    files.write_text(
        os.path.join(folder, "eval_results.txt"),
        "".join(f"{name} = {value}\n" for name, value in metrics.items()),
    )
    return metrics


def predict(estimator, input_fn: Callable) -> Iterator[dict]:
    """Predictions of the last checkpoint, by example.

    Args:
        estimator: of `estimator`, with `predict_batch_size`.
        input_fn: finite, in full batches.

    Yields:
        {name: array}, without the batch axis.

    Raises:
        InputError: there is no checkpoint, or one of another model.
    """
    folder = estimator.model_dir
    if not tf.train.latest_checkpoint(folder):
        raise InputError(f"{folder}: no checkpoint to predict by; train first")
    try:
        yield from estimator.predict(input_fn)
    except tf.errors.DataLossError as error:
        _refuse_damage(folder, error)


def export(
    estimator, features: dict[str, tf.TensorSpec], export_dir: str
) -> str:
    """Writes the last checkpoint as a SavedModel that serves predictions.

    Args:
        estimator: its `model_fn` has `predictions` and `export_outputs`, or
            `predictions` alone, in mode PREDICT.
        features: what a request holds; the first axis None.
        export_dir: the SavedModel is a folder of this one, named by the time.

    Returns:
        The SavedModel's folder.
    """

    def serving_input_receiver_fn():
        received = {
            name: tf1.placeholder(spec.dtype, spec.shape, name=name)
            for name, spec in features.items()
        }
        return tf1.estimator.export.ServingInputReceiver(received, received)

    path = estimator.export_saved_model(export_dir, serving_input_receiver_fn)
    return path.decode() if isinstance(path, bytes) else path
