"""Writes this folder anew: a model that tfa.optimizers.LAMB trained 4 steps.

    .venv-tf215/bin/python -m tests.keras2.addons_model.write

`expected.npz` has the data and the weights after 4 more. TensorFlow 2.15, tfa
0.23.
"""

from pathlib import Path

import numpy as np
import tensorflow as tf
import tensorflow_addons as tfa

FOLDER = Path(__file__).parent


def make_model():
    tf.keras.utils.set_random_seed(0)
    layers = [
        tf.keras.Input((8,)),
        tf.keras.layers.Dense(4, "tanh", name="hidden"),
        tf.keras.layers.Dense(1, name="out"),
    ]
    model = tf.keras.Sequential(layers, name="net")
    rate = tf.keras.optimizers.schedules.PolynomialDecay(0.05, 16)
    optimizer = tfa.optimizers.LAMB(
        rate, weight_decay=0.1, exclude_from_weight_decay=["bias"]
    )
    model.compile(optimizer, "mean_squared_error")
    return model


if __name__ == "__main__":
    x = np.random.default_rng(0).normal(size=(64, 8)).astype("float32")
    model = make_model()
    data = dict(x=x, y=x[:, :1], batch_size=16, shuffle=False, verbose=0)
    model.fit(**data)
    model.save(FOLDER / "model.h5")
    model.fit(**data)
    weights = {f"weight_{i}": w for i, w in enumerate(model.get_weights())}
    np.savez(FOLDER / "expected.npz", x=x, **weights)
