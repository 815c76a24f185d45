"""Packing, on documents whose tokens tell their place.

Token `place` of document `d` has the id 5 + 1000 d + place, so that a packed
row shows where its segments come from.
"""

from collections import Counter

import numpy as np
import pytest
from scipy import stats

from official_models.common.errors import InputError
from official_models.nlp.bert.pretraining import packing
from official_models.nlp.text import wordpiece

CLS, SEP = 2, 3


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    """Every third ordinary token is a "##" piece."""
    tokens = [f"##t{i}" if i % 3 == 2 else f"t{i}" for i in range(5000)]
    path = tmp_path_factory.mktemp("vocab") / "vocab.txt"
    path.write_text("\n".join([*wordpiece.SPECIAL_TOKENS, *tokens]))
    return wordpiece.load_tokenizer(path)


def _documents(count=4, tokens=900, longest=1, seed=0):
    """Documents cut into sentences of 1 to `longest` tokens."""
    rng = np.random.default_rng(seed)
    documents = []
    for document in range(count):
        ids = np.arange(tokens, dtype=np.int32) + 5 + 1000 * document
        cuts = np.cumsum(rng.integers(1, longest, tokens, endpoint=True))
        documents.append(np.split(ids, cuts[cuts < tokens]))
    return documents


def _segments(packed):
    """(a, b, label) of every row, after checking the row's layout."""
    ids, segment_ids, lengths, _, labels = packed
    for row, segment, length, label in zip(ids, segment_ids, lengths, labels):
        seps = np.flatnonzero(row == SEP)
        assert row[0] == CLS and (row == CLS).sum() == 1
        assert len(seps) == 2 and seps[1] == length - 1
        assert not row[length:].any() and row[:length].all()
        expected = np.zeros_like(segment)
        expected[seps[0] + 1 : length] = 1
        np.testing.assert_array_equal(segment, expected)
        a, b = row[1 : seps[0]], row[seps[0] + 1 : seps[1]]
        assert len(a) and len(b)
        yield a, b, label


def _is_run(segment):
    document = (segment - 5) // 1000
    return (np.diff(segment) == 1).all() and (document == document[0]).all()


@pytest.mark.parametrize("longest", [1, 8, 40])
@pytest.mark.parametrize("short_seq_prob", [0.0, 0.5])
def test_pairs_come_from_where_their_label_says(
    tokenizer, longest, short_seq_prob
):
    packed = packing.pack_pairs(
        _documents(longest=longest),
        tokenizer,
        32,
        short_seq_prob=short_seq_prob,
        seed=1,
    )
    assert [array.dtype for array in packed] == [
        np.int32,
        np.int32,
        np.int32,
        bool,
        np.int32,
    ]
    lost = 0
    for a, b, label in _segments(packed):
        assert _is_run(a) and _is_run(b) and len(a) + len(b) <= 29
        other = (a[0] - 5) // 1000 != (b[0] - 5) // 1000
        assert other == label
        if not label:
            assert b[0] > a[-1]
            # A gap is what truncation took, and only a full pair loses any.
            gap = b[0] - a[-1] - 1
            assert gap == 0 or len(a) + len(b) == 29
            lost += gap
    assert (lost > 0) == (longest > 1)


def test_every_token_is_used_once_and_labels_are_balanced(tokenizer):
    # Sentences of one token reach every target exactly: nothing is truncated.
    documents = _documents()
    packed = packing.pack_pairs(documents, tokenizer, 16, seed=2, dupe_factor=5)
    used = Counter()
    for a, b, label in _segments(packed):
        used.update(a.tolist())
        used.update([] if label else b.tolist())
    everything = np.concatenate([s for d in documents for s in d])
    assert used == Counter({int(token): 5 for token in everything})
    labels = packed.next_sentence_labels
    p = stats.binomtest(int(labels.sum()), len(labels), 0.5).pvalue
    assert p > 1e-3


