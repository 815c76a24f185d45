"""BertSum's models, losses, schedules and beam search, small."""

import itertools
import math

import keras
import numpy as np
import pytest

from official_models.common import weights
from official_models.nlp.albert.config import AlbertConfig
from official_models.nlp.bert.config import BertConfig
from official_models.nlp.checkpoint import models
from official_models.nlp.summarization import (
    decoding,
    inputs,
    losses,
    optimization,
    positions,
)
from official_models.nlp.summarization.config import SummarizerConfig
from official_models.nlp.summarization.layers import sinusoid
from official_models.nlp.summarization.model import bertsum_abs, bertsum_ext
from official_models.nlp.summarization.prepare import Document
from official_models.nlp.text import wordpiece
from tests.official_models.nlp.bert.finetuning import small_tasks

V, H = 24, 16
MARKS = inputs.Marks(1, 2, 3)
ENCODER = {
    "vocab_size": V,
    "hidden_size": H,
    "num_layers": 1,
    "num_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 32,
    "initializer_range": 0.3,
}


def small(kind, config=None, **changes):
    """A model with weights large enough that its outputs differ."""
    config = config or BertConfig(**ENCODER)
    encoder = models.encoder_of(models.make(config, "encoder", seed=1))
    head = SummarizerConfig(
        H,
        vocab_size=V if kind is bertsum_abs else 1,
        num_heads=2,
        intermediate_size=16,
        max_positions=32,
        num_layers=2 if kind is bertsum_ext else 1,
        **{"initializer_range": 0.4, **changes},
    )
    return kind(encoder, head, seed=2)


def documents(lengths, clss=((0, 3),), seed=0):
    """Random documents of some lengths, padded."""
    rng = np.random.default_rng(seed)
    longest = max(lengths)
    ids = rng.integers(4, V, (len(lengths), longest)).astype("int32")
    mask = (np.arange(longest) < np.array(lengths)[:, None]).astype("int32")
    clss = np.array([clss[i % len(clss)] for i in range(len(lengths))], "int32")
    return {
        "input_ids": ids * mask,
        "input_mask": mask,
        "segment_ids": np.zeros_like(ids),
        "clss": clss,
        "sentence_mask": np.ones_like(clss),
    }


@pytest.fixture(scope="module")
def ext():
    return small(bertsum_ext)


@pytest.fixture(scope="module")
def writer():
    return small(bertsum_abs)


def padded(batch, tokens, sentences):
    """The batch with more padding."""
    sides = {"clss": sentences, "sentence_mask": sentences}
    return {
        name: np.pad(x, ((0, 0), (0, sides.get(name, tokens))))
        for name, x in batch.items()
    }


def test_scores_do_not_move_with_padding(ext):
    batch = documents([9], [(0, 3, 6)])
    alone = np.asarray(ext(batch))
    more = np.asarray(ext(padded(batch, 5, 4)))
    np.testing.assert_allclose(more[:, :3], alone, atol=1e-5)
    assert np.ptp(alone) > 1e-3


def test_scores_know_a_sentences_place(ext):
    batch = documents([9], [(0, 3)])
    swapped = {**batch, "clss": batch["clss"][:, ::-1]}
    found, other = np.asarray(ext(batch)), np.asarray(ext(swapped))
    assert np.abs(found[:, ::-1] - other).max() > 1e-3


def test_layer_0_has_no_norm_before_its_attention(ext):
    paths = weights.by_path(ext)
    assert "ext/layer_1/LayerNorm/gamma" in paths
    assert "ext/layer_0/LayerNorm/gamma" not in paths
    assert "ext/LayerNorm/gamma" in paths


def test_the_head_on_an_albert():
    config = AlbertConfig(**ENCODER, embedding_size=8)
    model = small(bertsum_ext, config)
    assert model(documents([9])).shape == (1, 2)


def test_sinusoid_by_its_formula():
    table = sinusoid(7, 6)
    for p, i in itertools.product(range(7), range(3)):
        angle = p / 10000 ** (2 * i / 6)
        assert table[p, 2 * i] == pytest.approx(math.sin(angle), abs=1e-6)
        assert table[p, 2 * i + 1] == pytest.approx(math.cos(angle), abs=1e-6)


def test_a_decoder_sees_no_later_token_and_no_padding(writer):
    batch = documents([9])
    own = {n: batch[n] for n in ("input_ids", "input_mask", "segment_ids")}
    target = np.array([[1, 5, 6, 7]], "int32")
    found = np.asarray(writer({**own, "target_ids": target}))
    other = np.asarray(
        writer({**own, "target_ids": np.array([[1, 5, 9, 9]], "int32")})
    )
    np.testing.assert_allclose(found[:, :2], other[:, :2], atol=1e-5)
    assert np.abs(found[:, 2:] - other[:, 2:]).max() > 1e-3
    more = {n: np.pad(x, ((0, 0), (0, 3))) for n, x in own.items()}
    long = np.asarray(writer({**more, "target_ids": target}))
    np.testing.assert_allclose(long, found, atol=1e-5)


