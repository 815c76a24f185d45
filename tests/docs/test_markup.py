"""The site's changes to links and docstrings."""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_spec = importlib.util.spec_from_file_location(
    "markup", ROOT / "docs" / "markup.py"
)
markup = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(markup)

INCLUDED = {"tpu/README.md": "reports/tpu"}


@pytest.mark.parametrize(
    "link, expected",
    [
        ("[jobs](../tpu/README.md)", "[jobs](reports/tpu.md)"),
        ("[a](../tpu/README.md#what)", "[a](reports/tpu.md#what)"),
        ("[tests](../tests/docs)", "tests"),
        ("[rules](../tf_lamb/rules.py)", "[rules](../tf_lamb/rules.py)"),
        ("![p](x/y.png)", "![p](x/y.png)"),
        (
            "[paper](https://arxiv.org/abs/1)",
            "[paper](https://arxiv.org/abs/1)",
        ),
        ("[below](#there)", "[below](#there)"),
    ],
)
def test_links_of_a_page(link, expected):
    page = ROOT / "docs" / "evidence.md"
    assert markup.site_links(link, page, page, INCLUDED) == expected


def test_links_of_an_included_file():
    found = markup.site_links(
        "![p](results/loss.png) [t](../../../tpu/README.md)",
        ROOT / "official_models" / "nlp" / "bert" / "README.md",
        ROOT / "docs" / "reports" / "bert.md",
        INCLUDED,
    )
    expected = (
        "![p](../../official_models/nlp/bert/results/loss.png) [t](tpu.md)"
    )
    assert found == expected


def test_display_math_of_a_docstring():
    text = "One line.\n\n$$a = b,\\qquad\n  c$$\n\nwith `a`."
    expected = "One line.\n\n.. math::\n\n   a = b,\\qquad\n   c\n\n\nwith `a`."
    assert markup.restructured(text) == expected


def test_a_table_of_a_docstring():
    text = "| a | b |\n|---|---|\n| `x |y|` | 2 |\n"
    lines = [
        ".. list-table::",
        "   :header-rows: 1",
        "",
        "   * - a",
        "     - b",
        "   * - `x |y|`",
        "     - 2",
        "",
    ]
    assert markup.restructured(text) == "\n".join(lines)


def test_own_names_become_links():
    found = markup.restructured("See `tf_lamb.rules.lamb`, ``tf_lamb.x``, `a`.")
    assert found == "See :py:obj:`tf_lamb.rules.lamb`, ``tf_lamb.x``, `a`."
