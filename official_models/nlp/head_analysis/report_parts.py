"""What report.html is made of: cells, tables, heat maps, pictures.

L layers, N heads, S tokens of a mean map.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from official_models.nlp.head_analysis.report_style import cell_style


def escaped(value: Any) -> str:
    """Any value as text that HTML takes as text."""
    return html.escape(str(value))


def section_of(title: str, note: str, *body: str) -> str:
    """A part of the page: title and note are text, the body is HTML."""
    return (
        f"<section><h2>{escaped(title)}</h2><p>{escaped(note)}</p>"
        f"{''.join(body)}</section>\n"
    )


def table_of(
    head: Sequence[str], rows: Sequence[Sequence[str]], of: str = ""
) -> str:
    """A table; cells are HTML, those that begin with "<td" whole ones."""

    def cell(x: str) -> str:
        return x if x.startswith("<td") else f"<td>{x}</td>"

    body = "".join(
        f"<tr><th scope=row>{row[0]}</th>{''.join(map(cell, row[1:]))}</tr>"
        for row in rows
    )
    names = "".join(f"<th scope=col>{escaped(x)}</th>" for x in head)
    return (
        f'<div class=wide><table class="{of}"><thead><tr>{names}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def number_cell(
    part: str, value: float, shown: str, *, style: str = "", **place: int
) -> str:
    """A cell that has its value at full precision."""
    where = "".join(f' data-{k}="{v}"' for k, v in place.items())
    more = f' style="{style}"' if style else ""
    return (
        f'<td data-part="{escaped(part)}"{where} data-value="{value!r}"{more}>'
        f"{shown}</td>"
    )


def heat_map(
    part: str,
    values: np.ndarray,
    limits: tuple[float, float],
    colours: tuple,
    shown: str,
    scale: float = 1.0,
    deviation: Any = None,
) -> str:
    """A table of layers by heads whose cells are coloured by their value."""
    rows = []
    for i, row in enumerate(values.tolist()):
        cells = []
        for j, value in enumerate(row):
            text = format(scale * value, shown)
            if deviation is not None:
                spread = format(scale * deviation[i][j], shown.lstrip("+"))
                text += f"<small>±{spread}</small>"
            style = cell_style(value, limits, colours)
            cells.append(
                number_cell(part, value, text, style=style, layer=i, head=j)
            )
        rows.append([f"layer {i}", *cells])
    head = ["", *(f"head {j}" for j in range(values.shape[1]))]
    return table_of(head, rows, "heat")


def picture_of(values: Sequence[Sequence[float]], label: str) -> str:
    """A map as an inline PNG, white 0, black its largest weight."""
    from PIL import Image

    x = np.array(values)
    x = np.sqrt(x / max(float(x.max()), 1e-9))
    # From white to a dark blue.
    shades = 255 - np.rint(x[..., None] * [240, 208, 165]).astype(int)
    drawn = io.BytesIO()
    Image.fromarray(shades.astype("uint8")).save(drawn, "PNG", optimize=True)
    code = base64.b64encode(drawn.getvalue()).decode("ascii")
    return f'<img alt="{label}" src="data:image/png;base64,{code}">'
