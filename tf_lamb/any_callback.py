"""A callback of each Keras: Keras 3, tf_keras, `tf.keras` of TensorFlow 2.15.

A callback that is derived from one Keras' class does not run in `fit` of the
other: tf_keras asks for methods that Keras 3's has not.
"""

from __future__ import annotations

from typing import Any


class AnyCallback:
    """The hooks of a callback, which do nothing; imports no Keras.

    It has each hook that a Keras calls, and no other: a misspelt one is an
    AttributeError.
    """

    params: Any = None
    model: Any = None
    _supports_tf_logs = False
    _chief_worker_only = None

    def set_params(self, params: Any) -> None:
        """Called by Keras: the arguments of `fit`."""
        self.params = params

    def set_model(self, model: Any) -> None:
        """Called by Keras: the model that is trained."""
        self.model = model
        self._model = model

    # tf_keras asks these three.

    def _implements_train_batch_hooks(self) -> bool:
        return True

    def _implements_test_batch_hooks(self) -> bool:
        return False

    def _implements_predict_batch_hooks(self) -> bool:
        return False

    def _on_begin_or_end(self, logs: Any = None) -> None:
        """The hooks of a phase; they do nothing."""

    def _on_item(self, batch: int, logs: Any = None) -> None:
        """The hooks of an epoch or a batch; they do nothing."""

    # So Keras 3 knows hooks that need not be waited for.
    _on_begin_or_end._is_default = True  # type: ignore[attr-defined]
    _on_item._is_default = True  # type: ignore[attr-defined]

    on_train_begin = on_train_end = _on_begin_or_end
    on_test_begin = on_test_end = _on_begin_or_end
    on_predict_begin = on_predict_end = _on_begin_or_end
    on_epoch_begin = on_epoch_end = _on_item
    on_batch_begin = on_batch_end = _on_item
    on_train_batch_begin = on_train_batch_end = _on_item
    on_test_batch_begin = on_test_batch_end = _on_item
    on_predict_batch_begin = on_predict_batch_end = _on_item
