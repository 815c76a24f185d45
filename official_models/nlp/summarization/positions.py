"""A checkpoint whose encoder takes longer documents than it was trained on."""

from __future__ import annotations

import dataclasses

import numpy as np

from official_models.common.layer import seed_of
from official_models.nlp.checkpoint.source import Source

POSITIONS = "bert/embeddings/position_embeddings"
WAYS = ("code", "paper")


def lengthened(source: Source, length: int, how: str, seed: int) -> Source:
    """The checkpoint with a longer table of positions.

    Args:
        source: A checkpoint with P positions.
        length: Positions that are needed. Where P are enough, `source` is
            given back.
        how: Of the rows behind the P first: "code": each is a copy of the
            last one, as in PreSumm's code; "paper": drawn from a normal
            distribution with the encoder's `initializer_range`, and trained,
            as its paper says of positions beyond 512.
        seed: Of what is drawn.
    """
    config = source.config
    known = config.max_position_embeddings
    if length <= known:
        return source

    def shape_of(path: str) -> tuple[int, ...]:
        shape = source.shape_of(path)
        return (length, *shape[1:]) if path == POSITIONS else shape

    def read(path: str) -> np.ndarray:
        table = source.read(path)
        if path != POSITIONS:
            return table
        shape = (length - known, table.shape[1])
        if how == "code":
            more = np.broadcast_to(table[-1], shape)
        else:
            rng = np.random.default_rng(seed_of(f"{seed}:positions"))
            more = rng.normal(scale=config.initializer_range, size=shape)
        return np.concatenate([table, more.astype(table.dtype)])

    longer = dataclasses.replace(config, max_position_embeddings=length)
    return source._replace(config=longer, shape_of=shape_of, read=read)
