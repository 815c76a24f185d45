"""Tasks of fine-tuning without a training loop: files in, files out."""

import ast
import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from official_models.nlp.bert.finetuning import feature_records, metrics
from official_models.nlp.bert.finetuning.tasks import (
    classification,
    question_answering,
)
from official_models.nlp.datasets import glue, squad
from official_models.nlp.text import wordpiece
from tests.official_models.nlp.bert.finetuning import small_tasks
from tests.official_models.nlp.bert.small_bert import config_of
from tests.official_models.scripts import refusal

T = 16
TOKENS = "input_ids", "input_mask", "segment_ids"


class Oracle:
    """A runner that knows the truth: logits by a function of a record."""

    eval_batch_size, predict_batch_size = 4, 3

    def __init__(self, folder, task, logits):
        self.folder, self.task, self.logits = str(folder), task, logits
        self.evaluated = []

    def step(self):
        return 7

    def evaluate(self, path, batches):
        rows = list(self._records(path, self.eval_batch_size))
        assert len(rows) == batches
        real = np.concatenate([b[feature_records.REAL] for b in rows])
        self.evaluated.append((path, int(real.sum()), len(real)))
        return {"eval_accuracy": 0.5, "global_step": self.step()}

    def predict(self, path):
        for batch in self._records(path, self.predict_batch_size):
            found = self.task.predictions(self.logits(batch), batch)
            found = {name: np.asarray(x) for name, x in found.items()}
            for i in range(self.predict_batch_size):
                yield {name: x[i] for name, x in found.items()}

    def _records(self, path, batch_size):
        lengths = dict.fromkeys(TOKENS, T) | self.task.lengths
        dataset = feature_records.read_features(
            path, lengths, batch_size=batch_size
        )
        return dataset.as_numpy_iterator()


@pytest.fixture
def tokenizer(tmp_path):
    return wordpiece.load_tokenizer(str(small_tasks.write_vocab(tmp_path)))


def classify(name, tokenizer, folder, **options):
    task = glue.TASKS[name]
    return classification.Classification(
        task, tokenizer, T, data_dir=str(folder), **options
    )


def test_a_classification_writes_what_it_trains_on(tokenizer, tmp_path):
    small_tasks.write_sst2(tmp_path / "SST-2")
    task = classify("sst-2", tokenizer, tmp_path)
    path = str(tmp_path / "train.tf_record")
    assert task.write_train_records(path) == 48
    lengths = dict.fromkeys(TOKENS, T) | task.lengths
    (batch,) = feature_records.read_features(path, lengths, batch_size=48)
    expected = [label for _, label in small_tasks.sentences(48)]
    assert task.labels(batch).numpy().tolist() == expected
    logits = np.random.default_rng(0).normal(size=(48, 2)).astype("float32")
    losses = np.log(np.exp(logits).sum(-1)) - logits[np.arange(48), expected]
    np.testing.assert_allclose(task.losses(logits, batch), losses, rtol=1e-5)
    found = task.predictions(logits, batch)
    np.testing.assert_array_equal(found["label"], logits.argmax(-1))
    odds = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    np.testing.assert_allclose(found["probabilities"], odds, rtol=1e-5)


def test_a_classification_evaluates_and_predicts_both_sets(tokenizer, tmp_path):
    small_tasks.write_mnli(tmp_path / "MNLI")
    task = classify("mnli", tokenizer, tmp_path)
    values = np.random.default_rng(0).normal(size=(3, 3)).astype("float32")
    runner = Oracle(tmp_path, task, lambda batch: tf.constant(values))
    results = task.evaluate(runner)
    assert results == json.loads((tmp_path / "eval_results.json").read_text())
    assert results == {
        f"dev_{name}": {"eval_accuracy": 0.5, "global_step": 7}
        for name in ("matched", "mismatched")
    }
    # 5 and 3 examples in batches of 4.
    assert [n for _, *n in runner.evaluated] == [[5, 8], [3, 4]]
    task.predict(runner)
    odds = np.exp(values) / np.exp(values).sum(-1, keepdims=True)
    for name, number in (("", 4), ("_mismatched", 2)):
        text = (tmp_path / f"test_results{name}.tsv").read_text()
        rows = [line.split("\t") for line in text.splitlines()]
        expected = np.tile(odds, (2, 1))[:number]
        np.testing.assert_allclose(np.array(rows, float), expected, rtol=1e-5)


def test_probabilities_that_are_not_finite_are_refused(tokenizer, tmp_path):
    small_tasks.write_sst2(tmp_path / "SST-2")
    task = classify("sst-2", tokenizer, tmp_path)
    nothing = np.full((3, 2), np.nan, "float32")
    runner = Oracle(tmp_path, task, lambda batch: nothing)
    refusal(lambda: task.predict(runner), "test_results.tsv", "not finite")
    assert not (tmp_path / "test_results.tsv").exists()


def test_heads_and_their_new_variables(tokenizer, tmp_path):
    import re

    features = {name: np.ones((2, T), "int32") for name in TOKENS}
    tasks = {
        (2, 3): classify("mnli", tokenizer, tmp_path, dropout=0.0),
        (2, T): question_answering.QuestionAnswering(tokenizer, T),
    }
    for shape, task in tasks.items():
        bert, head = task.layers(config_of(), seed=1, dtype="float32")
        logits = task.logits(bert(**features), head, training=False)
        arrays = logits.values() if isinstance(logits, dict) else [logits]
        assert {tuple(x.shape) for x in arrays} == {shape}
        assert len(head.trainable_variables) == 2
        for variable in head.trainable_variables:
            assert any(re.search(name, variable.path) for name in task.new)


