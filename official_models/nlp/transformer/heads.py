"""Which heads of an encoder have no attention."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any


def switch_off(encoder: Any, places: Iterable[Sequence[int]]) -> None:
    """Replaces the attention of heads by 1 / L over L real tokens.

    Args:
        encoder: A `layers.Encoder`; what was traced of it stays as it was.
        places: (layer, head), or (layer,) for all heads of a layer, from 0;
            none for an encoder as it was.

    Raises:
        ValueError: There is no such layer or head.
    """
    sizes = len(encoder.applied), encoder.config.num_heads
    heads = set()
    for place in places:
        layer, *rest = place
        for what, index, size in zip(("layer", "head"), place, sizes):
            if not 0 <= index < size:
                raise ValueError(
                    f"places: {what} {index} of {tuple(place)}; expected 0 to "
                    f"{size - 1}"
                )
        heads |= {(layer, head) for head in rest or range(sizes[1])}
    encoder.uniform_heads = tuple(sorted(heads))


def place_of(word: str) -> tuple[int, ...]:
    """(layer, head) of "3.1", (layer,) of "3".

    Raises:
        ValueError: It has another form.
    """
    parts = word.strip().split(".")
    if len(parts) > 2 or not all(p.isascii() and p.isdigit() for p in parts):
        raise ValueError(
            f"{word!r}; expected LAYER.HEAD, or LAYER for all its heads, from "
            "0, such as 3.1"
        )
    return tuple(map(int, parts))