def test_the_generator_is_tied_to_the_embedding(writer):
    matrices = [v for v in writer.weights if tuple(v.shape) == (V, H)]
    assert [v.path for v in matrices] == [
        "bert/embeddings/word_embeddings",
        "decoder/word_embeddings",
    ]


def test_a_saved_model_gives_the_same(writer, ext, tmp_path):
    batch = documents([9, 6])
    for model, own in (
        (ext, batch),
        (
            writer,
            {
                **{n: batch[n] for n in batch if n[:3] in ("inp", "seg")},
                "target_ids": np.array([[1, 5]] * 2, "int32"),
            },
        ),
    ):
        model.save(tmp_path / "model.keras")
        again = weights.read_keras(tmp_path / "model.keras", "here")
        np.testing.assert_array_equal(model(own), again(own))


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


def test_a_search_that_is_out_of_range():
    for values, name in (
        ({"size": 0}, "size"),
        ({"alpha": -1}, "alpha"),
        ({"min_length": 9, "max_length": 9}, "min_length"),
    ):
        with pytest.raises(ValueError, match=f"^{name}"):
            decoding.Beam(**values)


def smoothed(labels, eps, vocab=V):
    """q, by its definition."""
    q = np.full((*labels.shape, vocab), eps / (vocab - 2))
    q[..., 0] = 0
    np.put_along_axis(q, labels[..., None], 1 - eps, -1)
    return q


@pytest.mark.parametrize("eps", [0.0, 0.1, 0.3])
def test_smoothing_is_cross_entropy_less_entropy(eps):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(2, 5, V)).astype("float32")
    labels = rng.integers(1, V, (2, 5))
    weight = np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], "float32")
    log_p = np.log(keras.ops.convert_to_numpy(keras.ops.softmax(logits)))
    q = smoothed(labels, eps)
    safe = np.where(q > 0, q, 1)
    kl = (q * (np.log(safe) - log_p)).sum(-1)
    loss = losses.LabelSmoothing(eps)
    found = float(loss(labels, logits, sample_weight=weight))
    assert found == pytest.approx((kl * weight).sum() / weight.sum(), rel=1e-4)
    cross = -(q * log_p).sum(-1)
    entropy = losses.entropy(eps, V)
    assert entropy == pytest.approx(-(q * np.log(safe)).sum(-1)[0, 0])
    assert found == pytest.approx(
        ((cross - entropy) * weight).sum() / weight.sum(), rel=1e-4
    )
    metric = losses.perplexity_log()
    metric.update_state(labels, logits, sample_weight=weight)
    nll = -np.take_along_axis(log_p, labels[..., None], -1)[..., 0]
    assert float(metric.result()) == pytest.approx(
        (nll * weight).sum() / weight.sum(), rel=1e-4
    )


def test_smoothing_out_of_range():
    with pytest.raises(ValueError, match="smoothing"):
        losses.LabelSmoothing(1.0)
    again = losses.LabelSmoothing.from_config(
        losses.LabelSmoothing(0.2).get_config()
    )
    assert again.smoothing == 0.2


def test_sentence_loss_is_the_mean_over_real_sentences():
    logits = np.array([[2.0, -1.0, 9.0], [0.5, 0.0, -3.0]], "float32")
    labels = np.array([[1, 0, 1], [0, 1, 0]])
    weight = np.array([[1, 1, 0], [1, 1, 1]], "float32")
    p = 1 / (1 + np.exp(-logits))
    each = -np.log(np.where(labels, p, 1 - p))
    found = losses.SentenceCrossEntropy()(labels, logits, sample_weight=weight)
    assert float(found) == pytest.approx((each * weight).sum() / 5, rel=1e-5)


def test_noam_peaks_at_its_warmup():
    base, warmup = 0.1, 40
    schedule = optimization.Noam(base, warmup)
    rates = [float(schedule(step)) for step in range(200)]
    assert max(rates) == pytest.approx(base * warmup**-0.5)
    assert rates.index(max(rates)) == warmup - 1
    assert rates[9] == pytest.approx(base * 10 * warmup**-1.5)
    assert rates[159] == pytest.approx(base * 160**-0.5)
    again = optimization.Noam.of_peak(base * warmup**-0.5, warmup)
    assert float(again(7)) == pytest.approx(rates[7])
    assert again.from_config(again.get_config()).base == again.base
    for values in ((-1, 5), (1, 0)):
        with pytest.raises(ValueError):
            optimization.Noam(*values)


