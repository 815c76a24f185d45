"""Which variables decay, which are layer-adapted: by regex, or by kind.

A pattern is searched (`re.search`) in the variable's full path without `:0`,
such as `bert/encoder/layer_0/attention/output/LayerNorm/gamma`. This is the
same on every backend and in every front end. (A pattern with `:0` in it, as
users of tfa wrote them, is searched in the path with `:0`.)

`"biases_and_norms"`, in place of a list, stands for the variables that are
biases, or scales and offsets of a normalisation: all of rank 0 and 1, and those
of higher rank whose own name is one of Keras' for them (an attention's bias has
two axes). It does not depend on what layers are called. A variable does not
know its layer, so it is not asked.
"""

from __future__ import annotations

import difflib
import re
import warnings
from typing import NamedTuple, Sequence, Union

from tf_lamb import check

BIASES_AND_NORMS = "biases_and_norms"
UNMATCHED = ("warn", "raise", "ignore")

# Regexes, or the name of a kind of variables; None and (): no variable.
Patterns = Union[str, Sequence[str], None]

_NO_NAMES = f", and {BIASES_AND_NORMS!r} in place of the list needs no names"

# As Keras calls the biases, scales and offsets of its layers.
_SMALL_NAMES = re.compile(r"(^|_)(bias|beta|gamma|scale|offset)$")


class Treatment(NamedTuple):
    """How an optimizer treats one variable.

    Attributes:
      path: of the variable, without `:0`.
      decay: whether weight decay applies. (The optimizer's can be set between
        steps, or be a schedule, so a treatment does not hold its value.)
      adapt: whether layer adaptation (the trust ratio) applies.
      group: place of its group in the optimizer's list; None for no group.
    """

    path: str
    decay: bool
    adapt: bool
    group: int | None = None


def normalize_path(name: str) -> str:
    """A variable's path without TensorFlow's output number (`:0`).

    Args:
      name: `dense/kernel:0`, or a path that has no number.
    """
    return re.sub(r":\d+$", "", name)


def unique_keys(paths: Sequence[str]) -> tuple[str, ...]:
    """Variable paths with the repeated ones numbered.

    Two layers of one name in a subclassed model give their variables equal
    paths. The first keeps the path, the others have `#2`, `#3`, ... behind it.
    Patterns are searched in the path itself: what matches one variable of a
    path matches all.

    Args:
      paths: full variable paths, in order.

    Returns:
      A key for each path, all different.

    Example:
      >>> from tf_lamb import exclusion
      >>> exclusion.unique_keys(["dense/kernel", "bias", "dense/kernel"])
      ('dense/kernel', 'bias', 'dense/kernel#2')
    """
    paths = [normalize_path(path) for path in paths]
    taken = set(paths)
    repeats: dict[str, int] = {}
    keys = []
    for path in paths:
        key = path
        if path in repeats:
            while key in taken:
                repeats[path] += 1
                key = f"{path}#{repeats[path]}"
            taken.add(key)
        else:
            repeats[path] = 1
        keys.append(key)
    return tuple(keys)


def check_patterns(
    argument: str, patterns: Patterns
) -> str | tuple[str, ...] | None:
    """Patterns as a tuple, after a check that each of them compiles.

    Args:
      argument: name of the constructor argument, for the message.
      patterns: list or tuple of regular expressions, `"biases_and_norms"`, or
        None.

    Returns:
      A tuple of the patterns; `"biases_and_norms"` and None as they are.

    Raises:
      ValueError: `patterns` is not a list of strings, or one of them is not a
        regular expression.
    """
    if patterns is None or patterns == BIASES_AND_NORMS:
        return patterns
    if isinstance(patterns, str):
        near = difflib.get_close_matches(
            patterns.lower(), [BIASES_AND_NORMS], cutoff=0.8
        )
        todo = (
            f"did you mean {BIASES_AND_NORMS!r}?"
            if near
            else f"write [{check.shown(patterns)}]."
        )
        raise ValueError(
            f"{argument}: expected a list of regexes or {BIASES_AND_NORMS!r}, "
            f"got the string {check.shown(patterns)}; {todo}"
        )
    try:
        checked = tuple(patterns)
    except TypeError:
        raise ValueError(
            f"{argument}: expected a list of regexes, {BIASES_AND_NORMS!r} or "
            f"None, got {check.shown(patterns)}."
        ) from None
    for pattern in checked:
        if not isinstance(pattern, str):  # a compiled one fits in no config
            raise ValueError(
                f"{argument}: {check.shown(pattern)} is not a regular "
                "expression: expected a string."
            )
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(
                f"{argument}: {pattern!r} is not a regular expression: {error}."
            ) from None
    return checked


