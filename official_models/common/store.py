"""Results of a study's parts, each in a file, until the time is up."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from official_models.common import files
from official_models.common.errors import InputError


class OutOfTime(Exception):
    """The hours are over before the next part."""


class Store:
    """Computes what is not there yet.

    Args:
        folder: Of the files, NAME.json; made when the first one is written.
        hours: Of this start; a part that was begun is finished. None: no
            limit.
        now: Gives seconds.

    Raises:
        InputError: The hours are none.
    """

    def __init__(
        self,
        folder: Path,
        hours: float | None = None,
        now: Callable[[], float] = time.monotonic,
    ):
        if hours is not None and not hours > 0:
            raise InputError(f"--hours {hours:g}: expected a number above 0")
        self.folder, self._now = folder, now
        self._end = None if hours is None else now() + 3600 * hours

    def get(self, name: str, make: Callable[[], Any]) -> Any:
        """What a file has, or what `make` gives, which is written.

        Args:
            name: Of the file, without .json.
            make: Gives JSON values.

        Raises:
            OutOfTime: It would have to be made, and the time is up.
            InputError: The file is damaged, or `make` raises it.
        """
        if self.has(name):
            return self.read(name)
        if self._end is not None and self._now() >= self._end:
            raise OutOfTime(name)
        found = make()
        self.folder.mkdir(parents=True, exist_ok=True)
        files.write_json(self._path(name), found)
        return found

    def has(self, name: str) -> bool:
        """Whether there is such a file."""
        return self._path(name).is_file()

    def read(self, name: str) -> Any:
        """What a file has.

        Raises:
            InputError: It is not there, or damaged.
        """
        return files.read_json(
            self._path(name), "remove it to compute it again"
        )

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.json"


def complete(compute: Callable[[], Any], folder: Path) -> Any:
    """What `compute` gives; None, and a line, where the time is up before.

    Args:
        compute: Gets its parts from a `Store`.
        folder: Of the run, for the line.
    """
    try:
        return compute()
    except OutOfTime as missing:
        print(
            f"{folder}: the time is up before {missing}; the same command "
            "does what is missing"
        )
        return None
