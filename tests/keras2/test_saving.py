"""Files, copies and clones in tf_keras: exclusions and state go along."""

import copy
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tests.keras2.problems import data, fit, make_model
from tf_lamb import keras2

keras = keras2.keras


def _lamb(**arguments):
    return keras2.LAMB(0.02, weight_decay=0.1, **arguments)


def _fit(model):
    fit(model)
    return model


def _treatments(model):
    treatments = model.optimizer.treatments.values()
    return [(t.decay, t.adapt) for t in treatments]


def _assert_same(model, other):
    for a, b in zip(model.get_weights(), other.get_weights()):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-7)


def _save_and_load(model, tmp_path, suffix):
    path = str(tmp_path / f"model{suffix}")
    model.save(path)
    return keras.models.load_model(path)


# A SavedModel folder has no state of an optimizer.
@pytest.mark.parametrize("suffix", [".keras", ".h5", ""])
@pytest.mark.parametrize("adapt", [None, []], ids=["same", "all_adapted"])
def test_variables_excluded_by_list_stay_excluded(tmp_path, suffix, adapt):
    optimizer = _lamb(exclude_from_layer_adaptation=adapt)
    by_name = _lamb(exclude_from_layer_adaptation=adapt)
    model, other = make_model(optimizer), make_model(by_name)
    small = [v for v in model.trainable_variables if len(v.shape) == 1]
    optimizer.exclude_from_weight_decay(var_list=small)
    by_name.exclude_from_weight_decay(var_names=["bias"])
    _assert_same(_fit(model), _fit(other))
    assert _treatments(model) == _treatments(other)
    loaded = _save_and_load(model, tmp_path, suffix)
    _fit(loaded)
    if suffix:
        _assert_same(loaded, _fit(model))
    assert _treatments(loaded) == _treatments(other)


@pytest.mark.parametrize("suffix", [".keras", ".h5", ""])
def test_a_pattern_that_matches_nothing_does_not_close_the_file(
    tmp_path, suffix
):
    model = make_model(_lamb(exclude_from_weight_decay=["hidden/bias"]))
    config = model.optimizer.get_config()
    config["exclude_from_weight_decay"] = ["hidden/bias", "net/"]
    model.compile(keras2.LAMB.from_config(config), "mse")
    with pytest.warns(
        UserWarning, match="'net/' matches none .*describe"
    ) as seen:
        loaded = _save_and_load(model, tmp_path, suffix)
        x, _ = data()
        assert loaded.predict(x, verbose=0).shape == (64, 1)
        _fit(loaded)
    assert not any("\n" in str(w.message) for w in seen if "LAMB" in str(w))
    assert [decay for decay, _ in _treatments(loaded)] == [
        True,
        False,
        True,
        True,
    ]


@pytest.mark.parametrize("name", ["LAMB", "LARS"])
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_loaded_run_goes_on_as_if_it_had_not_been_saved(
    tmp_path, name, suffix, recwarn
):
    optimizer = getattr(keras2, name)(
        keras2.WarmupPolynomial(0.02, 20, 3),
        weight_decay=0.1,
        exclude_from_weight_decay=["bias"],
        use_ema=True,
        gradient_accumulation_steps=3,
    )
    model = _fit(make_model(optimizer))  # 4 batches: in the middle of a cycle
    loaded = _save_and_load(model, tmp_path, suffix)
    assert int(loaded.optimizer.iterations) == 4
    _assert_same(_fit(loaded), _fit(model))
    assert loaded.optimizer.treatments == optimizer.treatments
    assert not [w for w in recwarn if "LA" in str(w.message)]


def test_a_clone_of_the_model_with_a_new_optimizer():
    model = _fit(make_model(_lamb(exclude_from_weight_decay=["hidden/bias"])))
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    clone.compile(keras2.LAMB.from_config(model.optimizer.get_config()), "mse")
    _fit(clone)
    assert _treatments(clone) == _treatments(model)
    assert int(clone.optimizer.iterations) == 4


