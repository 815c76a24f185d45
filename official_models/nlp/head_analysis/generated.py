"""Attention maps of the five classes, generated: what the classifier learns.

A map is the softmax over keys of logits that are noise, a preference of each
key, and the parts of its class. No map of a model is used.

Axes: L tokens of a map.
"""

from __future__ import annotations

import numpy as np

# In the order of the classifier's outputs.
CLASSES = (
    "vertical",
    "diagonal",
    "vertical + diagonal",
    "block",
    "heterogeneous",
)
MIN_TOKENS, MAX_TOKENS = 6, 64
_BLOCK_TOKENS = 3


def generate(number: int, seed: int) -> tuple[list[np.ndarray], np.ndarray]:
    """Maps of random classes and lengths.

    Args:
        number: Of maps, 0 or more.
        seed: The same seed gives the same maps.

    Returns:
        The maps, float32 [L, L] with rows that sum to 1, L from `MIN_TOKENS`
        to `MAX_TOKENS`; and the numbers of their classes in `CLASSES`,
        int32 [number].
    """
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, len(CLASSES), number, "int32")
    return [generate_one(CLASSES[label], rng) for label in labels], labels


def generate_one(
    name: str, rng: np.random.Generator, tokens: int | None = None
) -> np.ndarray:
    """One map.

    Args:
        name: Of its class.
        rng: Is used up by it.
        tokens: L; drawn if None, short ones more often than long ones.

    Returns:
        float32 [L, L], rows sum to 1.
    """
    if tokens is None:
        ends = np.log([MIN_TOKENS, MAX_TOKENS + 1])
        tokens = int(np.exp(rng.uniform(*ends)))
    logits = _background(tokens, rng)
    if name in ("vertical", "vertical + diagonal"):
        logits = np.maximum(logits, _columns(tokens, rng))
    if name in ("diagonal", "vertical + diagonal"):
        logits = np.maximum(logits, _diagonals(tokens, rng))
    if name == "block":
        logits = logits + _blocks(tokens, rng)
    if name == "heterogeneous":
        logits = logits + _content(tokens, rng)
    logits = logits - logits.max(1, keepdims=True)
    weights = np.exp(logits)
    return (weights / weights.sum(1, keepdims=True)).astype("float32")


def _background(tokens: int, rng) -> np.ndarray:
    """Noise of each cell, and a weak preference of each key and of nearness."""
    noise = rng.normal(0, rng.uniform(0.2, 0.9), (tokens, tokens))
    keys = rng.normal(0, rng.uniform(0, 0.4), tokens)
    apart = np.abs(np.subtract.outer(np.arange(tokens), np.arange(tokens)))
    return noise + keys - rng.uniform(0, 0.5) * np.log1p(apart)


def _strength(tokens: int, rng) -> float:
    """Logit of a line: its weight is 0.5 to 10 times that of all the rest."""
    return float(np.log(tokens) + rng.uniform(-0.7, 2.3))


def _line(tokens: int, rng) -> np.ndarray:
    """Logits along a line: uneven, and missing in up to 4 of 10 rows."""
    line = _strength(tokens, rng) + rng.normal(0, 0.4, tokens)
    return np.where(rng.random(tokens) < rng.uniform(0, 0.4), -9.0, line)


def _columns(tokens: int, rng) -> np.ndarray:
    """One to three columns, those of the first and last tokens more often."""
    found = np.full((tokens, tokens), -9.0)
    for _ in range(rng.choice([1, 2, 3], p=[0.5, 0.3, 0.2])):
        kind = rng.random()
        column = rng.integers(tokens)
        column = 0 if kind < 0.35 else tokens - 1 if kind < 0.65 else column
        found[:, column] = _line(tokens, rng)
    return found


def _diagonals(tokens: int, rng) -> np.ndarray:
    """One or two lines along the diagonal, at most 2 tokens off it."""
    found = np.full((tokens, tokens), -9.0)
    offsets = rng.choice(
        [-2, -1, 0, 1, 2],
        rng.choice([1, 2], p=[0.6, 0.4]),
        replace=False,
        p=[0.1, 0.27, 0.26, 0.27, 0.1],
    )
    rows = np.arange(tokens)
    for offset in offsets:
        inside = (rows + offset >= 0) & (rows + offset < tokens)
        line = _line(tokens, rng)
        found[rows[inside], rows[inside] + offset] = line[inside]
    return found


def _blocks(tokens: int, rng) -> np.ndarray:
    """One to four spans, none shorter than 3, that attend to themselves."""
    most = min(4, tokens // _BLOCK_TOKENS)
    spans = int(rng.integers(2 if most > 1 else 1, most + 1))
    room = tokens - spans * _BLOCK_TOKENS
    cuts = np.sort(rng.integers(0, room + 1, spans - 1))
    ends = np.concatenate([cuts, [room]]) + _BLOCK_TOKENS * np.arange(
        1, spans + 1
    )
    found = np.zeros((tokens, tokens))
    # One span may be left out, where another remains.
    left_out = rng.integers(spans) if spans > 1 and rng.random() < 0.3 else -1
    for i, (first, last) in enumerate(zip([0, *ends[:-1]], ends)):
        if i != left_out:
            found[first:last, first:last] = rng.uniform(1.5, 4.0)
    return found


def _content(tokens: int, rng) -> np.ndarray:
    """Logits q k of low rank with single spots: neither lines nor spans."""
    rank = int(rng.integers(2, 9))
    q, k = rng.normal(0, 1, (2, tokens, rank))
    spread = rng.uniform(0.3, 2.5) / np.sqrt(rank)
    spots = (rng.random((tokens, tokens)) < rng.uniform(0, 2 / tokens)) * (
        _strength(tokens, rng)
    )
    return spread * q @ k.T + spots
