"""Documents with their summaries, from the published forms of data sets.

| format | what `data_dir` has |
|---|---|
| `scitldr` | `train.jsonl`, `dev.jsonl`, `test.jsonl`: `source` and `target` are lists of strings, sentences and whole references |
| `jsonl` | `train.jsonl`, `validation.jsonl` (or `dev`, `val`), `test.jsonl`: `document` and `summary`, each a text or a list of sentences |
| `cnn_dm` | `.story` files, the highlights at their end each after `@highlight`; in `train/`, `validation/` (or `val/`), `test/`, or all together |
| `xsum` | `.summary` files with the parts `[SN]FIRST-SENTENCE[SN]` and `[SN]RESTBODY[SN]`, there or in `bbc-summary-data/`; `XSum-TRAINING-DEV-TEST-SPLIT-90-5-5.json` |
| `bbc` | `News Articles/` and `Summaries/`, both with `TOPIC/NUMBER.txt` |

Files without a published split (`bbc`, `cnn_dm` in one folder) are split by
the SHA-256 of their articles, so that equal ones stay together: a tenth is for
validation, a tenth for test.
"""  # noqa: E501

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from official_models.common import files
from official_models.common.errors import InputError

SPLITS = ("train", "validation", "test")
XSUM_SPLITS = "XSum-TRAINING-DEV-TEST-SPLIT-90-5-5.json"
_XSUM_FILES = "bbc-summary-data"
_OTHER_NAMES = {"validation": ("validation", "dev", "val", "valid")}
_SHOWN = 3
_HIGHLIGHT = "@highlight"


class Raw(NamedTuple):
    """A document as it was read.

    Attributes:
        place: File, and line or name, for messages.
        document: Its text, or its sentences.
        references: Summaries, each a text or a list of sentences; one or more.
        is_copied: Whether the references are the document's sentences, joined
            without spaces.
    """

    place: str
    document: str | list[str]
    references: list[str | list[str]]
    is_copied: bool = False


class BadDocuments:
    """Counts documents that cannot be used, up to a limit.

    Args:
        most: How many are left out before it is an error.
    """

    def __init__(self, most: int = 0):
        self._most = most
        self.places: list[str] = []

    def note(self, place: str, reason: str) -> None:
        """Counts one.

        Raises:
            InputError: They are more than allowed.
        """
        self.places.append(f"{place}: {reason}")
        if len(self.places) > self._most:
            allowed = (
                f", after {self._most} that --max_bad allows"
                if self._most
                else ""
            )
            raise InputError(
                f"{place}: {reason}{allowed}; mend it, or leave such documents "
                f"out by a larger --max_bad than {self._most}"
            )

    def __str__(self) -> str:
        first = "; ".join(self.places[:_SHOWN])
        more = len(self.places) - _SHOWN
        end = f"; and {more} more" if more > 0 else ""
        return f"{len(self.places)} documents left out: {first}{end}"


def read(
    form: str, data_dir: str, split: str, bad: BadDocuments
) -> Iterator[Raw]:
    """The documents of a split, in a fixed order.

    Args:
        form: A name in `FORMATS`.
        data_dir: The folder.
        split: One of `SPLITS`.
        bad: Takes what is damaged: not UTF-8, not JSON, without its parts.

    Raises:
        InputError: There is nothing of this form, or too much is bad.
    """
    folder = Path(data_dir)
    if not folder.is_dir():
        raise InputError(
            f"--data_dir {data_dir}: no such folder; expected one of --format "
            f"{form}"
        )
    return FORMATS[form](folder, split, bad)


def _json_lines(
    folder: Path,
    split: str,
    bad: BadDocuments,
    parse: Callable[[str, dict], Raw],
) -> Iterator[Raw]:
    names = [f"{n}.jsonl" for n in _OTHER_NAMES.get(split, (split,))]
    path = next((folder / n for n in names if (folder / n).is_file()), None)
    if path is None:
        raise InputError(
            f"--data_dir {folder}: has no {' or '.join(names)}; expected "
            "train.jsonl, validation.jsonl and test.jsonl"
        )
    yield from read_lines(path, bad, parse)


def read_lines(
    path: Path, bad: BadDocuments, parse: Callable[[str, dict], Raw]
) -> Iterator[Raw]:
    """The documents of a file of JSON lines; blank lines are passed over.

    Args:
        path: The file.
        bad: Takes lines that are damaged.
        parse: Of a place and an object; raises ValueError with a reason.
    """
    content = files.read_bytes(path, "expected JSON lines")
    for number, line in enumerate(content.split(b"\n"), 1):
        if not line.strip():
            continue
        place = f"{path}, line {number}"
        try:
            found = files.parse_json(line.decode("utf-8"))
            if not isinstance(found, dict):
                raise ValueError("no JSON object")
            yield parse(place, found)
        except UnicodeDecodeError as error:
            bad.note(place, f"not UTF-8 (byte {error.start} of the line)")
        except json.JSONDecodeError as error:
            bad.note(place, f"not JSON ({error.msg}, column {error.colno})")
        except RecursionError:
            bad.note(place, "nested too deeply")
        except ValueError as error:
            bad.note(place, str(error).split("\n")[0][:200])


def _texts(found: dict, name: str) -> Any:
    value = found.get(name)
    is_list = isinstance(value, list) and all(isinstance(x, str) for x in value)
    if not is_list and not isinstance(value, str):
        raise ValueError(
            f"expected {name!r}, a string or a list of strings, got "
            f"{str(value)[:40]!r}"
        )
    return value


