"""One training step with the installed tf_lamb, far from the repository.

`python -I train_step.py tf_lamb.keras3 jax`: the front end and the Keras
backend that are to be found. It needs nothing of this repository.
"""

import importlib.metadata
import sys
from pathlib import Path

import numpy as np

import tf_lamb

RATE = 0.1


def keras_of(front_end: str, backend: str):
    """The Keras that `tf_lamb.LAMB` belongs to, checked."""
    assert tf_lamb.LAMB.__module__ == front_end, tf_lamb.LAMB.__module__
    if front_end == "tf_lamb.keras2":
        return tf_lamb.keras2.keras
    import keras

    assert keras.config.backend() == backend, keras.config.backend()
    return keras


def fit_one_step(keras) -> None:
    """LAMB's first step moves a matrix by the rate times its norm."""
    model = keras.Sequential([keras.layers.Dense(3)])
    model.build((None, 4))
    model.compile(
        optimizer=tf_lamb.LAMB(
            RATE, weight_decay=0.01, exclude_from_weight_decay=["bias"]
        ),
        loss="mse",
    )
    before = model.get_weights()
    x = np.linspace(-1.0, 1.0, 32, dtype="float32").reshape(8, 4)
    model.fit(x, x[:, :3] ** 2, batch_size=8, epochs=1, verbose=0)
    kernel, bias = (after - b for after, b in zip(model.get_weights(), before))
    moved = np.linalg.norm(kernel) / np.linalg.norm(before[0])
    assert np.isclose(moved, RATE, rtol=1e-3), moved
    # Excluded, so not adapted: Adam's first step, the rate itself.
    assert np.allclose(np.abs(bias), RATE, rtol=1e-2), bias


def train_one_step_of_v1() -> None:
    """The same with `tf_lamb.v1` in a graph of TensorFlow 1."""
    import tensorflow as tf

    with tf.Graph().as_default():
        w = tf.compat.v1.get_variable(
            "w", initializer=tf.constant([[3.0, 0.0], [0.0, 4.0]])
        )
        loss = tf.reduce_sum(w * [[1.0, 2.0], [3.0, 4.0]])
        step = tf_lamb.v1.LAMBOptimizer(RATE).minimize(loss)
        with tf.compat.v1.Session() as session:
            session.run(tf.compat.v1.global_variables_initializer())
            before = session.run(w)
            session.run(step)
            moved = np.linalg.norm(session.run(w) - before) / 5.0
    assert np.isclose(moved, RATE, rtol=1e-3), moved


def main(front_end: str, backend: str) -> None:
    place = Path(tf_lamb.__file__).resolve()
    assert place.is_relative_to(Path(sys.prefix).resolve()), place
    fit_one_step(keras_of(front_end, backend))
    if backend == "tensorflow":
        train_one_step_of_v1()
    versions = []
    for name in (
        "tensorflow",
        "tensorflow-cpu",
        "keras",
        "tf_keras",
        "jax",
        "torch",
    ):
        try:
            versions.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            pass
    print(f"tf_lamb {tf_lamb.__version__}, {', '.join(versions)}: one step")


if __name__ == "__main__":
    main(*sys.argv[1:])
