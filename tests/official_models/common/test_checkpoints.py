"""Checkpoints of a model with its optimizer, of either Keras."""

import gc

import keras
import numpy as np
import pytest
import tf_keras

import tf_lamb
from official_models.common.checkpoints import Checkpoints
from tests.official_models.scripts import refusal
from tf_lamb import keras2

X, Y = np.eye(3, dtype="float32"), np.ones((3, 1), "float32")


def small(library=keras, units=1):
    library.utils.set_random_seed(0)
    model = library.Sequential(
        [library.Input((3,)), library.layers.Dense(units)]
    )
    front_end = tf_lamb if library is keras else keras2
    model.compile(front_end.LAMB(0.1), "mse")
    return model


@pytest.mark.parametrize(
    "library", [keras, tf_keras], ids=["keras3", "tf_keras"]
)
def test_weights_and_moments_come_back(library, tmp_path):
    model = small(library)
    checkpoints = Checkpoints(model, tmp_path)
    assert checkpoints.restore() == 0
    model.fit(X, Y, verbose=0)
    checkpoints.save(7)
    want = [np.array(v) for v in (*model.weights, *_state(model))]

    again = small(library)
    assert Checkpoints(again, tmp_path).restore() == 7
    got = [np.array(v) for v in (*again.weights, *_state(again))]
    assert len(got) > 6
    for a, b in zip(want, got, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    "library", [keras, tf_keras], ids=["keras3", "tf_keras"]
)
def test_a_loss_scaler_that_is_built_is_not_built_again(library, tmp_path):
    optimizer = (tf_lamb if library is keras else keras2).LAMB(0.1)
    model = small(library)
    model.compile(library.mixed_precision.LossScaleOptimizer(optimizer), "mse")
    model.fit(X, Y, verbose=0)
    before = len(_state(model))
    Checkpoints(model, tmp_path)
    assert len(_state(model)) == before


def _state(model):
    variables = model.optimizer.variables
    return variables() if callable(variables) else variables


def test_the_last_ones_stay(tmp_path):
    checkpoints = Checkpoints(small(), tmp_path, keep=2)
    for step in (1, 2, 3):
        checkpoints.save(step)
    assert {p.stem for p in tmp_path.glob("*.index")} == {"ckpt-2", "ckpt-3"}


def test_another_process_restores_from_the_first_one_s(tmp_path):
    Checkpoints(small(), tmp_path / "chief").save(3)
    other = Checkpoints(
        small(), tmp_path / "other", restore_from=tmp_path / "chief"
    )
    assert other.restore() == 3
    other.save(4)
    assert (tmp_path / "other/ckpt-4.index").exists()
    assert not (tmp_path / "chief/ckpt-4.index").exists()


def test_a_checkpoint_of_another_model(tmp_path):
    Checkpoints(small(), tmp_path).save(3)
    refusal(
        Checkpoints(small(units=2), tmp_path).restore,
        *("ckpt-3 is of another model", "name another --output_dir"),
    )


@pytest.mark.parametrize("suffix", ["index", "data-00000-of-00001"])
def test_a_damaged_checkpoint(tmp_path, suffix):
    Checkpoints(small(), tmp_path).save(3)
    path = tmp_path / f"ckpt-3.{suffix}"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    refusal(
        Checkpoints(small(), tmp_path).restore,
        *("ckpt-3 cannot be read", "remove its files"),
    )


def test_a_refusal_is_all_that_is_said(tmp_path, caplog):
    """TensorFlow would list what was not restored, once it is collected."""
    gc.collect()  # what other tests have left
    caplog.clear()
    Checkpoints(small(), tmp_path).save(3)
    refusal(Checkpoints(small(units=2), tmp_path).restore, "another model")
    path = tmp_path / "ckpt-3.data-00000-of-00001"
    path.write_bytes(bytes(path.stat().st_size))
    message = refusal(Checkpoints(small(), tmp_path).restore, "cannot be read")
    assert "function_node" not in message
    gc.collect()
    assert not caplog.records


def test_without_the_last_one_it_is_the_one_before(tmp_path):
    checkpoints = Checkpoints(small(), tmp_path)
    for step in (3, 6):
        checkpoints.save(step)
    for path in tmp_path.glob("ckpt-6.*"):
        path.unlink()
    assert Checkpoints(small(), tmp_path).restore() == 3


def test_a_run_is_resumed_without_its_list(tmp_path, capsys):
    checkpoints = Checkpoints(small(), tmp_path)
    for step in (3, 6):
        checkpoints.save(step)
    (tmp_path / "checkpoint").unlink()
    again = Checkpoints(small(), tmp_path, keep=2)
    assert again.restore() == 6
    assert "found by its files" in capsys.readouterr().out
    again.save(9)
    assert {p.stem for p in tmp_path.glob("*.index")} == {"ckpt-6", "ckpt-9"}