def _matched(
    argument: str,
    patterns: Patterns,
    paths: Sequence[str],
    shapes: Sequence[Sequence[int]],
    unmatched: str,
) -> list[bool]:
    """Which variables the patterns stand for.

    Raises:
      ValueError: patterns match nothing, by the rule of `resolve`.
    """
    patterns = check_patterns(argument, patterns)
    if patterns == BIASES_AND_NORMS:
        return matches(BIASES_AND_NORMS, paths, shapes)
    found = [matches(pattern, paths, shapes) for pattern in patterns or ()]
    missing = [p for p, row in zip(patterns or (), found) if not any(row)]
    if missing and paths and unmatched != "ignore":
        message = _unmatched(argument, missing, paths)
        if unmatched == "raise" or len(missing) == len(found):
            raise ValueError(message)
        warnings.warn(message, stacklevel=2)
    return [any(column) for column in zip(*found)] or [False] * len(paths)


def matches(
    pattern: str, paths: Sequence[str], shapes: Sequence[Sequence[int]]
) -> list[bool]:
    """Which variables one pattern matches.

    Args:
      pattern: a regex, or `"biases_and_norms"`.
      paths: full variable paths, without `:0`.
      shapes: the variables' shapes.
    """
    if pattern == BIASES_AND_NORMS:
        return [
            len(shape) < 2 or bool(_SMALL_NAMES.search(path.split("/")[-1]))
            for path, shape in zip(paths, shapes)
        ]
    return [bool(re.search(pattern, _searched(pattern, p))) for p in paths]


def first_matches(
    patterns: Sequence[str],
    paths: Sequence[str],
    shapes: Sequence[Sequence[int]],
    unmatched: str,
    frozen: Sequence[bool] = (),
) -> list[int | None]:
    """The group of each variable: the place of the first pattern that matches.

    Args:
      patterns: of the groups, in order.
      paths: full variable paths, without `:0`.
      shapes: the variables' shapes.
      unmatched: as in `resolve`, for a group to which no variable belongs.
      frozen: which groups are frozen, by default none. One without a variable
        raises, unless "ignore": what it was to freeze would be trained.

    Returns:
      For each path a place in `patterns`, or None.

    Raises:
      ValueError: groups have no variable, by the rule of `resolve`.
    """
    found = [matches(pattern, paths, shapes) for pattern in patterns]
    places: list[int | None] = [
        next((i for i, hit in enumerate(column) if hit), None)
        for column in zip(*found)
    ] or [None] * len(paths)
    empty = [i for i in range(len(patterns)) if i not in places]
    thawed = [i for i in empty if i < len(frozen) and frozen[i]]
    if empty and paths and unmatched != "ignore":
        i = (thawed or empty)[0]
        if any(found[i]):
            earlier = min(
                p for p, x in zip(places, found[i]) if x and p is not None
            )
            message = (
                f"groups: group {i}, {patterns[i]!r}, has no variable, since "
                f"earlier groups, such as {earlier}, {patterns[earlier]!r}, "
                "match all of its own and the first match holds; put it before "
                "them, or leave it out."
            )
        else:
            names = [patterns[i] for i in thawed or empty if not any(found[i])]
            message = _unmatched("groups", names, paths)
        if unmatched == "raise" or thawed or len(empty) == len(patterns):
            raise ValueError(message)
        warnings.warn(message, stacklevel=2)
    return places


def _searched(pattern: str, path: str) -> str:
    """The path; with TensorFlow's `:0`, if the pattern asks for it."""
    return f"{path}:0" if ":0" in pattern else path


