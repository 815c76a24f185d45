"""From SQuAD's logits to answers, and how good the answers are.

Axes: T tokens of a window.

References:
    https://arxiv.org/abs/1810.04805, sections 4.2 and 4.3
    https://arxiv.org/abs/1606.05250, section 6.1 (the metrics)
"""

from __future__ import annotations

import collections
import dataclasses
import math
import re
import string
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from official_models.common.errors import InputError
from official_models.nlp.bert.finetuning.windows import Window
from official_models.nlp.datasets.squad import Question

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
# What stands for an answer where no span is allowed.
EMPTY = "empty"


@dataclasses.dataclass(frozen=True)
class Logits:
    """What the model says of one window.

    Args:
        start: that a token is the answer's first, [T].
        end: that it is its last, [T].
    """

    start: np.ndarray
    end: np.ndarray


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A possible answer: its text and the two logits."""

    text: str
    start: float
    end: float

    @property
    def score(self) -> float:
        """The sum of the logits."""
        return self.start + self.end


@dataclasses.dataclass(frozen=True)
class Answers:
    """The three files of the published script, by question id.

    Args:
        predictions: the answer's text; "" for none.
        nbest: the best ones with `probability`, `start_logit`, `end_logit`.
        null_odds: null score - score of the best span (SQuAD 2.0 only).
    """

    predictions: dict[str, str]
    nbest: dict[str, list[dict]]
    null_odds: dict[str, float]


def answers(
    questions: Sequence[Question],
    windows: Iterable[Window],
    logits: Mapping[int, Logits],
    *,
    n_best_size: int = 20,
    max_answer_length: int = 30,
    version_2_with_negative: bool = False,
    null_score_diff_threshold: float = 0.0,
) -> Answers:
    """The answers to all questions.

    Args:
        questions: of `read_squad`.
        windows: of `windows.cut`, all of them.
        logits: by the window's `unique_id`.
        n_best_size: best starts and ends that are paired, and answers listed.
        max_answer_length: tokens of an answer.
        version_2_with_negative: a question may have no answer.
        null_score_diff_threshold: it has none where null score - best score
            is more than this.

    Raises:
        InputError: a window has no logits, or they are not finite.
    """
    by_question = collections.defaultdict(list)
    for window in windows:
        by_question[window.question].append(window)
    found = Answers({}, {}, {})
    for index, question in enumerate(questions):
        candidates, null = [], None
        for window in by_question[index]:
            own = _logits_of(window, logits)
            candidates += _spans(
                question, window, own, n_best_size, max_answer_length
            )
            none = Candidate("", float(own.start[0]), float(own.end[0]))
            null = min(null or none, none, key=lambda c: c.score)
        best = _best(candidates, n_best_size)
        top = best[0] if best else Candidate(EMPTY, 0.0, 0.0)
        found.predictions[question.id] = top.text
        if version_2_with_negative:
            odds = null.score - top.score
            found.null_odds[question.id] = odds
            if not best or odds > null_score_diff_threshold:
                found.predictions[question.id] = ""
            best = _best([*best, null], n_best_size + 1)
        found.nbest[question.id] = _listed(best or [top])
    return found


def _logits_of(window: Window, logits: Mapping[int, Logits]) -> Logits:
    if window.unique_id not in logits:
        raise InputError(
            f"window {window.unique_id}: no logits; predict with the flags "
            "that the windows were made with"
        )
    own = logits[window.unique_id]
    if not (np.isfinite(own.start).all() and np.isfinite(own.end).all()):
        raise InputError(
            f"window {window.unique_id}: logits are not finite; the training "
            "has diverged: take another checkpoint or a lower rate"
        )
    return own


def _spans(
    question: Question,
    window: Window,
    logits: Logits,
    n_best_size: int,
    max_answer_length: int,
) -> list[Candidate]:
    """The spans of a window, by pairs of its best starts and ends."""
    first, number = window.num_first, len(window.offsets)
    starts, ends = (
        _top(x[first : first + number], n_best_size)
        for x in (logits.start, logits.end)
    )
    found = []
    for s in starts:
        if not window.is_max_context[s]:
            continue
        for e in ends:
            if not s <= e < s + max_answer_length:
                continue
            begin, end = window.offsets[s][0], window.offsets[e][1]
            found.append(
                Candidate(
                    question.context[begin:end],
                    float(logits.start[first + s]),
                    float(logits.end[first + e]),
                )
            )
    return found


def _top(values: np.ndarray, number: int) -> list[int]:
    """Indices of the largest values, the best first, ties in order."""
    return np.argsort(-values, kind="stable")[:number].tolist()


def _best(candidates: Iterable[Candidate], number: int) -> list[Candidate]:
    """The best candidates, each text once."""
    found = {}
    for candidate in sorted(candidates, key=lambda c: -c.score):
        found.setdefault(candidate.text, candidate)
    return list(found.values())[:number]


def _listed(candidates: Sequence[Candidate]) -> list[dict]:
    top = max(c.score for c in candidates)
    weights = [math.exp(c.score - top) for c in candidates]
    return [
        {
            "text": candidate.text,
            "probability": weight / sum(weights),
            "start_logit": candidate.start,
            "end_logit": candidate.end,
        }
        for candidate, weight in zip(candidates, weights)
    ]


# Metrics


def normalize_answer(text: str) -> str:
    """Lower case, without punctuation, articles and extra blanks."""
    text = text.lower().translate(_PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", text).split())


def exact_match(prediction: str, answer: str) -> float:
    """1 where both are equal after `normalize_answer`, else 0."""
    return float(normalize_answer(prediction) == normalize_answer(answer))


def f1(prediction: str, answer: str) -> float:
    """Harmonic mean of precision and recall of the words in common.

    Where one has no words, as for a question without an answer: 1 if the other
    has none either, else 0.
    """
    ours = normalize_answer(prediction).split()
    theirs = normalize_answer(answer).split()
    if not ours or not theirs:
        return float(ours == theirs)
    common = collections.Counter(ours) & collections.Counter(theirs)
    return 2 * sum(common.values()) / (len(ours) + len(theirs))


def score(
    questions: Sequence[Question], predictions: Mapping[str, str]
) -> dict[str, float]:
    """The official metrics, in percent.

    Of several answers the best counts; a question without answers is right
    where the prediction is "".

    Args:
        questions: of `read_squad`, with answers.
        predictions: by question id; one that is missing counts 0.

    Returns:
        `exact_match`, `f1`, `total`; with unanswerable questions also
        `HasAns_*` and `NoAns_*`.
    """
    rows = collections.defaultdict(list)
    for question in questions:
        texts = [a for a in question.answers if normalize_answer(a)] or [""]
        row = (0.0, 0.0)
        if question.id in predictions:
            text = predictions[question.id]
            row = (
                max(exact_match(text, answer) for answer in texts),
                max(f1(text, answer) for answer in texts),
            )
        rows[""].append(row)
        rows["HasAns_" if question.answers else "NoAns_"].append(row)
    if not rows["NoAns_"]:
        rows = {"": rows[""]}
    result = {}
    for prefix, values in rows.items():
        for i, name in enumerate(("exact_match", "f1")):
            if values:
                mean = math.fsum(v[i] for v in values) / len(values)
                result[prefix + name] = 100 * mean
        result[f"{prefix}total"] = len(values)
    return result
