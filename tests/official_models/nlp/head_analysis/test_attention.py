"""Maps, their change, attention to classes of tokens, and relations."""

import json

import keras
import numpy as np
import pytest

from official_models.nlp.checkpoint import models
from official_models.nlp.head_analysis import attention_to, change, maps
from official_models.nlp.head_analysis import relations as probes
from official_models.nlp.text import vocabulary
from tests.official_models import scripts
from tests.official_models.nlp.bert.finetuning import small_tasks
from tests.official_models.nlp.bert.small_bert import config_of
from tests.official_models.nlp.head_analysis.small import (
    ALBERT,
    BERT,
    LENGTHS,
    T,
    V,
    inputs,
)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    path = small_tasks.write_vocab(tmp_path_factory.mktemp("vocab"))
    return vocabulary.load_tokenizer(path)


def all_maps(model, **options):
    """{row: maps} of `inputs`."""
    reader, found = maps.reader(model), {}
    for batch in maps.batches_of(inputs(), 2, **options):
        read = maps.read(reader, batch)
        found.update(zip(batch.rows, maps.cropped(read, batch)))
    return found


@pytest.mark.parametrize("config", [BERT, ALBERT])
def test_maps_are_those_of_the_forward_pass(config, monkeypatch):
    """What each softmax of the model's own pass gave, to rounding."""
    model = models.make(config, "encoder", seed=1)
    seen, softmax = [], keras.ops.softmax
    from official_models.common import ops

    def spy(x, *args, **kwargs):
        seen.append(softmax(x, *args, **kwargs))
        return seen[-1]

    monkeypatch.setattr(ops, "softmax", spy)
    model(inputs())
    monkeypatch.undo()
    expected = np.stack([np.asarray(x) for x in seen], 1)
    assert len(seen) == len(models.encoder_of(model).applied)
    found = all_maps(model)
    assert sorted(found) == list(range(len(LENGTHS)))
    for row, length in enumerate(LENGTHS):
        cropped = expected[row, ..., :length, :length]
        np.testing.assert_allclose(found[row], cropped, atol=2e-5)
    assert np.ptp(expected[:, -1]) > 0.2


def test_batches_have_every_row_once_and_little_padding():
    rows, columns = [], []
    for batch in maps.batches_of(inputs(), 2):
        rows += batch.rows.tolist()
        columns.append(batch.inputs["input_ids"].shape[1])
        assert (batch.lengths == LENGTHS[batch.rows]).all()
    assert sorted(rows) == list(range(5)) and min(columns) == 16
    whole = maps.batches_of(inputs(), 5, trim=False)
    assert [b.inputs["input_ids"].shape for b in whole] == [(5, T)]


def test_the_mean_map_is_over_the_examples_that_have_a_cell():
    mean = maps.MeanMap(3)
    mean.add(np.full((1, 1, 2, 2), 0.5))
    mean.add(np.full((1, 1, 4, 4), 0.25))
    expected = [[0.375, 0.375, 0.25], [0.375, 0.375, 0.25], [0.25] * 3]
    np.testing.assert_allclose(mean.value()[0, 0], expected)
    short = maps.MeanMap(3)
    short.add(np.full((1, 1, 2, 2), 0.5))
    assert short.value().shape == (1, 1, 2, 2)


def test_identical_models_have_cosine_1_and_others_less():
    one, other = (
        all_maps(models.make(BERT, seed=seed), trim=False) for seed in (1, 2)
    )
    for row in one:
        same = change.cosines(one[row], one[row])
        np.testing.assert_allclose(same, 1, rtol=1e-12)
        assert (change.cosines(one[row], other[row]) < 0.999).all()


def test_a_cosine_by_hand():
    a, b = (np.array(x, "f4")[None, None] for x in ([[1, 0], [0, 1]],) * 2)
    b = np.array([[[[0.5, 0.5], [0, 1]]]])
    expected = 1.5 / np.sqrt(2 * 1.5)
    assert change.cosines(a, b) == pytest.approx(expected)
    with pytest.raises(ValueError, match="^tuned: got"):
        change.cosines(a, b[..., :1])


def test_attention_to_is_a_mean_over_queries_and_the_largest_of_tokens():
    found = np.zeros((1, 2, 3, 3))
    found[0, 0] = [[0.2, 0.3, 0.5], [0.1, 0.0, 0.9], [0.0, 1.0, 0.0]]
    found[0, 1] = 1 / 3
    places = np.array([False, True, True])
    expected = [[(0.5 + 0.9) / 3, 1 / 3]]
    np.testing.assert_allclose(attention_to.attention(found, places), expected)


