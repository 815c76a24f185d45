"""Several processes that read the same data, and the steps they read.

A run is an endless sequence of global batches. Batch k is a function of the
data, a seed and k, so that a run resumed at step k sees the batches that an
uninterrupted one would.
"""

from __future__ import annotations

import random
from typing import NamedTuple

from official_models.common.errors import InputError


class Reader(NamedTuple):
    """One of `count` processes that read together; a plain tuple will do.

    Attributes:
        index: Its number, 0 to `count` - 1.
        count: How many there are.
    """

    index: int = 0
    count: int = 1


ALONE = Reader()


def rows_of(reader: Reader, batch_size: int, name: str = "batch_size") -> slice:
    """The rows of a global batch that a reader gives.

    Args:
        reader: (index, count).
        batch_size: Rows of all readers together.
        name: Of `batch_size`, for the message.

    Returns:
        The `index`-th of `count` equal slices.

    Raises:
        InputError: The index is out of range, or the readers cannot share the
            batch evenly.
    """
    index, count = reader
    if batch_size < 1:
        raise InputError(f"{name} {batch_size}: expected at least 1")
    if not 0 <= index < count or batch_size % count:
        raise InputError(
            f"{name} {batch_size}, reader {index} of {count}: expected 0 <= "
            "index < count, and a batch that the count divides"
        )
    size = batch_size // count
    return slice(index * size, (index + 1) * size)


def check_seed(seed: int) -> None:
    """Raises `InputError` unless it is one 32-bit word, 0 to 2**32 - 1."""
    if not 0 <= seed < 2**32:
        raise InputError(f"seed {seed}: expected 0 to 2**32 - 1")


def check_steps(first_step: int, last_step: int) -> None:
    """Raises `InputError` unless 0 <= `first_step` < `last_step`."""
    if not 0 <= first_step < last_step:
        raise InputError(
            f"steps {first_step} to {last_step}: expected 0 <= first < last"
        )


def steps_per_epoch(num_examples: int, global_batch_size: int) -> int:
    """Whole batches in an epoch.

    Raises:
        InputError: Unless 1 <= `global_batch_size` <= `num_examples`.
    """
    if not 1 <= global_batch_size <= num_examples:
        raise InputError(
            f"global_batch_size {global_batch_size}: expected 1 to "
            f"{num_examples}, the number of training examples"
        )
    return num_examples // global_batch_size


def shuffled_epochs(num_examples: int, epochs: int, seed: int) -> list[int]:
    """Numbers of the examples of several epochs, each in an order of its own.

    Args:
        num_examples: N.
        epochs: E.
        seed: Any integer.

    Returns:
        N * E numbers, every N of them a permutation of 0 to N - 1; a function
        of the arguments.
    """
    shuffle = random.Random(seed)
    numbers = []
    for _ in range(epochs):
        epoch = list(range(num_examples))
        shuffle.shuffle(epoch)
        numbers += epoch
    return numbers
