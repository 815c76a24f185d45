"""BERT's script on JAX: two devices are one, and a run is resumed."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from tests.official_models.scripts import same_weights, variables

ROOT = Path(__file__).parents[2]
SMALL = (
    "--steps=4 --save_every=2 --log_every=2 --eval_every=4 "
    "--global_batch_size=8 --max_seq_length=16 --max_predictions_per_seq=2 "
    "--hidden_size=16 --num_layers=1 --intermediate_size=32 --vocab_size=80"
).split()


def _corpus(folder):
    words = "ant bee cat dog elk fox gnu hen".split()
    rng = np.random.default_rng(0)
    folder.mkdir()
    for name in "abcd":
        sentences = [
            " ".join(rng.choice(words, rng.integers(4, 9))) + "."
            for _ in range(60)
        ]
        (folder / f"{name}.txt").write_text("\n".join(sentences))
    return folder


def _run(corpus, output_dir, *arguments, backend="jax"):
    return subprocess.run(
        [
            *(sys.executable, "-m", "official_models.nlp.bert.pretrain"),
            *(f"--input={corpus}", f"--output_dir={output_dir}"),
            *(*SMALL, *arguments),
        ],
        cwd=ROOT,
        env={
            **os.environ,
            "KERAS_BACKEND": backend,
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "XLA_FLAGS": os.environ["XLA_FLAGS"]
            + " --xla_force_host_platform_device_count=2",
        },
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def test_two_devices_equal_one_and_resume(tmp_path):
    corpus = _corpus(tmp_path / "corpus")
    one, two = tmp_path / "one", tmp_path / "two"
    first = _run(corpus, one)
    assert first.returncode == 0, first.stderr
    second = _run(corpus, two, "--strategy=data_parallel")
    assert second.returncode == 0, second.stderr
    same_weights(one, two, 4, rtol=1e-4, atol=1e-5)

    # Without its last checkpoint it resumes from the one before.
    whole = variables(two, 4)
    for path in (two / "checkpoints").glob("ckpt-4.*"):
        path.unlink()
    again = _run(corpus, two, "--strategy=data_parallel")
    assert again.returncode == 0, again.stderr
    assert "resuming from step 2" in again.stdout
    for name, value in variables(two, 4).items():
        if "save_counter" not in name:
            np.testing.assert_array_equal(value, whole[name], err_msg=name)


def test_refused(tmp_path):
    corpus = _corpus(tmp_path / "corpus")
    out = tmp_path / "out"
    refused = _run(
        corpus, out, "--strategy=data_parallel", backend="tensorflow"
    )
    assert refused.returncode == 2, refused.stderr
    assert "start with KERAS_BACKEND=jax" in refused.stderr
