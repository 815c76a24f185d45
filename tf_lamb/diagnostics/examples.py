"""Examples of a data set for a measurement, drawn beside the training."""

from __future__ import annotations

from typing import Any, Callable, Iterator

import numpy as np

from tf_lamb import check

__all__ = ["Examples", "each", "leaves", "refuse_weights"]


def each(function: Callable[..., Any], *trees: Any) -> Any:
    """`function` of the leaves of dicts, lists and tuples of one structure."""
    first = trees[0]
    if isinstance(first, dict):
        return {k: each(function, *(t[k] for t in trees)) for k in first}
    if isinstance(first, (list, tuple)):
        return type(first)(each(function, *leaves) for leaves in zip(*trees))
    return None if first is None else function(*trees)


def leaves(tree: Any) -> list[Any]:
    """The leaves of dicts, lists and tuples, in order, None left out."""
    found: list[Any] = []
    each(found.append, tree)
    return found


def refuse_weights(loss: Any, weight: Any) -> None:
    """Refuses sample weights that a loss of one's own would not see.

    Args:
      loss: function of `(y, y_pred)`; None: that of `compile`.
      weight: sample weights, or None.

    Raises:
      ValueError: there are both.
    """
    if loss is not None and weight is not None:
        raise ValueError(
            "data: it has sample weights, which loss, a function of (y, "
            "y_pred), does not get; expected (x, y), or no loss: that of "
            "compile is weighted."
        )


class Examples:
    """Draws examples from arrays, or takes them from batches in turn.

    Args:
      data: a tuple `(x, y)` or `(x, y, sample_weight)` of arrays, or of dicts,
        lists or tuples of them, `[examples, ...]` each, from which examples are
        drawn at random; or something that is iterated again and again, such as
        a `tf.data.Dataset`, whose items are such tuples, whole batches.
      seed: of the draws; training draws from other generators.

    Raises:
      ValueError: it is neither, or the arrays have different lengths.
    """

    def __init__(self, data: Any, seed: int = 0) -> None:
        self._data = data
        self._random = np.random.default_rng(seed)
        self._batches: Iterator[Any] = iter(())
        self._arrays = None
        if isinstance(data, tuple):
            self._arrays = _checked(data)
        elif not hasattr(data, "__iter__") or isinstance(data, (str, dict)):
            raise check.refuse(
                "data", data, "a tuple (x, y) of arrays, or batches of them"
            )

    def draw(self, count: int) -> tuple[Any, ...]:
        """As many examples, `(x, y, sample_weight or None)`, NumPy arrays.

        Args:
          count: examples, >= 1.

        Raises:
          ValueError: there are not so many.
        """
        if self._arrays is not None:
            have = len(leaves(self._arrays)[0])
            if have < count:
                raise ValueError(
                    f"data: expected at least {count} examples, got {have}."
                )
            rows = self._random.choice(have, count, replace=False)
            return _triple(each(lambda a: a[rows], self._arrays))
        batch, have = self._next(), 0
        while (have := len(leaves(batch)[0])) < count:
            batch = each(
                lambda a, b: np.concatenate([a, b]), batch, self._next()
            )
        return _triple(each(lambda a: a[:count], batch))

    def _next(self) -> tuple[Any, ...]:
        for _ in range(2):
            for item in self._batches:
                if not isinstance(item, tuple):
                    raise check.refuse("data", item, "batches (x, y)")
                return _checked(item)
            self._batches = iter(self._data)
        raise ValueError("data: expected batches, got none; is it used up?")


def _checked(data: tuple[Any, ...]) -> tuple[Any, ...]:
    arrays: tuple[Any, ...] = each(np.asarray, data)
    lengths = {a.shape[0] if a.ndim else 0 for a in leaves(arrays)}
    if len(data) not in (2, 3) or len(lengths) != 1 or 0 in lengths:
        raise ValueError(
            "data: expected (x, y) or (x, y, sample_weight) of as many "
            f"examples each, got {len(data)} of lengths {sorted(lengths)}."
        )
    return arrays


def _triple(data: tuple[Any, ...]) -> tuple[Any, ...]:
    return (*data, None) if len(data) == 2 else data
