"""Beam search, by small models."""

import numpy as np
import pytest

from official_models.common import weights
from official_models.nlp.summarization import (
    decoding,
)
from official_models.nlp.summarization.model import bertsum_abs
from tests.official_models.nlp.summarization.small_models import (
    MARKS,
    V,
    documents,
    small,
)
from tests.official_models.scripts import refusal


@pytest.fixture(scope="module")
def writer():
    return small(bertsum_abs)


def test_cached_logits_are_the_uncached_ones(writer):
    batch = documents([9, 5, 7])
    tokens = np.random.default_rng(1).integers(4, V, (6, 6)).astype("int32")
    tokens[:, 0] = MARKS.begin
    steps = []
    for cached in (True, False):
        stepper = decoding.Stepper(writer, cached)
        stepper.start(batch, beams=2)
        found = []
        for length in range(1, 7):
            found.append(stepper.step(tokens[:, :length]))
            stepper.keep(np.arange(6))
        steps.append(np.stack(found))
    np.testing.assert_allclose(steps[0], steps[1], atol=1e-5)
    assert np.abs(steps[0][0] - steps[0][-1]).max() > 0.1


def greedy(model, batch, min_length, max_length):
    """The likeliest token after the other, by whole passes of the model."""
    own = {n: batch[n] for n in ("input_ids", "input_mask", "segment_ids")}
    tokens = np.full((len(batch["input_ids"]), 1), MARKS.begin, "int32")
    for step in range(max_length):
        logits = np.array(model({**own, "target_ids": tokens}))[:, -1]
        if step < min_length:
            logits[:, MARKS.end] = -np.inf
        tokens = np.hstack([tokens, logits.argmax(1)[:, None].astype("int32")])
    found = []
    for row in tokens[:, 1:].tolist():
        end = row.index(MARKS.end) if MARKS.end in row else max_length
        found.append(row[:end])
    return found


ALL_BEGIN = np.ones(V, bool)


def search(model, batch, beam, cached=True, begins=ALL_BEGIN):
    stepper = decoding.Stepper(model, cached)
    return decoding.search(stepper, batch, beam, MARKS, begins)


# Of the end: with it, some summaries of the tests end early.
BIAS = 4.0


@pytest.fixture(scope="module")
def ending():
    """A writer that ends some summaries early."""
    model = small(bertsum_abs)
    bias = weights.by_path(model)["decoder/output_bias"]
    bias.assign(np.eye(V)[MARKS.end] * BIAS)
    return model


def test_one_beam_is_greedy(ending):
    batch = documents([9, 5, 7, 8])
    beam = decoding.Beam(1, 0.9, 2, 6, block_trigrams=False)
    found = [best.tokens for best, *_ in search(ending, batch, beam)]
    assert found == greedy(ending, batch, 2, 6)
    assert len({len(tokens) for tokens in found}) > 1


def test_a_beam_as_wide_as_the_tree_finds_the_best(writer):
    """All summaries of up to two tokens, by enumeration."""
    batch = documents([6])
    own = {n: batch[n] for n in ("input_ids", "input_mask", "segment_ids")}

    def log_p(tokens):
        ids = np.array([[MARKS.begin, *tokens]], "int32")
        logits = np.asarray(writer({**own, "target_ids": ids}), "float64")[0]
        return logits - np.log(np.exp(logits).sum(-1, keepdims=True))

    # The first row is the same for all; the second depends on the first token.
    first = log_p([])[0]
    scores = {}
    for i in range(V):
        if i == MARKS.end:
            continue
        second = log_p([i])[1]
        for j in range(V):
            tokens = (i,) if j == MARKS.end else (i, j)
            scores[tokens] = (first[i] + second[j]) / (7 / 6) ** 0.95
    beam = decoding.Beam(V, 0.95, 1, 2)
    found = search(writer, batch, beam)[0][0]
    best = max(scores, key=scores.get)
    assert tuple(found.tokens) == best
    assert found.score == pytest.approx(scores[best], abs=1e-5)
    assert found.log_probability == pytest.approx(
        found.score * decoding.length_penalty(2, 0.95)
    )


def test_documents_in_a_batch_are_searched_alone(ending):
    batch = documents([9, 5, 7])
    beam = decoding.Beam(3, 0.9, 2, 8)
    together = search(ending, batch, beam)
    uncached = search(ending, batch, beam, cached=False)
    for i in range(3):
        one = {name: x[i : i + 1] for name, x in batch.items()}
        (alone,) = search(ending, one, beam)
        assert alone[0].tokens == together[i][0].tokens
        assert alone[0].tokens == uncached[i][0].tokens
        assert alone[0].score == pytest.approx(together[i][0].score, abs=1e-4)


@pytest.mark.parametrize("size", [1, 3])
def test_no_trigram_of_words_is_repeated(writer, size):
    begins = np.ones(V, bool)
    begins[V // 2 :] = False
    words = decoding.Words(begins, MARKS)

    def repeats(tokens):
        found = words.of(tokens)
        trigrams = [tuple(found[i : i + 3]) for i in range(len(found) - 2)]
        return len(trigrams) > len(set(trigrams))

    batch = documents([9, 5, 7], seed=3)
    lengths = {"min_length": 19, "max_length": 20}
    blocked = search(
        writer, batch, decoding.Beam(size, **lengths), begins=ALL_BEGIN
    )
    free = search(
        writer,
        batch,
        decoding.Beam(size, block_trigrams=False, **lengths),
        begins=ALL_BEGIN,
    )
    words = decoding.Words(ALL_BEGIN, MARKS)
    assert not any(repeats(found[0].tokens) for found in blocked)
    assert any(repeats(found[0].tokens) for found in free)
    assert all(len(found[0].tokens) >= 19 for found in blocked)
    words = decoding.Words(begins, MARKS)
    merged = search(
        writer, batch, decoding.Beam(size, **lengths), begins=begins
    )
    assert not any(repeats(found[0].tokens) for found in merged)


def test_words_are_merged_wordpieces_without_marks():
    begins = np.array([True] * 6 + [False] * 2)
    words = decoding.Words(begins, MARKS)
    assert words.of([4, 6, 3, 5, 7, 7]) == [(4, 6), (5, 7, 7)]
    assert words.repeats([4, 5, 4, 4, 3, 5, 4])
    assert not words.repeats([4, 5, 4, 4, 5, 4, 6])  # 4 6 is another word
    assert not words.repeats([4, 4, 4])


def test_a_model_that_has_diverged_writes_nothing():
    broken = small(bertsum_abs)
    bias = weights.by_path(broken)["decoder/output_bias"]
    bias.assign(np.full(bias.shape, np.nan))
    beam = decoding.Beam(2, min_length=1, max_length=3)
    refusal(lambda: search(broken, documents([5]), beam), "not finite")


def test_a_search_that_is_out_of_range():
    for values, name in (
        ({"size": 0}, "size"),
        ({"alpha": -1}, "alpha"),
        ({"min_length": 9, "max_length": 9}, "min_length"),
    ):
        with pytest.raises(ValueError, match=f"^{name}"):
            decoding.Beam(**values)
