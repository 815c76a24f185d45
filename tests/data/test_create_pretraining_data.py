"""The script: its processes, its flags, a kill, and pretraining on it."""

import json
import signal
import time
from pathlib import Path

import pytest

from official_models.common.errors import InputError
from official_models.nlp.bert import create_pretraining_data, pretrain
from official_models.nlp.bert.pretraining import records
from tests.data import corpora
from tests.official_models import scripts

SIZES = {"max_seq_length": 32, "max_predictions": 5}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    texts = corpora.texts(60)
    return (
        f"--input={corpora.write(folder / 'in', texts, 'jsonl', 2, True)}",
        "--input_format=jsonl",
        f"--vocab_file={corpora.vocabulary(folder)}",
        *corpora.SMALL,
    )


def _contents(folder):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def test_two_processes_write_what_one_does(inputs, tmp_path):
    one, two = (
        corpora.start(
            *inputs,
            "--bucket_mb=0.004",
            f"--workers={workers}",
            f"--output_dir={tmp_path / str(workers)}",
        )
        for workers in (1, 2)
    )
    for process in (one, two):
        _, words = process.communicate(timeout=300)
        assert process.returncode == 0, words
        assert "examples of 60 documents in " in words.splitlines()[-1]
    written = _contents(tmp_path / "1")
    assert len(written) > 2
    assert written == _contents(tmp_path / "2")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2"]


def test_a_killed_run_leaves_nothing_that_looks_finished(inputs, tmp_path):
    # Many buckets, so that the first is written long before the last.
    glob = corpora.write(tmp_path / "in", corpora.texts(4000), "jsonl")
    process = corpora.start(
        *inputs,
        f"--input={glob}",
        "--bucket_mb=0.01",
        "--workers=1",
        f"--output_dir={tmp_path / 'out'}",
    )
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob(".writing-*-out/part-*")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "out").exists()
    left = next(tmp_path.glob(".writing-*"))
    assert not list(left.glob("examples*"))
    for path in (tmp_path / "out", left):
        with pytest.raises(InputError, match="no record file"):
            records.find_records([path])
    # What is left is in nobody's way.
    with scripts.flags_of(create_pretraining_data):
        scripts.run(
            create_pretraining_data,
            *inputs,
            "--workers=1",
            f"--output_dir={tmp_path / 'out'}",
        )
    assert records.check_records([tmp_path / "out"], **SIZES, vocab_size=21)


def test_pretraining_on_what_was_written(inputs, tmp_path):
    folders = [tmp_path / "train", tmp_path / "eval"]
    with scripts.flags_of(create_pretraining_data):
        for seed, folder in enumerate(folders):
            scripts.run(
                create_pretraining_data,
                *inputs,
                "--workers=1",
                "--compression=gzip",
                "--dupe_factor=1",
                f"--random_seed={seed}",
                f"--output_dir={folder}",
            )
    with scripts.flags_of(pretrain):
        scripts.run(
            pretrain,
            f"--records={folders[0]}",
            f"--eval_records={folders[1]}",
            inputs[2],
            *corpora.SMALL,
            *("--steps=3", "--save_every=3", "--log_every=1"),
            *("--global_batch_size=8", "--hidden_size=16", "--num_layers=1"),
            *("--intermediate_size=32", "--jit_compile=false"),
            f"--output_dir={tmp_path / 'run'}",
        )
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["steps"] == 3
    assert 0 < report["masked_lm_loss"] < 10
    manifest = json.loads((folders[0] / "examples.json").read_text())
    assert report["next_sentence_majority"] < 1
    assert manifest["compression"] == "gzip"


def test_a_refusal_is_one_line_and_status_2(inputs, tmp_path):
    (tmp_path / "there").mkdir()
    path = tmp_path / "bad.jsonl"
    path.write_bytes(b'{"text": "ant bee cat."}\n\xff\n')
    cases = {
        "--output_dir": (
            [f"--output_dir={tmp_path / 'there'}"],
            f"error: --output_dir {tmp_path / 'there'}: exists; remove it",
        ),
        "--max_bad_lines": (
            [
                f"--output_dir={tmp_path / 'out'}",
                f"--input={path}",
                "--max_bad_lines=0",
                "--workers=1",
            ],
            "error: --max_bad_lines 0: 1 bad lines (1 not UTF-8), such as "
            f"{path} at byte 25 (from 0)",
        ),
    }
    processes = {
        name: corpora.start(*inputs, *arguments)
        for name, (arguments, _) in cases.items()
    }
    for name, process in processes.items():
        _, words = process.communicate(timeout=300)
        assert process.returncode == 2, words
        lines = words.splitlines()
        errors = [line for line in lines if line.startswith("error: ")]
        assert errors == lines[-1:] and errors[0].startswith(cases[name][1])
        assert "Traceback" not in words
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bad.jsonl", "there"]
    assert not list((tmp_path / "there").iterdir())


@pytest.mark.parametrize(
    ("rest", "part"),
    [
        (["--runnr", "x"], "-- --runnr x: Beam has no such flag"),
        (["--runner", "NoRunner"], "Unexpected pipeline runner: NoRunner"),
        (["--runner", "DataflowRunner"], "Missing required option: project"),
        (["--direct_num_workers", "two"], "direct_num_workers: invalid int"),
        (["--direct_running_mode", "x"], "invalid choice: 'x'"),
    ],
)
def test_flags_that_beam_refuses(rest, part):
    with scripts.flags_of(create_pretraining_data):
        scripts.refusal(
            lambda: create_pretraining_data.beam_options(rest), part
        )


def test_runners_by_flags_alone():
    from apache_beam.options.pipeline_options import (
        DirectOptions,
        StandardOptions,
    )

    with scripts.flags_of(create_pretraining_data):
        needed = ("--input=a", "--output_dir=b", "--vocab_file=c")
        create_pretraining_data.FLAGS(["script", "--workers=3", *needed])
        local = create_pretraining_data.beam_options([])
        assert local.view_as(StandardOptions).runner == "FnApiRunner"
        assert local.view_as(DirectOptions).direct_num_workers == 3
        given = ["--runner=FlinkRunner", "--flink_master=host:8081"]
        flink = create_pretraining_data.beam_options(given)
        assert flink.view_as(StandardOptions).runner == "FlinkRunner"
        assert flink.get_all_options()["flink_master"] == "host:8081"
