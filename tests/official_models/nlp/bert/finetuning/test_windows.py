"""SQuAD's paragraphs in windows: spans, answers, context."""

import dataclasses

import pytest

from official_models.nlp.bert.finetuning import windows
from official_models.nlp.datasets import squad
from official_models.nlp.text import wordpiece
from tests.official_models.nlp.bert.finetuning import small_tasks
from tests.official_models.scripts import refusal


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vocabulary")
    return wordpiece.load_tokenizer(small_tasks.write_vocab(folder))


def question_of(context, answer, begin=None):
    begin = context.find(answer) if begin is None else begin
    return squad.Question("q", "Where ?", context, (answer,), (begin,))


def test_spans_cover_everything_and_overlap():
    assert windows.spans(10, 4, 3) == [(0, 4), (3, 7), (6, 10)]
    assert windows.spans(4, 4, 3) == [(0, 4)]
    assert windows.spans(9, 4, 100) == [(0, 4), (4, 8), (8, 9)]
    assert windows.spans(0, 4, 3) == [(0, 0)]


def test_each_token_has_its_most_context_in_one_window():
    for number, room, stride in ((40, 12, 5), (41, 12, 12), (7, 9, 3)):
        parts = windows.spans(number, room, stride)
        flags = [windows.max_context(parts, *part) for part in parts]
        for token in range(number):
            scores = {
                i: min(token - a, b - 1 - token) + 0.01 * (b - a)
                for i, (a, b) in enumerate(parts)
                if a <= token < b
            }
            chosen = [i for i in scores if flags[i][token - parts[i][0]]]
            assert len(chosen) == 1
            assert scores[chosen[0]] == max(scores.values())


def test_answers_are_mapped_to_tokens(tokenizer):
    context = "The BOOKS was in Oslo, not in Rome."
    for answer, tokens in (
        ("Oslo", ["oslo"]),
        ("BOOKS was", ["book", "##s", "was"]),
        ("OOK", ["book"]),
        ("Rome.", ["rome", "."]),
    ):
        question = question_of(context, answer)
        (window,) = windows.cut(
            [question],
            tokenizer,
            max_seq_length=32,
            doc_stride=8,
            max_query_length=8,
        )
        found = window.ids[window.start : window.end + 1]
        assert [tokenizer.id_to_token(i) for i in found] == tokens
        first = window.offsets[window.start - window.num_first]
        last = window.offsets[window.end - window.num_first]
        assert answer in context[first[0] : last[1]]


def test_windows_of_a_long_paragraph(tokenizer):
    context = " ".join(["the book was in Rome ."] * 6 + ["Oslo ?"])
    question = question_of(context, "Oslo")
    long = dataclasses.replace(question, text="where " * 30)
    found = list(
        windows.cut(
            [question, long],
            tokenizer,
            max_seq_length=20,
            doc_stride=6,
            max_query_length=8,
        )
    )
    ids = [w.unique_id for w in found]
    assert ids == list(range(ids[0], ids[0] + len(found)))
    for window in found:
        row = windows.features(window, 20)
        assert all(len(row[n]) == 20 for n in ("input_ids", "input_mask"))
        assert sum(row["input_mask"]) == len(window.ids) <= 20
        assert row["segment_ids"].count(1) == len(window.offsets) + 1
        if window.start:
            token = tokenizer.id_to_token(row["input_ids"][window.start])
            assert token == "oslo" and window.start == window.end
    with_answer = [w.question for w in found if w.start]
    assert set(with_answer) == {0, 1} and len(with_answer) < len(found)
    assert {w.num_first for w in found if w.question == 1} == {10}
    for i in (0, 1):
        text = [w for w in found if w.question == i]
        assert sum(sum(w.is_max_context) for w in text) == 38


def test_no_answer_and_an_absent_one_point_at_cls(tokenizer):
    none = squad.Question("n", "Who ?", "Anna lives .", is_impossible=True)
    absent = squad.Question("a", "Who ?", "Anna lives .", ("Bob",), (None,))
    for window in windows.cut([none, absent], tokenizer):
        assert window.start == window.end == 0


def test_refuses_flags_that_leave_no_room(tokenizer):
    refusal(
        lambda: list(windows.cut([], tokenizer, max_seq_length=67)),
        "max_seq_length 67",
    )
    refusal(
        lambda: list(windows.cut([], tokenizer, doc_stride=0)),
        "doc_stride 0",
    )


def test_refuses_a_stride_that_leaves_words_out(tokenizer):
    """128 - 64 - 3 tokens of a paragraph are beside the longest question."""
    for stride, message in (
        (61, None),
        (62, "in no window; expected at most 61"),
    ):
        found = windows.cut(
            [], tokenizer, max_seq_length=128, doc_stride=stride
        )
        if message:
            refusal(lambda found=found: list(found), "doc_stride 62", message)
        else:
            assert list(found) == []