def _unmatched(
    argument: str, patterns: Sequence[str], paths: Sequence[str]
) -> str:
    """The message for patterns that match nothing."""
    # A path is ranked by its most similar component: a short pattern differs
    # much from every full path, also from the one it was meant for.
    wanted = [pattern.lower() for pattern in patterns]

    def likeness(path: str) -> float:
        parts = [*path.lower().split("/"), path.lower()]
        return max(
            difflib.SequenceMatcher(None, pattern, part).ratio()
            for pattern in wanted
            for part in parts
        )

    nearest = sorted(paths, key=likeness, reverse=True)[:3]
    names = ", ".join(map(repr, patterns))
    verb = "matches" if len(patterns) == 1 else "match"
    hint = (
        "; names of functional models are no part of a path"
        if any(_may_name_a_model(pattern, paths) for pattern in wanted)
        else ""
    )
    return (
        f"{argument}: pattern{'s'[: len(patterns) - 1]} {names} {verb} none of "
        f"{len(paths)} variables; nearest paths: "
        f"{', '.join(map(repr, nearest))}{hint}. Patterns are searched by "
        "re.search in the full path and mind the case; unmatched='ignore' "
        f"accepts them{_NO_NAMES if argument != 'groups' else ''}."
    )


def _may_name_a_model(pattern: str, paths: Sequence[str]) -> bool:
    """Whether no path begins as the pattern, in lower case, nor is like it."""
    word = re.search(r"\w+", pattern)
    if word is None:
        return False
    split = [path.lower().split("/") for path in paths]
    parts = {part for path in split for part in path}
    return not (
        any(word[0] in path[0] for path in split)
        or difflib.get_close_matches(word[0], parts, n=1, cutoff=0.7)
    )


def resolve(
    paths: Sequence[str],
    exclude_from_weight_decay: Patterns,
    exclude_from_layer_adaptation: Patterns,
    shapes: Sequence[Sequence[int]] | None = None,
    unmatched: str = "warn",
) -> tuple[Treatment, ...]:
    """How each variable is treated.

    Args:
      paths: full variable paths, in order.
      exclude_from_weight_decay: regexes of variables without weight decay, or
        `"biases_and_norms"`; None and `()` mean that all decay.
      exclude_from_layer_adaptation: regexes of variables whose trust ratio is
        1, or `"biases_and_norms"`; None means the same as
        `exclude_from_weight_decay`, `()` that every variable is adapted.
      shapes: the variables' shapes, for `"biases_and_norms"`.
      unmatched: what a pattern that matches no path does: "warn" (a list of
        which no pattern matches raises all the same, since a list that does
        nothing is a mistake), "raise", or "ignore" (nothing, even then).

    Returns:
      A `Treatment` for each path.

    Raises:
      ValueError: a pattern is not a regex, or patterns match no path; the
        message names them and the nearest paths.

    Example:
      >>> from tf_lamb import exclusion
      >>> kernel, bias = exclusion.resolve(
      ...     ["dense/kernel", "dense/bias"], ["bias"], None
      ... )
      >>> bias
      Treatment(path='dense/bias', decay=False, adapt=False, group=None)
    """
    check.one_of("unmatched", unmatched, UNMATCHED)
    paths = [normalize_path(path) for path in paths]
    shapes = shapes or [(1, 1)] * len(paths)
    no_decay = _matched(
        "exclude_from_weight_decay",
        exclude_from_weight_decay,
        paths,
        shapes,
        unmatched,
    )
    no_adapt = no_decay
    if exclude_from_layer_adaptation is not None:
        no_adapt = _matched(
            "exclude_from_layer_adaptation",
            exclude_from_layer_adaptation,
            paths,
            shapes,
            unmatched,
        )
    return tuple(
        Treatment(path, not decay, not adapt)
        for path, decay, adapt in zip(paths, no_decay, no_adapt)
    )


def describe(
    shapes: Sequence[Sequence[int]],
    treatments: Sequence[Treatment],
    columns: Sequence[Sequence[str]] = (),
) -> str:
    """A table of variables: path, shape, weight decay, layer adaptation.

    Repeated paths are numbered (`unique_keys`).

    Args:
      shapes: the variables' shapes.
      treatments: the result of `resolve`.
      columns: more of them, each with its head first.

    Returns:
      Text: a head line, then one line for each variable.
    """
    keys = unique_keys([treatment.path for treatment in treatments])
    rows = [("variable", "shape", "decay", "adapt")]
    rows += [
        (
            key,
            "x".join(map(str, shape)) or "scalar",
            "yes" if treatment.decay else "no",
            "yes" if treatment.adapt else "no",
        )
        for key, shape, treatment in zip(keys, shapes, treatments)
    ]
    rows = [(*row, *more) for row, *more in zip(rows, *columns)]
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join(
        "  ".join(cell.ljust(w) for cell, w in zip(row, widths)).rstrip()
        for row in rows
    )
