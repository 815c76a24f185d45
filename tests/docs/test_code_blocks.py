"""Which Python blocks of a page are run where."""

import pytest

sybil = pytest.importorskip("sybil", reason="sybil is in .venv only")

from tests.docs import code_blocks  # noqa: E402

PAGE = """
```python
a = 1
```

<!-- runs on: jax, torch -->
```python
b = 2
```

<!-- not run: needs a TPU -->
```python
c = 3
```

```bash
make run
```
"""


def _blocks(here, text=PAGE):
    document = sybil.Document(text, str(code_blocks.ROOT / "page.md"))
    return [r.parsed.strip() for r in code_blocks.Blocks(here)(document)]


@pytest.fixture(autouse=True)
def nothing_noted(monkeypatch):
    monkeypatch.setattr(code_blocks, "not_run", [])


@pytest.mark.parametrize(
    "here, expected",
    [("tensorflow", ["a = 1"]), ("jax", ["b = 2"]), ("tf215", [])],
)
def test_blocks_of_an_environment(here, expected):
    assert _blocks(here) == expected


def test_what_is_not_run_is_noted_with_its_reason():
    _blocks("tensorflow")
    assert code_blocks.not_run == [("page.md", 12, "needs a TPU")]


@pytest.mark.parametrize(
    "mark, message",
    [
        ("<!-- runs on: gpu -->", r"page.md:2: runs on 'gpu'; expected some"),
        ("<!-- runs on -->", r"page.md:2: runs on ''; expected some"),
        ("<!-- not run -->", r"page.md:2: 'not run' without a reason"),
        ("<!-- not run: -->", r"page.md:2: 'not run' without a reason"),
    ],
)
def test_a_wrong_mark_is_an_error(mark, message):
    with pytest.raises(ValueError, match=message):
        _blocks("tensorflow", f"{mark}\n```python\na = 1\n```\n")


@pytest.mark.parametrize("language", ["py", "python3", "python notest"])
def test_a_block_that_would_be_passed_over_is_an_error(language):
    with pytest.raises(ValueError, match=f"fenced as '{language}'"):
        _blocks("tensorflow", f"```{language}\na = 1\n```\n")
