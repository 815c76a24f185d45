"""Curvature of a small network, written for another library to check.

    python -m tests.diagnostics.second_opinion

writes `second_opinion.json`: weights, data, a vector, and what
`tf_lamb.diagnostics` finds for them, float64 on TensorFlow.
"""

import argparse
import json
import os
from pathlib import Path

import numpy as np

FILE = Path(__file__).with_suffix(".json")
MATRICES = ("hessian", "gauss_newton")


def arrays():
    """Weights in Keras' layout, images, labels and a vector."""
    random = np.random.default_rng(0)
    shapes = [(3, 3, 1, 2), (2,), (32, 5), (5,), (5, 3), (3,)]
    weights = [0.4 * random.normal(size=shape) for shape in shapes]
    x = random.normal(size=(16, 6, 6, 1))
    y = random.integers(0, 3, 16)
    return weights, x, y, random.normal(size=sum(w.size for w in weights))


def curvature(dtype):
    """The loss of the network at these weights.

    Args:
      dtype: of the model, "float32" or "float64".
    """
    import keras

    from tf_lamb.diagnostics.curvature import Curvature

    weights, x, y, _ = arrays()
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((6, 6, 1), dtype=dtype),
            layers.Conv2D(2, 3, activation="tanh", dtype=dtype),
            layers.Flatten(dtype=dtype),
            layers.Dense(5, activation="sigmoid", dtype=dtype),
            layers.Dense(3, dtype=dtype),
        ]
    )
    model.set_weights(weights)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss)
    return Curvature(model, (x.astype(dtype), y, None), batch_size=8)


def found(dtype):
    """Products with the vector and largest eigenvalues.

    Args:
      dtype: of the model.
    """
    from tf_lamb.diagnostics import spectrum

    at, vector = curvature(dtype), arrays()[-1]
    report = {"loss": at.loss(), "gradient": at.gradient().tolist()}
    for name in MATRICES:
        product = getattr(at, f"{name}_vector")(vector)
        largest = spectrum.measure(at, name, steps=at.size, vectors=1)
        report[name] = {
            "product": product.tolist(),
            "largest": largest.lambda_max,
        }
    return report


def main():
    """Writes the file."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    import keras

    keras.config.set_floatx("float64")
    FILE.write_text(json.dumps(found("float64"), indent=1) + os.linesep)


if __name__ == "__main__":
    main()