def plain(place: str, found: dict) -> Raw:
    """A document of `{"document": ..., "summary": ...}`.

    Raises:
        ValueError: One of the two is missing, or no text.
    """
    return Raw(place, _texts(found, "document"), [_texts(found, "summary")])


def document(place: str, found: dict) -> Raw:
    """A document of `{"document": ...}` without a summary.

    Raises:
        ValueError: It is missing, or no text.
    """
    return Raw(place, _texts(found, "document"), [])


def _scitldr_line(place: str, found: dict) -> Raw:
    references = _texts(found, "target")
    if isinstance(references, str):
        references = [references]
    if not references:
        raise ValueError("'target' is empty; expected one summary or more")
    return Raw(place, _texts(found, "source"), references)


def _jsonl(folder: Path, split: str, bad: BadDocuments) -> Iterator[Raw]:
    return _json_lines(folder, split, bad, plain)


def _scitldr(folder: Path, split: str, bad: BadDocuments) -> Iterator[Raw]:
    return _json_lines(folder, split, bad, _scitldr_line)


def _files(
    paths: list[Path], bad: BadDocuments, parse: Callable[[Path, str], Raw]
) -> Iterator[Raw]:
    for path in paths:
        try:
            yield parse(path, files.read_text(path))
        except InputError as error:
            bad.note(str(path), str(error).removeprefix(f"{path}: "))
        except ValueError as error:
            bad.note(str(path), str(error))


def _by_text(
    paths: list[Path], split: str, article: Callable[[bytes], bytes]
) -> list[Path]:
    """Those of a split, by a digest of their articles' words.

    So an article that is there twice, under two names, is in one split.

    Args:
        paths: Of all.
        split: One of `SPLITS`.
        article: Gives it, of what a file has.
    """
    found = []
    for path in paths:
        try:
            content = path.read_bytes()
        except OSError:
            content = b""  # in one split, whose reader says why
        words = b" ".join(article(content).split())
        tenth = hashlib.sha256(words).digest()[0] % 10
        if SPLITS[{0: 1, 1: 2}.get(tenth, 0)] == split:
            found.append(path)
    return found


def _cnn_dm(folder: Path, split: str, bad: BadDocuments) -> Iterator[Raw]:
    names = {part: _OTHER_NAMES.get(part, (part,)) for part in SPLITS}
    places = {
        part: next((folder / n for n in found if (folder / n).is_dir()), None)
        for part, found in names.items()
    }
    if place := places[split]:
        paths = sorted(place.rglob("*.story"))
    elif any(places.values()):
        paths = []  # not those of the other splits
    else:
        paths = _by_text(
            sorted(folder.rglob("*.story")),
            split,
            lambda content: content.partition(_HIGHLIGHT.encode())[0],
        )
    if not paths:
        raise InputError(
            f"--data_dir {folder}: has no .story file for {split}; expected "
            "those of CNN/DailyMail, in one folder or in train, validation "
            "and test"
        )
    return _files(paths, bad, _story)


def _story(path: Path, text: str) -> Raw:
    article, *highlights = text.split(_HIGHLIGHT)
    found = [" ".join(x.split()) for x in highlights]
    if not any(found):
        raise ValueError("no @highlight; expected a story of CNN/DailyMail")
    return Raw(str(path), article, [[x for x in found if x]])


def _xsum(folder: Path, split: str, bad: BadDocuments) -> Iterator[Raw]:
    record = folder / XSUM_SPLITS
    remedy = 'expected {"train": [numbers], "validation": ..., "test": ...}'
    ids = files.read_json(record, remedy)
    if not isinstance(ids, dict) or not isinstance(ids.get(split), list):
        raise InputError(f"{record}: no list {split!r}; {remedy}")
    place = folder / _XSUM_FILES
    place = place if place.is_dir() else folder
    # A name, not a path out of the folder.
    names = [Path(f"{number}.summary").name for number in ids[split]]
    return _files([place / name for name in names], bad, _xsum_file)


def _xsum_file(path: Path, text: str) -> Raw:
    parts: dict[str, list[str]] = {}
    name = ""
    for line in text.splitlines():
        if line.startswith("[SN]"):
            name = line.strip().removeprefix("[SN]").removesuffix("[SN]")
        else:
            parts.setdefault(name, []).append(line)
    for expected in ("FIRST-SENTENCE", "RESTBODY"):
        if expected not in parts:
            raise ValueError(f"no part [SN]{expected}[SN]")
    summary = " ".join(" ".join(parts["FIRST-SENTENCE"]).split())
    return Raw(str(path), "\n".join(parts["RESTBODY"]), [[summary]])


def _bbc(folder: Path, split: str, bad: BadDocuments) -> Iterator[Raw]:
    articles = folder / "News Articles"
    # The first line is the headline, which no summary has.
    paths = _by_text(
        sorted(articles.rglob("*.txt")),
        split,
        lambda content: content.strip().partition(b"\n")[2],
    )
    if not paths:
        raise InputError(
            f"--data_dir {folder}: has no text in 'News Articles' for {split}; "
            "expected 'News Articles' and 'Summaries' with a folder for each "
            "topic"
        )

    def parse(path: Path, text: str) -> Raw:
        other = folder / "Summaries" / path.relative_to(articles)
        _, _, body = text.strip().partition("\n")
        return Raw(str(path), body, [files.read_text(other)], is_copied=True)

    return _files(paths, bad, parse)


FORMATS: dict[str, Callable[[Path, str, BadDocuments], Iterator[Raw]]] = {
    "scitldr": _scitldr,
    "jsonl": _jsonl,
    "cnn_dm": _cnn_dm,
    "xsum": _xsum,
    "bbc": _bbc,
}
