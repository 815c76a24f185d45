"""What the site changes in the text of pages and docstrings."""

import os
import re
from pathlib import Path
from typing import Mapping

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
_LINK = re.compile(
    r"(?P<image>!?)\[(?P<words>[^\]]*)\]"
    r"\((?![a-z]+:|#)(?P<path>[^)\s#]+)(?P<anchor>#[^)\s]*)?\)"
)
_DISPLAY_MATH = re.compile(r"^( *)\$\$(.+?)\$\$", re.M | re.S)
_OWN_NAME = re.compile(r"(?<![`:])`(tf_lamb\.[\w.]+)`(?!`)")
_TABLE = re.compile(r"(?:^ *\|.*\|\n?){3,}", re.M)
# A border of cells: a bar that is not inside of backticks.
_BORDER = re.compile(r"\|(?=(?:[^`]*`[^`]*`)*[^`]*$)")


def site_links(
    text: str, source: Path, page: Path, included: Mapping[str, str]
) -> str:
    """Markdown whose relative links hold on the site.

    A link to a file that is a page of the site goes to that page. A link to
    another file of the repository is kept: Sphinx offers the file for download.
    Of a link to a folder, the words stay.

    Args:
      text: Markdown, with links as they are right beside `source`.
      source: the file that the text stands in.
      page: the file of the page that shows it, under `docs/`.
      included: {file of the repository: page that shows it}, both relative, to
        the repository and to `docs/`, the page without its suffix.

    Returns:
      The text, with links as they are right beside `page`.
    """

    def moved(match):
        target = (source.parent / match["path"]).resolve()
        if not target.is_relative_to(ROOT):
            return match[0]
        name = target.relative_to(ROOT).as_posix()
        if name in included:
            target = DOCS / f"{included[name]}.md"
        elif target.is_dir():
            return match["words"]
        path = os.path.relpath(target, page.parent)
        anchor = match["anchor"] or ""
        return f"{match['image']}[{match['words']}]({path}{anchor})"

    return _LINK.sub(moved, text)


def restructured(docstring: str) -> str:
    """A docstring's Markdown as reStructuredText: math, tables, own names."""
    docstring = _OWN_NAME.sub(r":py:obj:`\1`", docstring)
    docstring = _TABLE.sub(_list_table, docstring)
    return _DISPLAY_MATH.sub(_math, docstring)


def _math(match) -> str:
    indent, body = match.groups()
    lines = [f"{indent}.. math::", ""]
    lines += [f"{indent}   {line.strip()}" for line in body.splitlines()]
    return "\n".join([*lines, ""])


def _list_table(match) -> str:
    rows = match[0].rstrip("\n").split("\n")
    indent = rows[0][: len(rows[0]) - len(rows[0].lstrip())]
    lines = [".. list-table::", "   :header-rows: 1", ""]
    for row in [rows[0], *rows[2:]]:
        cells = [cell.strip() for cell in _BORDER.split(row.strip())[1:-1]]
        for i, cell in enumerate(cells):
            lines.append(("   * - " if i == 0 else "     - ") + cell)
    return "\n".join(indent + line if line else "" for line in lines) + "\n"
