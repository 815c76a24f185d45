"""`finetune_squad.py`: a small model, a small SQuAD, the whole script."""

import io
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from official_models.common import weights
from official_models.nlp.bert import finetune_classifier, finetune_squad
from official_models.nlp.bert.finetuning import answers
from official_models.nlp.checkpoint.opening import open_source
from official_models.nlp.checkpoint.source import make
from official_models.nlp.datasets import squad
from tests import warm
from tests.official_models import scripts
from tests.official_models.nlp.bert.finetuning import small_tasks
from tests.official_models.nlp.bert.finetuning.small_checkpoints import (
    albert_checkpoint,
    bert_checkpoint,
)

ROOT = Path(__file__).parents[4]
SMALL = (
    "--max_seq_length=24 --doc_stride=6 --max_query_length=6 --epochs=1 "
    "--global_batch_size=8 --eval_batch_size=16 --learning_rate=0.03 "
    "--max_answer_length=2"
).split()


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return bert_checkpoint(tmp_path_factory.mktemp("bert") / "hf")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """SQuAD 1.1 under its published names; a train question is broken."""
    folder = tmp_path_factory.mktemp("squad")
    content = small_tasks.squad(49)
    entry = content["data"][0]["paragraphs"][0]["qas"][0]
    entry["answers"][0]["text"] = "Berlin"
    (folder / "train-v1.1.json").write_text(json.dumps(content))
    small_tasks.write_squad(folder / "dev-v1.1.json", 12)
    return folder


def run(checkpoint, data, output_dir, *arguments):
    scripts.run(
        finetune_squad,
        f"--init_checkpoint={checkpoint}",
        f"--data_dir={data}",
        f"--output_dir={output_dir}",
        *SMALL,
        *arguments,
    )
    return json.loads((Path(output_dir) / "report.json").read_text())