def of_questions(logits_of, tokenizer, tmp_path, **options):
    """A task on a small SQuAD 2.0, and its runner."""
    train, dev = (tmp_path / f"{name}.json" for name in ("train", "dev"))
    small_tasks.write_squad(train, 5, negative=True)
    small_tasks.write_squad(dev, 4, negative=True)
    options = question_answering.Options(
        train_file=str(train),
        predict_file=str(dev),
        max_query_length=6,
        doc_stride=4,
        **options,
    )
    task = question_answering.QuestionAnswering(tokenizer, T, options)
    return task, Oracle(tmp_path, task, logits_of)


def true_logits(batch):
    starts, ends = (
        9 * np.eye(T, dtype="float32")[batch[name][:, 0]]
        for name in question_answering.POSITIONS
    )
    return {"start_logits": starts, "end_logits": ends}


def test_true_positions_answer_all(tokenizer, tmp_path):
    task, runner = of_questions(
        true_logits, tokenizer, tmp_path, version_2_with_negative=True
    )
    results = task.evaluate(runner)
    assert results == json.loads((tmp_path / "eval_results.json").read_text())
    scores = results["dev"]
    assert scores["exact_match"] == scores["f1"] == 100
    assert scores["total"] == 8 and scores["global_step"] == 7
    questions, _ = squad.read_squad(str(tmp_path / "dev.json"))
    written = {
        name: json.loads((tmp_path / f"{name}.json").read_text())
        for name in ("predictions", "nbest_predictions", "null_odds")
    }
    for found in written.values():
        assert found.keys() == {question.id for question in questions}
    runner.predict = None  # `predict` has its answers already.
    task.predict(runner)


def test_squad_1_trains_on_answerable_questions_only(tokenizer, tmp_path):
    numbers = []
    for negative in (False, True):
        task, runner = of_questions(
            true_logits, tokenizer, tmp_path, version_2_with_negative=negative
        )
        path = str(tmp_path / "train.tf_record")
        numbers.append(task.write_train_records(path))
        lengths = dict.fromkeys(TOKENS, T) | task.lengths
        (batch,) = feature_records.read_features(
            path, lengths, batch_size=numbers[-1]
        )
        logits = {
            name: np.random.default_rng(i).normal(size=(numbers[-1], T))
            for i, name in enumerate(question_answering.NAMES)
        }
        losses = 0
        for name, position in zip(logits, question_answering.POSITIONS):
            x, i = logits[name], np.asarray(batch[position])
            nll = np.log(np.exp(x).sum(-1)) - np.take_along_axis(x, i, -1)[:, 0]
            losses = losses + nll / 2
        actual = task.losses(logits, batch)
        np.testing.assert_allclose(actual, losses, rtol=1e-6)
    assert 5 <= numbers[0] < numbers[1]
    task.predict(runner)
    answers = json.loads((tmp_path / "predictions.json").read_text())
    assert [answers[f"q{i}"] for i in range(4)] == list(small_tasks.PLACES[:4])


def test_questions_without_answers_are_refused(tokenizer, tmp_path):
    task, runner = of_questions(true_logits, tokenizer, tmp_path)
    data = small_tasks.squad(2)
    for paragraph in data["data"][0]["paragraphs"]:
        for entry in paragraph["qas"]:
            entry["answers"] = []
    for name in ("train", "dev"):
        (tmp_path / f"{name}.json").write_text(json.dumps(data))
    path = str(tmp_path / "train.tf_record")
    refusal(lambda: task.write_train_records(path), "train.json: none of its 2")
    refusal(lambda: task.evaluate(runner), "dev.json: has no answers")


def value(fraction):
    return float(tf.math.divide_no_nan(*fraction))


def test_f1_and_matthews_from_counts():
    rng = np.random.default_rng(0)
    labels, predictions = rng.integers(0, 2, (2, 50))
    counts = [
        float(((predictions == p) & (labels == y)).sum())
        for p, y in ((1, 1), (1, 0), (0, 1), (0, 0))
    ]
    counts = [tf.constant(count) for count in counts]
    precision = labels[predictions == 1].mean()
    recall = predictions[labels == 1].mean()
    f1 = 2 * precision * recall / (precision + recall)
    assert value(metrics.f1(*counts)) == pytest.approx(f1)
    correlation = np.corrcoef(labels, predictions)[0, 1]
    found = value(metrics.matthews(*counts))
    assert found == pytest.approx(correlation, abs=1e-6)
    nothing = [tf.constant(0.0)] * 3 + [tf.constant(5.0)]
    assert value(metrics.f1(*nothing)) == 0
    assert value(metrics.matthews(*nothing)) == 0


def test_tasks_know_no_flags_and_no_estimator():
    folder = Path(classification.__file__).parent
    for path in sorted(folder.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                assert "flags" not in [alias.name for alias in node.names]
            if isinstance(node, ast.Attribute):
                assert node.attr not in ("estimator", "v1"), path


def test_a_regression_has_no_records():
    task = glue.TASKS["sts-b"]
    refusal(
        lambda: classification.Classification(task, None, T),
        *("STS-B", "finetune_classifier"),
    )
