"""Where and how a figure was measured."""

import os
import platform
import sys
from datetime import date
from importlib import metadata
from pathlib import Path


def describe() -> dict:
    """Date, command, machine and versions, for a report."""
    return {
        "date": date.today().isoformat(),
        "command": " ".join([Path(sys.executable).name, *sys.orig_argv[1:]]),
        "machine": f"{_processor()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        **{
            name: metadata.version(package)
            for name, package in (
                ("tensorflow", "tensorflow-cpu"),
                ("tensorflow", "tensorflow"),
                ("keras", "keras"),
                ("numpy", "numpy"),
            )
            if _is_installed(package)
        },
    }


def _is_installed(package: str) -> bool:
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [x.split(":", 1)[1] for x in lines if x.startswith("model name")]
    return names[0].strip() if names else platform.machine()
