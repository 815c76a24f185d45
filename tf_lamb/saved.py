"""Which saved variable is which: exclusions that survive saving and loading.

Keras 3 changes paths when a model is loaded: `net/head/bias` becomes
`head/bias`, and the numbers of names that Keras makes up change. So the config
of an optimizer has, beside the patterns, what they were resolved to; a loaded
optimizer takes that over for every variable that it knows again.
"""

from __future__ import annotations

import re
import warnings
from typing import Any, Mapping, NamedTuple, Sequence

from tf_lamb import exclusion
from tf_lamb.exclusion import Patterns, Treatment

# Key of a config.
KEY = "excluded_variables"


class Identity(NamedTuple):
    """What tells a variable from the others after it was loaded.

    Attributes:
      path: its full path, without TensorFlow's `:0`.
      shape: its shape.
    """

    path: str
    shape: tuple[int, ...]


def match(
    saved: Sequence[Identity], now: Sequence[Identity]
) -> list[int | None]:
    """Finds for each variable which of the saved ones it was.

    By path, if all paths are the same; else by position, if all shapes are the
    same and each path differs from the saved one by leading components and by
    the numbers of made-up names only; else (a part of the model was frozen or
    unfrozen) each variable on its own: by path, or by the one path that ends
    like it.

    Args:
      saved: variables of the file, in its order.
      now: variables of the optimizer, in its order.

    Returns:
      For each variable of `now` its position in `saved`, None for a variable
      that is not there.

    Example:
      >>> from tf_lamb import saved
      >>> file = [saved.Identity("net/d/bias", (2,))]
      >>> saved.match(file, [saved.Identity("d/bias", (2,))])
      [0]
    """
    positions = {identity.path: i for i, identity in enumerate(saved)}
    unique = len(positions) == len(saved)
    same_paths = positions.keys() == {identity.path for identity in now}
    if not (unique and same_paths) and _same_places(saved, now):
        return list(range(len(now)))
    found: list[int | None] = []
    for path, shape in now:
        i = positions.get(path) if unique else None
        if i is None:
            alike = [
                j for j, x in enumerate(saved) if _ends_alike(x.path, path)
            ]
            i = alike[0] if len(alike) == 1 else None
        found.append(i if i is not None and saved[i].shape == shape else None)
    # No saved variable is two.
    return [i if found.count(i) == 1 else None for i in found]


def _same_places(saved: Sequence[Identity], now: Sequence[Identity]) -> bool:
    return len(saved) == len(now) and all(
        a.shape == b.shape
        and _ends_alike(_without_numbers(a.path), _without_numbers(b.path))
        for a, b in zip(saved, now)
    )


def _without_numbers(path: str) -> str:
    return re.sub(r"_\d+(?=/|$)", "", path)


def _ends_alike(path: str, other: str) -> bool:
    """Whether one path is the other without some leading components."""
    return f"/{path}".endswith(f"/{other}") or f"/{other}".endswith(f"/{path}")


