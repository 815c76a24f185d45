"""What both fine-tuning scripts are made of: arrays, progress, one seed."""

import keras
import numpy as np
import pytest

from official_models.nlp.bert.finetuning.fit import report, training
from tests.official_models.scripts import refusal

T = 4


def encoded(number):
    ids = np.arange(number * T, dtype="int32").reshape(number, T)
    labels = {n: ids[:, 0] % 3 for n in ("start_logits", "end_logits")}
    return training.Encoded(dict.fromkeys(training.TOKENS, ids), labels)


@pytest.mark.parametrize("number", [1, 2, 3, 4, 5])
def test_rows_of_several_blocks_are_stacked_in_order(number, monkeypatch):
    monkeypatch.setattr(training, "BLOCK", 2)
    rows = ({"x": [i, -i], "y": [i / 2], "other": []} for i in range(number))
    found = training.stacked(rows, {"x": "int32", "y": "float32"})
    assert set(found) == {"x", "y"}
    assert [found[n].dtype for n in "xy"] == ["int32", "float32"]
    np.testing.assert_array_equal(found["x"][:, 1], -np.arange(number))
    np.testing.assert_array_equal(found["y"][:, 0], np.arange(number) / 2)


def test_a_digest_is_of_every_array():
    def digest(split):
        found = training.new_digest()
        split.add_to(found, "train")
        return found.hexdigest()

    split = encoded(5)
    assert digest(split) == digest(encoded(5)) != digest(encoded(4))
    taken = split.take(np.array([4, 0]))
    assert taken.number == 2
    assert taken.labels["end_logits"].tolist() == [16 % 3, 0]
    split.labels["end_logits"] = split.labels["end_logits"] + 1
    assert digest(split) != digest(encoded(5))


def test_progress_is_printed_once_a_while(capsys):
    progress = training.Progress("seed 1, epoch 2", 1200, seconds=0)
    progress.on_train_batch_end(1000, {"loss": np.float32(0.5)})
    expected = "seed 1, epoch 2: batch 1,001 of 1,200, loss 0.5000\n"
    assert capsys.readouterr().out == expected
    training.Progress("", 2).on_train_batch_end(0, {"loss": 1.0})
    assert capsys.readouterr().out == ""


class Scored:
    """A task whose scores are given; it remembers the weights it measured."""

    name, unit, labels, compared_by = "given", "windows", (), ("dev", "f1")

    def __init__(self, scores):
        self.train, self._scores, self.weights = encoded(6), scores, []

    def measure(self, model, batch_size):
        self.weights.append(model.get_weights())
        number = len(self.weights)
        scores = {"dev": {"f1": self._scores[number - 1]}}
        return training.Measured(scores, {"answers.json": number})


def model_of():
    inputs = {
        n: keras.Input((T,), dtype="int32", name=n) for n in training.TOKENS
    }
    scaled = keras.layers.Rescaling(1e-3)(inputs["input_ids"])
    outputs = {
        n: keras.layers.Dense(3, name=n)(scaled)
        for n in ("start_logits", "end_logits")
    }
    model = keras.Model(inputs, outputs)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", dict.fromkeys(outputs, loss))
    return model


@pytest.mark.parametrize(
    ("scores", "patience", "epochs", "best"),
    [
        ([1, 3, 2, 2], 0, 4, 2),
        ([1, 3, 2, 9], 1, 3, 2),
        ([2, 2, 2], 2, 3, 1),  # of equal ones the first
    ],
)
def test_a_seed_keeps_the_weights_and_files_of_its_best_epoch(
    scores, patience, epochs, best
):
    task, model = Scored(scores), model_of()
    fitting = training.Fitting(len(scores), patience, 3, 2, 1, 2)
    result, files = fitting.fit(model, task, seed=1)
    assert (len(result["epochs"]), result["best_epoch"]) == (epochs, best)
    assert result["scores"] == {"dev": {"f1": scores[best - 1]}}
    assert files == {"answers.json": best}
    for one, other in zip(
        model.get_weights(), task.weights[best - 1], strict=True
    ):
        np.testing.assert_array_equal(one, other)
    assert result["windows_per_second"] > 0


def test_outputs_that_are_not_finite_are_refused():
    model = model_of()
    inputs = encoded(2).inputs
    found = training.outputs_of(model, inputs, 2)
    assert {n: x.shape for n, x in found.items()} == {
        n: (2, 3) for n in ("start_logits", "end_logits")
    }
    model.layers[-1].kernel.assign(np.full((T, 3), np.nan))
    refusal(lambda: training.outputs_of(model, inputs, 2), "has diverged")


def test_of_equal_seeds_the_first_is_the_best():
    results = [
        {"seed": seed, "best_epoch": 1, "scores": {"dev": {"accuracy": score}}}
        for seed, score in ((4, 0.5), (5, 0.75), (6, 0.75))
    ]
    found = report.summary(("dev", "accuracy"), results)
    assert found["best_seed"] == 5
    lines = report.table(results, found).splitlines()
    assert [line.split() for line in lines[-3:]] == [
        ["mean", "0.6667"],
        ["deviation", "0.1443"],
        ["best", "seed", "5", "0.7500"],
    ]
