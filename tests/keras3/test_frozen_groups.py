"""State of models of which another part was frozen: each moment its variable.

All layers have one shape, as most of a Transformer has.
"""

import keras
import numpy as np
import pytest

import tf_lamb
from tf_lamb import Group

X = np.random.default_rng(0).normal(size=(64, 8)).astype("float32")
LAYERS = [f"layer_{i}" for i in range(3)]


def _model(frozen=None, untrained=None):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((8,)), *(keras.layers.Dense(8, name=n) for n in LAYERS)],
        name="net",
    )
    if untrained:
        model.get_layer(untrained).trainable = False
    groups = [Group(frozen, frozen=True)] if frozen else []
    optimizer = tf_lamb.LAMB(0.02, groups=groups)
    model.compile(optimizer, "mse", jit_compile=False)
    optimizer.build(model.trainable_variables)
    return model


def _moments(model):
    """{path: its first moment}, of variables that have one."""
    slots = model.optimizer._slots[0]
    return {
        v.path: keras.ops.convert_to_numpy(slot)
        for v, slot in zip(model.trainable_variables, slots)
        if slot is not None
    }


def _trained(frozen):
    model = _model(frozen)
    model.fit(X, X, batch_size=16, shuffle=False, verbose=0)
    return model


@pytest.mark.parametrize("before, after", [("0", "2"), ("2", "0"), ("1", "")])
def test_each_moment_goes_to_its_own_variable(tmp_path, before, after):
    model = _trained(f"layer_{before}")
    model.save_weights(tmp_path / "m.weights.h5")
    other = _model(f"layer_{after}" if after else None)
    with pytest.warns(UserWarning, match=f"no state of 2 .*layer_{before}"):
        other.load_weights(tmp_path / "m.weights.h5")
    saved = _moments(model)
    for path, moment in _moments(other).items():
        if path in saved:
            np.testing.assert_array_equal(moment, saved[path])
            assert np.abs(moment).max() > 0
        else:
            assert f"layer_{before}" in path and np.abs(moment).max() == 0


def test_the_same_part_frozen_is_loaded_without_a_word(tmp_path, recwarn):
    model = _trained("layer_1")
    model.save_weights(tmp_path / "m.weights.h5")
    other = _model("layer_1")
    recwarn.clear()
    other.load_weights(tmp_path / "m.weights.h5")
    assert not [w for w in recwarn if w.category is UserWarning]
    saved = _moments(model)
    for path, moment in _moments(other).items():
        np.testing.assert_array_equal(moment, saved[path])


def test_places_that_numbers_make_doubtful_are_named(tmp_path):
    """Not trainable is not among the variables: only paths tell, or numbers."""
    model = _model(untrained="layer_0")
    model.fit(X, X, batch_size=16, verbose=0)
    model.save_weights(tmp_path / "m.weights.h5")
    other = _model(untrained="layer_2")
    with pytest.warns(UserWarning, match="'net/layer_1/kernel' went to 'net"):
        other.load_weights(tmp_path / "m.weights.h5")


def _towers():
    """Two models of one model, each with a layer `proj`: equal paths."""
    keras.utils.set_random_seed(0)
    inputs, outputs = [], []
    for name in ("user", "item"):
        x = keras.Input((8,))
        tower = keras.Model(x, keras.layers.Dense(8, name="proj")(x), name=name)
        inputs.append(keras.Input((8,)))
        outputs.append(tower(inputs[-1]))
    model = keras.Model(inputs, keras.layers.Add()(outputs))
    model.compile(tf_lamb.LAMB(0.02), "mse", jit_compile=False)
    return model


def test_two_variables_of_one_path_are_loaded_without_a_word(tmp_path, recwarn):
    model = _towers()
    model.fit([X, X[::-1]], X, batch_size=16, shuffle=False, verbose=0)
    paths = [v.path for v in model.trainable_variables]
    assert len({*paths}) == len(paths) / 2 == 2
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    assert not [w for w in recwarn if "LAMB" in str(w.message)]
    for a, b in zip(
        model.optimizer.variables, loaded.optimizer.variables, strict=True
    ):
        a, b = map(keras.ops.convert_to_numpy, (a, b))
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("given", [True, False], ids=["given", "built"])
def test_a_constraint_moves_nothing_that_is_frozen(given):
    variables = [
        keras.Variable(np.full(3, 2.0, "float32"), name=name)
        for name in ("kept", "trained")
    ]
    for variable in variables:
        variable.constraint = keras.constraints.UnitNorm(axis=0)
    optimizer = tf_lamb.LAMB(0.1, groups=[Group("kept", frozen=True)])
    if not given:
        optimizer.build(variables)
    grads = [keras.ops.ones(3)] * 2
    optimizer.apply(grads, variables if given else None)
    kept, trained = map(keras.ops.convert_to_numpy, variables)
    np.testing.assert_array_equal(kept, 2.0)
    assert np.linalg.norm(trained) == pytest.approx(1, 1e-5)
    assert int(optimizer.iterations) == 1
