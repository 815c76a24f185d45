"""`finetune_classifier.py`: small models, small tasks, the whole script."""

import io
import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from official_models.common.errors import InputError
from official_models.nlp.bert import finetune_classifier
from official_models.nlp.checkpoint.opening import open_source
from official_models.nlp.checkpoint.source import make
from official_models.nlp.checkpoint.tokenizer import find
from tests import warm
from tests.official_models import scripts
from tests.official_models.nlp.bert.finetuning import small_tasks
from tests.official_models.nlp.bert.finetuning.small_checkpoints import (
    albert_checkpoint,
    bert_checkpoint,
    moved,
)

ROOT = Path(__file__).parents[4]
SMALL = (
    "--max_seq_length=16 --global_batch_size=8 --eval_batch_size=8 --epochs=2 "
    "--optimizer=lamb --learning_rate=0.03 --dropout=0"
).split()


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    """Ends in a classifier of another number of labels."""
    folder = tmp_path_factory.mktemp("bert") / "hf"
    return bert_checkpoint(folder, "classifier")


@pytest.fixture(scope="module")
def albert(tmp_path_factory):
    return albert_checkpoint(tmp_path_factory.mktemp("albert") / "hf")


@pytest.fixture(scope="module")
def sst2(tmp_path_factory):
    return small_tasks.write_sst2(tmp_path_factory.mktemp("sst2"), 96, 24)


@pytest.fixture(scope="module")
def stsb(tmp_path_factory):
    return small_tasks.write_stsb(tmp_path_factory.mktemp("stsb"), 96, 24)


@pytest.fixture(autouse=True)
def defined_flags(trained):
    # After `trained`: the flags of a script are defined once at a time.
    with scripts.flags_of(finetune_classifier):
        yield


def run(checkpoint, data, output_dir, task, *arguments):
    scripts.run(
        finetune_classifier,
        f"--init_checkpoint={checkpoint}",
        f"--data_dir={data}",
        f"--output_dir={output_dir}",
        f"--task_name={task}",
        *SMALL,
        *arguments,
    )
    return json.loads((Path(output_dir) / "report.json").read_text())


