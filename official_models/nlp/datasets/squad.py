"""SQuAD 1.1 and 2.0: questions on paragraphs.

References:
    https://arxiv.org/abs/1606.05250, https://arxiv.org/abs/1806.03822
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from official_models.common import files
from official_models.common.errors import InputError, first_line

EXPECTED = "expected SQuAD's JSON"


class _Unexpected(Exception):
    """What a question of a file has, and what was expected."""


@dataclasses.dataclass(frozen=True)
class Question:
    """One question.

    Args:
        id: of the data set.
        text: the question.
        context: the paragraph with the answer.
        answers: its texts; several in dev sets, none where it cannot be
            answered or the file has no answers.
        starts: characters of the context at which they begin, as they are
            found there; None for an answer that is not in the context.
        is_impossible: the paragraph does not answer it (SQuAD 2.0).
    """

    id: str
    text: str
    context: str
    answers: tuple[str, ...] = ()
    starts: tuple[int | None, ...] = ()
    is_impossible: bool = False


def read_squad(path: str) -> tuple[list[Question], dict[str, list[str]]]:
    """The questions of a SQuAD file.

    An answer that is not where the file says is looked for in the rest of its
    paragraph; the nearest one is taken.

    Args:
        path: JSON as published, on `gs://` too; or the rows of Hugging Face's
            `datasets`, as JSON lines, a list, or under "data".

    Returns:
        The questions, and the ids of those with an answer that was "moved",
        is "absent" from its paragraph, or is "inside" a word there, as "4" in
        "1864", which often means that its place is wrong.

    Raises:
        InputError: the file cannot be read, is no SQuAD, or has two questions
            of one id.
    """
    return questions_of(_read(path), path)


def _read(path: str) -> Any:
    rows = rows_of_lines(files.read_text(path, EXPECTED), path)
    return files.read_json(path, EXPECTED) if rows is None else rows


def rows_of_lines(text: str, path: str) -> list | None:
    """Rows of Hugging Face's `datasets` as JSON lines.

    Args:
        text: of a file.
        path: begins messages.

    Returns:
        A value a line, for `questions_of`; None if the first line is no row
        with a context, or the only one.

    Raises:
        InputError: a later line is not JSON.
    """
    first, _, rest = text.strip().partition("\n")
    try:
        row = files.parse_json(first)
    except ValueError:
        row = None
    if not (rest and isinstance(row, dict) and "context" in row):
        return None
    rows = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            rows.append(files.parse_json(line))
        except ValueError as error:
            raise InputError(
                f"{path}, line {number}: not JSON: {first_line(error)}; "
                "expected a question a line, as its first line is one"
            ) from error
    return rows


def _entries(found: Any) -> Iterator[tuple[dict, str]]:
    """Each question's entry, in the published form, and its paragraph."""
    if isinstance(found, dict) and "context" in found:
        found = [found]  # one line of JSON lines
    rows = found if isinstance(found, list) else found["data"]
    for row in rows:
        if "context" in row:
            yield _published(row), row["context"]
            continue
        for paragraph in row["paragraphs"]:
            for entry in paragraph["qas"]:
                yield entry, paragraph["context"]


def _published(row: dict) -> dict:
    """A row of Hugging Face's `datasets` as an entry of the published form.

    There a question without an answer has empty lists.
    """
    entry = {"id": row["id"], "question": row["question"]}
    if "answers" not in row:
        return entry
    texts, starts = row["answers"]["text"], row["answers"]["answer_start"]
    if not isinstance(texts, list) or not isinstance(starts, list):
        raise _Unexpected("its answers' text and answer_start are no lists")
    if len(texts) != len(starts):
        raise _Unexpected(
            f"it has {len(texts)} answers and {len(starts)} places of them"
        )
    answers = [
        {"text": text, "answer_start": start}
        for text, start in zip(texts, starts)
    ]
    return {**entry, "answers": answers, "is_impossible": not answers}


def questions_of(
    found: Any, path: str
) -> tuple[list[Question], dict[str, list[str]]]:
    """The questions of a SQuAD file that is read already.

    Args:
        found: its JSON.
        path: begins messages.

    Returns:
        As `read_squad`.

    Raises:
        InputError: as there.
    """
    questions: list[Question] = []
    faults: dict[str, list[str]] = {"moved": [], "absent": [], "inside": []}
    ids: set[str] = set()
    try:
        for entry, context in _entries(found):
            question = _question(entry, context, faults)
            if question.id in ids:
                raise _Unexpected(
                    f"its id {question.id!r} is that of an earlier one, and "
                    "answers are kept by id; expected an id of its own for each"
                )
            ids.add(question.id)
            questions.append(question)
    except _Unexpected as error:
        raise InputError(
            f"{path}: question {len(questions)}: {error}"
        ) from error
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise InputError(
            f"{path}: question {len(questions)}: {type(error).__name__} "
            f"{error}; expected SQuAD's data, paragraphs, context, qas, id, "
            "question, answers, text, answer_start"
        ) from error
    if not questions:
        raise InputError(f"{path}: no question; {EXPECTED}")
    return questions, faults


def _question(entry: dict, context: str, faults: dict) -> Question:
    answers, starts, kinds = [], [], set()
    impossible = entry.get("is_impossible", False)
    if not isinstance(impossible, bool):
        raise _Unexpected(
            f"is_impossible is {str(impossible)[:40]!r}, expected true or false"
        )
    if not isinstance(context, str):
        raise _Unexpected(f"context is {str(context)[:40]!r}, expected a text")
    for answer in [] if impossible else entry.get("answers", []):
        text, begin = answer["text"], answer["answer_start"]
        if isinstance(begin, bool) or not isinstance(begin, int):
            raise _Unexpected(
                f"answer_start is {str(begin)[:40]!r}, expected a whole number"
            )
        at = nearest(context, text, begin)
        if at is None:
            kinds.add("absent")
        elif at != begin:
            kinds.add("moved")
        elif _is_inside_a_word(context, at, at + len(text)):
            kinds.add("inside")
        answers.append(text)
        starts.append(at)
    for kind in kinds:
        faults[kind].append(str(entry["id"]))
    return Question(
        str(entry["id"]),
        entry["question"].strip(),
        context,
        tuple(answers),
        tuple(starts),
        impossible,
    )


def _is_inside_a_word(context: str, begin: int, end: int) -> bool:
    return any(
        context[at - 1 : at].isalnum() and context[at : at + 1].isalnum()
        for at in (begin, end)
        if at > 0
    )


def nearest(context: str, text: str, begin: int) -> int | None:
    """Where `text` begins in `context`, the nearest to `begin`; or None."""
    if not text.strip():
        return None
    if begin >= 0 and context.startswith(text, begin):
        return begin
    before = context.rfind(text, 0, max(begin, 0) + len(text))
    after = context.find(text, max(begin, 0))
    places = [place for place in (before, after) if place >= 0]
    return min(places, key=lambda place: abs(place - begin), default=None)
