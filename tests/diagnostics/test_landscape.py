"""Slices of a loss, where they are known; directions by filter."""

import json

import keras
import numpy as np
import pytest

from tests.diagnostics.saved_models import classifier, refused, run
from tf_lamb.diagnostics import landscape
from tf_lamb.diagnostics.at_weights import AtWeights, mean_and_error

FLAGS = "--examples 64 --batch_size 16 --points 3 --span 0.5".split()


def linear():
    """Mean squared error of a linear model: a quadratic."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.compile("sgd", "mse")
    random = np.random.default_rng(0)
    x = random.normal(size=(24, 3)).astype("float32")
    return model, x, random.normal(size=(24, 2)).astype("float32")


def test_the_slice_of_a_quadratic():
    model, x, y = linear()
    at = AtWeights(model, (x, y, None), batch_size=8)
    along = [
        landscape.direction(model, np.random.default_rng(i), "whole")
        for i in (1, 2)
    ]
    found = landscape.measure(at, along, landscape.offsets(2.0, 5))
    kernel, bias = at.weights()
    for i, beta in enumerate(found.offsets_2):
        for j, alpha in enumerate(found.offsets):
            w = kernel + alpha * along[0][0] + beta * along[1][0]
            b = bias + alpha * along[0][1] + beta * along[1][1]
            exact = np.mean((x @ w + b - y) ** 2)
            assert found.losses[i, j] == pytest.approx(exact, rel=1e-5)
    # Equal second differences: it is a quadratic.
    curve = found.losses[2]
    np.testing.assert_allclose(np.diff(curve, 3), 0, atol=1e-4)
    assert found.scores is None


def test_the_centre_is_the_loss_and_its_error_is_over_batches():
    model, x, y = linear()
    at = AtWeights(model, (x, y, None), batch_size=8)
    along = [landscape.direction(model, np.random.default_rng(0))]
    found = landscape.measure(at, along, landscape.offsets(1.0, 3))
    np.testing.assert_array_equal(found.offsets, [-1, 0, 1])
    losses = [
        model.evaluate(x[i : i + 8], y[i : i + 8], verbose=0)
        for i in (0, 8, 16)
    ]
    assert found.losses[0, 1] == pytest.approx(np.mean(losses), rel=1e-6)
    error = np.std(losses, ddof=1) / 3**0.5
    assert found.errors[0, 1] == pytest.approx(error, rel=1e-5)
    assert found.rise_errors[0, 1] == 0
    moved = [w + d for w, d in zip(at.weights(), along[0])]
    rise = at.measure(moved).losses - at.measure(at.weights()).losses
    assert found.rise_errors[0, 2] == pytest.approx(mean_and_error(rise)[1])
    for before, after in zip(at.weights(), model.get_weights()):
        np.testing.assert_array_equal(before, after)


def kernels():
    """A layer of each kind, and its filters' places."""
    layers = keras.layers
    image = keras.Input((6, 6, 3))
    text = keras.Input((4,), dtype="int32")
    x = layers.Conv2D(4, 3, name="conv")(image)
    x = layers.DepthwiseConv2D(2, depth_multiplier=2, name="depth")(x)
    x = layers.Conv2DTranspose(5, 2, name="transpose")(x)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.GlobalAveragePooling2D()(x)
    y = layers.Embedding(7, 6, name="embedding")(text)
    y = layers.MultiHeadAttention(2, 3, name="attention")(y, y)
    y = layers.GlobalAveragePooling1D()(y)
    out = layers.Dense(2, name="dense")(layers.Concatenate()([x, y]))
    return keras.Model([image, text], out)


def test_each_filter_has_the_norm_of_the_weights():
    keras.utils.set_random_seed(0)
    model = kernels()
    found = landscape.direction(model, np.random.default_rng(0))
    filters = {
        "conv/kernel": (0, 1, 2),
        "depth/kernel": (0, 1),
        "transpose/kernel": (0, 1, 3),
        "embedding/embeddings": (1,),
        "query/kernel": (0,),  # [inputs, heads, width]
        "attention_output/kernel": (0, 1),  # [heads, width, outputs]
        "dense/kernel": (0,),
    }
    seen = set()
    for variable, moved in zip(model.trainable_variables, found):
        weights = keras.ops.convert_to_numpy(variable).astype("float64")
        name = "/".join(variable.path.split("/")[-2:])
        if variable.name in ("bias", "gamma", "beta"):
            assert not moved.any()
        elif name in filters:
            seen.add(name)
            axes = filters[name]
            np.testing.assert_allclose(
                (moved**2).sum(axes), (weights**2).sum(axes), rtol=1e-6
            )
    assert seen == set(filters)
    again = landscape.direction(model, np.random.default_rng(0))
    other = landscape.direction(model, np.random.default_rng(1))
    np.testing.assert_array_equal(found[0], again[0])
    assert abs(found[0] - other[0]).max() > 0.01


def test_vectors_move_as_a_whole():
    model = kernels()
    norm = model.get_layer("norm")
    norm.beta.assign(np.arange(5.0))
    found = landscape.direction(model, np.random.default_rng(0), "whole")
    paths = [v.path for v in model.trainable_variables]
    beta = found[paths.index(norm.beta.path)]
    assert np.linalg.norm(beta) == pytest.approx(30**0.5)


@pytest.mark.parametrize("points", [4, 2])
def test_zero_is_among_the_points(points):
    with pytest.raises(ValueError, match="points: expected"):
        landscape.offsets(1.0, points)


def test_the_command_resumes_to_the_same(tmp_path, capsys):
    classifier(tmp_path)
    assert run(tmp_path, "landscape", *FLAGS) == 0
    first = json.loads((tmp_path / "out" / "landscape.json").read_text())
    assert np.shape(first["losses"]) == (3, 3) == np.shape(first["scores"])
    assert first["loss"] == first["losses"][1][1]
    assert first["do_not_move"] == ["dense/bias", "dense_1/bias"]
    assert (tmp_path / "out" / "landscape.png").stat().st_size > 1000
    assert "2 of 4 variables do not move" in capsys.readouterr().out
    path = tmp_path / "out" / "progress.json"
    kept = json.loads(path.read_text())
    del kept["found"]["row/2"]  # as if it had been killed there
    kept["found"]["row/1"].pop()
    path.write_text(json.dumps(kept))
    assert run(tmp_path, "landscape", *FLAGS) == 0
    shown = capsys.readouterr().out
    assert "row 2/3: 3/3" in shown and "row 2/3: 2/3" not in shown
    second = json.loads((tmp_path / "out" / "landscape.json").read_text())
    del first["seconds"], second["seconds"]
    assert first == second


def test_bad_input_is_one_line(tmp_path, capsys):
    classifier(tmp_path)
    name, out = "landscape", tmp_path / "out"
    for more, expected in (
        (["--points", "4"], "points: expected an odd number"),
        (["--examples", "16"], "two batches of 16"),
        (["--examples", "2000"], "at least 2000 examples"),
    ):
        assert expected in refused(capsys, tmp_path, name, *FLAGS, *more)
    data = dict(np.load(tmp_path / "data.npz"))
    np.savez(tmp_path / "nan.npz", x=data["x"] * np.nan, y=data["y"])
    line = refused(capsys, tmp_path, name, *FLAGS, data="nan.npz")
    assert "finite loss" in line
    assert not out.exists()