@pytest.fixture(scope="module")
def trained(bert, sst2, tmp_path_factory):
    """(folder, report) of two seeds of SST-2."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    with scripts.flags_of(finetune_classifier):
        report = run(bert, sst2, folder, "sst-2", "--seeds=2", "--epochs=6")
    return folder, report


def predict(folder, path, capsys):
    capsys.readouterr()
    scripts.run(
        finetune_classifier, f"--output_dir={folder}", f"--predict={path}"
    )
    lines = capsys.readouterr().out.splitlines()
    return [line.split("\t") for line in lines]


def test_unknown_words_are_counted(bert, sst2, tmp_path, capsys):
    """Before anything is trained: an error ends the script after the data."""
    data = tmp_path / "data"
    shutil.copytree(sst2, data)
    text = (data / "dev.tsv").read_text().replace("film", "\u0444\u0438")
    (data / "dev.tsv").write_text(text)
    with pytest.raises(InputError, match="--beta_1"):
        run(bert, data, tmp_path / "run", "sst-2", "--beta_1=2")
    lines = capsys.readouterr().out.splitlines()
    assert "train: 0.00% [UNK]." in lines
    (line,) = [x for x in lines if x.startswith("dev: ")]
    assert "which is much: is the vocabulary for this language" in line


def test_it_learns_and_reports_the_seeds(trained):
    folder, report = trained
    assert [seed["seed"] for seed in report["seeds"]] == [1, 2]
    scores = [seed["scores"]["dev"]["accuracy"] for seed in report["seeds"]]
    found = report["scores"]["dev"]["accuracy"]
    assert found["mean"] == pytest.approx(np.mean(scores))
    assert found["deviation"] == pytest.approx(np.std(scores, ddof=1))
    assert found["best"] == max(scores) > 0.9
    assert report["compared_by"] == "dev accuracy"
    best = report["seeds"][int(np.argmax(scores))]
    assert report["best_seed"] == best["seed"]
    epochs = [epoch["scores"]["dev"]["accuracy"] for epoch in best["epochs"]]
    assert best["best_epoch"] == int(np.argmax(epochs)) + 1
    assert best["examples_per_second"] > 0
    first, second = (seed["epochs"][0]["loss"] for seed in report["seeds"])
    assert first != second
    one, other = (
        (folder / name).read_bytes()
        for name in (f"seed_{best['seed']}/model.keras", "model.keras")
    )
    assert one == other


def test_it_predicts_with_probabilities(trained, tmp_path, capsys):
    """The model in the folder is that of the reported score."""
    texts, labels = zip(*small_tasks.sentences(24))
    path = tmp_path / "texts.txt"
    path.write_text("\n".join(texts) + "\n")
    head, *rows = predict(trained[0], path, capsys)
    assert head == ["label", "0", "1"]
    values = np.asarray([row[1:] for row in rows], float)
    np.testing.assert_allclose(values.sum(1), 1, atol=1e-5)
    guesses = [int(row[0]) for row in rows]
    assert guesses == values.argmax(1).tolist()
    accuracy = np.mean(np.equal(guesses, labels))
    assert accuracy == trained[1]["scores"]["dev"]["accuracy"]["best"]


def test_it_predicts_from_standard_input(trained, monkeypatch, capsys):
    file = io.TextIOWrapper(io.BytesIO(b"the film is very bad .\n"))
    monkeypatch.setattr(sys, "stdin", file)
    assert len(predict(trained[0], "-", capsys)) == 2


def test_standard_input_has_to_be_text(trained, monkeypatch, capsys):
    file = io.TextIOWrapper(io.BytesIO(b"good\xff\n"))
    monkeypatch.setattr(sys, "stdin", file)
    scripts.refusal(
        lambda: predict(trained[0], "-", capsys), "byte 0xff at byte offset 4"
    )


def test_other_values_than_those_of_the_training_are_refused(
    trained, sst2, tmp_path, capsys
):
    """Of flags that decide the model; the training's own may be there."""
    path = tmp_path / "texts.txt"
    path.write_text("the film is very bad .\n")
    words = f"--output_dir={trained[0]}", f"--predict={path}"
    scripts.run(
        finetune_classifier,
        *(*words, *SMALL, "--epochs=6", f"--data_dir={sst2}", "--seeds=9"),
    )
    assert capsys.readouterr().out.startswith("label\t")
    for word, value in (
        ("--max_seq_length=8", 16),
        ("--lowercase=false", None),
        ("--vocab_file=vocab.txt", None),
    ):
        scripts.refusal(
            lambda word=word: scripts.run(finetune_classifier, *words, word),
            *(word.partition("=")[0], f"was trained with {value}, and"),
        )


def test_mnli_has_two_validation_splits(bert, tmp_path):
    data = small_tasks.write_mnli(tmp_path / "mnli")
    report = run(bert, data, tmp_path / "run", "mnli", "--epochs=1")
    assert list(report["scores"]) == ["dev_matched", "dev_mismatched"]
    assert report["compared_by"] == "dev_matched accuracy"


def test_the_same_command_trains_what_is_missing(
    bert, sst2, trained, tmp_path, capsys
):
    out = tmp_path / "run"
    first = run(bert, sst2, out, "sst-2")
    capsys.readouterr()
    again = run(bert, sst2, out, "sst-2", "--seeds=2")
    assert again["seeds"][0] == first["seeds"][0]
    printed = capsys.readouterr().out
    assert "seed 2, epoch 1: " in printed
    assert "seed 1, epoch" not in printed
    scripts.refusal(
        lambda: run(bert, sst2, out, "sst-2", "--learning_rate=1"),
        "learning_rate = ",
    )
    # Of the same seed, trained alone: the same to the bit.
    alone = run(bert, sst2, tmp_path / "alone", "sst-2", "--seed=2")
    losses = [epoch["loss"] for epoch in alone["seeds"][0]["epochs"]]
    assert losses == [e["loss"] for e in again["seeds"][1]["epochs"]]


