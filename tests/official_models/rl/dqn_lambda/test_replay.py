"""The replay memory against a list that keeps everything."""

import tracemalloc

import numpy as np
import pytest

from official_models.rl.dqn_lambda import environments, replay
from official_models.rl.dqn_lambda.replay import Replay
from tests.official_models.scripts import refusal

FRAME = (2, 3, 1)
ENVIRONMENTS, SLOTS = 2, 17


def played(steps, history, block=5):
    """A memory, and all that went into it: frames, actions, rewards, ends."""
    rng = np.random.default_rng(steps)
    memory = Replay(
        ENVIRONMENTS * SLOTS + 1, ENVIRONMENTS, FRAME, history, block
    )
    assert memory.slots == SLOTS
    everything = []
    for _ in range(steps):
        everything.append(
            (
                rng.integers(1, 256, (ENVIRONMENTS, *FRAME), "uint8"),
                rng.integers(6, size=ENVIRONMENTS),
                rng.normal(size=ENVIRONMENTS).astype("float32"),
                rng.random(ENVIRONMENTS) < 0.2,
            )
        )
        memory.append(*everything[-1])
    return memory, everything


def observation(everything, row, time, history):
    """The last frames of one episode by a walk back in time."""
    frames = [everything[time][0][row]]
    while len(frames) < history:
        time -= 1
        if time < 0 or everything[time][3][row]:
            break
        frames.insert(0, everything[time][0][row])
    blank = [np.zeros(FRAME, "uint8")] * (history - len(frames))
    return np.stack(blank + frames)


@pytest.mark.parametrize("history", [1, 4])
@pytest.mark.parametrize("steps", [9, SLOTS, SLOTS + 6, 3 * SLOTS + 2])
def test_every_block_that_can_be_drawn(steps, history):
    """Before the ring is full, and across its wrap."""
    memory, everything = played(steps, history)
    first, end = memory.starts()
    oldest = max(steps - SLOTS, 0)
    assert end == steps - 5  # whose state after it is the last frame
    assert first == (oldest + history - 1 if oldest else 0)
    pairs = [(r, t) for r in range(ENVIRONMENTS) for t in range(first, end)]
    rows, starts = np.array(pairs).T
    found = memory.blocks(rows, starts)
    assert found.frames.dtype == np.uint8
    for i, (row, start) in enumerate(pairs):
        for name, k in (("actions", 1), ("rewards", 2), ("dones", 3)):
            expected = [everything[start + t][k][row] for t in range(5)]
            np.testing.assert_array_equal(getattr(found, name)[i], expected)
        for t in range(6):
            seen = found.seen[i, t][:, None, None, None]
            np.testing.assert_array_equal(
                found.frames[i, t : t + history] * seen,
                observation(everything, row, start + t, history),
            )
    if steps > SLOTS:
        slots = starts % SLOTS
        assert ((slots + 5) >= SLOTS).any()  # some do wrap


def test_blocks_are_drawn_from_all_of_the_memory():
    memory, everything = played(SLOTS + 6, 2)
    found = memory.sample(np.random.default_rng(0), 500)
    rewards = {x for blocks in found.rewards for x in blocks.tolist()}
    kept = [
        float(everything[t][2][row])
        for row in range(ENVIRONMENTS)
        for t in range(SLOTS + 6 - SLOTS + 1, SLOTS + 6 - 1)
    ]
    assert rewards == set(kept)


def test_what_acts_sees_what_is_trained_on():
    """`Histories` while playing, the memory afterwards: the same frames."""
    history = 3
    memory, everything = played(15, history)
    seen = environments.Histories(history, everything[0][0])
    for time in range(14):
        for row in range(ENVIRONMENTS):
            expected = observation(everything, row, time, history)
            stacked = expected.transpose(1, 2, 0, 3).reshape(2, 3, history)
            np.testing.assert_array_equal(seen.observations[row], stacked)
        seen.push(everything[time + 1][0], everything[time][3])


@pytest.mark.parametrize(
    ("frame", "expected"), [((84, 84, 1), 7062), ((10, 10, 4), 406)]
)
def test_bytes_of_a_transition(frame, expected):
    """As stated, and as the process' memory grows."""
    tracemalloc.start()
    try:
        memory = Replay(2000, 4, frame, 4, 100)
        allocated = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert memory.bytes_per_transition == expected
    assert allocated / 2000 == pytest.approx(expected, rel=0.01)


def test_a_memory_that_holds_no_block():
    refusal(
        lambda: Replay(40, 4, FRAME, 2, 9),
        *("--replay_capacity 40: 10 transitions", "at least 44"),
        "--block_size 9",
    )
    Replay(44, 4, FRAME, 2, 9)
    memory, _ = played(5, 1)
    refusal(
        lambda: memory.sample(np.random.default_rng(0), 1), "--prepopulate: 5"
    )


@pytest.mark.parametrize("priority", [0.0, 0.1, 1.0])
def test_direct_priority(priority):
    errors = np.array([3.0, 0.1, 2.0, 1.0, 1e9])  # median 2
    found = replay.probabilities(errors, priority)
    assert found.sum() == pytest.approx(1, abs=1e-12)
    high, low = (1 + priority) / 5, (1 - priority) / 5
    np.testing.assert_allclose(found, [high, low, 0.2, low, high])


@pytest.mark.parametrize("count", [1, 2, 7, 1000])
def test_probabilities_sum_to_1(count):
    rng = np.random.default_rng(count)
    for errors in (
        rng.random(count),
        np.zeros(count),
        rng.integers(3, size=count),
    ):
        found = replay.probabilities(errors, 0.4)
        assert found.sum() == pytest.approx(1, abs=1e-12)
        assert (found > 0).all()


def test_minibatches_are_drawn_with_replacement_by_these_probabilities():
    errors = np.arange(10.0)  # median 4.5
    found = replay.draw(np.random.default_rng(0), errors, 0.5, (400, 50))
    assert found.shape == (400, 50)
    shares = np.bincount(found.ravel(), minlength=10) / found.size
    np.testing.assert_allclose(shares, [0.05] * 5 + [0.15] * 5, atol=0.01)
