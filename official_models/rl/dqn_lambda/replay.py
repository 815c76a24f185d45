"""The replay memory: frames once, blocks of transitions, what is drawn.

`E` environments play side by side; each has a ring of its own, of `S` slots.
Slot `time % S` holds the frame that was seen at `time`, the action taken then,
its reward, and whether the episode ended with it. A frame is stored once, in
uint8, whichever number of observations it is part of: an observation is the
last `h` frames of an episode, and zeros before its first.

A transition takes the bytes of its frame and 6 more: an action (1), a reward
(4), an end (1). For Atari, 84 x 84 pixels, those are 7,062; four frames twice a
transition, as observation and as next one, would be 56,454.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from official_models.common.errors import InputError


class Blocks(NamedTuple):
    """`N` blocks of `T` transitions in the order in which they were played.

    Attributes:
        frames: [N, h + T, *frame], uint8; number h - 1 + i is state i's own.
        seen: [N, T + 1, h], bool: whether frame i + k, the k-th of state i's
            h, is of the same episode as state i.
        actions: [N, T], int32.
        rewards: [N, T], float32.
        dones: [N, T], bool.
    """

    frames: np.ndarray
    seen: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    dones: np.ndarray


class Replay:
    """Rings of the last `capacity` transitions.

    Args:
        capacity: Transitions of all environments together; rounded down to a
            multiple of their number.
        environments: E.
        frame_shape: [height, width, channels] of a frame.
        history: h, frames of an observation.
        block: T, the longest block that will be asked for.

    Raises:
        InputError: A ring does not hold a block, its history and the state
            that follows, or there is no memory for so many frames.
    """

    def __init__(
        self,
        capacity: int,
        environments: int,
        frame_shape: tuple[int, ...],
        history: int,
        block: int,
    ):
        slots, needed = capacity // environments, block + history
        if slots < needed:
            raise InputError(
                f"--replay_capacity {capacity}: {slots} transitions for each "
                f"of {environments} environments, expected at least "
                f"{needed * environments}, as a block is --block_size {block} "
                f"and {history} more frames"
            )
        self.slots, self.history, self.block = slots, history, block
        shape = environments, slots
        try:
            self.frames = np.zeros((*shape, *frame_shape), "uint8")
        except (MemoryError, ValueError) as error:
            size = float(np.prod((*shape, *frame_shape), dtype=float))
            raise InputError(
                f"--replay_capacity {capacity}: {size / 1e9:,.0f} GB of frames"
                ", more than can be had here; give fewer"
            ) from error
        self.actions = np.zeros(shape, "uint8")
        self.rewards = np.zeros(shape, "float32")
        self.dones = np.zeros(shape, bool)
        self.time = 0  # of the next transition

    @property
    def bytes_per_transition(self) -> float:
        """Bytes of all arrays by the transitions that they hold."""
        arrays = self.frames, self.actions, self.rewards, self.dones
        return sum(x.nbytes for x in arrays) / self.actions.size

    def append(
        self,
        frames: np.ndarray,
        actions: np.ndarray,
        rewards: np.ndarray,
        dones: np.ndarray,
    ) -> None:
        """Stores a transition of each environment, over its oldest one.

        Args:
            frames: [E, *frame], uint8, on which the actions were chosen.
            actions: [E], 0 to 255.
            rewards: [E].
            dones: [E].
        """
        slot = self.time % self.slots
        self.frames[:, slot] = frames
        self.actions[:, slot] = actions
        self.rewards[:, slot] = rewards
        self.dones[:, slot] = dones
        self.time += 1

    def starts(self) -> tuple[int, int]:
        """The first time at which a block can begin, and the one after the
        last.

        Its history and the frame after it have to be in the ring still, or at
        the beginning of all, where there is no history.
        """
        oldest = self.time - self.slots
        first = 0 if oldest <= 0 else oldest + self.history - 1
        return first, self.time - self.block

    def sample(self, rng: np.random.Generator, count: int) -> Blocks:
        """Blocks that begin anywhere in the memory, each start alike likely.

        Args:
            rng: Decides on environments and starts.
            count: N.

        Raises:
            InputError: There is no whole block yet.
        """
        first, end = self.starts()
        if end <= first:
            raise InputError(
                f"--prepopulate: {self.time} transitions of each environment "
                f"hold no block of {self.block} and the state after it; "
                "give more"
            )
        rows = rng.integers(len(self.actions), size=count)
        return self.blocks(rows, rng.integers(first, end, size=count))

    def blocks(self, rows: np.ndarray, starts: np.ndarray) -> Blocks:
        """The blocks that begin at `starts`.

        Args:
            rows: [N], environments.
            starts: [N], times within `starts()`.
        """
        history = self.history
        offsets = np.arange(1 - history, self.block + 1)
        times = np.asarray(starts)[:, None] + offsets
        rows = np.asarray(rows)[:, None]
        slots = times % self.slots
        # What was before all began counts as another episode.
        dones = self.dones[rows, slots] | (times < 0)
        now = slots[:, history - 1 : -1]
        return Blocks(
            self.frames[rows, slots],
            same_episode(dones, history),
            self.actions[rows, now].astype("int32"),
            self.rewards[rows, now],
            self.dones[rows, now],
        )


def same_episode(dones: np.ndarray, history: int) -> np.ndarray:
    """Which frames of each state's history are of the state's own episode.

    Args:
        dones: [N, h + T], whether an episode ended at each time.
        history: h.

    Returns:
        [N, T + 1, h], bool. The last of each h is the state's own frame: True.
    """
    states = dones.shape[1] - history + 1
    seen = np.ones((len(dones), states, history), bool)
    for k in reversed(range(history - 1)):
        seen[..., k] = seen[..., k + 1] & ~dones[:, k : k + states]
    return seen


def probabilities(errors: np.ndarray, priority: float) -> np.ndarray:
    """Direct priority: likelier if the error is above the median.

    Proportional to 1 + p above, 1 - p below, 1 at the median itself. The
    largest is at most (1 + p) / (1 - p) times the smallest, however large an
    error is.

    Args:
        errors: [C], absolute differences of returns and values.
        priority: p, in [0, 1].

    Returns:
        [C], float64; their sum is 1.
    """
    weights = 1.0 + priority * np.sign(errors - np.median(errors))
    return weights / weights.sum()


def draw(
    rng: np.random.Generator,
    errors: np.ndarray,
    priority: float,
    shape: tuple[int, ...],
) -> np.ndarray:
    """Indices of transitions, with replacement, by `probabilities`."""
    errors = np.ravel(errors)
    return rng.choice(
        len(errors), size=shape, p=probabilities(errors, priority)
    )