def test_early_stopping_keeps_the_best_epoch(bert, sst2, tmp_path):
    report = run(
        *(bert, sst2, tmp_path / "run", "sst-2", "--patience=1"),
        *("--epochs=9", "--learning_rate=0"),
    )
    (seed,) = report["seeds"]
    assert (len(seed["epochs"]), seed["best_epoch"]) == (2, 1)


def test_albert_and_a_regression(albert, stsb, tmp_path, capsys):
    out = tmp_path / "run"
    report = run(
        *(albert, stsb, out, "STS-B", "--epochs=4"),
        "--gradient_accumulation_steps=2",
    )
    assert report["compared_by"] == "dev spearman"
    assert set(report["scores"]["dev"]) == {"pearson", "spearman"}
    losses = [epoch["loss"] for epoch in report["seeds"][0]["epochs"]]
    assert losses[-1] < losses[0]
    path = tmp_path / "pairs.txt"
    path.write_text("the film is very good .\tit is good .\n")
    (head,), (score,) = predict(out, path, capsys)
    assert head == "score"
    assert np.isfinite(float(score))
    # The folder is a checkpoint as any other.
    model, loaded = make(open_source(out))
    assert model.name == "albert_classifier"
    assert not loaded.new


def test_the_rate_decays_by_layer(bert, sst2, tmp_path):
    """A vanishing factor: all but the head and the pooler stay."""
    run(
        *(bert, sst2, tmp_path / "run", "sst-2", "--layer_decay=1e-9"),
        "--epochs=1",
    )
    found = moved(bert, tmp_path / "run")
    assert found == {"bert/pooler/dense/kernel", "bert/pooler/dense/bias"}


def test_rates_are_multiplied(bert, sst2, tmp_path):
    """Vanishing ones: what they match stays; the first that matches counts."""
    run(
        *(bert, sst2, tmp_path / "run", "sst-2", "--epochs=1"),
        "--learning_rate_multipliers=bias|LayerNorm=1e-9,embeddings=1e-9,"
        "pooler=1,.=1e-9",
    )
    assert moved(bert, tmp_path / "run") == {"bert/pooler/dense/kernel"}


def test_frozen_variables_stay(bert, sst2, tmp_path):
    run(
        *(bert, sst2, tmp_path / "run", "sst-2", "--epochs=1"),
        *("--frozen=word_embeddings,/layer_0/", "--optimizer=adamw"),
    )
    found = moved(bert, tmp_path / "run")
    assert not [p for p in found if "word_emb" in p or "/layer_0/" in p]
    assert "bert/embeddings/position_embeddings" in found
    assert "bert/encoder/layer_1/output/dense/kernel" in found


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--heads_off=1.x"], ["--heads_off: '1.x'; expected LAYER.HEAD"]),
        (["--heads_off=2"], ["--heads_off: ", "layer 2 of (2,)", "0 to 1"]),
        (["--task_name=none"], ["--task_name none: expected one of cola"]),
        (["--task_name="], ["--task_name is missing"]),
        (["--layer_decay=2"], ["--layer_decay: ", "at most 1"]),
        (["--layer_decay=.9", "--optimizer=adamw"], ["--layer_decay: for"]),
        (["--dropout=1"], ["--dropout: got 1"]),
        (["--max_seq_length=32"], ["has 24 positions"]),
        (["--global_batch_size=97"], ["96 training examples"]),
        (["--gradient_accumulation_steps=3"], ["expected a divisor"]),
        (["--dtype=float"], ["--dtype float"]),
        (["--init_checkpoint=none"], ["--init_checkpoint none: "]),
        (["--output_dir=gs://a/b"], ["name a local folder"]),
        (["--beta_1=2"], ["--beta_1"]),
        # More than the run's 24 updates.
        (["--warmup_ratio=1.3"], ["--warmup_steps", "total_steps = 24"]),
        (
            ["--learning_rate_multipliers=bias"],
            ["--learning_rate_multipliers bias: ", "expected REGEX=FACTOR"],
        ),
        (["--learning_rate_multipliers=bias=-1"], ["bias=-1: ", "multiplier"]),
        (
            ["--learning_rate_multipliers=none=1"],
            ["--learning_rate_multipliers or --layer_decay: ", "'none'"],
        ),
        (
            ["--learning_rate_multipliers=.=1", "--layer_decay=.5"],
            ["--learning_rate_multipliers or --layer_decay: ", "group 1"],
        ),
        (
            ["--learning_rate_multipliers=bias=1", "--optimizer=adamw"],
            ["--learning_rate_multipliers: for"],
        ),
        (["--frozen=none"], ["--frozen none: matches none of"]),
        (["--frozen=("], ["--frozen (: ", "expected a regex"]),
        (["--frozen=."], ["--frozen .: matches all"]),
    ],
)
def test_refuses_flags(arguments, parts, bert, sst2, tmp_path):
    out = tmp_path / "run"
    scripts.refusal(lambda: run(bert, sst2, out, "sst-2", *arguments), *parts)
    assert not (out / "run.json").exists()


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", ["empty"]),
        ("good\n\nbad\n", ["line 2: got ''", "one text"]),
        ("good\tbad\n", ["line 1", "without a tab"]),
    ],
)
def test_refuses_texts(text, parts, trained, tmp_path, capsys):
    path = tmp_path / "texts.txt"
    path.write_text(text)
    scripts.refusal(lambda: predict(trained[0], path, capsys), *parts)
    scripts.refusal(
        lambda: predict(tmp_path, path, capsys), "no model.keras", tmp_path
    )


