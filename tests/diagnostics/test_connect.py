"""Curves between two models: ends, barriers, statistics, resuming."""

import json

import keras
import numpy as np
import pytest

from official_models.vision.resnet.layers import BatchNorm, ResNetConfig
from tests.diagnostics.saved_models import classifier, refused, run
from tf_lamb.diagnostics import curve_training, curves
from tf_lamb.diagnostics.at_weights import AtWeights
from tf_lamb.diagnostics.examples import Examples

FLAGS = "--examples 64 --batch_size 16 --points 3 --steps 6".split()


@pytest.mark.parametrize("kind", curves.KINDS)
def test_ends_are_bit_exact_and_the_bend_is_where_it_is_said(kind):
    random = np.random.default_rng(0)
    start, bend, end = (
        [random.normal(size=(2, 3)).astype("float32")] for _ in range(3)
    )
    start[0][0, 0] = end[0][1, 1] = -0.0
    for t, wanted in ((0.0, start), (1.0, end)):
        found = curves.point(kind, t, start, bend, end)[0]
        assert found.tobytes() == wanted[0].tobytes()
        assert found is not wanted[0]
    found = curves.point(kind, 0.25, start, bend, end)[0]
    shares = dict(bezier=(9 / 16, 6 / 16, 1 / 16), polychain=(0.5, 0.5, 0))
    exact = sum(s * w[0] for s, w in zip(shares[kind], (start, bend, end)))
    np.testing.assert_allclose(found, exact, atol=1e-7)
    found = curves.point("polychain", 0.5, start, bend, end)[0]
    np.testing.assert_array_equal(found, bend[0])


def units():
    """`x -> x (a_1 b_1 + a_2 b_2)`, that has to be `x`, and its two ends."""
    keras.utils.set_random_seed(0)
    layers = [
        keras.Input((1,)),
        keras.layers.Dense(2, use_bias=False),
        keras.layers.Dense(1, use_bias=False),
    ]
    model = keras.Sequential(layers)
    model.compile("sgd", "mse")
    x = np.random.default_rng(0).normal(size=(32, 1)).astype("float32")
    first = [np.float32([[1, 0]]), np.float32([[1], [0]])]
    second = [np.float32([[0, 1]]), np.float32([[0], [1]])]
    return model, x, first, second


def measured(at, weights, points=11):
    return curves.measure("path", np.linspace(0, 1, points), weights, at, at)


@pytest.mark.parametrize("kind", curves.KINDS)
def test_a_known_barrier_and_a_curve_around_it(kind):
    """One unit does all at one end, the other at the other: half way, half."""
    model, x, start, end = units()
    at = AtWeights(model, (x, x, None), batch_size=8)
    middle = [(a + b) / 2 for a, b in zip(start, end)]
    straight = measured(
        at, lambda t: curves.point("bezier", t, start, middle, end)
    )
    t = straight.places
    exact = np.mean(x**2) * (2 * t * (1 - t)) ** 2
    np.testing.assert_allclose(straight.losses, exact, atol=1e-6)
    high = curves.barrier(straight)
    assert high.value == pytest.approx(np.mean(x**2) / 4, rel=1e-5)
    assert high.place == 0.5 and high.rise == high.value
    per_batch = (x.reshape(4, 8) ** 2).mean(1) / 4
    error = per_batch.std(ddof=1) / 2
    assert high.standard_error == pytest.approx(error, rel=1e-5)
    trained = curve_training.train(
        at,
        start,
        end,
        Examples((x, x)),
        kind=kind,
        steps=80,
        batch_size=8,
        rate=0.05,
    )
    curve = measured(
        at, lambda t: curves.point(kind, t, start, trained.bend, end)
    )
    assert curves.barrier(curve).value < 0.1 * high.value
    upside_down = straight._replace(batch_losses=-straight.batch_losses)
    low = curves.barrier(upside_down)
    assert low.value == 0
    assert low.rise == pytest.approx(-(0.18**2) * 4 * high.value, rel=1e-4)
    # By symmetry both units bend alike.
    np.testing.assert_allclose(
        trained.bend[0][0], trained.bend[1][:, 0], rtol=1e-5
    )


def test_the_gradient_is_that_of_the_chain_rule():
    """A step of SGD's direction, by differences of the loss."""
    model, x, start, end = units()
    at = AtWeights(model, (x, x, None), batch_size=8)
    optimizer = keras.optimizers.SGD(1.0)
    bend = curve_training._Bend(at, start, end, optimizer)
    before = bend.weights()
    batch = tuple(map(curve_training._tensor, (x[:8], x[:8])))
    bend.step(curves.coefficients("bezier", 0.3), (*batch, None))
    found = (before[0] - bend.weights()[0])[0, 0]

    def loss(theta):
        moved = [before[0] + [[theta, 0]], before[1]]
        w = curves.point("bezier", 0.3, start, moved, end)
        return np.mean((x[:8] @ w[0] @ w[1] - x[:8]) ** 2)

    near = (loss(1e-3) - loss(-1e-3)) / 2e-3
    assert found == pytest.approx(near, rel=2e-3)