@pytest.fixture(scope="module")
def trained(bert, data, tmp_path_factory):
    """(folder, report, what was printed) of two seeds."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    with scripts.flags_of(finetune_squad):
        report = run(bert, data, folder, "--seeds=2", "--epochs=6")
    return folder, report


@pytest.fixture(autouse=True)
def defined_flags(trained):
    # After `trained`: the flags of a script are defined once at a time.
    with scripts.flags_of(finetune_squad):
        yield


def predict(folder, path, capsys, *arguments):
    capsys.readouterr()
    scripts.run(
        finetune_squad,
        *(f"--output_dir={folder}", f"--predict={path}", *arguments),
    )
    lines = capsys.readouterr().out.splitlines()
    return [json.loads(line) for line in lines]


def test_it_learns_and_reports_the_seeds(trained, data):
    folder, report = trained
    assert report["compared_by"] == "dev f1"
    f1s = [seed["scores"]["dev"]["f1"] for seed in report["seeds"]]
    found = report["scores"]["dev"]
    assert found["f1"]["mean"] == pytest.approx(np.mean(f1s))
    assert found["f1"]["deviation"] == pytest.approx(np.std(f1s, ddof=1))
    assert found["f1"]["best"] == max(f1s) > 60
    assert found["exact_match"]["best"] > 60
    best = report["seeds"][int(np.argmax(f1s))]
    assert report["best_seed"] == best["seed"]
    assert best["windows_per_second"] > 0
    assert best["epochs"][-1]["loss"] < best["epochs"][0]["loss"]
    assert report["data"]["train"] == {
        **{"questions": 49, "without_answer": 0, "left_out": 1, "windows": 48},
        **{"answer_moved": 0, "answer_absent": 1, "answer_inside": 0},
    }
    # The published form; scored anew, it is what was reported.
    predicted = json.loads((folder / "predictions.json").read_text())
    questions, _ = squad.read_squad(str(data / "dev-v1.1.json"))
    assert list(predicted) == [q.id for q in questions]
    scores = answers.score(questions, predicted)
    assert scores["f1"] == found["f1"]["best"]
    assert scores["exact_match"] == found["exact_match"]["best"]
    nbest = json.loads((folder / "nbest_predictions.json").read_text())
    assert nbest["q0"][0]["text"] == predicted["q0"]
    assert set(nbest["q0"][0]) == {
        *("text", "probability", "start_logit", "end_logit")
    }
    assert not (folder / "null_odds.json").exists()
    for name in ("model.keras", "predictions.json"):
        one = folder / f"seed_{best['seed']}" / name
        assert one.read_bytes() == (folder / name).read_bytes()


def test_the_same_command_is_resumed_by_seed(trained, bert, data, capsys):
    folder, report = trained
    (folder / "seed_2" / "result.json").unlink()
    again = run(bert, data, folder, "--seeds=2", "--epochs=6")
    printed = capsys.readouterr().out
    assert "seed 2, epoch 1: " in printed and "seed 1, epoch" not in printed
    assert "1 of 49 questions have an answer that is not in the" in printed
    assert "train 48 questions in 48 windows" in printed
    assert "train: 0.00% [UNK]." in printed.splitlines()
    for one, other in zip(report["seeds"], again["seeds"], strict=True):
        losses = [[e["loss"] for e in r["epochs"]] for r in (one, other)]
        assert losses[0] == losses[1]
    scripts.refusal(
        lambda: run(bert, data, folder, "--epochs=6", "--doc_stride=7"),
        "doc_stride = 6, this one has 7",
    )


def test_it_answers_what_the_report_says(trained, data, capsys):
    """The model in the folder is that of predictions.json."""
    folder, _ = trained
    rows = predict(folder, data / "dev-v1.1.json", capsys, "--n_best_size=3")
    predicted = json.loads((folder / "predictions.json").read_text())
    assert {row["id"]: row["answer"] for row in rows} == predicted
    # The same questions as rows of Hugging Face's.
    questions, _ = squad.read_squad(str(data / "dev-v1.1.json"))
    path = folder.parent / "rows.jsonl"
    lines = (
        {"id": q.id, "context": q.context, "question": q.text}
        for q in questions
    )
    path.write_text("\n".join(map(json.dumps, lines)))
    rows = predict(folder, path, capsys, "--n_best_size=3")
    assert {row["id"]: row["answer"] for row in rows} == predicted
    for row in rows:
        assert 1 <= len(row["nbest"]) <= 3
        total = sum(x["probability"] for x in row["nbest"])
        assert total == pytest.approx(1)
        assert row["probability"] == row["nbest"][0]["probability"]


def test_flags_that_have_no_effect_on_answers_are_refused(
    trained, data, capsys
):
    path = data / "dev-v1.1.json"
    scripts.refusal(
        lambda: predict(trained[0], path, capsys, "--doc_stride=7"),
        "--doc_stride 7: the model in",
        "was trained with 6, and --predict takes it as it is",
    )


def test_it_answers_lines_from_standard_input(trained, monkeypatch, capsys):
    text = b"Where is Anna ?\tAnna lives in Rome .\nWho ?\tBob .\n"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))
    one, other = predict(trained[0], "-", capsys)
    assert (one["id"], other["id"]) == ("1", "2")
    assert one["answer"] in "Anna lives in Rome ."
    assert other["question"] == "Who ?"


def test_questions_without_an_answer_and_albert(tmp_path, capsys):
    for split, number in (("train", 24), ("dev", 5)):
        path = tmp_path / f"{split}-v2.0.json"
        small_tasks.write_squad(path, number, negative=True)
    checkpoint = albert_checkpoint(tmp_path / "hf")
    out = tmp_path / "run"
    report = run(checkpoint, tmp_path, out, "--version_2", "--layer_decay=.9")
    assert set(report["scores"]["dev"]) == {
        f"{kind}{name}"
        for kind in ("", "HasAns_", "NoAns_")
        for name in ("exact_match", "f1")
    }
    odds = json.loads((out / "null_odds.json").read_text())
    assert len(odds) == 10
    path = tmp_path / "dev-v2.0.json"
    for threshold, expected in (("1e9", False), ("-1e9", True)):
        change = f"--null_score_threshold={threshold}"
        rows = predict(out, path, capsys, change)
        assert {row["answer"] == "" for row in rows} == {expected}
        assert all(0 < row["probability"] < 1 for row in rows)


def test_the_pooler_stays_and_the_head_goes_on(trained, bert):
    """A run's folder begins another one, head included."""
    model, loaded = make(open_source(trained[0]))
    assert model.name == "bert_span" and not loaded.new
    before, _ = make(open_source(bert))
    ours, theirs = weights.by_path(model), weights.by_path(before)
    same = {
        path
        for path in theirs
        if np.array_equal(np.asarray(ours[path]), np.asarray(theirs[path]))
    }
    assert same == {"bert/pooler/dense/kernel", "bert/pooler/dense/bias"}


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--data_dir="], ["--train_file and --data_dir are missing"]),
        (["--version_2"], ["no train-v2.0.json", "expected SQuAD 2.0"]),
        (["--dev_file=none"], ["--dev_file none: no such file"]),
        (["--init_checkpoint="], ["--init_checkpoint is missing"]),
        (["--max_seq_length=32"], ["has 24 positions"]),
        (["--max_query_length=21"], ["--max_seq_length 24: expected more"]),
        (["--doc_stride=16"], ["--doc_stride 16", "in no window", "most 15"]),
        (["--global_batch_size=49"], ["48 training windows"]),
    ],
)
def test_refuses_flags(arguments, parts, bert, data, tmp_path):
    out = tmp_path / "run"
    scripts.refusal(lambda: run(bert, data, out, *arguments), *parts)
    assert not out.exists()


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", ["empty"]),
        ("{", ["not JSON", "a question, a tab"]),
        ("{}", ["SQuAD's data"]),
        ("Who ?\tBob .\nWho ?\n", ["line 2: got 'Who ?'", "a tab"]),
    ],
)
def test_refuses_texts(text, parts, trained, tmp_path, capsys):
    path = tmp_path / "texts.txt"
    path.write_text(text)
    scripts.refusal(lambda: predict(trained[0], path, capsys), path, *parts)


