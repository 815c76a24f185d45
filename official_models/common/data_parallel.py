"""Keras on JAX, over the devices of one or several processes."""

import contextlib
import os

import keras

from official_models.common.errors import InputError


class Distributed:
    """A `keras.distribution` with a `tf.distribute` strategy's face.

    XLA partitions one program: a mean over the batch, such as batch norm's, is
    over the global batch, without `synchronized`; weights are those of one
    device, to rounding.

    Args:
        distribution: of Keras; it holds from now on.

    Attributes:
        num_replicas_in_sync: parts of a batch.
        process: (index, count) of this process.
        cluster_resolver: None, as where `tf.distribute` has one process.
    """

    cluster_resolver = None

    def __init__(self, distribution):
        import jax  # installed where Keras runs on it

        self.num_replicas_in_sync = distribution.num_model_replicas
        keras.distribution.set_distribution(distribution)
        self.process = jax.process_index(), jax.process_count()

    def scope(self) -> contextlib.AbstractContextManager:
        """Nothing: the distribution holds for the whole process."""
        return contextlib.nullcontext()


def make(
    job_addresses: str, num_processes: int | None, process_id: int | None
) -> Distributed:
    """Connects the processes, if there are several, and finds their devices.

    Every device has all variables and its part of each batch.

    Args:
        job_addresses: host:port of the first process or, with commas, of all;
            "auto" asks the Cloud TPU; "" for what Keras' environment variables
            KERAS_DISTRIBUTION_... say, or one process.
        num_processes: how many; None as the addresses or the TPU say.
        process_id: of this one, from 0.

    Raises:
        InputError: the processes do not meet.
    """
    if job_addresses or "KERAS_DISTRIBUTION_JOB_ADDRESSES" in os.environ:
        address = None if job_addresses in ("auto", "") else job_addresses
        try:
            keras.distribution.initialize(address, num_processes, process_id)
        except (ValueError, RuntimeError) as error:
            raise InputError(
                f"--job_addresses {job_addresses}: {error}; start every "
                "process with the same addresses and its own --process_id"
            ) from error
    return Distributed(
        keras.distribution.DataParallel(
            devices=keras.distribution.list_devices(),
            # The processes read their own rows.
            auto_shard_dataset=False,
        )
    )
