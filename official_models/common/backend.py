"""What a script asks of Keras' backend; TensorFlow is imported if it is that.

A script that needs TensorFlow for nothing else runs without it on JAX and
torch.
"""

from __future__ import annotations

import contextlib
import os

import keras
from absl import flags

from official_models.common import processes
from official_models.common.errors import InputError

FLAGS = flags.FLAGS
# Keras 2 has none; the scripts refuse it in one line, after their imports.
PyDataset = getattr(keras.utils, "PyDataset", object)
# Weights in float16 are not among them: small updates would be lost.
DTYPES = (
    "float32",
    "mixed_bfloat16",
    "mixed_float16",
    "bfloat16",
    "float64",
)


def check_dtype() -> None:
    """Refuses a --dtype that cannot be trained in, if there is the flag.

    Raises:
        InputError: it is none of `DTYPES`.
    """
    if "dtype" not in FLAGS:
        return
    if FLAGS.dtype not in DTYPES:
        raise InputError(
            f"--dtype {FLAGS.dtype}: expected one of {', '.join(DTYPES)}"
        )


def compiles_step() -> bool:
    """What `compile(jit_compile=...)` gets on one device, by --jit_compile.

    Without XLA, JAX runs op by op; torch has no such compiler.
    """
    always = {"jax": True, "torch": False}
    return always.get(keras.backend.backend(), FLAGS.jit_compile)


def repeat_exactly() -> None:
    """Makes TensorFlow's operations give the same bits each time.

    Not under --jit_compile: Keras refuses to compile under that switch. Other
    backends are left as they are.
    """
    if keras.backend.backend() == "tensorflow" and not FLAGS.jit_compile:
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()


def operation_threads() -> int:
    """Threads in which TensorFlow runs operations, of one graph or several."""
    import tensorflow as tf

    given = tf.config.threading.get_inter_op_parallelism_threads()
    environment = os.environ.get("TF_NUM_INTEROP_THREADS", "")
    if not given and environment.isdecimal():
        given = int(environment)
    return given or processes.cores()


def allow_nested_calls() -> None:
    """Gives TensorFlow two of these threads at least, before it computes.

    A `tf.numpy_function` keeps a thread while it runs. What it calls of
    TensorFlow needs another one: on a single core it would wait for ever. Where
    TensorFlow has computed something already, nothing changes.
    """
    import tensorflow as tf

    if operation_threads() < 2:
        with contextlib.suppress(RuntimeError):
            tf.config.threading.set_inter_op_parallelism_threads(2)
