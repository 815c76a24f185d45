"""Which front ends the environment of this process has."""

import importlib
import importlib.metadata
import os

from tests.doors.table import FRONT_ENDS


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
        return ["tf.keras 2.15"]
    return ["Keras 3, TensorFlow"] + ["tf_keras"] * bool(_version("tf_keras"))


def keras_and_module(name):
    """The Keras of a front end, and our module for it."""
    module = importlib.import_module(f"tf_lamb.{FRONT_ENDS[name]}")
    return module.keras, module
