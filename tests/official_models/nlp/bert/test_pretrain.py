"""The pretraining script: what it writes, what it refuses."""

import contextlib
import io
import json
import shutil
import sys
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from absl import flags

from official_models.common import flags as run_flags
from official_models.nlp.bert import pretrain
from tests import warm
from tests.official_models.nlp.bert.pretrain_script import (
    ROOT,
    refuses,
    run,
    script,
    write_corpus,
)
from tests.official_models.scripts import flags_of, rows, variables


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(autouse=True)
def defined_flags(finished):
    # After `finished`: the flags of a script are defined once at a time.
    with flags_of(pretrain):
        yield


FILL = "--fill=ant bee [MASK] dog."


@pytest.fixture(scope="module")
def finished(corpus, tmp_path_factory):
    """(folder, what was printed) of a run of eight steps."""
    folder = tmp_path_factory.mktemp("finished")
    printed = io.StringIO()
    with flags_of(pretrain), contextlib.redirect_stdout(printed):
        run(corpus, folder, FILL)
    return folder, printed.getvalue()


@pytest.fixture
def copied(finished, tmp_path):
    """A copy of the finished run, to be changed."""
    return shutil.copytree(finished[0], tmp_path / "copied")


def test_a_run_prints_the_baseline_the_fillings_and_its_files(finished):
    _, printed = finished
    assert "masked tokens: unigram" in printed and "ant bee [MASK]" in printed
    assert printed.rstrip().endswith(
        ": report.json, checkpoints, model.keras, loss.png, trust_ratio.png."
    )


def test_its_report_has_figures_and_where_they_were_measured(finished):
    report = json.loads((finished[0] / "report.json").read_text())
    assert report["steps"] == 8
    assert 0.5 <= report["next_sentence_majority"] <= 1
    assert {"date", "command", "machine", "tensorflow", "keras"} <= set(
        report["measured"]
    )
    assert len(report["fillings"][0]["tokens"]) == 5


def test_its_pictures(finished):
    for name in ("loss.png", "trust_ratio.png"):
        assert (finished[0] / name).read_bytes().startswith(b"\x89PNG")


def test_its_metrics_have_rows_of_two_steps(finished):
    metrics = rows(finished[0] / "metrics.csv")
    assert [row["step"] for row in metrics] == ["2", "4", "6", "8"]
    assert [bool(row["val_masked_lm_loss"]) for row in metrics] == [
        *(False, True, False, True)
    ]
    assert all(float(row["tokens_per_second"]) > 0 for row in metrics)


def test_its_trust_ratios_are_1_where_nothing_is_adapted(finished):
    ratios = rows(finished[0] / "trust_ratio.csv")
    assert [row["step"] for row in ratios] == ["2", "4", "6", "8"]
    assert float(ratios[-1]["bert/pooler/dense/kernel"]) != 1
    assert float(ratios[-1]["bert/pooler/dense/bias"]) == 1


def test_tensorboard_shows_metrics_and_trust_ratios(finished):
    tags = {
        value.tag
        for path in (finished[0] / "tensorboard").iterdir()
        for event in tf.compat.v1.train.summary_iterator(str(path))
        for value in event.summary.value
    }
    assert {"masked_lm_loss", "val_masked_lm_accuracy"} <= tags
    assert "trust_ratio/bert/pooler/dense/kernel" in tags


def test_its_model_file_is_its_last_checkpoint(finished):
    folder, _ = finished
    assert (folder / "checkpoints/ckpt-8.index").exists()
    loaded = keras.saving.load_model(folder / "model.keras")
    assert loaded.optimizer.get_config()["weight_decay"] == 0.01
    checkpoint = variables(folder, 8)
    for i, variable in enumerate(loaded.variables):
        name = f"variables/{i}/.ATTRIBUTES/VARIABLE_VALUE"
        np.testing.assert_array_equal(variable, checkpoint[name])


def test_a_finished_run_is_not_trained_again(corpus, finished, copied):
    run(corpus, copied, FILL)
    for name in ("metrics.csv", "run.json"):
        assert (copied / name).read_bytes() == (finished[0] / name).read_bytes()
    before, again = (
        json.loads((folder / "report.json").read_text())
        for folder in (finished[0], copied)
    )
    assert again["masked_lm_loss"] == before["masked_lm_loss"]


