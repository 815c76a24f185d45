"""From logits to answers: spans, windows, no answer, the metrics."""

import math

import numpy as np
import pytest

from official_models.nlp.bert.finetuning import answers
from official_models.nlp.bert.finetuning import windows as squad_windows
from official_models.nlp.datasets import squad
from official_models.nlp.text import wordpiece
from tests.official_models.nlp.bert.finetuning import small_tasks
from tests.official_models.scripts import refusal

T = 16
WORDS = "the tower of london , built in 1078 , stands".split()
CONTEXT = " ".join(WORDS)


def offsets_of(words):
    places, at = [], 0
    for word in words:
        places.append((at, at + len(word)))
        at += len(word) + 1
    return places


def window_of(begin=0, end=10, unique_id=7, best=None):
    offsets = tuple(offsets_of(WORDS)[begin:end])
    flags = best or (True,) * (end - begin)
    ids = tuple(range(3 + end - begin + 1))
    return squad_windows.Window(
        unique_id, 0, ids, 3, offsets, tuple(flags), 0, 0
    )


def logits_of(starts, ends, null=(-9.0, -9.0)):
    """Logits -9 but at tokens of the paragraph, {token: logit}."""
    start, end = np.full((2, T), -9.0)
    start[0], end[0] = null
    for values, array in ((starts, start), (ends, end)):
        for token, value in values.items():
            array[3 + token] = value
    return answers.Logits(start, end)


QUESTION = squad.Question(
    "q", "When ?", CONTEXT, ("1078",), (CONTEXT.index("1078"),)
)


def run(windows, logits, **options):
    return answers.answers([QUESTION], windows, logits, **options)


def test_the_best_span_is_cut_from_the_context():
    found = run([window_of()], {7: logits_of({1: 3, 5: 2}, {3: 2, 7: 1})})
    assert found.predictions == {"q": "tower of london"}
    best = found.nbest["q"]
    scores = [x["start_logit"] + x["end_logit"] for x in best]
    assert scores == sorted(scores, reverse=True)
    assert best[0]["text"] == "tower of london" and scores[0] == 5
    assert len({x["text"] for x in best}) == len(best) == 20
    total = sum(math.exp(s) for s in scores)
    for x, s in zip(best, scores):
        assert x["probability"] == pytest.approx(math.exp(s) / total)
    assert found.null_odds == {}


def test_longer_spans_and_spans_that_end_before_they_begin_do_not_count():
    logits = {7: logits_of({1: 3, 7: 2.5}, {9: 3, 0: 4})}
    assert run([window_of()], logits).predictions["q"] == " ".join(WORDS[1:])
    found = run([window_of()], logits, max_answer_length=8)
    assert found.predictions["q"] == "1078 , stands"
    only = run([window_of()], {7: logits_of({9: 9}, {0: 9})}, n_best_size=1)
    assert only.predictions["q"] == "empty"


def test_a_start_counts_in_its_window_of_most_context_only():
    early = window_of(0, 8, 1, [True] * 6 + [False] * 2)
    late = window_of(4, 10, 2, [False] * 2 + [True] * 4)
    logits = {
        1: logits_of({7: 9}, {7: 9}),  # "1078" near the end
        2: logits_of({3: 4}, {3: 4}),  # and well inside
    }
    found = run([early, late], logits)
    assert found.predictions["q"] == "1078"
    assert found.nbest["q"][0]["start_logit"] == 4


def test_no_answer_by_the_smallest_null_score_of_all_windows():
    windows = [window_of(0, 8, 1), window_of(4, 10, 2)]
    logits = {
        1: logits_of({7: 2}, {7: 2}, null=(9.0, 9.0)),
        2: logits_of({}, {}, null=(3.0, 2.0)),
    }
    odds = {}
    for threshold, expected in ((0.9, ""), (1.0, "1078")):
        found = run(
            windows,
            logits,
            version_2_with_negative=True,
            null_score_diff_threshold=threshold,
        )
        assert found.predictions["q"] == expected
        odds = found.null_odds
        assert "" in [x["text"] for x in found.nbest["q"]]
        assert sum(x["probability"] for x in found.nbest["q"]) == (
            pytest.approx(1)
        )
    assert odds == {"q": 1.0}
    assert run(windows, logits).predictions["q"] == "1078"


