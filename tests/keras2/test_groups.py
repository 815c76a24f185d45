"""Groups in tf_keras: files, a frozen group, a rate that is set.

The numbers of every option are in `tests/group_cases.py`.
"""

import numpy as np
import pytest
import tensorflow as tf

from tests.keras2.problems import fit, make_model
from tf_lamb import Group, keras2

keras = keras2.keras


def _groups():
    schedule = keras2.WarmupPolynomial(0.05, 20, 4)
    return [
        Group("hidden/bias", frozen=True),
        Group("hidden", 0.5, weight_decay=schedule, trust_ratio_per="filter"),
        Group("", learning_rate=schedule, trust_ratio_per=0, beta_1=0.8),
    ]


def _fitted(times=1):
    model = make_model(keras2.LAMB(0.02, weight_decay=0.1, groups=_groups()))
    for _ in range(times):
        fit(model)
    return model


@pytest.mark.parametrize("suffix", [".keras", ".h5", "checkpoint"])
def test_a_file_has_groups_and_state(tmp_path, suffix):
    part, whole = _fitted(), _fitted(2)
    path = str(tmp_path / f"model{suffix}")
    if suffix == "checkpoint":
        loaded = _fitted(0)
        checkpoint = tf.train.Checkpoint(
            model=part, optimizer=part.optimizer
        ).write(path)
        tf.train.Checkpoint(model=loaded, optimizer=loaded.optimizer).restore(
            checkpoint
        )
    else:
        part.save(path)
        loaded = keras.models.load_model(path)
    fit(loaded)
    groups = [t.group for t in loaded.optimizer.treatments.values()]
    assert set(groups) == {0, 1, 2}
    for a, b in zip(whole.get_weights(), loaded.get_weights()):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-7)


def test_a_frozen_group_stays_and_has_no_moments():
    start, trained = _fitted(0), _fitted()
    places = [
        i
        for i, t in enumerate(trained.optimizer.treatments.values())
        if t.group == 0
    ]
    for i, (a, b) in enumerate(zip(start.get_weights(), trained.get_weights())):
        assert np.array_equal(a, b) == (i in places)
        assert (trained.optimizer._slots[0][i] is None) == (i in places)


def test_a_rate_that_is_set_is_that_of_all_but_of_own_rates():
    model = _fitted()
    model.optimizer.learning_rate = 0.0
    before = model.get_weights()
    fit(model)
    groups = [t.group for t in model.optimizer.treatments.values()]
    for group, a, b in zip(groups, before, model.get_weights()):
        assert np.array_equal(a, b) == (group != 2)


def test_a_config_has_the_groups_and_the_other_keras_reads_it():
    from_config = keras2.LAMB.from_config
    config = _fitted().optimizer.get_config()
    assert from_config(config).get_config()["groups"] == config["groups"]
    if tf.__version__ < "2.16":
        return
    from tf_lamb import keras3

    other = keras3.LAMB.from_config(config)
    assert isinstance(other.groups[1].weight_decay, keras3.WarmupPolynomial)
    back = from_config(other.get_config())
    assert isinstance(back.groups[1].weight_decay, keras2.WarmupPolynomial)
    assert [g.pattern for g in back.groups] == ["hidden/bias", "hidden", ""]


def test_a_constraint_moves_nothing_that_is_frozen():
    def bounded(x):
        return tf.clip_by_value(x, 0.9, 1.1)

    kept, trained = (
        tf.Variable(np.full(3, 2.0, "float32"), name=name, constraint=bounded)
        for name in ("kept", "trained")
    )
    groups = [Group("kept", frozen=True)]
    optimizer = keras2.LAMB(0.1, groups=groups)
    optimizer.apply_gradients([(tf.ones(3), kept), (tf.ones(3), trained)])
    np.testing.assert_array_equal(kept, 2.0)
    np.testing.assert_allclose(trained, 1.1)