@pytest.mark.parametrize("name", ["LAMB", "LARS"])
@pytest.mark.parametrize(
    "copied",
    [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))],
    ids=["deepcopy", "pickle"],
)
@pytest.mark.parametrize("what", ["optimizer", "model"])
def test_copies_go_on_where_the_original_was(name, copied, what):
    optimizer = getattr(keras2, name)(
        0.02, weight_decay=0.1, exclude_from_weight_decay=["bias"]
    )
    model = _fit(make_model(optimizer))
    optimizer.learning_rate = 0.01
    if what == "model":
        other = copied(model)
    else:
        again = copied(copied(optimizer))  # a copy of one that is not built
        assert int(again.iterations) == 4
        other = make_model(again)
        other.set_weights(model.get_weights())
    assert type(other.optimizer) is type(optimizer)
    _assert_same(_fit(other), _fit(model))
    assert float(other.optimizer.learning_rate) == pytest.approx(0.01)
    assert other.optimizer is not optimizer


def test_one_optimizer_for_two_models_is_refused():
    optimizer = _lamb()
    _fit(make_model(optimizer))
    with pytest.raises(ValueError, match="another model.*from_config"):
        _fit(make_model(optimizer))


def _freeze(model, *names, optimizer=None):
    for layer in model.layers:
        layer.trainable = layer.name not in names
    model.compile(optimizer or _lamb(use_ema=True), "mse")
    return model


def test_unfreezing_without_a_new_optimizer_says_what_to_do():
    model = _fit(_freeze(make_model("sgd"), "hidden"))
    with pytest.raises(ValueError, match=r"unfrozen.*LAMB\.from_config"):
        _fit(_freeze(model, optimizer=model.optimizer))


def test_what_the_message_says_keeps_the_moments():
    model = _fit(_freeze(make_model("sgd"), "hidden"))
    old = model.optimizer
    state = {}
    old.save_own_variables(state)
    new = keras2.LAMB.from_config(old.get_config())
    _freeze(model, optimizer=new)
    new.build(model.trainable_variables)
    with pytest.warns(UserWarning, match="no state of 2 of 4 .*hidden/kernel"):
        new.load_own_variables(state)
    assert int(new.iterations) == 4
    for slots, before in zip(new._slots, old._slots):
        for slot, value in zip(slots[2:], before):
            np.testing.assert_array_equal(slot, value)
        assert np.abs(slots[0]).max() == 0
    _fit(model)


def test_an_epoch_of_a_frozen_part_keeps_its_average():
    model = _fit(_freeze(make_model("sgd")))
    optimizer = model.optimizer
    frozen = model.get_weights()[:2]
    _fit(_freeze(model, "hidden", optimizer=optimizer))
    for a, b in zip(model.get_weights(), frozen):
        np.testing.assert_array_equal(a, b)


def test_a_model_file_of_addons_goes_on():
    """`addons_model/write.py` made it; where tfa is not imported."""
    folder = Path(__file__).parent / "addons_model"
    code = (
        "import sys, numpy as np\n"
        "from tf_lamb import keras2\n"
        f"expected = np.load({str(folder / 'expected.npz')!r})\n"
        "model = keras2.keras.models.load_model("
        f"{str(folder / 'model.h5')!r})\n"
        "assert type(model.optimizer) is keras2.LAMB\n"
        "assert int(model.optimizer.iterations) == 4\n"
        "x = expected['x']\n"
        "model.fit(x, x[:, :1], 16, shuffle=False, verbose=0)\n"
        "for i, w in enumerate(model.get_weights()):\n"
        "    e = expected[f'weight_{i}']\n"
        "    np.testing.assert_allclose(w, e, rtol=0, atol=1e-6)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("arguments", [{}, {"use_ema": True}], ids=["", "EMA"])
def test_an_optimizer_made_outside_the_scope_works(mirrored, arguments):
    inside = None
    weights = []
    for optimizer in (_lamb(**arguments), inside):
        with mirrored.scope():
            model = make_model(optimizer or _lamb(**arguments))
        fit(model, 2)
        assert int(model.optimizer.iterations.numpy()) == 8
        weights.append(model.get_weights())
    for a, b in zip(*weights):
        np.testing.assert_array_equal(a, b)


def test_a_model_made_outside_the_scope_is_refused(mirrored):
    with mirrored.scope():
        optimizer = _lamb()
    with pytest.raises(ValueError, match="'hidden/kernel:0' was not; make the"):
        fit(make_model(optimizer))


def test_optimizer_and_model_of_two_strategies(mirrored):
    other = tf.distribute.OneDeviceStrategy("CPU:0")
    with mirrored.scope():
        optimizer = _lamb()
    with other.scope():
        model = make_model("sgd")
    with pytest.raises(ValueError, match="of OneDeviceStrategy, but the opt"):
        optimizer.build(model.trainable_variables)
