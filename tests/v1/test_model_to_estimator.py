"""`model_to_estimator`: with a v1 optimizer it trains, else it says what to do.

It replaces the optimizers of TensorFlow 2.15's Keras by legacy ones.
"""

import numpy as np
import pytest
import tensorflow as tf

from tests.reference.lamb import ReferenceLAMB
from tf_lamb import keras2, v1

if not hasattr(tf, "estimator"):
    pytest.skip("Estimator ends with TensorFlow 2.15", allow_module_level=True)

X = np.random.default_rng(0).normal(size=(8, 3)).astype("float32")


def _input_fn():
    return tf.data.Dataset.from_tensors((X, X[:, :1])).repeat()


def _model(optimizer):
    tf.keras.utils.set_random_seed(0)
    layers = [tf.keras.layers.Dense(1, input_shape=(3,), name="out")]
    model = tf.keras.Sequential(layers)
    model.compile(optimizer, "mse")
    return model


def test_v1_trains_and_resumes(tmp_path):
    arguments = dict(weight_decay=0.1)
    model = _model(v1.LAMBOptimizer(0.1, **arguments))
    reference = ReferenceLAMB(0.1, **arguments)
    params = dict(zip(("kernel", "bias"), map(np.float64, model.get_weights())))
    estimator = tf.keras.estimator.model_to_estimator(
        keras_model=model, model_dir=str(tmp_path)
    )
    estimator.train(_input_fn, steps=3)
    estimator.train(_input_fn, steps=2)
    for _ in range(5):
        errors = X @ params["kernel"] + params["bias"] - X[:, :1]
        grads = {
            "kernel": 2 * X.T @ errors / len(X),
            "bias": 2 * errors.mean(0),
        }
        params = reference.step(params, grads)
    for name, value in params.items():
        key = f"layer_with_weights-0/{name}/.ATTRIBUTES/VARIABLE_VALUE"
        got = estimator.get_variable_value(key)
        np.testing.assert_allclose(got, value, atol=1e-5)


@pytest.mark.parametrize("name", ["LAMB", "LARS"])
def test_the_optimizer_of_keras_says_what_to_compile_with(name):
    model = _model(getattr(keras2, name)(0.1))
    line = rf"compile the model with tf_lamb.v1.{name}Optimizer\(...\)"
    with pytest.raises(ValueError, match=line) as caught:
        tf.keras.estimator.model_to_estimator(keras_model=model)
    assert "\n" not in str(caught.value)
