"""Curvature by this library and by curvlinops, at the same weights.

The file has what this library found on TensorFlow in float64. TensorFlow and
JAX find it again; in the torch environment, which has curvlinops, the other
library has to find it too.
"""

import json

import keras
import numpy as np
import pytest

from tests.diagnostics import second_opinion

BACKEND = keras.backend.backend()
FOUND = json.loads(second_opinion.FILE.read_text())


@pytest.mark.skipif(BACKEND == "torch", reason="Curvature is not for torch")
def test_the_file_has_what_is_found_now():
    before = keras.config.floatx()
    dtype = "float64" if BACKEND == "tensorflow" else "float32"
    keras.config.set_floatx(dtype)
    try:
        now = second_opinion.found(dtype)
    finally:
        keras.config.set_floatx(before)
    tolerance = 1e-9 if BACKEND == "tensorflow" else 1e-4
    assert now["loss"] == pytest.approx(FOUND["loss"], rel=tolerance)
    for name in second_opinion.MATRICES:
        close(now[name]["product"], FOUND[name]["product"], tolerance)
        expected = pytest.approx(FOUND[name]["largest"], rel=tolerance)
        assert now[name]["largest"] == expected


def close(one, other, tolerance):
    """Relative to the norm of the vector."""
    error = np.linalg.norm(np.subtract(one, other)) / np.linalg.norm(other)
    assert error < tolerance


@pytest.mark.skipif(BACKEND != "torch", reason="curvlinops is for torch")
def test_curvlinops_finds_the_same():
    import curvlinops
    import torch
    from scipy.sparse import linalg

    weights, x, y, vector = second_opinion.arrays()
    values = [torch.nn.Parameter(torch.tensor(w)) for w in weights]

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.all = torch.nn.ParameterList(values)

        def forward(self, x):
            kernel, bias, hidden, hidden_bias, last, last_bias = self.all
            z = torch.nn.functional.conv2d(
                x.permute(0, 3, 1, 2), kernel.permute(3, 2, 0, 1), bias
            )
            z = torch.tanh(z).permute(0, 2, 3, 1).flatten(1)
            return torch.sigmoid(z @ hidden + hidden_bias) @ last + last_bias

    network, loss = Network(), torch.nn.CrossEntropyLoss()
    data = [(torch.tensor(x[:8]), torch.tensor(y[:8]))]
    data += [(torch.tensor(x[8:]), torch.tensor(y[8:]))]
    operators = dict(
        hessian=curvlinops.HessianLinearOperator,
        gauss_newton=curvlinops.GGNLinearOperator,
    )
    for name, kind in operators.items():
        operator = kind(network, loss, list(network.parameters()), data)
        operator = operator.to_scipy()
        close(operator @ vector, FOUND[name]["product"], 1e-4)
        largest = linalg.eigsh(operator, 1, which="LA")[0][0]
        assert largest == pytest.approx(FOUND[name]["largest"], rel=1e-4)
