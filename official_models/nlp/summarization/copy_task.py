"""A task that no agent solves alone: the value is with one, the key another's.

Agent 1 reads pairs `key value` in random order, the last agent one of these
keys, those between them words of no use. The summary is the value of that key.
Values are beyond the vocabulary, so that they can but be copied; what agent
1's words are attended by, at the first token, knows of the last agent by
messages alone. Without messages, the best is a guess among the pairs.

Axes: N examples, M agents, I tokens of a part, L = 2 tokens of the summary.
"""

from __future__ import annotations

import numpy as np

from tf_lamb import check

PAD, BEGIN, END, UNKNOWN = range(4)
_FIRST = 4
FILLERS = 8


def vocab_size(keys: int) -> int:
    """V: marks, keys, words of no use."""
    return _FIRST + keys + FILLERS


def draw(
    rng: np.random.Generator,
    number: int,
    *,
    agents: int = 3,
    pairs: int = 4,
    keys: int = 8,
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Examples.

    Args:
        rng: Draws them.
        number: N.
        agents: M, 2 or more.
        pairs: In agent 1's part; chance is 1 / pairs.
        keys: Different ones, `pairs` or more.

    Returns:
        Inputs of `dca.communicating_agents` with V = `vocab_size(keys)` and
        `pairs` extra words: `input_ids`, `input_mask` [N, M, I], `target_ids`
        [N, L], int32; and the labels [N, L]: the value and the end.

    Raises:
        ValueError: A number is out of range.
    """
    check.count("number", number)
    check.count("agents", agents, 2)
    check.count("pairs", pairs)
    check.count("keys", keys, pairs)
    first_filler, first_value = _FIRST + keys, vocab_size(keys)
    length = 2 * pairs
    ids = np.full((number, agents, length), PAD)
    shuffled = rng.permuted(np.tile(np.arange(keys), (number, 1)), axis=1)
    chosen = shuffled[:, :pairs] + _FIRST  # different ones
    values = rng.permuted(np.tile(np.arange(pairs), (number, 1)), axis=1)
    values = values + first_value
    ids[:, 0, 0::2], ids[:, 0, 1::2] = chosen, values
    fillers = (number, agents - 1, length)
    ids[:, 1:] = first_filler + rng.integers(0, FILLERS, fillers)
    wanted = rng.integers(0, pairs, number)
    rows = np.arange(number)
    ids[rows, -1, rng.integers(0, length, number)] = chosen[rows, wanted]
    answer = values[rows, wanted]
    inputs = {
        "input_ids": ids.astype("int32"),
        "input_mask": np.ones(ids.shape, "int32"),
        "target_ids": np.stack([np.full(number, BEGIN), answer], 1).astype(
            "int32"
        ),
    }
    labels = np.stack([answer, np.full(number, END)], 1).astype("int32")
    return inputs, labels