@pytest.mark.parametrize("ours", [False, True])
def test_recomputed_statistics_are_those_of_all_examples(ours):
    keras.utils.set_random_seed(0)
    norm = (
        BatchNorm(ResNetConfig(norm_momentum=0.997), name="norm")
        if ours
        else keras.layers.BatchNormalization(name="norm")
    )
    layers = [
        keras.Input((3,)),
        keras.layers.Dense(4, name="before"),
        keras.layers.Reshape((1, 1, 4)),
        norm,
        keras.layers.Dropout(0.5),
    ]
    model = keras.Sequential([*layers, keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    random = np.random.default_rng(0)
    x = (5 + 3 * random.normal(size=(40, 3))).astype("float32")
    at = AtWeights(model, (x, np.zeros((40, 1, 1, 1)), None), batch_size=8)
    weights = [w + 1 for w in at.weights()]
    found = at.with_statistics(weights)
    hidden = x @ weights[0] + weights[1]
    paths = [v.path for v in model.non_trainable_variables]
    for statistic, exact in (
        (norm.moving_mean, hidden.mean(0)),
        (norm.moving_variance, hidden.var(0)),
    ):
        value = found[paths.index(statistic.path)]
        np.testing.assert_allclose(value, exact, rtol=2e-6)
        # The model keeps its own.
        assert abs(keras.ops.convert_to_numpy(statistic)).max() <= 1
    norm.trainable = False
    for value, own in zip(at.with_statistics(weights), at.others()):
        np.testing.assert_array_equal(value, own)


def test_a_training_that_stops_resumes_to_the_same():
    keras.utils.set_random_seed(0)
    layers = [
        keras.Input((3,)),
        keras.layers.Dense(4),
        keras.layers.Dropout(0.5, seed=0),  # whose state is kept too
        keras.layers.Dense(1),
    ]
    model = keras.Sequential(layers)
    model.compile("sgd", "mse")
    random = np.random.default_rng(0)
    x = random.normal(size=(32, 3)).astype("float32")
    data = x, x[:, :1]
    at = AtWeights(model, (*data, None), batch_size=8)
    start = at.weights()
    end = [w[::-1] for w in start]
    kept = {}

    def train(progress, before):
        return curve_training.train(
            at,
            start,
            end,
            Examples(data, 3),
            steps=8,
            batch_size=8,
            kept=kept.update,
            before=before,
            progress=progress,
        )

    whole = train(lambda line: None, None)
    kept.clear()

    def stop(line):
        if "step 5/" in line:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(curve_training, "_SECONDS_BETWEEN_WRITES", -1)
        with pytest.raises(KeyboardInterrupt):
            train(stop, None)
    assert kept["step"] == 4
    lines = []
    again = train(lines.append, dict(kept))
    assert len(lines) == 4
    np.testing.assert_array_equal(whole.losses, again.losses)
    for a, b in zip(whole.bend, again.bend):
        np.testing.assert_array_equal(a, b)


def test_the_command_resumes_to_the_same(tmp_path, capsys):
    classifier(tmp_path, norm=True)
    classifier(tmp_path, "other.keras", seed=1, norm=True)
    flags = ["--other", str(tmp_path / "other.keras"), *FLAGS]
    assert run(tmp_path, "connect", *flags) == 0
    out = tmp_path / "out"
    first = json.loads((out / "connect.json").read_text())
    assert set(first["paths"]) == {"straight", "bezier"}
    assert first["statistics_recomputed"] == ["batch_normalization"]
    losses = [p["losses"] for p in first["paths"].values()]
    assert losses[0][0] == losses[1][0] and losses[0][2] == losses[1][2]
    assert losses[0][1] != losses[1][1]
    assert first["barriers"]["straight"]["standard_error"] >= 0
    assert len(first["ends_as_saved"]) == 2
    assert (out / "connect.png").stat().st_size > 1000
    assert "step 6/6" in capsys.readouterr().out
    kept = json.loads((out / "progress.json").read_text())
    del kept["found"]["bezier/1"]  # as if it had been killed there
    (out / "progress.json").write_text(json.dumps(kept))
    assert run(tmp_path, "connect", *flags) == 0
    shown = capsys.readouterr().out
    assert "bezier: place 2/3" in shown and "straight: place" not in shown
    assert "curve: step" not in shown
    second = json.loads((out / "connect.json").read_text())
    del first["seconds"], second["seconds"]
    assert first == second
    (out / "curve.npz").write_text("no archive")
    line = refused(capsys, tmp_path, "connect", *flags)
    assert "curve.npz: NumPy cannot read it" in line


def test_bad_input_is_one_line(tmp_path, capsys):
    classifier(tmp_path)
    classifier(tmp_path, "norm.keras", norm=True)
    model, _, _ = classifier(tmp_path, "nan.keras", seed=1)
    model.set_weights([w * np.nan for w in model.get_weights()])
    model.save(tmp_path / "nan.keras")
    (tmp_path / "out").mkdir()
    (tmp_path / "text.npz").write_text("no archive")

    def line(other, *more):
        path = str(tmp_path / other)
        return refused(
            capsys, tmp_path, "connect", "--other", path, *FLAGS, *more
        )

    found = line("none.keras")
    assert "--other" in found and "no such file" in found
    assert "same shapes" in line("norm.keras")
    assert "3 or more" in line("model.keras", "--points", "2")
    assert "two batches" in line("model.keras", "--examples", "16")
    held_out = str(tmp_path / "text.npz")
    assert "cannot read" in line("model.keras", "--held_out", held_out)
    assert "finite ones" in line("nan.keras")
    assert not (tmp_path / "out" / "connect.json").exists()


def test_other_variables_have_to_be_the_same(tmp_path, capsys):
    model, _, _ = classifier(tmp_path, norm=True)
    model.layers[1].trainable = False
    model.compile("sgd", model.loss)
    model.save(tmp_path / "model.keras")
    model.layers[1].moving_mean.assign(np.ones(8))
    model.save(tmp_path / "other.keras")
    other = str(tmp_path / "other.keras")
    line = refused(capsys, tmp_path, "connect", "--other", other, *FLAGS)
    assert (
        "moving_mean does not train and differs" in line
        and "by up to 1" in (line)
    )