class Exclusions:
    """The exclusions of one optimizer, and what a config says of them.

    Attributes:
      record: JSON value for the config, or None: patterns, and for each
        variable `[path, shape, decay, adapt, listed]`, and its group where
        there are any.
      loaded: whether the optimizer was made from a config. Then a pattern that
        matches nothing warns: the model has to load, to predict at least.
    """

    def __init__(self, record: Mapping[str, Any] | None = None) -> None:
        self.record = record
        self.loaded = record is not None

    def resolve(
        self,
        owner: str,
        variables: Sequence[Identity],
        listed: Sequence[bool],
        no_decay: Patterns,
        no_adapt: Patterns,
        unmatched: str = "warn",
        groups: Sequence[str] = (),
        frozen: Sequence[bool] = (),
    ) -> tuple[Treatment, ...]:
        """How each variable is treated, but for what its group changes.

        Args:
          owner: name of the optimizer, for messages.
          variables: paths and shapes, in order.
          listed: which of them `exclude_from_weight_decay(var_list=...)` got.
            They are treated as if a pattern of the decay matched them.
          no_decay: patterns of variables without weight decay.
          no_adapt: patterns of variables without adaptation; None: the same.
          unmatched: what a pattern that matches nothing does, as in
            `exclusion.resolve`. Of an optimizer that was made from a config, it
            never raises.
          groups: patterns of the groups; the first that matches holds.
          frozen: which groups are frozen, as in `exclusion.first_matches`.

        Returns:
          A `Treatment` for each variable.

        Raises:
          ValueError: as `exclusion.resolve`, if the optimizer was not made from
            a config.
        """
        shapes = [identity.shape for identity in variables]
        paths = [identity.path for identity in variables]
        patterns = no_decay, no_adapt

        def by_patterns(policy: str) -> tuple[Treatment, ...]:
            found = exclusion.resolve(paths, *patterns, shapes, policy)
            places = exclusion.first_matches(
                groups, paths, shapes, policy, frozen
            )
            return tuple(t._replace(group=i) for t, i in zip(found, places))

        problem = ""
        try:
            found = by_patterns("raise" if self.loaded else unmatched)
        except ValueError as error:
            if not self.loaded:
                raise
            problem = "" if unmatched == "ignore" else f"{owner}: {error}"
            found = by_patterns("ignore")
        written = _json(*patterns, groups)
        rows = self._rows(written)
        saved = match([Identity(r[0], tuple(r[1])) for r in rows], variables)
        was = [None if i is None else rows[i] for i in saved]
        listed = [x or bool(r and r[4]) for x, r in zip(listed, was)]
        found = tuple(
            _listed(t, no_adapt) if x else t for t, x in zip(found, listed)
        )
        resolved = tuple(
            t._replace(decay=r[2], adapt=r[3], group=_group(r)) if r else t
            for t, r in zip(found, was)
        )
        _warn(owner, problem, rows, was, paths, resolved, found)
        if not (rows and all(was)):
            self.record = _record(variables, resolved, listed, written)
        # Else the loaded optimizer's config is that of the saved one.
        return resolved

    def _rows(self, written: list[Any]) -> list[list[Any]]:
        """The config's rows; none if its patterns were changed."""
        record = self.record if self.loaded else None
        if record is None or record["patterns"] != written:
            return []
        return list(record["variables"])

    def config(
        self, owner: str, *, built: bool, listed: bool
    ) -> dict[str, Any]:
        """What `get_config` has to add: `{KEY: record}`, or nothing.

        Args:
          owner: name of the optimizer, for the message.
          built: whether the optimizer knows its variables.
          listed: whether variables are excluded by `var_list`. Without `built`
            they are not in the record yet, and a warning says so.
        """
        if listed and not built:
            warnings.warn(
                f"{owner}: variables that exclude_from_weight_decay got as "
                "var_list are not in the config of an optimizer that is not "
                "built; call optimizer.build(model.trainable_variables) first.",
                stacklevel=3,
            )
        return {} if self.record is None else {KEY: self.record}


def _json(
    no_decay: Patterns, no_adapt: Patterns, groups: Sequence[str]
) -> list[Any]:
    """All patterns; without groups, as files were before there were any."""
    lists = no_decay, no_adapt, *([tuple(groups)] if groups else [])
    return [list(p) if isinstance(p, tuple) else p for p in lists]


def _group(row: Sequence[Any]) -> int | None:
    return row[5] if len(row) > 5 else None


def _record(
    variables: Sequence[Identity],
    treatments: Sequence[Treatment],
    listed: Sequence[bool],
    written: list[Any],
) -> dict[str, Any] | None:
    if not (any(written) or any(listed)):
        return None
    rows = [
        [path, list(shape), t.decay, t.adapt, by_list]
        for (path, shape), t, by_list in zip(variables, treatments, listed)
    ]
    if len(written) > 2:
        rows = [[*row, t.group] for row, t in zip(rows, treatments)]
    return {"patterns": written, "variables": rows}


def _listed(treatment: Treatment, no_adapt: Patterns) -> Treatment:
    """The treatment of a variable that `var_list` has."""
    adapt = treatment.adapt and no_adapt is not None
    return treatment._replace(decay=False, adapt=adapt)


def _warn(
    owner: str,
    problem: str,
    rows: Sequence[Sequence[Any]],
    was: Sequence[Sequence[Any] | None],
    paths: Sequence[str],
    resolved: Sequence[Treatment],
    found: Sequence[Treatment],
) -> None:
    """Warns where patterns and saved exclusions disagree or are not known."""
    differ = [i for i, t in enumerate(resolved) if t != found[i]]
    if differ:
        i = differ[0]
        row = was[i] or ["?"]
        warnings.warn(
            f"{owner}: {len(differ)} of {len(paths)} variables are treated as "
            "they were saved, and not as the patterns say now, because paths "
            f"have changed: {row[0]!r} is {paths[i]!r} now (decay "
            f"{resolved[i].decay}, adapt {resolved[i].adapt}, group "
            f"{resolved[i].group}); write patterns that match both paths.",
            stacklevel=5,
        )
        return
    kept = {r[0] for r in was if r}
    lost = [r[0] for r in rows if r[4] and r[0] not in kept]
    if lost:
        problem = (
            f"{owner}: {len(lost)} variables that exclude_from_weight_decay "
            f"got as var_list are not among these {len(paths)}: {lost[0]!r}."
        )
    elif all(was):
        return  # all known again: what matches nothing did no harm
    if problem:
        warnings.warn(
            f"{problem} The optimizer was made from a config, which is loaded "
            "all the same; look at describe() before you train it.",
            stacklevel=5,
        )
