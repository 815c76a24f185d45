"""Checkpoints of `tfa.optimizers.LAMB`, read into a Keras 2 optimizer.

That optimizer is of the older Keras kind: its moments are slots of the model's
variables, and its count of steps is called `iter`. Keras 3 calls the objects of
a model otherwise than Keras 2, so that nothing of such a checkpoint, not even
the weights, would find its place there: it is refused.
"""

from __future__ import annotations

from typing import Any, Callable, ClassVar, Hashable, Mapping, Sequence

import tensorflow as tf

# Name in a checkpoint of tfa's optimizer -> attribute of this one.
_ADDONS_NAMES = {"iter": "_iterations", "learning_rate": "_learning_rate"}

# Names that only checkpoints of Keras 2 have: of tfa's and of our optimizer.
_OF_KERAS_2 = ("iter", "_updates")


def refuse_keras_2(owner: str, name: str) -> None:
    """Refuses a checkpoint of Keras 2, in Keras 3.

    Args:
      owner: name of the optimizer, for the message.
      name: of an object that TensorFlow looks for in the optimizer.

    Raises:
      ValueError: only checkpoints of Keras 2 have that name.
    """
    if name in _OF_KERAS_2:
        raise ValueError(
            f"{owner}: this is a checkpoint of Keras 2, from which Keras 3 "
            "restores neither moments and step nor the model's weights. Read "
            "it with tf_keras (TF_USE_LEGACY_KERAS=1) or TensorFlow 2.15, "
            "model.save('model.h5') there, and load that."
        )


class AddonsCheckpoints:
    """Restores moments that a checkpoint has as slots of variables; a mixin.

    The optimizer into which it is mixed has the attributes that are declared
    here without a value. TensorFlow may restore a checkpoint before the
    optimizer is built: then the moments wait for `_restore_waiting_slots`.
    """

    built: Any
    _SLOTS: ClassVar[Sequence[str]]
    _slots: Sequence[Sequence[tf.Variable]]
    _index_dict: Mapping[Hashable, int]
    _var_key: Callable[[tf.Variable], Hashable]
    # (slot name, key of the variable, where the checkpoint has the moment)
    _waiting_slots: list[tuple[str, Hashable, Any]]

    def _restore_waiting_slots(self) -> None:
        """Restores what was read before `build`; called at its end."""
        for name, key, position in self._waiting_slots:
            slot = self._slot_of(name, key)
            if slot is not None:
                position.restore(slot)
        self._waiting_slots.clear()

    def _slot_of(self, name: str, key: Hashable) -> tf.Variable | None:
        i = self._index_dict.get(key)
        if i is None or name not in self._SLOTS:
            return None
        return self._slots[self._SLOTS.index(name)][i]

    def _create_or_restore_slot_variable(
        self,
        slot_variable_position: Any,
        slot_name: str,
        variable: tf.Variable,
        **kwargs: Any,
    ) -> None:
        """Called by TensorFlow for each slot that a checkpoint has."""
        key = self._var_key(variable)
        if not self.built:
            self._waiting_slots.append((slot_name, key, slot_variable_position))
            return
        slot = self._slot_of(slot_name, key)
        if slot is not None:
            slot_variable_position.restore(slot)

    def _lookup_dependency(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """Called by TensorFlow: the object that a checkpoint calls `name`."""
        base: Any = super()
        found = base._lookup_dependency(name, *args, **kwargs)
        if found is None and name in _ADDONS_NAMES:
            found = getattr(self, _ADDONS_NAMES[name], None)
            if not isinstance(found, tf.Variable):
                return None
        return found
