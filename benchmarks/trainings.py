"""Trainings that a study runs, each by a script, in a folder of its own."""

from official_models.common import files
from official_models.common.errors import InputError

RECORD = "runs.json"


def check_flags(words, ours, here):
    """Refuses flags of a script that the study gives it.

    Args:
        words: Flags behind `--`.
        ours: Names of flags that the study gives.
        here: The study's flags for them, in words.

    Raises:
        InputError: It names the flag.
    """
    for word in words:
        name = word.lstrip("-").partition("=")[0]
        if word.startswith("-") and name in ours:
            raise InputError(
                f"-- {word}: is set here; expected {here} before --, and the "
                "script's other flags behind it"
            )


def check_runs(runs, now, unrecorded=None):
    """Refuses a folder with runs of something else; makes a new one.

    Args:
        runs: Folder of the runs.
        now: What all of them have in common, as JSON values.
        unrecorded: What a folder without a record is of; None for `now`.

    Raises:
        InputError: It names what differs.
    """
    runs.mkdir(parents=True, exist_ok=True)
    path, before = runs / RECORD, unrecorded or now
    if path.is_file():
        before = files.read_json(path, "name another folder by --runs")
    for name, value in now.items():
        if before.get(name) != value:
            there, here = map(_words, (before.get(name), value))
            raise InputError(
                f"--runs {runs}: has runs of {name} {there}, this is {here}; "
                "name another folder"
            )
    files.write_json(path, now)


def _words(value):
    return " ".join(value) if isinstance(value, list) else value
