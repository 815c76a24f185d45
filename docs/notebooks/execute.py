"""Executes notebooks in place: `make notebooks`.

    python docs/notebooks/execute.py                 # all of this folder
    python docs/notebooks/execute.py NAME.ipynb ...

A notebook in which a cell raises is left as it was. What was executed, and on
which day, is written into the notebook's metadata: a test compares the cells.
"""

import base64
import datetime
import hashlib
import io
import os
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from PIL import Image

FOLDER = Path(__file__).resolve().parent
ENVIRONMENT = {
    "KERAS_BACKEND": "tensorflow",
    "TF_CPP_MIN_LOG_LEVEL": "3",  # the libraries' logs are no results
    "PYTHONPATH": str(FOLDER.parents[1]),
}


def digest(notebook: dict) -> str:
    """SHA-256 of a notebook's code.

    Args:
      notebook: as its JSON is.

    Returns:
      64 hexadecimal digits; they change when a code cell does.
    """
    code = ["".join(cell["source"]) for cell in code_cells(notebook)]
    return hashlib.sha256("\n# %%\n".join(code).encode()).hexdigest()


def code_cells(notebook: dict) -> list:
    """The code cells of a notebook, in order."""
    return [c for c in notebook["cells"] if c["cell_type"] == "code"]


def is_log(output: dict) -> bool:
    """Whether an output is a library's log."""
    text = "".join(output.get("text", ""))
    return output.get("name") == "stderr" or text.startswith("WARNING:")


def smaller(png: str) -> str:
    """A plot in 256 colours, a fraction of the size.

    Args:
      png: base64, as in a notebook.
    """
    image = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")
    file = io.BytesIO()
    image.quantize(256).save(file, "PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode() + "\n"


def execute(path: Path) -> None:
    """Runs all cells of a notebook in order and writes their outputs into it.

    Args:
      path: the notebook; replaced when it has run to its end.

    Raises:
      nbclient.exceptions.CellExecutionError: a cell raised.
    """
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=1800,
        kernel_name="python3",
        record_timing=False,
        resources={"metadata": {"path": str(path.parent)}},
    )
    client.execute(env={**os.environ, **ENVIRONMENT})
    for cell in code_cells(notebook):
        cell.outputs = [x for x in cell.outputs if not is_log(x)]
        for output in cell.outputs:
            data = output.get("data", {})
            if "image/png" in data:
                data["image/png"] = smaller(data["image/png"])
    # The kernel's own version would change with each machine.
    notebook.metadata["language_info"] = {"name": "python"}
    notebook.metadata["executed"] = {
        "date": datetime.date.today().isoformat(),
        "code_sha256": digest(notebook),
    }
    temporary = path.with_name(f".writing-{path.name}")
    nbformat.write(notebook, temporary)
    os.replace(temporary, path)


def main(names: list[str]) -> None:
    """Executes the named notebooks, or all of this folder."""
    paths = [Path(n).resolve() for n in names] or sorted(FOLDER.glob("*.ipynb"))
    for path in paths:
        began = time.monotonic()
        execute(path)
        seconds = time.monotonic() - began
        print(f"{path.name}: {seconds:.0f} s, {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main(sys.argv[1:])