def test_a_tokenizer_that_is_missing(bert, sst2, tmp_path):
    folder = tmp_path / "hf"
    folder.mkdir()
    for name in ("config.json", "model.safetensors"):
        (folder / name).write_bytes((bert / name).read_bytes())
    out = tmp_path / "run"
    scripts.refusal(
        lambda: run(folder, sst2, out, "sst-2"),
        "no vocab.txt, spiece.model or tokenizer.json",
    )
    (folder / "tokenizer.json").write_bytes(
        (bert / "tokenizer.json").read_bytes()
    )
    text = "The film isn't good, Bob."
    ids = [
        find(path).load("").encode(text, add_special_tokens=False).ids
        for path in (folder, bert)
    ]
    assert ids[0] == ids[1]


def test_bad_data(bert, tmp_path):
    path = tmp_path / "train.tsv"
    path.write_text("text\tlabel\ngood\t1\n")
    out = tmp_path / "run"
    scripts.refusal(
        lambda: run(bert, tmp_path, out, "sst-2"),
        f"{path}, line 1: no column 'sentence'",
    )
    path.write_text("sentence\tlabel\ngood\tyes\n")
    done = process(bert, tmp_path, out)
    assert done.returncode == 2, done.stderr
    (line,) = [x for x in done.stderr.splitlines() if x.startswith("error: ")]
    assert f"{path}, line 2: label 'yes', expected one of 0, 1" in line
    assert "Traceback" not in done.stderr
    assert not out.exists()


def test_on_jax(bert, sst2, tmp_path):
    out = tmp_path / "run"
    done = process(bert, sst2, out, KERAS_BACKEND="jax")
    assert done.returncode == 0, done.stderr
    report = json.loads((out / "report.json").read_text())
    assert report["backend"] == "jax"
    losses = [epoch["loss"] for epoch in report["seeds"][0]["epochs"]]
    assert losses[1] < losses[0]


def process(checkpoint, data, output_dir, *arguments, **environment):
    return warm.run(
        [
            *(sys.executable, "-m"),
            "official_models.nlp.bert.finetune_classifier",
            f"--init_checkpoint={checkpoint}",
            f"--data_dir={data}",
            f"--output_dir={output_dir}",
            "--task_name=sst-2",
            *SMALL,
            *arguments,
        ],
        cwd=ROOT,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **environment},
        capture_output=True,
        text=True,
    )