class FakeSource:
    """As `checkpoint.source.Source`, of one table."""

    def __init__(self):
        self.config = BertConfig(**ENCODER)
        self.table = np.arange(32.0 * H).reshape(32, H).astype("float32")

    def shape_of(self, path):
        return self.table.shape

    def read(self, path):
        return self.table

    def _replace(self, **values):
        found = FakeSource()
        for name, value in values.items():
            setattr(found, name, value)
        return found


def test_positions_behind_the_last_one():
    source = FakeSource()
    assert positions.lengthened(source, 32, "code", 1) is source
    copied = positions.lengthened(source, 40, "code", 1)
    table = copied.read(positions.POSITIONS)
    assert copied.shape_of(positions.POSITIONS) == table.shape == (40, H)
    assert copied.config.max_position_embeddings == 40
    np.testing.assert_array_equal(table[:32], source.table)
    np.testing.assert_array_equal(table[32:], source.table[31:].repeat(8, 0))
    drawn = positions.lengthened(source, 400, "paper", 1)
    table = drawn.read(positions.POSITIONS)
    np.testing.assert_array_equal(table[:32], source.table)
    assert table[32:].std() == pytest.approx(0.3, rel=0.05)
    again = positions.lengthened(source, 400, "paper", 1)
    np.testing.assert_array_equal(again.read(positions.POSITIONS), table)
    other = again.read("bert/embeddings/word_embeddings")
    np.testing.assert_array_equal(other, source.table)


@pytest.fixture
def encoding(tmp_path):
    tokenizer = wordpiece.load_tokenizer(small_tasks.write_vocab(tmp_path))
    return inputs.Encoding(tokenizer, max_tokens=14, max_target=9)


def words(encoding, ids):
    return " ".join(encoding.tokenizer.id_to_token(int(i)) for i in ids)


def test_a_document_as_tokens(encoding):
    document = Document(
        "here",
        ["the film is good .", "it was bad .", "anna", "bob"],
        [["the film", "good and bad and good"], ["bob"]],
        [1, 3],
    )
    found = encoding.encode(document)
    assert words(encoding, found.input_ids) == (
        "[CLS] the film is good . [SEP] [CLS] it was bad . [SEP]"
    )
    assert found.segment_ids.tolist() == [0] * 7 + [1] * 6
    assert found.clss.tolist() == [0, 7]
    assert found.labels.tolist() == [0, 1]
    # The vocabulary has no [unused0]: [CLS], [SEP], [MASK] are the marks.
    assert words(encoding, found.target) == (
        "[CLS] the film [MASK] good and bad and [SEP]"
    )
    assert encoding.text(found.target) == ["the film", "good and bad and"]


def test_a_long_sentence_is_cut_with_its_end(encoding):
    found = encoding.encode(Document("here", ["good " * 30]))
    assert len(found.input_ids) == 14
    assert words(encoding, found.input_ids[-1:]) == "[SEP]"
    assert len(found.target) == 0


def test_marks_of_a_published_vocabulary(tmp_path):
    path = tmp_path / "vocab.txt"
    marks = ["[unused0]", "[unused1]", "[unused2]"]
    path.write_text("\n".join([*small_tasks.WORDS, *marks]) + "\n")
    found = inputs.Encoding(wordpiece.load_tokenizer(path), 14, 9)
    n = len(small_tasks.WORDS)
    assert found.marks == (n, n + 1, n + 2)


def test_batches_are_a_function_of_their_number(encoding):
    texts = ["good", "bad film", "the very good film", "it was in paris"]
    rows = inputs.encode_all(
        [Document("", [text, text], [[text]]) for text in texts * 3], encoding
    )
    for extractive in (True, False):
        batches = inputs.Batches(rows, 4, inputs.BertForm(extractive), seed=1)
        assert batches.per_epoch == 3
        whole = list(batches.dataset(0, 7))
        rest = list(batches.dataset(5, 7))
        for one, other in zip(whole[5:], rest, strict=True):
            keras.tree.map_structure(np.testing.assert_array_equal, one, other)
        seen = sorted(
            row[: int(mask.sum())].tolist()
            for x, _, _ in whole[:3]
            for row, mask in zip(
                np.asarray(x["input_ids"]), np.asarray(x["input_mask"])
            )
        )
        assert seen == sorted(row.input_ids.tolist() for row in rows)
    x, labels, weight = whole[0]
    shifted = np.asarray(x["target_ids"])[:, 1:]
    inside = np.asarray(weight)[:, 1:] > 0
    np.testing.assert_array_equal(
        shifted[inside], np.asarray(labels)[:, :-1][inside]
    )


def test_the_digest_knows_each_array(encoding):
    rows = inputs.encode_all([Document("", ["good"], [["bad"]])], encoding)
    other = [rows[0]._replace(labels=rows[0].labels + 1)]
    assert inputs.digest({"train": rows}) == inputs.digest({"train": rows})
    assert inputs.digest({"train": rows}) != inputs.digest({"train": other})
    assert inputs.digest({"train": rows}) != inputs.digest({"test": rows})