def test_words_are_found_whole(tokenizer, tmp_path):
    words = attention_to.Words(tokenizer)
    ids = np.array(tokenizer.encode("the films , anna film .").ids)
    assert words.places(words.pieces("film"), ids).tolist() == [
        *(False, False, False, False, False, True, False)
    ]
    assert words.places(words.pieces("films"), ids).nonzero()[0].tolist() == [
        1,
        2,
    ]
    cls, sep, marks = attention_to.usual_classes(tokenizer)
    assert marks.places(words, ids).nonzero()[0].tolist() == [3, 6]
    ends = np.array([tokenizer.token_to_id(n) for n in ("[CLS]", "[SEP]")])
    assert cls.places(words, ends).tolist() == [True, False]
    assert sep.places(words, ends).tolist() == [False, True]
    path = tmp_path / "classes.json"
    path.write_text(json.dumps({"names": ["anna", "bob"]}))
    (names,) = attention_to.read_classes(path, words)
    assert names.places(words, ids).nonzero()[0].tolist() == [4]
    given = {"input_ids": ids[None]}
    attention_to.check_found(path, [names], words, given)
    given = {"input_ids": ends[None]}
    scripts.refusal(
        lambda: attention_to.check_found(path, [names], words, given), "names"
    )


@pytest.mark.parametrize(
    "given", [[], {}, {"a": []}, {"a": [1]}, {"a": [""]}, {"[CLS]": ["a"]}]
)
def test_classes_of_another_form_are_refused(given, tokenizer, tmp_path):
    path = tmp_path / "classes.json"
    path.write_text(json.dumps(given))
    words = attention_to.Words(tokenizer)
    scripts.refusal(lambda: attention_to.read_classes(path, words), path)


def relation(texts, pairs, name="r"):
    examples = [{"texts": texts, "pairs": pairs}]
    return {"relations": [{"name": name, "examples": examples}]}


def write(tmp_path, value):
    path = tmp_path / "relations.json"
    path.write_text(json.dumps(value))
    return path


def _plant(model, tokenizer, layer, head, words):
    """Makes a head of the first layer look from one word to another."""
    encoder = models.encoder_of(model)
    x = [
        np.asarray(encoder.embedded(np.full((1, 3), i), np.zeros((1, 3), int)))
        for i in (tokenizer.token_to_id(w) for w in words)
    ]
    attention = encoder.applied[layer].attention
    column = head * 16
    for dense, row in zip((attention.query, attention.key), x):
        kernel = np.array(keras.ops.convert_to_numpy(dense.kernel))
        kernel[:, column : column + 16] = 0
        kernel[:, column] = row[0, 1]
        dense.kernel.assign(kernel)


def test_a_planted_relation_head_ranks_first(tokenizer, tmp_path):
    model = models.make(
        config_of(vocab_size=V, num_heads=2, num_layers=3), "encoder", seed=1
    )
    _plant(model, tokenizer, 0, 1, ("anna", "lives"))
    texts = [
        "anna is very good and lives in oslo",
        "bob and anna lives in rome",
    ]
    value = relation([texts[0]], [["anna", "lives"]])
    value["relations"][0]["examples"].append(
        {"texts": [texts[1]], "pairs": [["lives", "anna"]]}
    )
    (found,) = probes.read_relations(write(tmp_path, value), tokenizer, 16)
    reader = maps.reader(model)
    scores = probes.scores(found, lambda batch: maps.read(reader, batch), 2)
    named = probes.named(scores)
    assert named["best"] == [0, 1] and named["above"] == [[0, 1]]
    assert scores[0, 1] > 2 * np.sort(scores.ravel())[-2]
    assert named["threshold"] < scores.max()


def test_a_relation_s_score_by_hand():
    found = np.arange(9).reshape(1, 1, 3, 3) / 10
    one, other = np.array([1, 0, 0], bool), np.array([0, 1, 1], bool)
    # Cells (0, 1), (0, 2), (1, 0), (2, 0).
    assert probes.score(found, [(one, other)]) == pytest.approx(0.6)
    padded = [(np.pad(one, (0, 4)), np.pad(other, (0, 4)))]
    assert probes.score(found, padded) == pytest.approx(0.6)


def test_a_word_that_is_not_in_the_text_is_refused(tokenizer, tmp_path):
    path = write(tmp_path, relation(["anna is good"], [["anna", "bob"]]))
    scripts.refusal(
        lambda: probes.read_relations(path, tokenizer, 16),
        "relation 1 (r), example 1: 'bob' is not in the text 'anna is good'",
    )
    long = write(
        tmp_path, relation(["it is a very good film"], [["it", "film"]])
    )
    scripts.refusal(lambda: probes.read_relations(long, tokenizer, 6), "film")


@pytest.mark.parametrize(
    "given",
    [
        *([], {}, {"relations": []}, {"relations": [1]}),
        relation([], [["a", "a"]]),
        relation(["a"], []),
        relation(["a"], [["a"]]),
        relation(["a"], [["a", 1]]),
        relation("a", [["a", "a"]]),
        relation(["a"], [["a", "a"]], name=3),
        {"relations": [{"name": "x"}]},
        {"relations": 2 * relation(["a"], [["a", "a"]])["relations"]},
    ],
)
def test_relations_of_another_form_are_refused(given, tokenizer, tmp_path):
    path = write(tmp_path, given)
    scripts.refusal(lambda: probes.read_relations(path, tokenizer, 16), path)
