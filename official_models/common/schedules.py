"""Schedules of updates, whatever number of micro-batches an update has."""

from __future__ import annotations

from collections.abc import Callable

import keras

from official_models.common.layer import registration

register = registration("tf_lamb_models.common")


@register
class ByUpdate(keras.optimizers.schedules.LearningRateSchedule):
    r"""A schedule of updates, under an optimizer that counts micro-batches.

    $$\eta(s) = \eta_u(\lfloor s / k \rfloor)$$

    Keras calls a schedule with the number of micro-batches so far, so that the
    update that ends a step of k is called with the step's last one. Its rate is
    that of the same step without accumulation.

    Args:
        schedule: eta_u, of the number of updates, from 0.
        micro_batches: k, of an update.
    """

    def __init__(self, schedule, micro_batches: int):
        self.schedule = schedule
        if isinstance(schedule, dict):
            self.schedule = keras.saving.deserialize_keras_object(schedule)
        self.micro_batches = micro_batches

    def __call__(self, step):
        return self.schedule(step // self.micro_batches)

    def get_config(self) -> dict:
        return {
            "schedule": keras.saving.serialize_keras_object(self.schedule),
            "micro_batches": self.micro_batches,
        }


def by_update(schedule: Callable, micro_batches: int) -> Callable:
    """`ByUpdate`; without accumulation the schedule as it is."""
    return schedule if micro_batches == 1 else ByUpdate(schedule, micro_batches)
