"""Layer-wise decay of the learning rate: groups from a model's own paths."""

from __future__ import annotations

import dataclasses
import re
from typing import Any, Sequence

from tf_lamb import check
from tf_lamb.exclusion import normalize_path
from tf_lamb.groups import Group

__all__ = ["layer_decay"]

_BLOCK = re.compile(r"(?:layer|block|stage|group)s?_?\d+(?=[/_]|$)")


def layer_decay(
    model: Any,
    decay: float,
    *,
    layers: Sequence[str] | None = None,
    **options: Any,
) -> list[Group]:
    r"""Groups whose learning rate falls from the output to the input.

    $$c_l = d^{\,L + 1 - l}$$

    for the layers `l = 1 ... L`. What is behind the last of them (the head) has
    1, and what is before the first (the embeddings, the stem) has `d ** (L +
    1)`.

    Args:
      model: a model of any Keras that is built; or a list of its variables or
        of their paths, in order from input to output.
      decay: `d`, > 0 and at most 1.
      layers: regexes from input to output, the embeddings or the stem among
        them; what none of them matches belongs to the head. The last one has
        `d`, the one before it `d ** 2`. None: the numbered layers that the
        paths name (`layer_3`, `stage_2/block_1`, `conv2_block1`), in the order
        of the model; a variable between two of them belongs to the first.
      **options: further arguments of each of the groups (`Group`).

    Returns:
      Groups. Where several groups match, the first one holds, so others are put
      before them: `[Group("pooler", frozen=True), *layer_decay(model, 0.9)]`.

    Raises:
      ValueError: `decay` is out of its range, no path names a numbered layer,
        or an option is none of `Group`.

    References:
      Clark et al. 2020, ELECTRA (arXiv:2003.10555), appendix: layer-wise
      learning-rate decay in fine-tuning.

    Example:
      >>> import tf_lamb
      >>> paths = ["bert/word/table", "bert/layer_0/kernel",
      ...          "bert/layer_1/kernel", "head/kernel"]
      >>> for group in tf_lamb.layer_decay(paths, 0.5):
      ...     print(group.pattern, group.learning_rate_multiplier)
      (^|/)bert/word/table$ 0.125
      (^|/)bert/layer_0(?=[/_]|$) 0.25
      (^|/)bert/layer_1(?=[/_]|$) 0.5
    """
    decay = check.positive("decay", decay)
    if decay > 1:
        raise check.refuse("decay", decay, "a number > 0 and at most 1")
    if layers is None:
        layers = _numbered_layers(_paths(model))
    elif isinstance(layers, str) or not layers:
        raise check.refuse("layers", layers, "a list of regexes")
    known = {field.name for field in dataclasses.fields(Group)}
    for name, value in options.items():
        if name in ("pattern", "learning_rate_multiplier"):
            raise ValueError(
                f"{name}: layer_decay chooses it, got {check.shown(value)}; "
                "write a Group of your own."
            )
        if name not in known:
            raise check.refuse(name, value, "an argument of tf_lamb.Group")
    count = len(layers)
    return [
        Group(pattern, decay ** (count - i), **options)
        for i, pattern in enumerate(layers)
    ]


def _paths(model: Any) -> list[str]:
    """Paths of a model's variables, in its order.

    Raises:
      ValueError: there are none.
    """
    variables = getattr(model, "trainable_variables", model)
    if not isinstance(variables, (list, tuple)):
        raise check.refuse(
            "model", model, "a model, or a list of variables or paths"
        )
    paths = [
        x if isinstance(x, str) else getattr(x, "path", None) or x.name
        for x in variables
    ]
    if not paths:
        raise ValueError(
            "layer_decay: the model has no trainable variables; build it first "
            "(call it on a batch), or pass layers=[...]."
        )
    return [normalize_path(path) for path in paths]


def _numbered_layers(paths: Sequence[str]) -> list[str]:
    """Regexes of the layers that paths name, from input to output.

    Raises:
      ValueError: they name none.
    """
    prefixes = [_numbered(path) for path in paths]
    numbered = list(dict.fromkeys(filter(None, prefixes)))
    if not numbered:
        raise ValueError(
            "layer_decay: no path names a numbered layer (layer_3, "
            f"stage_2/block_1), such as {paths[0]!r}; pass layers=[regexes "
            "from input to output]."
        )
    first = next(i for i, prefix in enumerate(prefixes) if prefix)
    last = max(i for i, prefix in enumerate(prefixes) if prefix)
    between: dict[str, list[str]] = {prefix: [] for prefix in numbered}
    current = numbered[0]
    for path, prefix in list(zip(paths, prefixes))[first:last]:
        current = prefix or current
        if not prefix:
            between[current].append(path)
    layers = [
        _pattern([rf"{re.escape(prefix)}(?=[/_]|$)", *map(_whole, more)])
        for prefix, more in between.items()
    ]
    before = [_whole(path) for path in dict.fromkeys(paths[:first])]
    return [_pattern(before), *layers] if before else layers


def _numbered(path: str) -> str:
    """The path up to the last numbered layer in it; "" without one."""
    ends = [found.end() for found in _BLOCK.finditer(path)]
    return path[: ends[-1]] if ends else ""


def _whole(path: str) -> str:
    return f"{re.escape(path)}$"


def _pattern(alternatives: Sequence[str]) -> str:
    """One regex of several, each from the begin of a component on."""
    if len(alternatives) == 1:
        return f"(^|/){alternatives[0]}"
    return f"(^|/)({'|'.join(alternatives)})"
