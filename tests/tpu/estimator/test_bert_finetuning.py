"""Fine-tuning jobs on this machine: trained, killed, resumed, exported."""

import json
import sys

import numpy as np
import pytest
import tensorflow as tf

from official_models.nlp.bert.finetuning import answers
from official_models.nlp.bert.finetuning import features as bert_features
from official_models.nlp.bert.finetuning.metrics import METRICS
from official_models.nlp.datasets import glue
from official_models.nlp.datasets.squad import read_squad
from official_models.nlp.text import wordpiece
from tests.official_models import scripts
from tests.official_models.nlp.bert.finetuning import small_tasks
from tests.tpu.estimator import bert_job, job_process
from tpu import bert_finetuning, finetuning_metrics

tf1 = tf.compat.v1
STEPS = 180  # 48 sentences, 8 a batch, 30 epochs


def arguments(folder, run, task, *more):
    return [
        f"--output_dir={folder / run}",
        f"--task_name={task}",
        f"--vocab_file={folder / 'vocab.txt'}",
        f"--bert_config_file={folder / 'config.json'}",
        f"--init_checkpoint={folder / 'bert_model.ckpt'}",
        "--train_batch_size=8",
        "--save_checkpoints_steps=20",
        "--iterations_per_loop=10",
        *map(str, more),
    ]


def sentiment(folder, run, *more):
    return arguments(
        folder,
        run,
        "SST-2",
        f"--data_dir={folder}",
        "--do_train",
        "--max_seq_length=12",
        "--num_train_epochs=30",
        "--learning_rate=0.01",
        *more,
    )