def test_the_folder_belongs_to_this_run_and_no_other(corpus, copied):
    refuses("learning_rate = 0.0", corpus, copied, "--learning_rate=0.5")
    record = copied / "run.json"
    record.write_text("{")
    refuses("is not the record of a run", corpus, copied)
    record.unlink()
    refuses("of another model", corpus, copied, "--hidden_size=32")


def test_other_text_is_another_run(corpus, copied, tmp_path):
    """In the training files, or between these and the held-out ones."""
    other = shutil.copytree(corpus, tmp_path / "other")
    (other / "a.txt").write_text("bee ant.\n" * 60)
    refuses("train_sha256 = ", other, copied)
    files = sorted(corpus.glob("*.txt"))
    first, second = (
        (f"--input={','.join(map(str, files[:n]))}",)
        + (f"--eval_input={','.join(map(str, files[n:]))}",)
        for n in (8, 9)
    )
    run(None, tmp_path / "split", *first)
    refuses("held_out_sha256 = ", None, tmp_path / "split", *second)


def test_it_learns(corpus, tmp_path):
    """In this language a neighbour tells the masked word."""
    run(
        corpus,
        tmp_path,
        "--steps=300",
        "--eval_every=300",
        "--global_batch_size=64",
        "--learning_rate=0.03",
        "--hidden_size=32",
        "--dropout=0",
    )
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["masked_lm_loss"] < report["unigram_loss"] - 1
    assert report["masked_lm_accuracy"] > 2 * report["unigram_accuracy"]


def test_accumulation_counts_updates(corpus, tmp_path):
    """Two micro-batches of 4 are a step; rows and rates are of steps."""
    run(corpus, tmp_path / "two", "--gradient_accumulation_steps=2")
    run(corpus, tmp_path / "one")
    two, one = (
        rows(tmp_path / name / "metrics.csv") for name in ("two", "one")
    )
    for a, b in zip(two, one, strict=True):
        assert a["step"] == b["step"]
    assert float(two[-1]["learning_rate"]) == pytest.approx(0, abs=1e-8)
    two, one = (
        rows(tmp_path / name / "trust_ratio.csv") for name in ("two", "one")
    )
    assert [row["step"] for row in two] == [row["step"] for row in one]
    refuses(
        "expected a divisor of --global_batch_size 8",
        corpus,
        tmp_path / "three",
        "--gradient_accumulation_steps=3",
    )