def test_end_of_a_is_uniform(tokenizer):
    packed = packing.pack_pairs(
        _documents(), tokenizer, 16, short_seq_prob=0, dupe_factor=5, seed=3
    )
    ends = [len(a) for a, b, _ in _segments(packed) if len(a) + len(b) == 13]
    observed = np.bincount(ends, minlength=13)[1:]
    assert stats.chisquare(observed).pvalue > 1e-3


def test_target_lengths(tokenizer):
    documents = _documents(tokens=999)

    def lengths(short_seq_prob):
        packed = packing.pack_pairs(
            documents,
            tokenizer,
            16,
            short_seq_prob=short_seq_prob,
            dupe_factor=5,
            seed=4,
        )
        return packed.lengths - 3

    assert (lengths(0.0) == 13).mean() > 0.97
    # Uniform on 2 to 13, where the document does not end first.
    observed = np.bincount(lengths(1.0), minlength=14)[2:]
    assert stats.chisquare(observed).pvalue > 1e-3


@pytest.mark.parametrize("longest", [1, 6])
def test_one_document_pairs_with_another_place(tokenizer, longest):
    documents = _documents(count=1, tokens=80, longest=longest)
    packed = packing.pack_pairs(
        documents, tokenizer, 16, dupe_factor=50, seed=5
    )
    for a, b, label in _segments(packed):
        assert not set(a) & set(b)
        # Longer sentences are truncated, which may hide where a ended.
        if longest == 1:
            assert (b[0] != a[-1] + 1) == label
    assert 0.4 < packed.next_sentence_labels.mean() < 0.8


def test_smallest_corpora(tokenizer):
    one, two = np.array([5], np.int32), np.array([6], np.int32)
    packed = packing.pack_pairs([[one, two]], tokenizer, 8, seed=0)
    assert packed.input_ids.tolist() == [[CLS, 5, SEP, 6, SEP, 0, 0, 0]]
    assert packed.next_sentence_labels.tolist() == [0]
    packed = packing.pack_pairs([[one], [], [two]], tokenizer, 8, seed=0)
    assert packed.next_sentence_labels.tolist() == [1, 1]
    for documents in ([], [[]], [[one]]):
        with pytest.raises(InputError, match="too small"):
            packing.pack_pairs(documents, tokenizer, 8, seed=0)


def _truncate_by_the_token(a, b, limit):
    """The published rule: the longer side loses one token at a time."""
    while a + b > limit:
        a, b = (a - 1, b) if a > b else (a, b - 1)
    return a, b


def test_truncation():
    rng = np.random.default_rng(0)
    front = Counter()
    for length_a in range(1, 30):
        for length_b in range(1, 30):
            for limit in (2, 11, 12):
                a, b = packing._truncate(
                    np.arange(length_a), np.arange(length_b), limit, rng
                )
                assert (len(a), len(b)) == _truncate_by_the_token(
                    length_a, length_b, limit
                )
                front["lost"] += int(a[0] + b[0])
                front["all"] += length_a + length_b - len(a) - len(b)
    p = stats.binomtest(front["lost"], front["all"], 0.5).pvalue
    assert p > 1e-3


def test_word_starts(tokenizer):
    packed = packing.pack_pairs(_documents(), tokenizer, 16, seed=6)
    ordinary = packed.input_ids >= 5
    piece = (packed.input_ids - 5) % 3 == 2
    np.testing.assert_array_equal(packed.word_starts, ordinary & ~piece)


def test_packing_is_a_function_of_the_seed(tokenizer):
    def pack(seed):
        return packing.pack_pairs(_documents(), tokenizer, 16, seed=seed)

    for left, right in zip(pack(7), pack(7)):
        np.testing.assert_array_equal(left, right)
    assert pack(7).lengths.tolist() != pack(8).lengths.tolist()


def test_duplicates_are_packed_anew(tokenizer):
    packed = packing.pack_pairs(
        _documents(), tokenizer, 16, dupe_factor=3, seed=9
    )
    rows = {row.tobytes() for row in packed.input_ids}
    assert len(rows) > 0.95 * len(packed.lengths)


def _rows_of(packed):
    """Each example as bytes, label included."""
    return Counter(
        row.tobytes() + label.tobytes()
        for row, label in zip(packed.input_ids, packed.next_sentence_labels)
    )


