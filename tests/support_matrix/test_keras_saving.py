"""Configs, states and files of an optimizer: rows of `keras_table`."""

import copy
import json
import pickle

import numpy as np
import pytest

from tests.support_matrix.keras_front_end import behaviour

ONES = [1.0, 1.0]
ARGUMENTS = dict(
    weight_decay=0.1,
    exclude_from_weight_decay=["bias"],
    exclude_from_layer_adaptation=[],
)


def _trained(front, **arguments):
    """An optimizer with a state, and its variables."""
    optimizer = front.LAMB(0.1, **arguments)
    variables = [front.variable(ONES, name=n) for n in ("kernel", "bias")]
    for _ in range(2):
        front.step(optimizer, *(([0.5, -1.0], v) for v in variables))
    return optimizer, variables


def _twin(front, optimizer, variables):
    """Another optimizer of the same config, built with equal variables."""
    twins = [
        front.variable(front.numpy(v), name=n)
        for n, v in zip(("kernel", "bias"), variables)
    ]
    twin = type(optimizer).from_config(optimizer.get_config())
    twin.build(twins)
    return twin, twins


def _assert_same_steps(front, optimizer, variables, twin, twins):
    for each, own in ((optimizer, variables), (twin, twins)):
        front.step(each, *(([0.25, 1.0], v) for v in own))
    for one, two in zip(
        [*variables, *optimizer.variables],
        [*twins, *twin.variables],
        strict=True,
    ):
        np.testing.assert_array_equal(front.numpy(one), front.numpy(two))


@behaviour("config: from it and to it")
def test_config(front):
    for optimizer in (
        front.LAMB(0.1, beta_1=0.5, **ARGUMENTS),
        front.LARS(0.1, momentum=0.5, form="timm", **ARGUMENTS),
    ):
        config = optimizer.get_config()
        again = type(optimizer).from_config(config)
        assert again.get_config() == config
        for name, value in ARGUMENTS.items():
            assert config[name] == value


@behaviour("`serialize`, `deserialize`, `get`")
def test_serialize(front):
    optimizers = front.keras.optimizers
    optimizer = front.LAMB(0.1, **ARGUMENTS)
    as_dict = json.loads(json.dumps(optimizers.serialize(optimizer)))
    for again in (optimizers.deserialize(as_dict), optimizers.get(as_dict)):
        assert type(again) is front.LAMB
        assert again.get_config() == optimizer.get_config()
    assert optimizers.get(optimizer) is optimizer
    # What is registered is found by its registered name.
    by_name = {"class_name": "tf_lamb>LAMB", "config": {"beta_1": 0.5}}
    found = optimizers.get(by_name)
    assert type(found) is front.LAMB and found.beta_1 == 0.5
    with pytest.raises(ValueError):
        optimizers.get("lambda")


@behaviour("a name that is given is kept")
def test_name(front):
    optimizer = front.LAMB(name="mine")
    assert optimizer.name == "mine"
    again = type(optimizer).from_config(optimizer.get_config())
    assert again.name == "mine"


@behaviour("names that are not given are unique")
def test_names(front):
    assert front.LAMB().name != front.LAMB().name


@behaviour("state of another one: `set_weights`")
def test_set_weights(front):
    optimizer, variables = _trained(front)
    with pytest.raises(ValueError):
        front.LAMB(0.1).set_weights([front.numpy(v) for v in variables])
    twin, twins = _twin(front, optimizer, variables)
    twin.set_weights([front.numpy(v) for v in optimizer.variables])
    _assert_same_steps(front, optimizer, variables, twin, twins)


@behaviour("`save_own_variables`, `load_own_variables`")
def test_own_variables(front):
    optimizer, variables = _trained(front)
    store = {}
    optimizer.save_own_variables(store)
    numbers = sorted(name for name in store if name != "paths")
    assert numbers == sorted(map(str, range(len(optimizer.variables))))
    twin, twins = _twin(front, optimizer, variables)
    twin.load_own_variables({n: np.array(x) for n, x in store.items()})
    _assert_same_steps(front, optimizer, variables, twin, twins)


def _through_file(front, path):
    """A trained model with its optimizer, and what its file holds."""
    optimizer = front.LAMB(0.05, **ARGUMENTS)
    model = front.model(optimizer)
    front.fit(model)
    model.save(path)
    load = getattr(front.keras, "saving", front.keras.models).load_model
    loaded = load(path)
    assert loaded.optimizer.get_config() == optimizer.get_config()
    x = np.eye(3, dtype="float32")
    np.testing.assert_array_equal(
        model.predict(x, verbose=0), loaded.predict(x, verbose=0)
    )
    return model, loaded


def _assert_resumes(front, model, loaded):
    for each in (model, loaded):
        front.fit(each)
    for one, two in zip(
        [*model.variables, *model.optimizer.variables],
        [*loaded.variables, *loaded.optimizer.variables],
        strict=True,
    ):
        np.testing.assert_array_equal(front.numpy(one), front.numpy(two))


@behaviour("`.keras` file")
def test_keras_file(front, tmp_path):
    pair = _through_file(front, str(tmp_path / "model.keras"))
    _assert_resumes(front, *pair)


@behaviour("`.h5` file: loads and predicts")
def test_h5_file(front, tmp_path):
    _through_file(front, str(tmp_path / "model.h5"))


@behaviour("`.h5` file: resumes")
def test_h5_file_resumes(front, tmp_path):
    pair = _through_file(front, str(tmp_path / "model.h5"))
    _assert_resumes(front, *pair)


@behaviour("`tf.train.Checkpoint`")
def test_checkpoint(front, tmp_path):
    import tensorflow as tf

    optimizer, variables = _trained(front)
    twin, twins = _twin(front, optimizer, variables)

    def checkpoint(optimizer, variables):
        natives = [getattr(v, "value", v) for v in variables]
        natives = variables if not front.is_keras_3 else natives
        return tf.train.Checkpoint(optimizer=optimizer, weights=natives)

    path = checkpoint(optimizer, variables).save(str(tmp_path / "at"))
    front.step(optimizer, ([1.0, 1.0], variables[0]))
    for each, own in ((optimizer, variables), (twin, twins)):
        checkpoint(each, own).restore(path).assert_consumed()
    _assert_same_steps(front, optimizer, variables, twin, twins)


@behaviour("`pickle`, `deepcopy`")
def test_pickle(front):
    optimizer = front.LAMB(0.1, **ARGUMENTS)
    for again in (
        pickle.loads(pickle.dumps(optimizer)),
        copy.deepcopy(optimizer),
    ):
        assert again is not optimizer
        assert again.get_config() == optimizer.get_config()
        v = front.variable(ONES, name="bias")
        front.step(again, ([0.5, 0.5], v))
        front.close(v, [0.9, 0.9], 1e-4)


@behaviour("`clone_model`, compiled from its config")
def test_clone(front):
    """Keras clones layers; the config of `compile` makes a new optimizer."""
    model = front.model(front.LAMB(0.05, **ARGUMENTS))
    front.fit(model)
    clone = front.keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    clone.compile_from_config(model.get_compile_config())
    assert clone.optimizer is not model.optimizer
    assert clone.optimizer.get_config() == model.optimizer.get_config()
    before = [front.numpy(v) for v in model.trainable_variables]
    front.fit(clone)
    for v, expected in zip(model.trainable_variables, before):
        np.testing.assert_array_equal(front.numpy(v), expected)
