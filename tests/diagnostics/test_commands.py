"""The command lines: what they write, resume and refuse."""

import json

import keras
import numpy as np
import pytest

from tests.diagnostics.saved_models import refused, run
from tf_lamb.diagnostics import __main__ as command
from tf_lamb.diagnostics import advice, at_weights, inputs
from tf_lamb.diagnostics.examples import Examples


@pytest.fixture
def saved(tmp_path):
    """A model that classifies, and data for it."""
    keras.utils.set_random_seed(0)
    layers = [
        keras.Input((6,)),
        keras.layers.Dense(8, activation="tanh"),
        keras.layers.Dense(2),
    ]
    model = keras.Sequential(layers)
    model.compile(
        keras.optimizers.SGD(90.0),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    model.save(tmp_path / "model.keras")
    random = np.random.default_rng(0)
    x = random.normal(size=(96, 6)).astype("float32")
    np.savez(tmp_path / "data.npz", x=x, y=(x[:, 0] > 0).astype("int32"))
    return tmp_path


SPECTRUM = "--examples 64 --batch_size 32 --steps 4 --vectors 2".split()
ADVISE = (
    "--batch_size 32 --records 3 --train_steps 3 --range_steps 8 "
    "--range_tests 2 --highest_rate 10"
).split()


def read(folder, name):
    return json.loads((folder / "out" / name).read_text())


def test_spectrum_resumes_to_the_same(saved, capsys):
    assert run(saved, "spectrum", *SPECTRUM) == 0
    first = read(saved, "spectrum.json")
    assert first["hessian"]["trace"]["standard_error"] > 0
    assert (saved / "out" / "spectrum.png").stat().st_size > 1000
    shown = capsys.readouterr()
    assert "hessian 2 of 2: product 4/4" in shown.out
    assert "warning: rate 90" in shown.err
    kept = read(saved, "progress.json")
    del kept["found"]["gauss_newton/1"]  # as if it had been killed there
    (saved / "out" / "progress.json").write_text(json.dumps(kept))
    assert run(saved, "spectrum", *SPECTRUM) == 0
    shown = capsys.readouterr().out
    assert "gauss_newton 2 of 2" in shown and "hessian 1 of 2" not in shown
    second = read(saved, "spectrum.json")
    for name in ("hessian", "gauss_newton"):
        assert first[name] == second[name]


def test_advise_says_and_resumes(saved, capsys):
    assert run(saved, "advise", *ADVISE) == 0
    first = read(saved, "advice.json")
    assert 1e-5 <= first["range_test"]["rate"] <= 1
    assert "noise scale" in first["advice"] and len(first["batches"]) == 7
    assert (saved / "out" / "advice.png").stat().st_size > 1000
    capsys.readouterr()
    kept = read(saved, "progress.json")
    for name in ("start", "trained"):  # as if it had been killed there
        del kept["found"][name]
    (saved / "out" / "progress.json").write_text(json.dumps(kept))
    assert run(saved, "advise", *ADVISE) == 0
    assert (
        "range test" not in capsys.readouterr().out.split("batch     rate")[0]
    )
    second = read(saved, "advice.json")
    assert first["advice"] == second["advice"]


def test_advise_takes_statistics_anew(saved, capsys, monkeypatch):
    """A gradient at stale statistics is not that of a training step."""
    keras.utils.set_random_seed(0)
    layers = [
        keras.Input((6,)),
        keras.layers.BatchNormalization(),
        keras.layers.Dense(2),
    ]
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    found = []
    for stale in (0.0, 9.0):
        model = keras.Sequential(layers)
        model.compile(keras.optimizers.SGD(), loss)
        model.layers[0].moving_mean.assign(np.full(6, stale))
        model.layers[0].moving_variance.assign(np.full(6, 1 + stale))
        model.save(saved / "model.keras")
        out = ("--output_dir", str(saved / f"stale-{stale}"))
        assert run(saved, "advise", *ADVISE, *out) == 0
        shown = capsys.readouterr().out
        assert "in 1 layers: statistics of 256 examples" in shown
        path = saved / f"stale-{stale}" / "advice.json"
        found.append(json.loads(path.read_text())["noise_scale_start"])
    assert found[0]["trace"] == pytest.approx(found[1]["trace"], rel=1e-4)
    monkeypatch.setattr(command.probe, "backend_of", lambda model: "torch")
    command._renew(model, None, 32)
    assert "warning: on torch, batch norm" in capsys.readouterr().err


def test_statistics_are_those_of_the_data():
    layers = [keras.Input((3,)), keras.layers.BatchNormalization()]
    model = keras.Sequential([*layers, keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    x = np.random.default_rng(0).normal(2, 3, (64, 3)).astype("float32")
    before = [np.array(v) for v in model.trainable_variables]
    data = x, x[:, :1], None
    assert at_weights.renew_statistics(model, data, 16) == 1
    layer = model.layers[0]
    np.testing.assert_allclose(layer.moving_mean, x.mean(0), rtol=1e-4)
    np.testing.assert_allclose(layer.moving_variance, x.var(0), rtol=1e-4)
    for old, new in zip(before, model.trainable_variables):
        np.testing.assert_array_equal(old, np.array(new))
    plain = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    assert at_weights.renew_statistics(plain, data, 16) == 0


def test_a_trial_leaves_the_model_as_it_was(saved):
    model = keras.models.load_model(saved / "model.keras")
    before, optimizer = model.get_weights(), model.optimizer
    data = np.load(saved / "data.npz")
    examples = command.Examples((data["x"], data["y"]))
    trial = advice.Trial(model, 32)
    losses = trial.train([0.01, 0.02, 0.04], examples)
    assert np.isfinite(losses).all()
    moved = [abs(a - b).max() for a, b in zip(model.get_weights(), before)]
    assert min(moved) > 0
    one, again = (command.Examples((data["x"], data["y"]), 1) for _ in range(2))
    losses = trial.train([1e-12] * 3, one)
    trial.close()
    assert model.optimizer is optimizer
    for loss in losses:  # of each batch, and not the mean so far
        x, y, _ = again.draw(32)
        assert loss == pytest.approx(model.evaluate(x, y, verbose=0), rel=1e-4)
    for new, old in zip(model.get_weights(), before):
        np.testing.assert_array_equal(new, old)


def test_the_rate_of_a_range_test():
    rates = np.geomspace(1e-3, 1, 31)
    fall = 5 - np.arange(31) * 0.1
    rise = np.where(np.arange(31) > 20, np.nan, fall)
    found = advice.summarize(rates, [fall, rise])
    np.testing.assert_allclose(found.least, [1.0, 0.1])
    assert found.rate == pytest.approx(0.1**0.5 / 10)
    assert (found.lower, found.upper) == pytest.approx((0.01, 0.1))
    with pytest.raises(ValueError, match="finite loss"):
        advice.summarize(rates, [fall * np.nan])


def test_bad_input_is_one_line(saved, capsys):
    data = dict(np.load(saved / "data.npz"))
    np.savez(saved / "whole.npz", x=data["x"].astype("int32"), y=data["y"])
    np.savez(saved / "no_y.npz", x=data["x"])
    (saved / "text.npz").write_text("no archive")
    whole = (saved / "data.npz").read_bytes()
    (saved / "cut.npz").write_bytes(whole[: len(whole) // 2])
    middle = len(whole) // 2
    flipped = whole[:middle] + b"!?" + whole[middle + 2 :]
    (saved / "flipped.npz").write_bytes(flipped)
    (saved / "empty.npz").write_bytes(b"")
    np.save(saved / "array.npy", data["x"])
    np.savez(saved / "labels.npz", x=data["x"], y=data["y"] + 3)
    (saved / "text.keras").write_text("no archive")
    keras.Sequential([keras.layers.Dense(2)]).save(saved / "unbuilt.keras")
    layers = [keras.Input((6,)), keras.layers.Dense(2)]
    keras.Sequential(layers).save(saved / "no_loss.keras")
    name = "spectrum"
    for files, expected in (
        (dict(model="none.keras"), "no such file"),
        (dict(model="text.keras"), "cannot read"),
        (dict(model="unbuilt.keras"), "build it"),
        (dict(model="no_loss.keras"), "--loss"),
        (dict(data="none.npz"), "no such file"),
        (dict(data="text.npz"), "cannot read"),
        (dict(data="cut.npz"), "cannot read"),
        (dict(data="flipped.npz"), "cannot read"),
        (dict(data="empty.npz"), "cannot read"),
        (dict(data="array.npy"), "cannot read"),
        (dict(data="no_y.npz"), "x and y"),
        (dict(data="whole.npz"), "takes float32"),
    ):
        assert expected in refused(capsys, saved, name, *SPECTRUM, **files)
    assert "at least 1000" in refused(capsys, saved, name, "--examples", "1000")
    assert "at least 128" in refused(
        capsys, saved, "advise", "--batch_size", "64"
    )
    assert "divisor" in refused(
        capsys, saved, "advise", "--batch_size", "32", "--small_batch", "5"
    )
    assert "any of hessian" in refused(
        capsys, saved, name, "--matrices", "fisher"
    )
    assert not (saved / "out").exists()
    if keras.backend.backend() == "tensorflow":  # JAX has NaN for such a label
        labels = dict(data="labels.npz")
        for name in ("spectrum", "landscape", "advise", "prune"):
            flags = ["--batch_size", "16", "--examples", "32"]
            flags = flags[: 2 if name in ("advise", "prune") else 4]
            line = refused(capsys, saved, name, *flags, **labels)
            assert "does not take DATA: Received a label value" in line
    (saved / "out").mkdir(exist_ok=True)
    for text in ("{}", "text", '{"of": 1, "found": 2}'):
        (saved / "out" / "progress.json").write_text(text)
        line = refused(capsys, saved, "spectrum", *SPECTRUM)
        assert "progress.json: expected" in line and "--output_dir" in line
    with pytest.raises(SystemExit, match="2"):
        run(saved, "spectrum", "--seed", "-1")
    assert "--seed: expected a whole number >= 0" in capsys.readouterr().err


def test_what_is_kept_is_of_these_data_and_this_optimizer(saved, capsys):
    flags = "--examples 64 --batch_size 32 --steps 2 --vectors 1".split()
    flags += ["--matrices", "hessian"]

    def largest():
        assert run(saved, "spectrum", *flags) == 0
        return read(saved, "spectrum.json")["hessian"]["lambda_max"]

    first = largest()
    assert largest() == first
    assert "resumes from" in capsys.readouterr().out
    data = dict(np.load(saved / "data.npz"))
    np.savez(saved / "data.npz", x=2 * data["x"], y=data["y"])
    assert largest() != first
    assert "other data" in capsys.readouterr().out
    model = keras.models.load_model(saved / "model.keras")
    model.compile(keras.optimizers.SGD(1.0), model.loss)
    model.save(saved / "model.keras")
    largest()
    assert "another model" in capsys.readouterr().out


def test_vectors_of_lanczos_lie_in_the_output_folder(saved, monkeypatch):
    folders = []

    def seen(*arguments, folder, **more):
        folders.append(folder)
        raise ValueError("seen")

    monkeypatch.setattr(command.spectrum, "measure", seen)
    assert run(saved, "spectrum", *SPECTRUM) == 2
    assert folders == [str(saved / "out")] and (saved / "out").is_dir()


def test_another_loss_leaves_the_metrics(saved):
    model = keras.models.load_model(saved / "model.keras")
    model.compile("sgd", model.loss, metrics=["accuracy"])
    model.save(saved / "model.keras")
    loss = "sparse_categorical_crossentropy"
    found = inputs.load_model(str(saved / "model.keras"), loss)
    data = np.load(saved / "data.npz")
    score = found.evaluate(data["x"], data["y"], verbose=0, return_dict=True)
    assert set(score) == {"loss", "accuracy"} and found.loss == loss


def test_each_training_of_a_trial_has_the_same_dropout():
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(8), keras.layers.Dropout(0.5)]
    model = keras.Sequential(
        [keras.Input((4,)), *layers, keras.layers.Dense(1)]
    )
    model.compile("sgd", "mse")
    x = np.random.default_rng(0).normal(size=(64, 4)).astype("float32")
    trial = advice.Trial(model, 16)
    first, again = (
        trial.train([1e-9] * 4, Examples((x, x[:, :1]), 1)) for _ in range(2)
    )
    assert first == again


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="an operation of TensorFlow"
)
def test_an_operation_without_second_derivative(saved):
    import tensorflow as tf

    from tf_lamb.diagnostics.curvature import Curvature

    @tf.custom_gradient
    def once(x):
        def gradient(g):
            @tf.custom_gradient
            def refuse(g):
                def second(_):
                    raise LookupError("gradient registry has no entry for: X")

                return g, second

            return refuse(g)

        return x, gradient

    model = keras.models.load_model(saved / "model.keras")
    data = np.load(saved / "data.npz")

    def loss(y, y_pred):
        return keras.ops.sum(once(y_pred) ** 2, axis=-1)

    at = Curvature(model, (data["x"], data["y"], None), loss, batch_size=32)
    with pytest.raises(ValueError, match="second derivative.*for: X"):
        at.hessian_vector(np.ones(at.size))
