"""The folder of a run: what it is of, its checkpoints, how it goes on."""

import atexit
import errno
import functools
import json
import os
import shutil
import tempfile
from pathlib import Path

import keras
import tensorflow as tf

from official_models.common.errors import InputError


def write_text(path: Path, text: str) -> None:
    """Writes a file under a temporary name, then renames it."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def save_model(path: Path, model: keras.Model) -> None:
    """Writes a `.keras` file under a temporary name, then renames it."""
    temporary = path.with_name(f"{path.stem}.tmp.keras")
    model.save(temporary)
    os.replace(temporary, path)


RECORD = "run.json"


def is_remote(output_dir: str) -> bool:
    """Whether it is a URL, such as gs://, that only TensorFlow can write."""
    return "://" in output_dir


@functools.cache
def local_folder(output_dir: str) -> Path:
    """Where a run's files are written: of a URL a scratch folder here."""
    if not is_remote(output_dir):
        return Path(output_dir)
    scratch = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, scratch, ignore_errors=True)
    return scratch


def fetch(output_dir: str) -> None:
    """Copies a URL's files, not its folders, to the `local_folder`.

    Raises:
        InputError: it cannot be made or read.
    """
    try:
        tf.io.gfile.makedirs(output_dir)
        for name in tf.io.gfile.listdir(output_dir):
            source = f"{output_dir.rstrip('/')}/{name}"
            if not tf.io.gfile.isdir(source):
                target = local_folder(output_dir) / name
                tf.io.gfile.copy(source, str(target), overwrite=True)
    except (tf.errors.OpError, OSError) as error:
        raise InputError(
            f"--output_dir {output_dir}: {_first_line(error)}; name a folder "
            "that TensorFlow can write"
        ) from error


def push(folder: Path, output_dir: str) -> None:
    """Copies a folder's files, not its folders, to a URL; else nothing.

    Each is copied under a temporary name, then renamed.
    """
    if not is_remote(output_dir):
        return
    for path in sorted(folder.iterdir()):
        if path.is_file():
            target = f"{output_dir.rstrip('/')}/{path.name}"
            tf.io.gfile.copy(str(path), f"{target}.tmp", overwrite=True)
            tf.io.gfile.rename(f"{target}.tmp", target, overwrite=True)


def open_run(output_dir: str, identity: dict) -> Path:
    """Makes the folder of a run, or finds that it holds this run already.

    `record_run` makes it this run's, once its inputs have proved good.

    Args:
        output_dir: the folder; a URL such as gs:// as well.
        identity: everything that decides the run's weights, as JSON values.

    Returns:
        The folder; of a URL, its `local_folder`, with the files of the run.

    Raises:
        InputError: it cannot be written, or holds another run.
    """
    folder = local_folder(output_dir)
    if is_remote(output_dir):
        fetch(output_dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        if (folder / RECORD).exists():
            _check_same_run(folder / RECORD, identity)
    except OSError as error:
        raise InputError(
            f"--output_dir {output_dir}: {error.strerror}; name a folder that "
            "can be written"
        ) from error
    return folder


def record_run(folder: Path, identity: dict) -> None:
    """Writes down whose run the folder is."""
    write_text(folder / RECORD, json.dumps(identity, indent=2) + "\n")


def _check_same_run(record: Path, identity: dict) -> None:
    try:
        before = json.loads(record.read_text(encoding="utf-8"))
    except ValueError:
        raise InputError(
            f"{record} is not the record of a run; remove it or name another "
            "--output_dir"
        ) from None
    now = json.loads(json.dumps(identity))
    for name in sorted({*before, *now}):
        if before.get(name) != now.get(name):
            raise InputError(
                f"{record.parent} holds a run with {name} = "
                f"{before.get(name)!r}, this one has {now.get(name)!r}; "
                "continue it with the same flags or name another --output_dir"
            )


def sync_state(model: keras.Model) -> None:
    """Puts what `fit` keeps to itself on JAX into the model's variables."""
    if hasattr(model, "jax_state_sync"):
        model.jax_state_sync()


class Checkpoints:
    """Saves and restores a compiled model with its optimizer, by step.

    TensorFlow's format, whichever Keras' backend: on JAX, variables are copied
    to and from TensorFlow's.

    Args:
        model: built and compiled; its optimizer is built here if it is not.
        folder: where the checkpoints are.
        keep: how many of the last ones stay.
        restore_from: where to go on from; None for `folder`. Of several
            processes all restore from the first one's, which alone keeps its
            own.
    """

    def __init__(
        self,
        model: keras.Model,
        folder: Path | str,
        keep: int = 3,
        restore_from: Path | str | None = None,
    ):
        model.optimizer.build(model.trainable_variables)
        self._model = model
        self._copies = []
        if keras.config.backend() == "tensorflow":
            # A model's own tracking would bring the metrics along, whose state
            # is of no use to a run that goes on.
            state = {
                "variables": [v.value for v in model.variables],
                "optimizer": model.optimizer,
            }
        else:
            state = {
                "variables": self._copy(model.variables),
                "optimizer": self._copy(model.optimizer.variables),
            }
        self._checkpoint = tf.train.Checkpoint(
            step=tf.Variable(0, dtype=tf.int64), **state
        )
        self._manager = tf.train.CheckpointManager(
            self._checkpoint, str(folder), max_to_keep=keep
        )
        self._restore_from = self._manager
        if restore_from is not None and str(restore_from) != str(folder):
            self._restore_from = tf.train.CheckpointManager(
                self._checkpoint, str(restore_from), max_to_keep=keep
            )

    def _copy(self, variables) -> list[tf.Variable]:
        """TensorFlow's variables of the same values, kept beside them."""
        copies = [
            tf.Variable(keras.ops.convert_to_numpy(v), trainable=False)
            for v in variables
        ]
        self._copies += zip(variables, copies, strict=True)
        return copies

    def restore(self) -> int:
        """Restores the last checkpoint; returns its step, 0 if there is none.

        Raises:
            InputError: it is damaged, or of another model.
        """
        there = [
            path
            for path in self._restore_from.checkpoints
            if tf.io.gfile.exists(f"{path}.index")
        ]
        if not there:
            return 0
        path = there[-1]
        try:
            status = self._checkpoint.restore(path)
            status.assert_consumed()
        except (ValueError, AssertionError) as error:
            raise InputError(
                f"checkpoint {path} is of another model: {_first_line(error)}; "
                "name another --output_dir"
            ) from error
        except (tf.errors.OpError, IndexError) as error:
            raise InputError(
                f"checkpoint {path} cannot be read: {_first_line(error)}; "
                "remove its files to go on from the one before"
            ) from error
        for variable, copy in self._copies:
            variable.assign(copy.numpy())
        return int(self._checkpoint.step)

    def save(self, step: int) -> None:
        """Saves the state after `step` steps."""
        if self._copies:
            sync_state(self._model)
        for variable, copy in self._copies:
            copy.assign(keras.ops.convert_to_numpy(variable))
        self._checkpoint.step.assign(step)
        self._manager.save(checkpoint_number=step)


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0].rstrip(".")[:200]
