"""Files, copies and clones of a model: exclusions and state go along."""

import copy
import pickle
import warnings
from pathlib import Path

import keras
import numpy as np
import pytest

import tf_lamb

X = np.random.default_rng(0).normal(size=(64, 8)).astype("float32")
OPTIMIZERS = ("LAMB", "LARS")
# As a user copies it from `describe()`; the loaded model is without `net/`.
EXACT = ["^net/hidden/bias$"]


def _model(optimizer=None, name="net", layers=("hidden", "middle", "out")):
    keras.utils.set_random_seed(0)
    *inner, last = layers
    model = keras.Sequential(
        [
            keras.Input((8,)),
            *(keras.layers.Dense(8, "tanh", name=layer) for layer in inner),
            keras.layers.Dense(1, name=last),
        ],
        name=name,
    )
    if optimizer is not None:
        _compile(model, optimizer)
    return model


def _compile(model, optimizer):
    loss = keras.losses.MeanSquaredError()
    model.compile(optimizer, loss, jit_compile=False)


def _fit(model):
    model.fit(X, X[:, :1], batch_size=16, shuffle=False, verbose=0)
    return model


def _lamb(**arguments):
    return tf_lamb.LAMB(0.02, weight_decay=0.1, **arguments)


def _treatments(model):
    treatments = model.optimizer.treatments.values()
    return [(t.decay, t.adapt) for t in treatments]


def _assert_same(model, other):
    # On JAX, steps that are compiled anew may round otherwise.
    for a, b in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=2e-7)


def _save_and_load(model, tmp_path, suffix):
    path = tmp_path / f"model{suffix}"
    model.save(path)
    return keras.models.load_model(path)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("built", [True, False], ids=["fitted", "compiled"])
def test_a_pattern_with_the_models_name_does_not_close_the_file(
    tmp_path, suffix, built
):
    model = _model(_lamb(exclude_from_weight_decay=EXACT))
    if built:
        _fit(model)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        loaded = _save_and_load(model, tmp_path, suffix)
        predicted = loaded.predict(X, verbose=0)
        expected = model.predict(X, verbose=0)
        np.testing.assert_allclose(predicted, expected, atol=1e-6)
        _fit(loaded)
    ours = [str(w.message) for w in seen if "LAMB" in str(w.message)]
    # Paths of `.h5` files are those of the saved model.
    assert len(ours) == (suffix == ".keras")
    assert all("net/hidden/bias" in text and "\n" not in text for text in ours)
    if built:
        assert _treatments(loaded) == _treatments(model)
        assert _treatments(loaded).count((False, False)) == 1
        _assert_same(loaded, _fit(model))


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_loaded_run_goes_on_as_if_it_had_not_been_saved(
    tmp_path, recwarn, name, suffix
):
    optimizer = getattr(tf_lamb, name)(
        tf_lamb.WarmupPolynomial(0.02, 20, 3),
        weight_decay=0.1,
        exclude_from_weight_decay=["bias"],
        use_ema=True,
        gradient_accumulation_steps=3,
    )
    model = _fit(_model(optimizer))  # 4 batches: in the middle of a cycle
    loaded = _save_and_load(model, tmp_path, suffix)
    assert int(loaded.optimizer._iterations) == 4
    _assert_same(_fit(loaded), _fit(model))
    assert loaded.optimizer.treatments.keys() != model.optimizer.treatments
    assert _treatments(loaded) == _treatments(model)
    assert not [w for w in recwarn if "LA" in str(w.message)]


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("adapt", [None, []], ids=["same", "all_adapted"])
def test_variables_excluded_by_list_stay_excluded(tmp_path, suffix, adapt):
    optimizer = _lamb(exclude_from_layer_adaptation=adapt)
    by_name = _lamb(exclude_from_layer_adaptation=adapt)
    model, other = _model(optimizer), _model(by_name)
    small = [v for v in model.trainable_variables if len(v.shape) == 1]
    optimizer.exclude_from_weight_decay(var_list=small)
    by_name.exclude_from_weight_decay(var_names=["bias"])
    _assert_same(_fit(model), _fit(other))
    assert _treatments(model) == _treatments(other)
    loaded = _save_and_load(model, tmp_path, suffix)
    _assert_same(_fit(loaded), _fit(model))
    assert _treatments(loaded) == _treatments(other)


