"""Pictures: without `pyplot`, so that a notebook keeps its own backend."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np


def new(what: str, width: float, height: float) -> Any:
    """An empty `matplotlib.figure.Figure`, laid out as its contents need.

    Args:
      what: begins the message: what is drawn.
      width: in inches.
      height: in inches.

    Raises:
      ModuleNotFoundError: matplotlib is not installed.
    """
    try:
        import matplotlib.figure
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            f"{what}: needs matplotlib, which is not installed: pip install "
            "matplotlib.",
            name="matplotlib",
        ) from None
    return matplotlib.figure.Figure(
        figsize=(width, height), layout="constrained"
    )


def colors(name: str, count: int) -> Any:
    """Colours from one end of a colour map to the other, RGBA [count, 4]."""
    import matplotlib

    return matplotlib.colormaps[name](np.linspace(0, 1, count))


def save(
    figure: Any, path: str | os.PathLike[str], *, dpi: float = 120
) -> None:
    """Draws a figure into a PNG file, under a temporary name first.

    Args:
      figure: of `new`.
      path: of the file; its folder is made if it does not exist.
      dpi: dots an inch.
    """
    temporary = Path(path).with_suffix(".tmp.png")
    temporary.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(temporary, dpi=dpi)
    os.replace(temporary, path)
