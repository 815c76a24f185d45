"""Weight decay that changes while training: schedules and functions."""

import json

import keras
import numpy as np
import pytest

import tf_lamb
from tests.keras3.test_set_hyperparameters import OPTIMIZERS, RATE, _fit, _model

END = 0.25


def _schedule():
    return tf_lamb.WarmupPolynomial(0.5, total_steps=4, end_learning_rate=END)


def _expected(decays):
    return np.prod([1 - RATE * decay for decay in decays])


@pytest.mark.parametrize("name, arguments", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_a_schedule_of_the_step(name, arguments):
    model = _model(name, arguments, weight_decay=_schedule())
    decays = [0.5, 0.4375, 0.375, 0.3125]
    np.testing.assert_allclose(_fit(model), _expected(decays[:2]), rtol=1e-5)
    np.testing.assert_allclose(_fit(model), _expected(decays[2:]), rtol=1e-5)
    with pytest.raises(AttributeError, match="weight_decay: (once|it stays)"):
        model.optimizer.weight_decay = 0.5


def test_a_schedule_is_saved(tmp_path):
    model = _model("LAMB", {}, weight_decay=_schedule())
    _fit(model)
    config = json.loads(json.dumps(model.optimizer.get_config()))
    again = tf_lamb.LAMB.from_config(config)
    assert again.get_config() == model.optimizer.get_config()
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(
        _fit(loaded), _expected([0.375, 0.3125]), rtol=1e-5
    )


def test_a_function_reads_what_changes_from_a_variable():
    decay = keras.Variable(0.5, trainable=False, name="decay")
    model = _model("LAMB", {}, weight_decay=lambda: decay.value)
    np.testing.assert_allclose(_fit(model), _expected([0.5] * 2), rtol=1e-5)
    with pytest.warns(UserWarning, match="a config cannot hold a function"):
        assert model.optimizer.get_config()["weight_decay"] == 0.5
    if keras.config.backend() != "jax":  # a value that JAX compiles in
        decay.assign(0.125)
        factors = _fit(model)
        np.testing.assert_allclose(factors, _expected([0.125] * 2), rtol=1e-5)