@pytest.mark.parametrize("longest", [1, 8, 40])
def test_sentence_order(tokenizer, longest):
    documents = _documents(longest=longest)
    packed = packing.pack_pairs(
        documents, tokenizer, 32, sentence_order=True, dupe_factor=3, seed=1
    )
    for a, b, label in _segments(packed):
        assert _is_run(a) and _is_run(b)
        first, second = (b, a) if label else (a, b)
        gap = second[0] - first[-1] - 1
        assert gap == 0 or (gap > 0 and len(a) + len(b) == 29)
    labels = packed.next_sentence_labels
    p = stats.binomtest(int(labels.sum()), len(labels), 0.5).pvalue
    assert p > 1e-3
    if longest == 1:  # Nothing is truncated.
        used = Counter()
        for a, b, _ in _segments(packed):
            used.update([*a.tolist(), *b.tolist()])
        everything = np.concatenate([s for d in documents for s in d])
        # The last token of a document may be left alone.
        assert max(used.values()) == 3
        assert sum(used.values()) >= 3 * (len(everything) - len(documents))


def test_a_lone_sentence_is_cut_for_its_order(tokenizer):
    sentence = np.arange(5, 11, dtype=np.int32)
    packed = packing.pack_pairs(
        [[sentence]], tokenizer, 16, sentence_order=True, dupe_factor=99, seed=2
    )
    found = set()
    for a, b, label in _segments(packed):
        whole = [*b, *a] if label else [*a, *b]
        assert whole == sentence.tolist()
        found.add((len(a), int(label)))
    # It may end at any token, in either order.
    assert found == {(n, label) for n in range(1, 6) for label in (0, 1)}
    with pytest.raises(InputError, match="too small"):
        packing.pack_pairs(
            [[sentence[:1]]], tokenizer, 16, sentence_order=True, seed=2
        )


def test_what_is_drawn_belongs_to_a_document_not_to_its_place(tokenizer):
    documents = _documents(longest=8)

    def pack(documents, sentence_order):
        return packing.pack_pairs(
            documents,
            tokenizer,
            32,
            dupe_factor=2,
            sentence_order=sentence_order,
            seed=5,
        )

    together = _rows_of(pack(documents, True))
    apart = [_rows_of(pack([d], True)) for d in reversed(documents)]
    assert sum(apart, Counter()) == together
    # Of next sentences, what is no random one.
    whole, part = (pack(d, False) for d in (documents, documents[2:]))
    true = [
        Counter(
            row.tobytes()
            for row, label in zip(p.input_ids, p.next_sentence_labels)
            if not label
        )
        for p in (whole, part)
    ]
    assert true[1] and not true[1] - true[0]


def test_there_may_be_no_pair(tokenizer):
    packed = packing.pack_pairs([], tokenizer, 8, may_be_empty=True, seed=0)
    assert packed.input_ids.shape == (0, 8) and not len(packed.lengths)


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ({"max_seq_length": 4}, "max_seq_length 4"),
        ({"dupe_factor": 0}, "dupe_factor 0"),
        ({"short_seq_prob": 1.5}, "short_seq_prob 1.5"),
        ({"seed": -1}, "seed -1"),
    ],
)
def test_bad_packing_arguments(tokenizer, arguments, part):
    arguments = {"max_seq_length": 16, "seed": 0, **arguments}
    with pytest.raises(InputError, match=part):
        packing.pack_pairs(_documents(), tokenizer, **arguments)


@pytest.mark.parametrize(
    "unknown, words",
    [
        (0, "0.00% [UNK]"),
        (1, "0.83% [UNK]"),
        (12, "10.0% [UNK], which is much"),
    ],
)
def test_the_share_of_unknown_words(tokenizer, unknown, words):
    ids = np.full((10, 16), 7, np.int32)
    ids[:, 12:] = 0  # padding
    ids.flat[:unknown] = tokenizer.token_to_id("[UNK]")
    lengths = np.full(10, 12, np.int32)
    packed = packing.PackedPairs(ids, None, lengths, None, None)
    assert packing.unknown_words(packed, tokenizer).startswith(words)
