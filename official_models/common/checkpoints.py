"""Checkpoints of a compiled model, by step, whichever Keras it is of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from official_models.common import checkpoint_list
from official_models.common.errors import InputError, first_line


def sync_state(model: Any) -> None:
    """Puts what `fit` keeps to itself on JAX into the model's variables."""
    if hasattr(model, "jax_state_sync"):
        model.jax_state_sync()


def _say(line: str) -> None:
    if line:
        print(line, flush=True)


class Checkpoints:
    """Saves and restores a compiled model with its optimizer, by step.

    The newest whole checkpoint counts, whatever TensorFlow's list of them says
    (`checkpoint_list.mend`).

    TensorFlow's format, whichever Keras' backend: on JAX, variables are copied
    to and from TensorFlow's.

    Args:
        model: built and compiled, of Keras 3 or tf_keras; its optimizer is
            built here if it is not.
        folder: where the checkpoints are.
        keep: how many of the last ones stay.
        restore_from: where to resume from; None for `folder`. Of several
            processes all restore from the first one's, which alone keeps its
            own.
    """

    def __init__(
        self,
        model: Any,
        folder: Path | str,
        keep: int = 3,
        restore_from: Path | str | None = None,
    ):
        # Keras 3's loss scaler would make its variables a second time.
        if not getattr(model.optimizer, "built", False):
            model.optimizer.build(model.trainable_variables)
        self._model = model
        self._copies = []
        if keras.config.backend() == "tensorflow":
            # A model's own tracking would bring the metrics along, whose state
            # is of no use to a run that is resumed.
            state = {
                "variables": [_tensorflow_variable(v) for v in model.variables],
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
        _say(checkpoint_list.mend(folder))
        self._manager = tf.train.CheckpointManager(
            self._checkpoint, str(folder), max_to_keep=keep
        )
        self._restore_from = folder if restore_from is None else restore_from

    def _copy(self, variables) -> list[tf.Variable]:
        """TensorFlow's variables of the same values, kept beside them."""
        copies = [
            tf.Variable(keras.ops.convert_to_numpy(v), trainable=False)
            for v in variables
        ]
        self._copies += zip(variables, copies, strict=True)
        return copies

    def restore(self, after: int = 0) -> int:
        """Restores the last checkpoint.

        Args:
            after: checkpoints of this step and of earlier ones stay unread:
                they are of another optimizer.

        Returns:
            Its step; `after` if there is none.

        Raises:
            InputError: it is damaged, or of another model.
        """
        saved = checkpoint_list.saved_steps(self._restore_from)
        if not saved or [*saved][-1] <= after:
            return after
        path = [*saved.values()][-1]
        try:
            status = self._checkpoint.restore(path)
            status.assert_consumed()
        except (ValueError, AssertionError) as error:
            _leave_unsaid()
            raise InputError(
                f"checkpoint {path} is of another model: {first_line(error)}; "
                "name another --output_dir"
            ) from error
        except (tf.errors.OpError, IndexError, MemoryError) as error:
            _leave_unsaid()
            raise InputError(
                f"checkpoint {path} cannot be read: {first_line(error)}; "
                "remove its files to resume from the one before"
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


def _leave_unsaid() -> None:
    """Has TensorFlow not list, at its end, what was not restored.

    The refusal says it, in one line.
    """
    said = ("Detecting that an object", "Value in checkpoint could not")
    tf.get_logger().addFilter(
        lambda record: not record.getMessage().startswith(said)
    )


def _tensorflow_variable(variable) -> tf.Variable:
    """The variable itself in tf_keras, what it wraps in Keras 3."""
    return variable if isinstance(variable, tf.Variable) else variable.value
