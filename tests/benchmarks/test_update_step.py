"""The race of optimizer steps: its baselines, its table, its errors."""

import json

import numpy as np
import pytest

from benchmarks import optimizers, shapes, update_step, workers

TINY = tuple(shapes.bert(layers=1, width=8, vocab=20, ff=16))


def _after_a_step(timed):
    optimizers._tf_arrays.cache_clear()
    timed.make(TINY)()
    weights, _ = optimizers._tf_arrays(TINY)
    return [w.numpy() for w in weights]


@pytest.fixture(scope="module")
def ends():
    """{TensorFlow optimizer: weights after one step from the same start}."""
    start = list(optimizers.arrays(TINY, 0))
    found = {
        c.name: _after_a_step(c) for c in optimizers.OPTIMIZERS["tensorflow"]
    }
    optimizers._tf_arrays.cache_clear()
    return start, found


def _moved(start, end):
    return np.max([np.abs(a - b).max() for a, b in zip(start, end)])


def test_every_optimizer_moves_the_weights(ends):
    start, found = ends
    for name, end in found.items():
        assert np.all([np.isfinite(w).all() for w in end]), name
        assert _moved(start, end) > 1e-9, name


@pytest.mark.parametrize(
    "one, other",
    [
        (optimizers.ADAMW, "AdamW, XLA kernels, new buffers"),
        (optimizers.MOMENTUM, "SGD momentum, XLA, new buffers"),
        ("tf_lamb.LAMB", "tf_lamb.LAMB, skips NaN (default)"),
        ("tf_lamb.LARS", "tf_lamb.LARS, skips NaN (default)"),
    ],
)
def test_those_that_shall_be_the_same_rule_are(ends, one, other):
    start, found = ends
    apart = _moved(found[one], found[other])
    assert apart <= 1e-6 * _moved(start, found[one]) + 1e-9


def test_baselines_are_among_those_that_run_with_them():
    every = [c for row in optimizers.OPTIMIZERS.values() for c in row]
    assert len({c.name for c in every}) == len(every)
    mine = {c.name for c in optimizers.OPTIMIZERS["tensorflow"]}
    assert {c.baseline for c in every} <= mine


def test_readme_has_the_table_of_the_result():
    result = json.loads(update_step.RESULT.read_text())
    text = update_step.README.read_text(encoding="utf-8")
    assert update_step.render(result) in text, (
        "run python -m benchmarks.update_step --readme"
    )


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--rounds", "0"], "--rounds 0: expected a number >= 1"),
        (["--quick", "--readme"], "--readme: the tables are of the whole run"),
    ],
)
def test_bad_flags(flags, message, capsys):
    with pytest.raises(SystemExit) as error:
        update_step.main(flags)
    assert error.value.code == 2
    assert message in capsys.readouterr().err


def test_a_worker_that_ends_is_named(monkeypatch, tmp_path):
    stub = tmp_path / "python"
    stub.write_text("#!/bin/sh\nexit 3\n")
    stub.chmod(0o755)
    with pytest.raises(RuntimeError, match="worker of torch ended with status"):
        workers.Worker(update_step.MODULE, "torch", stub, [])
