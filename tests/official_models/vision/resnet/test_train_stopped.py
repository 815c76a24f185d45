"""The training script as a process: stopped, killed, in several workers."""

import json
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest

from tests import warm
from tests.official_models.scripts import (
    same_weights,
    signal_once_there,
    variables,
)
from tests.official_models.vision.resnet.test_train import ROOT, SHORT
from tests.processes import Cluster


def script(output_dir, *arguments):
    """The script as a process, on the real digits."""
    return warm.popen(
        [
            *(sys.executable, "-m", "official_models.vision.resnet.train"),
            f"--output_dir={output_dir}",
            *SHORT,
            *arguments,
        ],
        cwd=ROOT,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_stopped_and_started_again_it_ends_with_the_same_weights(tmp_path):
    arguments = ["--global_batch_size=64", "--epochs=0.4"]
    arguments += ["--network=resnet8_cifar", "--width=2", "--eval_every=100"]
    steps = round(0.4 * 4096 / 64)
    bad = script(tmp_path / "bad", "--network=resnet51")
    whole = script(tmp_path / "whole", *arguments)
    # SIGTERM is what a machine gets that is wanted back.
    for name, number in (("kill", signal.SIGKILL), ("term", signal.SIGTERM)):
        stopped = script(tmp_path / name, *arguments)
        saved = tmp_path / name / "checkpoints/checkpoint"
        begun = tmp_path / name / "tensorboard"
        wanted = saved if number == signal.SIGKILL else begun
        out, err = signal_once_there(stopped, wanted, number)
        if number == signal.SIGTERM:
            assert stopped.returncode == 0, err
            assert "told to stop; saved after step" in out
        else:
            assert stopped.returncode == -number, "it ended before the kill"
    resumed = [script(tmp_path / n, *arguments) for n in ("kill", "term")]
    for process in (*resumed, whole):
        out, err = process.communicate(timeout=240)
        assert process.returncode == 0, err
        assert ("resuming from step" in out) == (process is not whole)
    for name in ("kill", "term"):
        same_weights(tmp_path / "whole", tmp_path / name, steps)

    _, err = bad.communicate(timeout=120)
    assert bad.returncode == 2 and "Traceback" not in err
    (line,) = [x for x in err.splitlines() if x.startswith("error: ")]
    assert "network" in line and "resnet50" in line


def test_two_workers_resume_a_run_of_one_process(tmp_path):
    """Each reads its half; both end with the weights of the whole batch."""
    arguments = [*SHORT, "--global_batch_size=64", "--epochs=0.08"]
    arguments += ["--sync_batch_norm", "--optimizer=lars", "--save_every=3"]
    _, err = (alone := script(tmp_path / "one", *arguments)).communicate()
    assert alone.returncode == 0, err
    begun = shutil.copytree(
        tmp_path / "one/checkpoints", tmp_path / "two/checkpoints"
    )
    for path in begun.glob("ckpt-5.*"):
        path.unlink()
    module = "official_models.vision.resnet.train"
    two = [*arguments, "--strategy=multi_worker"]
    two += [f"--output_dir={tmp_path / 'two'}"]
    log = tmp_path / "log.txt"
    with Cluster({"worker": 2}, module, two, log) as cluster:
        assert cluster.wait() == [0, 0], log.read_text()
    assert log.read_text().count("resuming from step 3") == 2
    a, b = (variables(tmp_path / name, 5) for name in ("one", "two"))
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_allclose(
            a[name], b[name], rtol=2e-3, atol=2e-4, err_msg=name
        )
    one, two = (
        json.loads((tmp_path / name / "report.json").read_text())
        for name in ("one", "two")
    )
    assert two["cross_entropy"] == pytest.approx(one["cross_entropy"], 1e-3)
