"""SQuAD's paragraphs cut into windows for BERT.

Axes: T tokens of a window.

References:
    https://arxiv.org/abs/1810.04805, sections 4.2 and 4.3
"""

from __future__ import annotations

import bisect
import dataclasses
from collections.abc import Iterator, Sequence

from official_models.common.errors import InputError
from official_models.nlp.bert.finetuning.features import pad
from official_models.nlp.datasets import squad

FIRST_UNIQUE_ID = 1_000_000_000


@dataclasses.dataclass(frozen=True)
class Window:
    """A question with a part of its paragraph: one row for BERT.

    Args:
        unique_id: of the window, from `FIRST_UNIQUE_ID`.
        question: index of its question.
        ids: token ids of both segments, unpadded, at most T.
        num_first: length of the first segment, [CLS] question [SEP].
        offsets: characters [begin, end) in the context, by token of the
            paragraph's part.
        is_max_context: by the same tokens, whether no other window shows the
            token with more around it.
        start: index in `ids` of the answer's first token; 0, [CLS], where the
            window does not hold all of it, or there is no answer.
        end: of its last token.
    """

    unique_id: int
    question: int
    ids: tuple[int, ...]
    num_first: int
    offsets: tuple[tuple[int, int], ...]
    is_max_context: tuple[bool, ...]
    start: int
    end: int


def cut(
    questions: Sequence[squad.Question],
    tokenizer,
    *,
    max_seq_length: int = 384,
    doc_stride: int = 128,
    max_query_length: int = 64,
) -> Iterator[Window]:
    """[CLS] question [SEP] part of the paragraph [SEP], in order.

    Args:
        questions: of `squad.read_squad`.
        tokenizer: of `tokenizers`, with [CLS], [SEP] and character offsets.
        max_seq_length: T.
        doc_stride: tokens from the beginning of one window to the next; at
            most `max_seq_length` - `max_query_length` - 3, what a window has
            of the paragraph beside the longest question.
        max_query_length: tokens of a question; the rest is cut.

    Raises:
        InputError: an argument is out of range.
    """
    if max_seq_length < max_query_length + 4:
        raise InputError(
            f"--max_seq_length {max_seq_length}: expected more than "
            f"--max_query_length {max_query_length} + 3"
        )
    if doc_stride < 1:
        raise InputError(f"--doc_stride {doc_stride}: expected 1 or more")
    room = max_seq_length - max_query_length - 3
    if doc_stride > room:
        raise InputError(
            f"--doc_stride {doc_stride}: a window of --max_seq_length "
            f"{max_seq_length} has {room} tokens of the paragraph beside a "
            f"question of --max_query_length {max_query_length}, so words "
            f"would be in no window; expected at most {room}"
        )
    cls, sep = (tokenizer.token_to_id(name) for name in ("[CLS]", "[SEP]"))
    unique_id, context, document = FIRST_UNIQUE_ID, None, None
    offsets: list[tuple[int, int]] = []
    for index, question in enumerate(questions):
        if question.context is not context:
            context = question.context
            document = tokenizer.encode(context, add_special_tokens=False)
            # Asked for once: each time, the library makes them anew.
            offsets = document.offsets
        query = tokenizer.encode(question.text, add_special_tokens=False)
        first = (cls, *query.ids[:max_query_length], sep)
        answer = answer_tokens(question, offsets)
        room = max_seq_length - len(first) - 1
        parts = spans(len(document.ids), room, doc_stride)
        for begin, end in parts:
            start, stop = 0, 0
            if answer and begin <= answer[0] and answer[1] < end:
                start, stop = (t - begin + len(first) for t in answer)
            yield Window(
                unique_id,
                index,
                (*first, *document.ids[begin:end], sep),
                len(first),
                tuple(offsets[begin:end]),
                max_context(parts, begin, end),
                start,
                stop,
            )
            unique_id += 1


def spans(num_tokens: int, room: int, stride: int) -> list[tuple[int, int]]:
    """[begin, end) of windows of at most `room` tokens over a document.

    Args:
        num_tokens: of the document.
        room: 1 or more.
        stride: tokens between two beginnings; at most `room`, or it counts as
            that: no token is left out.
    """
    found, begin = [], 0
    while True:
        end = min(begin + room, num_tokens)
        found.append((begin, end))
        if end == num_tokens:
            return found
        begin += min(room, stride)


def max_context(
    parts: Sequence[tuple[int, int]], begin: int, end: int
) -> tuple[bool, ...]:
    """By token of one window, whether it has most context in that window.

    Its context is the smaller of the tokens to its left and to its right, plus
    .01 of the window's length; the first window wins a tie.

    Args:
        parts: all windows of the document, [begin, end).
        begin: the window's first token.
        end: the token after its last.
    """

    def score(part, token):
        left, right = token - part[0], part[1] - 1 - token
        return min(left, right) + 0.01 * (part[1] - part[0])

    near = [p for p in parts if p[0] < end and p[1] > begin]
    best = []
    for token in range(begin, end):
        holders = [p for p in near if p[0] <= token < p[1]]
        best.append(max(holders, key=lambda p: score(p, token)) == (begin, end))
    return tuple(best)


def answer_tokens(
    question: squad.Question, offsets: Sequence[tuple[int, int]]
) -> tuple[int, int] | None:
    """First and last token of the first answer; None where there is none.

    They are the tokens that share a character with it.

    Args:
        question: its first answer is the one to be learned.
        offsets: characters [begin, end) of the document's tokens.
    """
    if not question.starts or question.starts[0] is None:
        return None
    begin = question.starts[0]
    end = begin + len(question.answers[0])
    first = bisect.bisect_right(offsets, begin, key=lambda o: o[1])
    last = bisect.bisect_left(offsets, end, key=lambda o: o[0]) - 1
    return (first, last) if first <= last else None


def features(window: Window, max_seq_length: int) -> dict[str, list[int]]:
    """A window as BERT's features.

    Returns:
        `input_ids`, `input_mask`, `segment_ids` [T], and `unique_ids`,
        `start_positions`, `end_positions` [1], integers.
    """
    first = list(window.ids[: window.num_first])
    second = list(window.ids[window.num_first :])
    return {
        **pad(first, second, max_seq_length),
        "unique_ids": [window.unique_id],
        "start_positions": [window.start],
        "end_positions": [window.end],
    }
