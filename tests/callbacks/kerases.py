"""The Kerases that the environment has, and small models for their callbacks.

Wherever the tests run, it is one of Keras 3 on TensorFlow, JAX or torch,
tf_keras, and tf.keras of TensorFlow 2.15.
"""

import importlib.util
import os
import types

import numpy as np
import pytest

POLICIES = ("float32", "mixed_float16")
BATCH, BATCHES = 4, 4
PATHS = ["hidden/kernel", "hidden/bias", "out/kernel", "out/bias"]


def _kerases():
    """{name in the tests' ids: our module for it}."""
    keras = importlib.import_module("keras")
    if keras.__version__.startswith("2."):
        return {"tf.keras": "tf_lamb.keras2"}
    backend = os.environ.get("KERAS_BACKEND", "tensorflow")
    found = {f"keras-{backend}": "tf_lamb.keras3"}
    if backend == "tensorflow" and importlib.util.find_spec("tf_keras"):
        found["tf_keras"] = "tf_lamb.keras2"
    return found


KERASES = _kerases()


def _where(has, lack):
    """The names in KERASES, those that lack something as skipped tests."""
    return [
        name
        if has(name)
        else pytest.param(name, marks=pytest.mark.skip(f"{name}: {lack}"))
        for name in KERASES
    ]


def front_end(name):
    """`.keras` and our `.LAMB` and `.LARS` of one of KERASES."""
    module = importlib.import_module(KERASES[name])
    return types.SimpleNamespace(
        name=name, keras=module.keras, LAMB=module.LAMB, LARS=module.LARS
    )


def make_model(
    front, policy="float32", optimizer=None, names=("hidden", "out")
):
    """Two dense layers, compiled; always the same initial weights.

    Under mixed_float16, Keras 3 and tf_keras put a loss scaler around the
    optimizer.
    """
    layers = front.keras.layers
    front.keras.utils.set_random_seed(0)
    _set_policy(front, policy)
    inputs = front.keras.Input((5,))
    hidden = layers.Dense(8, "tanh", name=names[0])(inputs)
    outputs = layers.Dense(1, name=names[1])(hidden)
    outputs = layers.Activation("linear", dtype="float32")(outputs)
    model = front.keras.Model(inputs, outputs)
    optimizer = optimizer or front.LAMB(0.05)
    model.compile(optimizer, "mse")
    _set_policy(front, "float32")
    return model


def _set_policy(front, policy):
    set_policy = getattr(front.keras.mixed_precision, "set_global_policy", None)
    (set_policy or front.keras.config.set_dtype_policy)(policy)


def kernels_and_biases(front, biases=None):
    """A MultiOptimizer: LAMB on kernels, LARS (or another) on biases."""
    lamb, biases = front.LAMB(0.05, name="first"), biases or front.LARS(0.05)
    optimizer = front.keras.optimizers.MultiOptimizer(
        lambda v: lamb if v.path.endswith("kernel") else biases
    )
    return optimizer, lamb, biases


def fit(model, callbacks=(), epochs=1, first=0, batches=BATCHES):
    """Trains on batches `first` to `batches` - 1 of always the same ones."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(BATCH * batches, 5)).astype("float32")[BATCH * first :]
    model.fit(
        *(x, x[:, :1] - x[:, 1:2]),
        batch_size=BATCH,
        epochs=epochs,
        shuffle=False,
        verbose=0,
        callbacks=list(callbacks),
    )


def _has_multi_optimizer(name):
    return hasattr(front_end(name).keras.optimizers, "MultiOptimizer")


ON_TENSORFLOW = _where(
    lambda name: name not in ("keras-jax", "keras-torch"),
    "tf.distribute is TensorFlow's",
)
WITH_TENSORBOARD = _where(
    lambda _: importlib.util.find_spec("tensorflow") is not None,
    "TensorFlow, which writes TensorBoard's files, is not installed",
)
WITH_MULTI_OPTIMIZER = _where(
    _has_multi_optimizer, "this Keras has no MultiOptimizer"
)
WITH_SEVERAL_STEPS = _where(
    lambda name: (
        name != "keras-torch"
        # tf.keras of TensorFlow 2.15 has no version of its own.
        and not getattr(front_end(name).keras, "__version__", "2").startswith(
            "3.10."
        )
    ),
    "Keras has no steps_per_execution on torch, and 3.10 tells callbacks an "
    "execution's first batch",
)
