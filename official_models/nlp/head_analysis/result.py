"""heads.json: what it holds, and whether a file does.

L layers, N heads, M models, S tokens of a mean map. A part that was not
measured is null; a deviation is null where M = 1. README.md has it in words.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from official_models.common.errors import InputError

FORMAT = "heads 1"
NAME = "heads.json"
# An array's axes; "?" before them where null is allowed.
_SPREAD = {"mean": "LN", "deviation": "?LN"}
_CHANGE = {"mean": "", "deviation": "?"}
_CHOICE = {
    "each": [
        {
            "place": [int],
            "choose_change": "",
            "report_change": "",
            "fixed": int,
            "broken": int,
            "p": "",
        }
    ],
    "common": {
        "place": [int],
        "choose_change": _CHANGE,
        "report_change": {**_CHANGE, "models": "M"},
        "better": int,
        "worse": int,
        "p": "",
    },
}
SCHEMA: dict[str, Any] = {
    "format": str,
    "measured": dict,
    "task": str,
    "max_seq_length": int,
    "data": {
        "file": str,
        "sha256": str,
        "examples": int,
        "choose": int,
        "report": int,
    },
    "layers": int,
    "heads": int,
    "models": [str],
    "raw_model": (str, None),
    "mean_maps": "LNSS",
    "patterns": ({"classes": [str], "probabilities": "LNC", "maps": int}, None),
    "change": (
        {
            **_SPREAD,
            "padding": str,
            "by_layer": {"mean": "L", "deviation": "?L"},
            "models": "MLN",
        },
        None,
    ),
    "attention_to": {"*": {**_SPREAD, "examples": int}},
    "relations": (
        [
            {
                **_SPREAD,
                "name": str,
                "examples": int,
                "threshold": "",
                "above": [[int]],
                "best": [int],
            }
        ],
        None,
    ),
    "switching_off": (
        {
            "accuracy": {"choose": "M", "report": "M"},
            "heads": {"choose": "MLN", "report": "MLN"},
            "layers": {"choose": "ML", "report": "ML"},
            "chosen": {"head": _CHOICE, "layer": _CHOICE},
        },
        None,
    ),
}


def check(value: Any, where: str = NAME) -> dict[str, Any]:
    """Holds a value against `SCHEMA`; gives it back.

    Args:
        value: What the JSON file has.
        where: Begins messages.

    Raises:
        InputError: A part is missing, there is one too many, or it has
            another type or shape, or a number that is not finite.
    """
    if not isinstance(value, Mapping) or value.get("format") != FORMAT:
        raise InputError(
            f"{where}: expected an object with format = {FORMAT!r}, as "
            "official_models.nlp.head_analysis writes it"
        )
    sizes: dict[str, int] = {}
    for axis, name in (("L", "layers"), ("N", "heads")):
        sizes[axis] = value[name] if _is_integer(value.get(name)) else -1
    models = value.get("models")
    sizes["M"] = len(models) if isinstance(models, list) else -1
    _check(value, SCHEMA, where, sizes)
    return dict(value)


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _check(value: Any, kind: Any, where: str, sizes: dict) -> None:
    if isinstance(kind, tuple):  # or null
        if value is not None:
            _check(value, kind[0], where, sizes)
    elif isinstance(kind, str):
        if value is not None or not kind.startswith("?"):
            _check_array(value, kind.removeprefix("?"), where, sizes)
    elif isinstance(kind, list):
        if not isinstance(value, list):
            raise _refusal(where, value, "a list")
        for i, item in enumerate(value):
            _check(item, kind[0], f"{where}[{i}]", sizes)
    elif isinstance(kind, dict):
        _check_object(value, kind, where, sizes)
    elif not isinstance(value, kind) or isinstance(value, bool):
        raise _refusal(where, value, kind.__name__)


def _check_object(value: Any, kind: dict, where: str, sizes: dict) -> None:
    if not isinstance(value, Mapping):
        raise _refusal(where, value, "an object")
    if "*" in kind:
        kind = dict.fromkeys(value, kind["*"])
    for name in sorted({*value, *kind}):
        if name not in value or name not in kind:
            what = "missing" if name in kind else "not known"
            raise InputError(f"{where}: {name!r} is {what}")
        _check(value[name], kind[name], f"{where}: {name}", sizes)


def _check_array(value: Any, axes: str, where: str, sizes: dict) -> None:
    if not axes:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not number or not math.isfinite(value):
            raise _refusal(where, value, "a finite number")
        return
    # S and C are the first list's.
    size = sizes.setdefault(axes[0], len(value) if value else 1)
    if not isinstance(value, list) or len(value) != size:
        raise _refusal(where, value, f"a list of {size} ({axes[0]})")
    for item in value:
        _check_array(item, axes[1:], where, sizes)


def _refusal(where: str, value: Any, expected: str) -> InputError:
    return InputError(f"{where}: got {str(value)[:40]}, expected {expected}")
