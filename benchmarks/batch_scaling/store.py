"""The file in which a study's cells are kept."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from benchmarks import measure
from benchmarks.batch_scaling.grid import Cell, Study
from official_models.common import files
from official_models.common.errors import InputError


class Store:
    """Results by cell, written whole after every cell.

    Args:
        path: the JSON file; one that is there is resumed.
        task: name of the task.
        study: what is varied; results of another study are refused.
        settings: of the task, such as weight decays; the same.

    Raises:
        InputError: the file cannot be read or belongs to another study.
    """

    def __init__(self, path: Path, task: str, study: Study, settings: dict):
        self.path = Path(path)
        described = dataclasses.asdict(study)
        # What is only added to does not change the cells that are there.
        for name in ("batches", "variations", "methods", "retune_from"):
            described.pop(name)
        described["base_batch"] = study.batches[0]
        described["largest_batch"] = study.batches[-1]
        head = json.loads(json.dumps({"study": described, **settings}))
        self.value = {"task": task, **head, "sittings": [], "cells": {}}
        if not self.path.exists():
            return
        remedy = (
            "not a file of results; move it away or name another by --output"
        )
        old = files.read_json(self.path, remedy)
        try:
            old["cells"]
        except (KeyError, TypeError) as error:
            raise InputError(f"{self.path}: {remedy}") from error
        for name, value in {"task": task, **head}.items():
            if old.get(name) != value:
                raise InputError(
                    f"{self.path}: its {name} is {old.get(name)}, now "
                    f"{value}; move it away or name another by --output"
                )
        self.value = old

    @property
    def scores(self) -> dict[str, float]:
        """{key of a cell: its score}."""
        return {k: v["score"] for k, v in self.value["cells"].items()}

    def begin(self) -> None:
        """Notes where and how this sitting runs."""
        sitting = measure.provenance()
        if sitting not in self.value["sittings"]:
            self.value["sittings"].append(sitting)

    def add(self, cell: Cell, result: dict) -> None:
        """Keeps a result and writes the file."""
        self.value["cells"][cell.key] = dataclasses.asdict(cell) | result
        measure.write_json(self.path, self.value)