def test_records_in_place_of_text(corpus, tmp_path):
    run(corpus, tmp_path / "text")
    vocab = tmp_path / "text" / "vocab.txt"
    for name, files in (("train", "[a-h].txt"), ("eval", "[ij].txt")):
        made = warm.run(
            [
                *(
                    sys.executable,
                    "-m",
                    "official_models.nlp.bert.pretraining.records",
                ),
                *("--input", str(corpus / files), "--vocab_file", str(vocab)),
                *("--output_dir", str(tmp_path / name)),
                *("--max_seq_length=16", "--max_predictions_per_seq=2"),
                *("--dupe_factor=2", "--num_shards=2"),
            ],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert made.returncode == 0, made.stderr
    arguments = (
        f"--records={tmp_path / 'train'}",
        f"--eval_records={tmp_path / 'eval'}",
        f"--vocab_file={vocab}",
    )
    run(None, tmp_path / "run", *arguments)
    report = json.loads((tmp_path / "run/report.json").read_text())
    assert 0 < report["masked_lm_loss"] < 10
    assert 0 < report["unigram_loss"] < 10

    shard = sorted((tmp_path / "train").glob("*.tfrecord"))[0]
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    refuses(rf"{shard.name}.* record \d+", None, tmp_path / "bad", *arguments)
    refuses(
        "--records: expected with --eval_records",
        None,
        tmp_path / "bad",
        arguments[0],
    )


def test_float16_scales_the_loss_and_is_resumed(corpus, tmp_path):
    half = ("--dtype=mixed_float16", "--nojit_compile")
    run(corpus, tmp_path, *half)
    with warnings.catch_warnings(action="error"):
        model = keras.saving.load_model(tmp_path / "model.keras")
    assert type(model.optimizer) is keras.optimizers.LossScaleOptimizer
    assert int(model.optimizer.inner_optimizer.iterations) == 8
    for path in (tmp_path / "checkpoints").glob("ckpt-8.*"):
        path.unlink()
    run(corpus, tmp_path, *half)
    assert rows(tmp_path / "trust_ratio.csv")[-1]["step"] == "8"


def test_bad_text(corpus, tmp_path):
    out = tmp_path / "out"
    refuses("nothing.txt", tmp_path / "nothing.txt", out)
    empty = tmp_path / "empty.txt"
    empty.write_text("")
    refuses("empty.txt", empty, out)
    latin = tmp_path / "latin.txt"
    latin.write_bytes("ein Satz. noch ein schöner Satz.".encode("latin-1"))
    refuses("latin.txt.*byte", latin, out)
    vocab = tmp_path / "vocab.txt"
    vocab.write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\nant\n")
    refuses(r"vocab.txt.*\[MASK\]", corpus, out, f"--vocab_file={vocab}")
    # Nothing was left that a later run could take for its own.
    assert not (out / "vocab.txt").exists()
    assert not (out / "run.json").exists()
    run(corpus, out)


@pytest.mark.parametrize(
    "argument, message",
    [
        ("--learning_rate=-1", "--learning_rate: expected a number >= 0"),
        ("--beta_1=1", r"--beta_1: expected a number in \[0, 1\)"),
        ("--weight_decay=-1", "--weight_decay"),
        ("--norm=l3", "--norm: expected one of 'l2', 'l1', 'linf'"),
        ("--exclude_from_weight_decay=(", "not a regular expression"),
        ("--exclude_from_weight_decay=layernorm", "nearest paths.*LayerNorm"),
        ("--warmup_ratio=2", "--warmup_steps: expected at most"),
        ("--num_heads=3", "--hidden_size: got 16, expected a multiple of"),
        ("--dropout=1", r"--hidden_dropout: .*got 1.0"),
        ("--fill=no mask here", r"--fill 'no mask here': expected"),
        ("--masked_lm_prob=0", "masked_lm_prob"),
        ("--dtype=foo", "--dtype foo: expected one of float32, mixed"),
    ],
)
def test_bad_hyperparameters(corpus, tmp_path, argument, message):
    refuses(message, corpus, tmp_path, argument)


def test_lars_and_its_forms(corpus, tmp_path):
    lars = ("--optimizer=lars", "--learning_rate=1", "--weight_decay=0.0001")
    run(corpus, tmp_path / "lars", *lars, "--form=timm")
    (*_, last) = rows(tmp_path / "lars/trust_ratio.csv")
    assert float(last["bert/pooler/dense/kernel"]) != 1
    refuses(
        "--form: expected one of 'you2017'",
        *(corpus, tmp_path / "unknown", *lars, "--form=lars"),
    )


def test_output_folder_that_cannot_be_written(corpus, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    refuses("--output_dir .*file/run", corpus, tmp_path / "file" / "run")


def test_exit_status_is_2_with_one_line_and_no_traceback(corpus, tmp_path):
    cases = {
        "--beta_2=1.5": "error: --beta_2: expected a number in [0, 1)",
        "--size=huge": "error: ",
    }
    processes = {
        argument: script(corpus, tmp_path / "out", argument)
        for argument in cases
    }
    for argument, process in processes.items():
        _, err = process.communicate(timeout=120)
        assert process.returncode == 2, err
        assert "Traceback" not in err
        (line,) = [x for x in err.splitlines() if x.startswith("error: ")]
        assert line.startswith(cases[argument]), line


def test_help_explains_every_flag():
    """Those of text and optimizer too, which other modules define."""
    shown = flags.FLAGS.main_module_help()
    key_flags = flags.FLAGS.get_key_flags_for_module(pretrain.__name__)
    names = {flag.name for flag in key_flags}
    assert {"input", "learning_rate", "output_dir", "steps"} <= names
    assert {*run_flags.defined()} == names
    assert all(flag.help for flag in key_flags), shown