@keras.saving.register_keras_serializable(package="tf_lamb_tests")
class Numbered(keras.Model):
    """Its layers get numbers from Keras, other ones in each process."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.one, self.two = keras.layers.Dense(8), keras.layers.Dense(8)

    def call(self, inputs):
        return self.two(self.one(inputs))


def test_numbers_of_made_up_names_may_change(tmp_path):
    keras.utils.set_random_seed(0)
    keras.backend.clear_session()
    model = Numbered()
    model(X)
    last = model.two.bias.path
    assert "_1/" in last
    _compile(model, _lamb(exclude_from_weight_decay=[f"^{last}$"]))
    _fit(model)
    # A layer more: what was dense_1 is dense_2 in the loaded model.
    keras.backend.clear_session()
    keras.layers.Dense(1).build((1, 1))
    path = tmp_path / "model.keras"
    model.save(path)
    with pytest.warns(UserWarning, match="as they were saved"):
        loaded = keras.models.load_model(path)
    assert loaded.two.bias.path != last
    assert _treatments(loaded) == _treatments(model)
    assert not loaded.optimizer.treatments[loaded.two.bias.path].decay


def test_patterns_of_a_changed_config_count():
    optimizer = _lamb(exclude_from_weight_decay=["hidden"])
    _fit(_model(optimizer))
    config = optimizer.get_config()
    config["exclude_from_weight_decay"] = ["out"]
    other = _fit(_model(tf_lamb.LAMB.from_config(config)))
    assert [decay for decay, _ in _treatments(other)] == [True] * 4 + [
        False
    ] * 2


def test_a_config_is_json_and_fits_the_constructor():
    import json

    optimizer = _lamb(exclude_from_weight_decay=EXACT)
    assert "excluded_variables" not in optimizer.get_config()
    _fit(_model(optimizer))
    config = optimizer.get_config()
    again = json.loads(json.dumps(config))
    assert again == config
    for other in (tf_lamb.LAMB(**again), tf_lamb.LAMB.from_config(again)):
        assert other.get_config() == config
    assert again == config  # from_config has not changed it


def test_a_clone_of_the_model_with_a_new_optimizer():
    model = _fit(_model(_lamb(exclude_from_weight_decay=EXACT)))
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    config = model.optimizer.get_config()
    _compile(clone, tf_lamb.LAMB.from_config(config))
    _fit(clone)
    assert _treatments(clone) == _treatments(model)
    assert int(clone.optimizer.iterations) == 4


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize(
    "copied",
    [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))],
    ids=["deepcopy", "pickle"],
)
@pytest.mark.parametrize("what", ["optimizer", "model"])
def test_copies_go_on_where_the_original_was(name, copied, what):
    optimizer = getattr(tf_lamb, name)(
        0.02, weight_decay=0.1, exclude_from_weight_decay=["bias"]
    )
    model = _fit(_model(optimizer))
    optimizer.learning_rate = 0.01
    if what == "model":
        other = copied(model)
    else:
        again = copied(copied(optimizer))  # a copy of one that is not built
        assert int(again.iterations) == 4
        other = _model()
        other.set_weights(model.get_weights())
        _compile(other, again)
    assert type(other.optimizer) is type(optimizer)
    _assert_same(_fit(other), _fit(model))
    assert float(other.optimizer.learning_rate) == pytest.approx(0.01)
    assert other.optimizer is not optimizer


def test_a_copy_that_is_used_for_another_model_says_so():
    other = copy.deepcopy(_fit(_model(_lamb())).optimizer)
    with pytest.warns(UserWarning, match="saved arrays do not fit") as seen:
        _fit(_model(other, layers=("a", "b")))
    assert int(other.iterations) == 4  # of this fit
    ours = [w for w in seen if "saved arrays" in str(w.message)]
    assert len(ours) == 1 and "\n" not in str(ours[0].message)


def test_the_file_of_another_optimizer_is_named_as_a_reason(tmp_path):
    model = _fit(_model(keras.optimizers.SGD(0.1, momentum=0.9)))
    model.save_weights(tmp_path / "m.weights.h5")
    other = _fit(_model(_lamb()))
    with pytest.warns(UserWarning, match="or the file is another optimizer's"):
        other.load_weights(tmp_path / "m.weights.h5")


@pytest.mark.parametrize("layers", [("hidden", "out"), ("hidden", "m", "out")])
def test_one_optimizer_for_two_models_is_refused(layers):
    optimizer = _lamb()
    _fit(_model(optimizer))
    before = int(optimizer._iterations)
    with pytest.raises(
        ValueError, match="another model.*from_config"
    ) as raised:
        _fit(_model(optimizer, name="second", layers=layers))
    assert "\n" not in str(raised.value).split("\n\n")[0]
    assert before == 4


def _frozen(*names, optimizer=None, of=None):
    model = of or _model()
    for layer in model.layers:
        layer.trainable = layer.name not in names
    _compile(model, optimizer or _lamb(use_ema=True))
    return model


@pytest.mark.parametrize("compile_again", [True, False])
def test_unfreezing_without_a_new_optimizer_says_what_to_do(compile_again):
    model = _fit(_frozen("hidden"))
    model.layers[0].trainable = True
    if compile_again:
        _compile(model, model.optimizer)
    with pytest.raises(ValueError, match=r"unfrozen.*LAMB\.from_config"):
        _fit(model)
        # Without compiling again TensorFlow's step keeps to its variables.
        assert keras.backend.backend() == "tensorflow" and not compile_again
        raise ValueError("unfrozen LAMB.from_config")


def test_another_part_that_is_frozen_is_no_silent_exchange():
    """As many variables, of the same shapes: JAX's step cannot tell them."""
    model = _fit(_frozen("hidden"))
    with pytest.raises(ValueError, match="another model.*from_config"):
        _fit(_frozen("middle", optimizer=model.optimizer, of=model))


