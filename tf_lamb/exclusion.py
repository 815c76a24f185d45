"""Regexes on variable paths: which variables decay, which are layer-adapted.

A pattern is searched (`re.search`) in the variable's full path without `:0`,
such as `bert/encoder/layer_0/attention/output/LayerNorm/gamma`. This is the
same on every backend and in every front end.
"""

from __future__ import annotations

import difflib
import re
from typing import Iterable, NamedTuple, Sequence


class Treatment(NamedTuple):
    """How an optimizer treats one variable.

    Attributes:
      path: of the variable, without `:0`.
      decay: whether weight decay applies. (The optimizer's can be set between
        steps, or be a schedule, so a treatment does not hold its value.)
      adapt: whether layer adaptation (the trust ratio) applies.
    """

    path: str
    decay: bool
    adapt: bool


def normalize_path(name: str) -> str:
    """A variable's path without TensorFlow's output number (`:0`).

    Args:
      name: `dense/kernel:0`, or a path that has no number.
    """
    return re.sub(r":\d+$", "", name)


def check_patterns(
    argument: str, patterns: Sequence[str] | None
) -> tuple[str, ...] | None:
    """Patterns as a tuple, after a check that each of them compiles.

    Args:
      argument: name of the constructor argument, for the message.
      patterns: list or tuple of regular expressions, or None.

    Returns:
      A tuple of the patterns, or None for None.

    Raises:
      ValueError: `patterns` is not a list of strings, or one of them is not a
        regular expression.
    """
    if patterns is None:
        return None
    if isinstance(patterns, str):
        raise ValueError(
            f"{argument}: expected a list of regexes, got the string "
            f"{patterns!r}; write [{patterns!r}]."
        )
    try:
        checked = tuple(patterns)
    except TypeError:
        raise ValueError(
            f"{argument}: expected a list of regexes or None, got {patterns!r}."
        ) from None
    for pattern in checked:
        try:
            re.compile(pattern)
        except (re.error, TypeError) as error:
            raise ValueError(
                f"{argument}: {pattern!r} is not a regular expression: {error}."
            ) from None
    return checked


def _matches(
    argument: str, patterns: Iterable[str], paths: Sequence[str]
) -> set[str]:
    """Paths that a pattern matches; a pattern without any raises."""
    matched: set[str] = set()
    for pattern in patterns:
        found = {path for path in paths if re.search(pattern, path)}
        if not found:
            raise ValueError(_unmatched(argument, pattern, paths))
        matched |= found
    return matched


def _unmatched(argument: str, pattern: str, paths: Sequence[str]) -> str:
    """The message for a pattern that matches nothing."""
    # A path is ranked by its most similar component: a short pattern differs
    # much from every full path, also from the one it was meant for.
    wanted = pattern.lower()

    def likeness(path: str) -> float:
        parts = path.lower().split("/")
        return max(
            difflib.SequenceMatcher(None, wanted, part).ratio()
            for part in [*parts, path.lower()]
        )

    nearest = sorted(paths, key=likeness, reverse=True)[:3]
    return (
        f"{argument}: pattern {pattern!r} matches none of {len(paths)} "
        f"variables; nearest paths: {', '.join(map(repr, nearest))}. Patterns "
        "are searched with re.search in the full path and mind the case."
    )


def resolve(
    paths: Sequence[str],
    exclude_from_weight_decay: Sequence[str] | None,
    exclude_from_layer_adaptation: Sequence[str] | None,
) -> tuple[Treatment, ...]:
    """How each variable is treated.

    Args:
      paths: full variable paths, in order.
      exclude_from_weight_decay: regexes of variables without weight decay; None
        and `()` mean that all decay.
      exclude_from_layer_adaptation: regexes of variables whose trust ratio is
        1; None means the same as `exclude_from_weight_decay`, `()` that every
        variable is adapted.

    Returns:
      A `Treatment` for each path.

    Raises:
      ValueError: a pattern is not a regex, or matches no path; the message
        names the pattern and the nearest paths.

    Example:
      >>> from tf_lamb import exclusion
      >>> kernel, bias = exclusion.resolve(
      ...     ["dense/kernel", "dense/bias"], ["bias"], None
      ... )
      >>> bias
      Treatment(path='dense/bias', decay=False, adapt=False)
    """
    paths = [normalize_path(path) for path in paths]
    no_decay_patterns = check_patterns(
        "exclude_from_weight_decay", exclude_from_weight_decay
    )
    no_adapt_patterns = check_patterns(
        "exclude_from_layer_adaptation", exclude_from_layer_adaptation
    )
    no_decay = _matches(
        "exclude_from_weight_decay", no_decay_patterns or (), paths
    )
    if no_adapt_patterns is None:
        no_adapt = no_decay
    else:
        no_adapt = _matches(
            "exclude_from_layer_adaptation", no_adapt_patterns, paths
        )
    return tuple(
        Treatment(path, path not in no_decay, path not in no_adapt)
        for path in paths
    )


def describe(
    shapes: Sequence[Sequence[int]], treatments: Sequence[Treatment]
) -> str:
    """A table of variables: path, shape, weight decay, layer adaptation.

    Args:
      shapes: the variables' shapes.
      treatments: the result of `resolve`.

    Returns:
      Text: a head line, then one line for each variable.
    """
    rows = [("variable", "shape", "decay", "adapt")]
    rows += [
        (
            treatment.path,
            "x".join(map(str, shape)) or "scalar",
            "yes" if treatment.decay else "no",
            "yes" if treatment.adapt else "no",
        )
        for shape, treatment in zip(shapes, treatments)
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    return "\n".join(
        "  ".join([*(cell.ljust(w) for cell, w in zip(row, widths)), row[3]])
        for row in rows
    )
