"""README and the site's pages: length, links, quoted numbers."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
_LINK = re.compile(r"\]\((?![a-z]+:|#)([^)\s#]+)")
RESULTS = ROOT / "benchmarks" / "results" / "batch_scaling"


def test_readme_is_short():
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 120


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_to_files(page):
    text = page.read_text(encoding="utf-8")
    missing = [
        link
        for link in _LINK.findall(text)
        if not (page.parent / link).exists()
    ]
    assert not missing, f"{page}: no such files: {', '.join(missing)}"


def _tables(text):
    """Markdown tables as [{row's name: {column: cell}}]."""
    found = []
    for block in re.findall(r"(?:^\|.*\|\n)+", text, re.M):
        rows = [
            [cell.strip(" *") for cell in line.strip().strip("|").split("|")]
            for line in block.splitlines()
        ]
        head = rows[0][1:]
        found.append({row[0]: dict(zip(head, row[1:])) for row in rows[2:]})
    return found


def _numbers(cell):
    """[(value, half of its last digit's unit)]: mean and deviation."""
    cell = re.sub(r" at [0-9.]+$", "", cell)
    digits = re.findall(r"\d+\.(\d+)", cell)
    values = map(float, re.findall(r"\d+\.\d+", cell))
    return [(v, 0.5 * 10 ** -len(d)) for v, d in zip(values, digits)]


@pytest.mark.parametrize(
    "section, study",
    [
        ("### MNIST digits", "mnist"),
        ("### CIFAR-10", "cifar10"),
        ("### Masked tokens", "masked_lm"),
    ],
)
def test_evidence_quotes_the_results(section, study):
    page = (DOCS / "evidence.md").read_text(encoding="utf-8")
    (quoted,) = _tables(page.split(section)[1].split("\n##")[0])
    measured = _tables((RESULTS / f"{study}.md").read_text("utf-8"))[0]
    assert len(quoted) >= 2
    for name, row in quoted.items():
        source = measured[f"{name}, sqrt"]
        for column, cell in row.items():
            steps = re.search(r"\(.* steps\)$|retuned$", column)[0]
            (key,) = [c for c in source if c.endswith(steps)]
            for (a, unit), (b, _) in zip(
                _numbers(cell), _numbers(source[key]), strict=True
            ):
                assert abs(a - b) <= unit * 1.001, (name, column)
