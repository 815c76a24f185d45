"""Batches of rows of about the same length: which rows, which columns."""

import keras
import numpy as np
import pytest

from official_models.nlp.bert.config import BertConfig
from official_models.nlp.bert.finetuning.fit import batches, training
from official_models.nlp.checkpoint import models

T = 40
LENGTHS = np.array([3, 40, 17, 16, 1, 33, 24, 25, 8, 30, 2, 12])


def encoded():
    mask = (np.arange(T) < LENGTHS[:, None]).astype("int32")
    ids = np.random.default_rng(1).integers(5, 50, mask.shape).astype("int32")
    inputs = {"input_ids": ids * mask, "input_mask": mask}
    inputs["segment_ids"] = np.zeros_like(ids)
    return training.Encoded(inputs, np.arange(len(ids), dtype="int32"))


def test_lengths_and_columns():
    found = encoded()
    np.testing.assert_array_equal(batches.lengths_of(found.inputs), LENGTHS)
    inner = {"input_mask": np.array([[1, 0, 1, 0], [0, 0, 0, 0]])}
    np.testing.assert_array_equal(batches.lengths_of(inner), [3, 1])
    kept = [batches.bucket_of(n, T) for n in (1, 16, 17, 24, 25, 33, 40)]
    assert kept == [16, 16, 24, 24, 32, 40, 40]
    assert [batches.bucket_of(n, 16) for n in (1, 16)] == [16, 16]
    assert [batches.bucket_of(n, 512) for n in (385, 512)] == [512, 512]


def test_each_row_is_in_one_batch_beside_rows_of_its_length(monkeypatch):
    monkeypatch.setattr(batches, "_POOL", 3)
    order = np.array([11, 3, 0, 7, 5, 1, 9, 2, 8, 4])

    def cut(seed):
        rng = np.random.default_rng(seed)
        return batches.by_length(LENGTHS, order, 2, rng)

    found = cut(0)
    assert sorted(np.concatenate(found)) == sorted(order)
    # Of the first part (lengths 12, 16, 3, 25, 33, 40), sorted by length.
    sets = {frozenset(rows.tolist()) for rows in found}
    assert {frozenset({0, 11}), frozenset({3, 7}), frozenset({5, 1})} <= sets
    assert [list(x) for x in cut(0)] == [list(x) for x in found]
    orders = {tuple(np.concatenate(cut(seed))) for seed in range(5)}
    assert len(orders) > 1


def test_a_batch_has_its_rows_labels_and_columns():
    data = encoded()
    rows = [np.array([0, 3]), np.array([10, 8]), np.array([2, 6])]
    found = batches.Batches(data.inputs, data.labels, rows)
    assert len(found) == 3
    # The second batch has another length than the first: see `Batches`.
    (first, _), (second, labels) = found[0], found[1]
    assert [x["input_ids"].shape[1] for x in (first, second)] == [16, 24]
    assert labels.tolist() == [2, 6]
    expected = data.inputs["input_ids"][[2, 6], :24]
    np.testing.assert_array_equal(second["input_ids"], expected)
    assert found[2][1].tolist() == [10, 8]


def make_model():
    config = BertConfig(
        vocab_size=50,
        hidden_size=8,
        num_layers=1,
        num_heads=2,
        intermediate_size=16,
        max_position_embeddings=T,
        hidden_dropout=0.0,
        attention_dropout=0.0,
    )
    model = models.make(config, "classifier", num_labels=12, dropout=0.0)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1), loss)
    return model


@pytest.fixture(scope="module")
def model():
    return make_model()


def test_predictions_are_those_with_all_the_padding(model):
    data = encoded()
    usual = training.outputs_of(model, data.inputs, 5)
    found = training.outputs_of(model, data.inputs, 5, by_length=True)
    assert np.ptp(usual, axis=0).max() > 1e-3  # rows differ
    np.testing.assert_allclose(found, usual, rtol=0, atol=1e-6)


def test_an_epoch_trains_on_each_row_as_with_all_the_padding(model):
    """One batch of everything: the same update, whatever is cut off."""
    data, start = encoded(), model.get_weights()
    rows = [np.array([0, 8, 4, 10])]
    model.fit(batches.Batches(data.inputs, data.labels, rows), verbose=0)
    cut = model.get_weights()
    model.set_weights(start)
    part = data.take(rows[0])
    model.fit(part.inputs, part.labels, batch_size=4, verbose=0)
    for one, other in zip(cut, model.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)
    assert np.abs(cut[0] - start[0]).max() > 1e-4


class Silent:
    """A task that measures nothing."""

    name, unit, labels, compared_by = "silent", "examples", (), ("dev", "x")

    def __init__(self):
        self.train = encoded()

    def measure(self, model, batch_size):
        return training.Measured({"dev": {"x": 0.0}})


def test_a_seed_is_trained_on_batches_of_every_length(model):

    fitting = training.Fitting(2, 0, 6, 2, 1, 2, length_buckets=True)
    result, _ = fitting.fit(model, Silent(), seed=1)
    assert [row["epoch"] for row in result["epochs"]] == [1, 2]
    assert np.isfinite([row["loss"] for row in result["epochs"]]).all()