def test_logits_that_are_missing_or_not_finite_are_refused():
    refusal(lambda: run([window_of()], {}), "window 7", "no logits")
    broken = {7: logits_of({1: math.nan}, {})}
    refusal(lambda: run([window_of()], broken), "window 7", "not finite")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The  Tower, of a London!", "tower of london"),
        ("An apple's", "apples"),
        ("theatre", "theatre"),
        ("a", ""),
        ("1,078", "1078"),
    ],
)
def test_normalized(text, expected):
    assert answers.normalize_answer(text) == expected


def test_f1_and_exact_match_by_hand():
    # 2 of 3 words are right, 2 of 4 are found: 2 * 2 / (3 + 4).
    assert answers.f1("x b c", "b c d e") == pytest.approx(4 / 7)
    # A word counts as often as both have it.
    assert answers.f1("b b b", "b b c") == pytest.approx(4 / 6)
    assert answers.f1("x", "y") == 0
    assert answers.f1("", "the") == 1
    assert answers.f1("x", "") == 0
    assert answers.exact_match("The X.", "x") == 1
    assert answers.exact_match("x y", "x") == 0


def test_score_takes_the_best_answer_and_counts_what_is_missing():
    questions = [
        squad.Question("a", "", "", ("b c", "b c d e")),
        squad.Question("b", "", "", ("x",)),
        squad.Question("c", "", "", (), (), True),
        squad.Question("d", "", "", (), (), True),
    ]
    found = answers.score(questions, {"a": "b c d", "c": "", "d": "z"})
    best = max(4 / 5, 6 / 7)
    assert found["total"] == 4 and found["exact_match"] == 25
    assert found["f1"] == pytest.approx(100 * (best + 0 + 1 + 0) / 4)
    assert found["HasAns_total"] == found["NoAns_total"] == 2
    assert found["HasAns_f1"] == pytest.approx(100 * best / 2)
    assert found["NoAns_exact_match"] == 50
    only = answers.score(questions[:2], {"a": "b c", "b": "x"})
    assert only == {"exact_match": 100, "f1": 100, "total": 2}


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        # The third example in the README of Hugging Face's metric "squad",
        # which wraps the official script of version 1.1.
        (
            [
                ("1976", "1976"),
                ("Beyoncé and Bruno Mars", "Beyonce"),
                ("climate change", "climate change"),
            ],
            (66.66666666666667, 66.66666666666667),
        ),
        # By the same metric, in PrimeQA's tests of it.
        (
            [
                ("Denver Broncos", "Denver Broncos"),
                ("Carolina Panthers", "Carolina Panthers"),
                (
                    "Levi's Stadium",
                    "Levi's Stadium in the San Francisco Bay Area",
                ),
            ],
            (66.66666666666667, 81.48148148148148),
        ),
    ],
)
def test_scores_are_those_of_the_official_script(rows, expected):
    questions = [
        squad.Question(str(i), "", "", (answer,))
        for i, (answer, _) in enumerate(rows)
    ]
    predictions = {str(i): text for i, (_, text) in enumerate(rows)}
    found = answers.score(questions, predictions)
    assert (found["exact_match"], found["f1"]) == pytest.approx(expected)


@pytest.mark.parametrize("max_seq_length", [14, 32])
def test_a_model_that_knows_the_spans_answers_all(max_seq_length, tmp_path):
    """File, windows, logits, answers, metrics: 100% by the true positions."""
    tokenizer = wordpiece.load_tokenizer(small_tasks.write_vocab(tmp_path))
    path = small_tasks.write_squad(tmp_path / "dev.json", 6, negative=True)
    questions, _ = squad.read_squad(str(path))
    windows = list(
        squad_windows.cut(
            questions,
            tokenizer,
            max_seq_length=max_seq_length,
            max_query_length=6,
            doc_stride=3,
        )
    )
    assert (len(windows) > len(questions)) == (max_seq_length == 14)
    logits = {}
    for window in windows:
        start, end = np.zeros((2, max_seq_length))
        start[window.start] = end[window.end] = 9
        logits[window.unique_id] = answers.Logits(start, end)
    found = answers.answers(
        questions, windows, logits, version_2_with_negative=True
    )
    scores = answers.score(questions, found.predictions)
    assert scores["exact_match"] == scores["f1"] == 100
    assert scores["HasAns_total"] == scores["NoAns_total"] == 6