def places(folder, run, *more):
    return arguments(
        folder,
        run,
        "squad",
        f"--train_file={folder / 'train.json'}",
        f"--predict_file={folder / 'dev.json'}",
        "--do_train",
        "--max_seq_length=16",
        "--max_query_length=6",
        "--doc_stride=4",
        "--version_2_with_negative",
        *more,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Runs `whole`, `killed` (and resumed), `start` and `squad`."""
    folder = tmp_path_factory.mktemp("finetuning")
    small_tasks.write_vocab(folder)
    small_tasks.write_sst2(folder / "SST-2")
    small_tasks.write_mnli(folder / "MNLI")
    small_tasks.write_squad(folder / "train.json", 24, negative=True)
    small_tasks.write_squad(folder / "dev.json", 5, negative=True)
    (folder / "config.json").write_text(json.dumps(bert_job.CONFIG))
    bert_job.write_checkpoint(folder / "bert_model.ckpt", moments=True)
    killed = sentiment(folder, "killed")
    command = [sys.executable, "-m", "tpu.bert_finetuning", *killed]
    last = job_process.kill_once_saved(command, folder / "killed", 20)
    assert 20 <= last < STEPS
    runs = [
        sentiment(
            folder,
            "whole",
            "--do_eval",
            "--do_predict",
            f"--export_dir={folder / 'export'}",
        ),
        killed,
        arguments(
            folder,
            "start",
            "mnli",
            f"--data_dir={folder}",
            "--do_train",
            "--do_eval",
            "--do_predict",
            "--max_seq_length=14",
            "--num_train_epochs=0.5",
            "--learning_rate=1e-30",
        ),
        places(
            folder,
            "squad",
            "--do_eval",
            "--do_predict",
            "--num_train_epochs=30",
            "--optimizer=adamw",
            "--learning_rate=0.003",
        ),
    ]
    (folder / "runs.json").write_text(json.dumps(runs))
    module = "tests.tpu.estimator.finetuning_runs"
    job_process.run([sys.executable, "-m", module, folder / "runs.json"])
    return folder


def test_a_killed_run_goes_on_to_the_same_weights(folder):
    job_process.assert_same_end(folder / "whole", folder / "killed", STEPS)


def test_starts_from_a_pretraining_checkpoint_with_a_new_head(folder):
    given = bert_job.write_checkpoint(folder / "again.ckpt")
    found = job_process.weights(folder / "start")
    assert found["global_step"] == 1
    for name, value in given.items():
        if name.startswith("bert/"):
            np.testing.assert_allclose(found[name], value, atol=1e-12)
    assert not any(name.startswith("cls/") for name in found)
    head = found["output_weights"]
    assert head.shape == (3, 16) and 0 < np.abs(head).max() <= 0.04 + 1e-7
    np.testing.assert_array_equal(found["output_bias"].round(12), [0] * 3)


def test_both_sets_of_mnli(folder):
    results = json.loads((folder / "start/eval_results.json").read_text())
    assert results.keys() == {"dev_matched", "dev_mismatched"}
    for (split, metrics), number in zip(results.items(), (5, 3)):
        right = metrics["eval_accuracy"] * number
        assert right == pytest.approx(round(right), abs=1e-5), split
        # Three labels of a head that has learned nothing.
        assert metrics["eval_loss"] == pytest.approx(np.log(3), abs=0.1)
    for name, number in (("", 4), ("_mismatched", 2)):
        path = folder / "start" / f"test_results{name}.tsv"
        rows = [line.split("\t") for line in path.read_text().splitlines()]
        assert [len(row) for row in rows] == [3] * number


def test_evaluates_and_predicts(folder):
    """An adjective decides, and each is seen in training: all right."""
    results = json.loads((folder / "whole/eval_results.json").read_text())
    assert results["dev"]["eval_accuracy"] == 1
    assert results["dev"]["global_step"] == STEPS
    lines = (folder / "whole/test_results.tsv").read_text().splitlines()
    rows = np.array([line.split("\t") for line in lines], float)
    labels = [label for _, label in small_tasks.sentences(7)]
    assert rows.argmax(-1).tolist() == labels
    np.testing.assert_allclose(rows.sum(-1), 1, atol=1e-6)


def test_the_evaluation_leaves_out_the_padding(folder):
    """11 examples in batches of 8: the loss is the mean over 11."""
    examples, _ = glue.read_split(folder, glue.TASKS["sst-2"], "dev")
    features = features_of(folder, examples)
    logits = served(folder, features)["logits"].astype("float64")
    labels = [example.label for example in examples]
    nll = np.log(np.exp(logits).sum(-1)) - logits[np.arange(11), labels]
    results = json.loads((folder / "whole/eval_results.json").read_text())
    assert results["dev"]["eval_loss"] == pytest.approx(nll.mean(), abs=1e-5)


def features_of(folder, examples):
    tokenizer = wordpiece.load_tokenizer(folder / "vocab.txt")
    rows = bert_features.encode(examples, tokenizer, 12)
    return {
        name: np.array([row[name] for row in rows], "int32")
        for name in bert_finetuning.TOKENS
    }


def served(folder, features):
    """What the exported SavedModel says."""
    (path,) = (folder / "export").iterdir()
    serve = tf.saved_model.load(str(path)).signatures["serving_default"]
    found = serve(**{n: tf.constant(x) for n, x in features.items()})
    return {name: value.numpy() for name, value in found.items()}


def test_the_exported_model_serves_the_predictions(folder):
    examples, _ = glue.read_split(
        folder, glue.TASKS["sst-2"], "test", labelled=False
    )
    found = served(folder, features_of(folder, examples))
    lines = (folder / "whole/test_results.tsv").read_text().splitlines()
    np.testing.assert_allclose(
        found["probabilities"],
        [[float(x) for x in line.split("\t")] for line in lines],
        atol=1e-6,
    )
    assert found["label"].tolist() == [
        label for _, label in small_tasks.sentences(7)
    ]


def test_answers_questions(folder):
    """The six places are those of the training: nearly all right."""
    questions, _ = read_squad(str(folder / "dev.json"))
    files = {
        name: json.loads((folder / "squad" / f"{name}.json").read_text())
        for name in (
            *("predictions", "nbest_predictions", "null_odds"),
            "eval_results",
        )
    }
    scores = answers.score(questions, files["predictions"])
    assert scores["total"] == 10
    for name, value in scores.items():
        assert files["eval_results"]["dev"][name] == value
    assert scores["exact_match"] >= 90
    for question in questions:
        best = files["nbest_predictions"][question.id]
        assert sum(x["probability"] for x in best) == pytest.approx(1)
        answer = files["predictions"][question.id]
        assert (answer == "") == (files["null_odds"][question.id] > 0)
        assert answer in question.context


def test_metrics_of_two_batches():
    rng = np.random.default_rng(0)
    labels, predictions = rng.integers(0, 2, (2, 40))
    weights = np.ones(40, "float32")
    weights[-7:] = 0
    with tf.Graph().as_default(), tf1.Session() as session:
        feeds = [tf1.placeholder(t) for t in (tf.int32, tf.int32, tf.float32)]
        counts = finetuning_metrics.confusion(*feeds)
        metrics = {
            name: [tf.math.divide_no_nan(*formula(*row)) for row in counts]
            for name, formula in METRICS.items()
        }
        session.run(tf1.local_variables_initializer())
        for part in (slice(0, 20), slice(20, 40)):
            values = (x[part] for x in (labels, predictions, weights))
            session.run(
                [update for _, update in metrics.values()],
                dict(zip(feeds, values)),
            )
        found = session.run({n: value for n, (value, _) in metrics.items()})
    labels, predictions = labels[:33], predictions[:33]
    precision = labels[predictions == 1].mean()
    recall = predictions[labels == 1].mean()
    f1 = 2 * precision * recall / (precision + recall)
    assert found["f1"] == pytest.approx(f1)
    correlation = np.corrcoef(labels, predictions)[0, 1]
    assert found["matthews"] == pytest.approx(correlation, abs=1e-6)


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        (["--task_name=sts"], ["sts", "mrpc", "squad"]),
        (["--task_name=sts-b"], ["STS-B", "finetune_classifier"]),
        (["--nodo_train"], ["nothing to do", "--do_predict"]),
        (["--data_dir="], ["--data_dir is missing"]),
        (["--task_name=squad"], ["--train_file is missing"]),
        (["--max_seq_length=25"], ["--max_seq_length 25", "24 positions"]),
        (["--task_name=rte"], ["--data_dir", "train.tsv"]),
        (["--train_batch_size=4000"], ["not one batch of 4000"]),
        (["--vocab_file=no.txt"], ["--vocab_file no.txt"]),
        (
            ["--use_tpu", "--tpu_name=a", "--train_batch_size=12"],
            ["--train_batch_size 12", "multiple"],
        ),
    ],
    ids=lambda x: x[0],
)
def test_bad_flags_are_refused(changes, parts, tmp_path):
    small_tasks.write_vocab(tmp_path)
    small_tasks.write_sst2(tmp_path / "SST-2")
    (tmp_path / "config.json").write_text(json.dumps(bert_job.CONFIG))
    given = sentiment(tmp_path, "run", "--num_train_epochs=1", *changes)
    if "--task_name=rte" in changes:
        given.append(f"--data_dir={tmp_path / 'run'}")
    with scripts.flags_of(bert_finetuning):
        scripts.refusal(lambda: scripts.run(bert_finetuning, *given), *parts)
