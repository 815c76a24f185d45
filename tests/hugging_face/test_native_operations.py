"""What torch computes in one operation is what the models write out."""

import keras
import numpy as np
import pytest

from official_models.common import ops
from official_models.nlp.bert.config import BertConfig
from official_models.nlp.transformer.layers import LayerNorm
from official_models.nlp.transformer.losses import SparseCrossEntropy

if keras.backend.backend() != "torch":
    pytest.skip("needs KERAS_BACKEND=torch", allow_module_level=True)

import torch

RNG = np.random.default_rng(0)
X = RNG.normal(2.0, 3.0, (5, 8))


def make_norm():
    config = BertConfig.of_size("tiny", 16, hidden_size=8, num_heads=2)
    norm = LayerNorm(config, seed=0, dtype="float64")
    norm.build()
    norm.gamma.assign(RNG.normal(size=8))
    norm.beta.assign(RNG.normal(size=8))
    return norm


def derivatives(function, x):
    """The gradient of a sum of cubes, and that of its sum of squares."""
    x = torch.tensor(x, requires_grad=True)
    (first,) = torch.autograd.grad(
        (function(x) ** 3).sum(), x, create_graph=True
    )
    (second,) = torch.autograd.grad((first**2).sum(), x)
    return first.detach().numpy(), second.numpy()


def test_layer_norm_and_its_first_and_second_derivative(monkeypatch):
    norm = make_norm()
    epsilon = norm.config.layer_norm_epsilon
    centred = X - X.mean(-1, keepdims=True)
    expected = centred / np.sqrt(X.var(-1, keepdims=True) + epsilon)
    expected = expected * np.array(norm.gamma) + np.array(norm.beta)
    found = norm(torch.tensor(X)).detach().numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    native = derivatives(norm, X)
    monkeypatch.setattr(ops, "native_layer_norm", lambda *_: None)
    for one, other in zip(native, derivatives(norm, X)):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-6)


def test_layer_norm_of_mixed_precision_is_computed_in_float32():
    config = BertConfig.of_size("tiny", 16, hidden_size=8, num_heads=2)
    norm = LayerNorm(config, seed=0, dtype="mixed_bfloat16")
    norm.build()
    found = norm(torch.tensor(X, dtype=torch.bfloat16))
    assert found.dtype == torch.bfloat16
    x = torch.tensor(X, dtype=torch.bfloat16).double().numpy()
    expected = (x - x.mean(-1, keepdims=True)) / x.std(-1, keepdims=True)
    np.testing.assert_allclose(
        found.detach().double().numpy(), expected, rtol=2**-8
    )


def test_the_loss_of_a_vocabulary_and_its_gradient(monkeypatch):
    logits = RNG.normal(0, 40, (2, 3, 7))
    labels = RNG.integers(0, 7, (2, 3))
    weights = np.array([[1.0, 0.0, 2.0], [0.5, 1.0, 0.0]])
    loss = SparseCrossEntropy(dtype="float64")

    def measure():
        z = torch.tensor(logits, requires_grad=True)
        value = loss(labels, z, weights)
        value.backward()
        return value.item(), z.grad.numpy()

    value, gradient = measure()
    top = logits.max(-1, keepdims=True)
    exponentials = np.exp(logits - top)
    total = exponentials.sum(-1, keepdims=True)
    one_hot = np.eye(7)[labels]
    nll = (top + np.log(total))[..., 0] - (logits * one_hot).sum(-1)
    share = weights / weights.sum()
    assert value == pytest.approx((share * nll).sum(), rel=1e-6)
    expected = share[..., None] * (exponentials / total - one_hot)
    np.testing.assert_allclose(gradient, expected, atol=1e-7)
    monkeypatch.setattr(ops, "native_nll", lambda *_: None)
    value, gradient = measure()
    assert value == pytest.approx((share * nll).sum(), rel=1e-6)
    np.testing.assert_allclose(gradient, expected, atol=1e-7)