def test_a_folder_of_another_script(trained, tmp_path):
    path = tmp_path / "texts.txt"
    path.write_text("good\n")
    scripts.refusal(
        lambda: finetune_classifier.predict(trained[0], path, 8),
        "task.json: no task of GLUE",
    )


def test_a_file_without_answers(bert, data, tmp_path):
    content = small_tasks.squad(2)
    for paragraph in content["data"][0]["paragraphs"]:
        paragraph["qas"][0]["answers"] = []
    path = tmp_path / "dev.json"
    path.write_text(json.dumps(content))
    for flag, end in (("dev_file", "has no answers"), ("train_file", "none")):
        scripts.refusal(
            lambda flag=flag: run(
                bert, data, tmp_path / "run", f"--{flag}={path}"
            ),
            *(f"--{flag} {path}: ", end),
        )


def test_on_jax_and_a_file_that_is_missing(bert, data, tmp_path):
    out = tmp_path / "run"
    command = [
        *(sys.executable, "-m", "official_models.nlp.bert.finetune_squad"),
        *(f"--init_checkpoint={bert}", f"--data_dir={data}", *SMALL),
        *(f"--output_dir={out}", "--epochs=2"),
    ]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    options = {"cwd": ROOT, "capture_output": True, "text": True}
    done = warm.run(
        command, env={**environment, "KERAS_BACKEND": "jax"}, **options
    )
    assert done.returncode == 0, done.stderr
    report = json.loads((out / "report.json").read_text())
    assert report["backend"] == "jax"
    losses = [epoch["loss"] for epoch in report["seeds"][0]["epochs"]]
    assert losses[1] < losses[0]
    done = warm.run([*command, "--train_file=none"], env=environment, **options)
    assert done.returncode == 2
    lines = [x for x in done.stderr.splitlines() if x.startswith("error: ")]
    assert lines == [
        "error: --train_file none: no such file; expected SQuAD's JSON"
    ]
