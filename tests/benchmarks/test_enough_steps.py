"""The study of batches with enough updates, on a few small images.

It is one of JAX, so it runs where Keras' backend is JAX.
"""

import gzip
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from benchmarks.enough_steps import optimizers, report
from official_models.common.errors import InputError

ROOT = Path(__file__).parents[2]
on_jax = pytest.mark.skipif(
    keras.backend.backend() != "jax", reason="a study of JAX"
)


def _idx(path, values):
    head = b"\0\0\x08" + bytes([values.ndim])
    head += np.array(values.shape, ">u4").tobytes()
    path.write_bytes(gzip.compress(head + values.tobytes()))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Images whose class is where they are bright."""
    folder = tmp_path_factory.mktemp("fashion")
    rng = np.random.default_rng(0)
    for name, number in (("train", 6_400), ("t10k", 200)):
        labels = rng.integers(0, 10, number).astype("uint8")
        images = rng.integers(0, 60, (number, 28, 28)).astype("uint8")
        for image, label in zip(images, labels):
            image[2 * label : 2 * label + 4] += 180
        _idx(folder / f"{name}-images-idx3-ubyte.gz", images)
        _idx(folder / f"{name}-labels-idx1-ubyte.gz", labels)
    return folder


@on_jax
def test_runs_in_one_program_are_the_runs_alone(folder):
    from benchmarks.enough_steps import data, runs

    (split, _) = data.load(str(folder))
    for name in ("lamb", "schedule_free"):
        program = runs.Program(name, 640, 2, 3, split)
        rate = 4 * optimizers.LOWEST[name]
        together = program.train([rate, 2 * rate], [1, 2])
        alone = runs.Program(name, 640, 2, 3, split).train([2 * rate], [2])
        np.testing.assert_allclose(together[1], alone[0], atol=0.51)
        assert together.shape == (2, 2)


@on_jax
def test_a_run_is_that_of_the_optimizer_by_itself(folder):
    """One update by `Program` and by the Keras optimizer's own `apply`."""
    import jax

    from benchmarks.enough_steps import data, network, runs

    split, _ = data.load(str(folder))
    images, labels = (x[:640] for x in split.train)
    one = runs.Split((images, labels), split.test)
    for name in optimizers.NAMES:
        program = runs.Program(name, 640, 1, 1, one)
        program.train([0.01], [3])
        model = network.build(3000)
        optimizer = optimizers.make(name, 0.01)
        weights = [v.value for v in model.trainable_variables]
        gradients = jax.grad(
            lambda w, model=program.model: runs.loss(
                model, w, runs.scaled(images), labels
            )
        )(weights)
        optimizer.apply(gradients, model.trainable_variables)
        for ours, theirs in zip(program.weights, model.trainable_variables):
            np.testing.assert_allclose(
                ours[0], theirs.value, rtol=2e-4, atol=2e-6, err_msg=name
            )


@on_jax
def test_it_learns_and_what_diverges_is_not_a_number(folder):
    from benchmarks.enough_steps import data, runs

    split, _ = data.load(str(folder))
    program = runs.Program("sgd", 128, 2, 10, split)
    scores = program.train([0.05, 1e6], [1, 1])
    assert scores[0, -1] > 90
    assert np.isnan(scores[1, -1])


def test_schedule():
    from benchmarks.enough_steps.runs import schedule

    rate = [float(schedule(k, 10, 4)) for k in range(10)]
    assert rate[:4] == [0.25, 0.5, 0.75, 1.0]
    assert rate[4:] == pytest.approx([(10 - k) / 6 for k in range(4, 10)])
    assert float(schedule(9, 10, 4, decays=False)) == 1.0


@on_jax
def test_noise_scale_of_known_gradients(folder):
    """Against the covariance itself, by NumPy from single gradients."""
    import jax

    from benchmarks.enough_steps import network, noise, runs

    rng = np.random.default_rng(1)
    images = rng.integers(0, 255, (24, 14, 14)).astype("uint8")
    labels = rng.integers(0, 10, 24).astype("int32")
    model = network.build(1)
    weights = [v.value for v in model.trainable_variables]
    single = []
    for image, label in zip(images, labels):
        found = jax.grad(
            lambda w, x=image, y=label: runs.loss(
                model, w, runs.scaled(x[None]), y[None]
            )
        )(weights)
        single.append(np.concatenate([np.ravel(g) for g in found]))
    trace = np.var(np.array(single, "float64"), axis=0, ddof=1).sum()
    mean = np.mean(single, axis=0, dtype="float64")
    expected = trace / (mean @ mean - trace / 24)
    found = noise.noise_scale(model, weights, images, labels)
    assert found == pytest.approx(expected, rel=1e-3)


