"""Norms on CPUs: by blocks of rows.

For a sum, XLA's CPU compiler reads memory at a fifth of the speed of a loop
over elements. Therefore on CPUs a norm is computed in two parts: blocks of rows
are added to each other, which is such a loop, and the remaining block is summed
up (benchmarks/README.md has the figures).
"""

from __future__ import annotations

import functools
from typing import Callable, Sequence

import tensorflow as tf

from tf_lamb import arithmetic, tf_ops
from tf_lamb.arithmetic import Ops

# How many blocks of rows a norm adds up first, on CPUs: 16 where it reads one
# array, 4 for a direction, which reads three.
_BLOCKS = 16
_BLOCKS_OF_DIRECTION = 4
_SMALL = 16384  # with fewer elements it does not pay


def norm_by_blocks(
    ops: Ops,
    kind: str,
    x: tf.Tensor,
    function: Callable[..., tf.Tensor] | None = None,
    arrays: Sequence[tf.Tensor] = (),
    /,
) -> tf.Tensor:
    """The norm of `x`, by blocks of rows: `arithmetic.NormOf` for CPUs.

    Of a function, the values are computed again block by block, and `x` is not
    read.
    """
    blocks = _BLOCKS if function is None else _BLOCKS_OF_DIRECTION
    size = x.shape.num_elements()
    # A gradient may have a shape that is known only when it runs.
    large = size is not None and x.shape.rank > 1 and size >= _SMALL
    height = size // x.shape[-1] // blocks if large else 0
    if not height:
        return arithmetic.norm(ops, x, kind)
    rows = [_as_rows(array) for array in (arrays if function else (x,))]
    # `tf.split`, because every slice would be four operations of the graph.
    heights = [height] * blocks + [rows[0].shape[0] - blocks * height]
    *parts, rest = (
        _terms(kind, function(*block) if function else block[0])
        for block in zip(*(tf.split(row, heights) for row in rows))
    )
    if kind == "linf":
        total = tf.reduce_max(functools.reduce(tf.maximum, parts))
        # The maximum over no rows is -inf.
        return tf.maximum(total, tf.reduce_max(rest))
    total = tf.reduce_sum(tf.add_n(parts)) + tf.reduce_sum(rest)
    return tf.sqrt(total) if kind == "l2" else total


def _as_rows(x: tf.Tensor) -> tf.Tensor:
    """`x` as a matrix of its last axis' rows."""
    return tf.reshape(x, [-1, x.shape[-1]]) if len(x.shape) > 1 else x


def _terms(kind: str, x: tf.Tensor) -> tf.Tensor:
    x = arithmetic.widen(tf_ops, x)
    return tf.square(x) if kind == "l2" else tf.abs(x)
