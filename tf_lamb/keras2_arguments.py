"""Keras 2's optimizer with the arguments that only Keras 3 has.

They are `gradient_accumulation_steps`, which is held here and used in
`keras2.py`, `loss_scale_factor`, and a learning rate that is a function. This
module also finds which Keras 2 there is, `keras`: tf_keras, or `tf.keras` up to
TensorFlow 2.15.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import tensorflow as tf

if TYPE_CHECKING:
    keras: Any = None
elif tuple(map(int, tf.__version__.split(".")[:2])) < (2, 16):
    keras = tf.keras
else:
    try:
        import tf_keras as keras
    except ImportError:
        raise ImportError(
            "tf_lamb.keras2 needs tf_keras beside TensorFlow "
            f"{tf.__version__}: pip install tf_keras. With Keras 3, unset "
            "TF_USE_LEGACY_KERAS."
        ) from None

_Schedule: Any = keras.optimizers.schedules.LearningRateSchedule
_Optimizer: Any = keras.optimizers.Optimizer


def _is_function(learning_rate: Any) -> bool:
    """Whether a rate is a function of no arguments, not a schedule."""
    return callable(learning_rate) and not isinstance(learning_rate, _Schedule)


class Keras2Arguments(_Optimizer):
    """Keras 2's optimizer with the two arguments that only Keras 3 has."""

    def __init__(
        self,
        learning_rate: Any,
        name: str | None = None,
        weight_decay: None = None,
        loss_scale_factor: float | None = None,
        gradient_accumulation_steps: int | None = None,
        **kwargs: Any,
    ) -> None:
        clips = ("clipnorm", "global_clipnorm")
        if kwargs.get("clipvalue") and any(map(kwargs.get, clips)):
            warnings.warn(
                "clipvalue: it has no effect beside clipnorm or "
                "global_clipnorm; pass one of them.",
                stacklevel=5,
            )
        super().__init__(name=name, weight_decay=None, **kwargs)
        # Moments of a checkpoint that was restored before `build`.
        self._waiting_slots = self._no_dependency([])
        self.gradient_accumulation_steps = gradient_accumulation_steps
        self.loss_scale_factor = loss_scale_factor
        self._learning_rate = self._build_learning_rate(learning_rate)

    def _build_learning_rate(self, learning_rate: Any) -> Any:
        if _is_function(learning_rate):
            return learning_rate
        return super()._build_learning_rate(learning_rate)

    @property
    def learning_rate(self) -> Any:
        """The rate: a variable, or what the function returns now."""
        if _is_function(self._learning_rate):
            rate = self._learning_rate()
            return rate if tf.is_tensor(rate) else tf.constant(rate, tf.float64)
        return super().learning_rate

    @learning_rate.setter
    def learning_rate(self, learning_rate: Any) -> None:
        if _is_function(learning_rate):
            self._learning_rate = learning_rate
        elif not _is_function(self._learning_rate):
            _Optimizer.learning_rate.fset(self, learning_rate)
        else:  # a schedule: a number was refused
            self._learning_rate = self._build_learning_rate(learning_rate)

    def scale_loss(self, loss: Any) -> Any:
        """The loss times `loss_scale_factor`, for custom loops.

        `apply_gradients` divides by the factor. `fit`, `minimize` and
        `compute_gradients` multiply by it on their own.

        Args:
          loss: tensor of any shape.
        """
        factor = self.loss_scale_factor
        return loss if factor is None else loss * factor

    def compute_gradients(
        self, loss: Any, var_list: Any, tape: tf.GradientTape | None = None
    ) -> Any:
        """Gradients of the loss times `loss_scale_factor`; `minimize` calls it.

        Args:
          loss: tensor that `tape` recorded, or function that returns one.
          var_list: variables, or (for a function) function that returns them.
          tape: a `tf.GradientTape`, for a tensor.

        Returns:
          `(gradient, variable)` pairs, for `apply_gradients`.
        """
        if callable(loss):
            return super().compute_gradients(
                lambda: self.scale_loss(loss()), var_list, tape
            )
        if self.loss_scale_factor is None or tape is None:
            return super().compute_gradients(loss, var_list, tape)
        # The same as the gradients of the scaled loss, which was not recorded.
        seed = self.scale_loss(tf.ones_like(loss))
        grads = tape.gradient(loss, var_list, output_gradients=seed)
        return list(zip(grads, var_list))

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor, as `from_config` takes them."""
        config: dict[str, Any] = super().get_config()
        rate = self._serialize_hyperparameter(self._learning_rate)
        if _is_function(self._learning_rate):
            rate = float(tf.convert_to_tensor(rate))
            warnings.warn(
                "learning_rate: a config cannot hold a function; it holds its "
                f"value, {rate!r}. Pass the function again after loading.",
                stacklevel=2,
            )
        config.update(
            learning_rate=rate,
            loss_scale_factor=self.loss_scale_factor,
            gradient_accumulation_steps=self.gradient_accumulation_steps,
        )
        return config