def test_what_the_message_says_keeps_the_moments():
    model = _fit(_frozen("hidden"))
    old = model.optimizer
    state = {}
    old.save_own_variables(state)
    new = tf_lamb.LAMB.from_config(old.get_config())
    _frozen(optimizer=new, of=model)
    new.build(model.trainable_variables)
    with pytest.warns(UserWarning, match="no state of 2 of 6 .*hidden/kernel"):
        new.load_own_variables(state)
    assert int(new.iterations) == 4
    for slots, before in [
        *zip(new._slots, old._slots),
        (
            new._model_variables_moving_average,
            old._model_variables_moving_average,
        ),
    ]:
        for slot, value in zip(slots[2:], before, strict=True):
            np.testing.assert_array_equal(slot, value)
        assert float(keras.ops.max(keras.ops.abs(slots[0]))) == 0
    assert list(new.trust_ratios.values())[2:] == list(
        old.trust_ratios.values()
    )
    _fit(model)


@pytest.mark.parametrize("suffix", [".weights.h5", ".keras"])
def test_a_file_of_a_partly_frozen_model(tmp_path, suffix):
    """Moments go to the variables they belong to, whatever is frozen now."""
    model = _fit(_frozen("hidden"))
    path = tmp_path / f"model{suffix}"
    (model.save_weights if "weights" in suffix else model.save)(path)
    other = _frozen("middle")
    other.optimizer.build(other.trainable_variables)
    with pytest.warns(UserWarning, match="no state of 2 of 4 .*hidden/kernel"):
        if "weights" in suffix:
            other.load_weights(path)
        else:
            state = {}
            model.optimizer.save_own_variables(state)
            other.optimizer.load_own_variables(state)
    old, new = model.optimizer._slots[0], other.optimizer._slots[0]
    np.testing.assert_array_equal(new[2], old[2])  # of `out`
    assert float(keras.ops.max(keras.ops.abs(new[0]))) == 0  # not of `middle`


def test_a_model_with_nothing_to_train():
    model = _frozen("hidden", "middle", "out", optimizer=_lamb())
    before = model.get_weights()
    try:
        _fit(model)
    except ValueError as error:
        # What the backend says of a loss without gradients.
        assert keras.backend.backend() == "torch" or "gradient" in str(error)
    model.evaluate(X, X[:, :1], verbose=0)
    for a, b in zip(before, model.get_weights()):
        np.testing.assert_array_equal(a, b)
    assert not model.optimizer.built


def test_state_of_another_shape_is_refused_as_a_whole():
    optimizer = _fit(_model(_lamb())).optimizer
    weights = [keras.ops.convert_to_numpy(v) for v in optimizer.variables]
    before = [np.array(x) for x in weights]
    weights[0] = weights[0] + 3
    with pytest.raises(ValueError, match="do not fit the optimizer of 6"):
        optimizer.set_weights([*weights[:-1], weights[-1][:0]])
    for variable, value in zip(optimizer.variables, before):
        np.testing.assert_array_equal(variable, value)
    optimizer.set_weights(weights)
    assert int(optimizer.iterations) == 7


def test_set_weights_before_build_raises_as_keras_does():
    with pytest.raises(ValueError, match="not yet been built"):
        _lamb().set_weights([np.zeros(())])


ADDONS = Path(__file__).parents[1] / "keras2" / "addons_model"


def test_a_model_file_of_addons_goes_on_with_moments_step_and_schedule():
    """`addons_model/write.py` made it, with TensorFlow 2.15 and tfa."""
    model = keras.models.load_model(ADDONS / "model.h5")
    assert type(model.optimizer) is tf_lamb.LAMB
    assert int(model.optimizer.iterations) == 4
    with np.load(ADDONS / "expected.npz") as expected:
        x = expected["x"]
        model.fit(x, x[:, :1], batch_size=16, shuffle=False, verbose=0)
        for i, weight in enumerate(model.get_weights()):
            value = expected[f"weight_{i}"]
            np.testing.assert_allclose(weight, value, rtol=0, atol=1e-6)
    assert not model.optimizer.treatments["net/hidden/bias"].decay
