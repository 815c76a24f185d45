"""The table of Keras' behaviours is whole, tested, and on the site."""

import re
from pathlib import Path

from tests.support_matrix import keras_table

FOLDER = Path(__file__).parent


def test_every_row_has_its_test():
    """One test for each row, in the order of the rows."""
    files = re.findall(
        r"# (test_keras_\w+\.py)",
        (FOLDER / "keras_table.py").read_text(encoding="utf-8"),
    )
    tested = [
        name
        for file in files
        for name in re.findall(
            r'@behaviour\("(.*)"\)', (FOLDER / file).read_text(encoding="utf-8")
        )
    ]
    assert tested == list(keras_table.BEHAVIOURS)
    assert sorted(files) == sorted(
        path.name
        for path in FOLDER.glob("test_keras_*.py")
        if path != Path(__file__)
    )


def test_every_cell_is_of_a_column():
    for behaviour, cells in keras_table.BEHAVIOURS.items():
        assert set(cells) <= set(keras_table.COLUMNS), behaviour
        assert len(cells) < len(keras_table.COLUMNS) or any(
            isinstance(found, keras_table.Fault) for found in cells.values()
        ), f"{behaviour}: tested nowhere"


def test_the_site_has_the_table():
    page = FOLDER.parents[1] / "docs" / "strategies.md"
    assert keras_table.render() in page.read_text(encoding="utf-8"), (
        f"{page}: copy the output of python -m tests.support_matrix.keras_table"
    )
