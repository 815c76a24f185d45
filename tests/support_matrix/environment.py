"""Which front ends the environment of this process has."""

import importlib
import importlib.metadata
import os
import types

from tests.support_matrix.table import FRONT_ENDS


def _version(package):
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def available():
    """Names of the front ends that can be run here."""
    backend = os.environ.get("KERAS_BACKEND", "tensorflow")
    if backend != "tensorflow":
        return ["Keras 3, JAX" if backend == "jax" else "Keras 3, torch"]
    if _version("keras").startswith("2."):
        return ["tf.keras 2.15", "tf.compat.v1"]
    tf_keras = ["tf_keras", "tf.compat.v1"] if _version("tf_keras") else []
    return ["Keras 3, TensorFlow", *tf_keras]


def keras_and_module(name):
    """The Keras of a front end, and our module for it."""
    if FRONT_ENDS[name] == "v1":
        # Any Keras' models will do; its variables are what is trained.
        keras2 = importlib.import_module("tf_lamb.keras2")
        v1 = importlib.import_module("tf_lamb.v1")
        return keras2.keras, types.SimpleNamespace(
            LAMB=v1.LAMBOptimizer, __name__=v1.__name__
        )
    module = importlib.import_module(f"tf_lamb.{FRONT_ENDS[name]}")
    return module.keras, module