@on_jax
def test_study_is_resumed_and_reported(folder, tmp_path):
    from benchmarks.enough_steps import data, plan
    from official_models.common.store import Store

    sizes = plan.Sizes(2, 2, (100, 200), 200, {100: 2, 200: 2}, 2)
    splits = data.load(str(folder))
    study = plan.Study(Store(tmp_path), splits, sizes)
    found = {name: study.of(name) for name in ("lamb", "lars")}
    files = sorted(tmp_path.glob("*.json"))
    assert len(files) == 5 + 6
    again = plan.Study(Store(tmp_path, hours=1e-9), splits, sizes)
    assert {name: again.of(name) for name in ("lamb", "lars")} == found
    sqrt = found["lars"]["grid"]["sqrt"]["200"]["rates"][0]
    linear = found["lars"]["grid"]["linear"]["200"]["rates"][0]
    base = found["lars"]["tune"]["chosen"]
    assert (sqrt / base, linear / base) == pytest.approx((math.sqrt(2), 2))
    noise = study.noise(found["lamb"])
    assert len(noise["noise_scale"]) == 1  # two epochs: after the first
    said = report.figures(found, 200)
    table = report.tables(said)
    assert "| LARS, linear |" in table
    report.draw({**said, "noise": noise}, tmp_path / "study.png")


def _part(scores, batch=100, updates=4):
    return {"batch": batch, "updates": updates, "scores": scores}


def test_runs_that_diverged_are_counted_and_not_averaged(tmp_path):
    part = _part([[50.0, 80.0], [60.0, 10.0], [None, None]])
    assert report.diverged(part) == 2
    stage = {"chosen": 1.0, "rates": [1.0], "scores": [[80.0]]}
    best = _part([[88.0, 89.0]] * 3)
    one = {"tune": stage, "retune": stage, "retuned": best}
    found = {
        "lamb": {**one, "grid": {"sqrt": {"100": best, "200": best}}},
        "lars": {**one, "grid": {"sqrt": {"100": best, "200": part}}},
    }
    said = report.figures(found, 200)
    table = report.tables(said)
    assert "| LARS, sqrt | 1 | 89.00 ± 0.00 | 2 of 3 diverged | 89.00" in table
    report.draw(said, tmp_path / "study.png")


def test_examples_to_a_score_and_paired_differences():
    part = _part([[50.0, 80.0], [90.0, 91.0], [None, None]])
    assert report.examples_to(part, 80.0, 200) == [400, 200, None]
    ours = _part([[80.0], [82.0], [84.0]])
    theirs = _part([[79.0], [80.0], [None]])  # diverged: chance
    found = report.paired(ours, theirs)
    assert found["mean"] == pytest.approx((1 + 2 + 74) / 3)
    assert report.paired(ours, ours)["p"] is None


@pytest.mark.parametrize(
    "damage, said",
    [
        (lambda c: c[:-40], "not gzip"),
        (lambda c: gzip.compress(gzip.decompress(c)[:-5]), "behind its head"),
        (lambda c: gzip.compress(b"\0\0\x08"), "no idx file"),
        (lambda c: gzip.compress(b"text, and no images"), "no idx file"),
    ],
)
def test_damaged_files(folder, tmp_path, damage, said):
    from benchmarks.enough_steps import data

    content = (folder / "t10k-labels-idx1-ubyte.gz").read_bytes()
    path = tmp_path / "labels.gz"
    path.write_bytes(damage(content))
    with pytest.raises(InputError, match=said):
        data.read(path)


@on_jax
def test_without_data_or_jax_it_says_what_to_do(tmp_path):
    for backend, said in (("jax", "dataset-fashion-mnist"), ("", "set KERAS")):
        result = subprocess.run(
            [sys.executable, "-m", "benchmarks.enough_steps"]
            + [f"--data_dir={tmp_path}", f"--runs={tmp_path / 'runs'}"],
            cwd=ROOT,
            env={**os.environ, "KERAS_BACKEND": backend or "tensorflow"},
            capture_output=True,
            text=True,
        )
        assert result.returncode == 2
        assert said in result.stderr.splitlines()[-1]
    assert not (tmp_path / "runs").exists()


def test_result_that_is_committed_is_whole():
    path = ROOT / "benchmarks/results/enough_steps.json"
    said = json.loads(path.read_text())
    assert {row["optimizer"] for row in said["rows"]} == {*optimizers.NAMES}
    assert said["provenance"]["date"]
