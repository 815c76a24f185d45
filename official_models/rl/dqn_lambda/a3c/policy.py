"""An actor's network in NumPy: what it gives, and the gradient of its loss.

A process that imports NumPy alone starts in a fraction of a second, and a
network as small as MinAtar's spends less time here than in the calls of a
framework. The weights are those of `networks.make_actor_critic`, in its order:
kernel and bias of each convolution, of `hidden`, `policy` and `value`.

`B` states, `A` actions, `F` filters; images are [B, H, W, C].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

Weights = Sequence[np.ndarray]


class Outputs(NamedTuple):
    """Of a forward pass.

    Attributes:
        logits: [B, A], float32.
        values: [B], float32.
        layers: What `gradient` needs: of each convolution (patches, output,
            shape of the input), then the hidden layer's input and output.
    """

    logits: np.ndarray
    values: np.ndarray
    layers: list


class Losses(NamedTuple):
    """Parts of a loss, each a sum over time and a mean over environments.

    Attributes:
        policy: -(R - V) log pi(a | s), where R - V is a constant.
        value: (R - V)^2, where R is one.
        entropy: -sum pi log pi.
    """

    policy: float
    value: float
    entropy: float


def forward(
    weights: Weights,
    observations: np.ndarray,
    strides: Sequence[int],
    scale: float,
) -> Outputs:
    """Logits and values of observations.

    Args:
        weights: float32.
        observations: [B, H, W, C], uint8.
        strides: One of each convolution.
        scale: Factor of the observations.
    """
    x = observations.astype("float32") * np.float32(scale)
    layers: list = []
    for i, stride in enumerate(strides):
        kernel, bias = weights[2 * i : 2 * i + 2]
        patches = _patches(x, kernel.shape[:2], stride)
        rows = patches.reshape(-1, patches.shape[-1])
        y = rows @ kernel.reshape(rows.shape[1], -1) + bias
        y = np.maximum(y, 0).reshape(*patches.shape[:3], -1)
        layers.append((rows, y, x.shape))
        x = y
    into, bias, to_logits, logit_bias, to_value, value_bias = weights[-6:]
    flat = x.reshape(len(x), -1)
    hidden = np.maximum(flat @ into + bias, 0)
    layers.append((flat, hidden))
    return Outputs(
        hidden @ to_logits + logit_bias,
        (hidden @ to_value + value_bias)[:, 0],
        layers,
    )


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """log pi of logits, over the last axis."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def sample(logits: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """An action [B] of each row's softmax (the largest of Gumbel's noise)."""
    return (logits + rng.gumbel(size=logits.shape)).argmax(axis=-1)


def loss_slopes(
    logits: np.ndarray,
    values: np.ndarray,
    actions: np.ndarray,
    targets: np.ndarray,
    *,
    entropy_cost: float,
    value_cost: float,
    weight: float,
) -> tuple[np.ndarray, np.ndarray, Losses]:
    r"""The derivatives of the loss by logits and values.

    $$L = w \sum_i \left[ -(R_i - V_i) \log\pi(a_i | s_i) - \beta H_i
    + c\, (R_i - V_i)^2 \right]$$

    Targets R and advantages R - V are constants of the first term, and R is of
    the last.

    Args:
        logits: [B, A].
        values: [B], V.
        actions: [B], int.
        targets: [B], R.
        entropy_cost: beta.
        value_cost: c.
        weight: w, such as 1 / environments.

    Returns:
        dL / dlogits [B, A], dL / dvalues [B], and the losses.

    References:
        Mnih et al.: Asynchronous methods for deep reinforcement learning
        (2016), section 4 and supplement.
    """
    log_pi = log_softmax(logits)
    pi = np.exp(log_pi)
    entropy = -(pi * log_pi).sum(axis=-1, keepdims=True)
    advantages = targets - values
    rows = np.arange(len(actions))
    slope = pi * advantages[:, None]
    slope[rows, actions] -= advantages
    slope += entropy_cost * pi * (log_pi + entropy)
    losses = Losses(
        float(-(log_pi[rows, actions] * advantages).sum() * weight),
        float(np.square(advantages).sum() * weight),
        float(entropy.sum() * weight),
    )
    by_values = -2 * value_cost * weight * advantages
    return (
        (weight * slope).astype("float32"),
        by_values.astype("float32"),
        losses,
    )


def gradient(
    weights: Weights,
    outputs: Outputs,
    by_logits: np.ndarray,
    by_values: np.ndarray,
    strides: Sequence[int],
) -> list[np.ndarray]:
    """The gradient by each weight, in the order of the weights.

    Args:
        weights: With which `outputs` were made.
        outputs: Of `forward`.
        by_logits: [B, A], the loss' derivatives.
        by_values: [B].
        strides: As for `forward`.
    """
    into, to_logits, to_value = weights[-6], weights[-4], weights[-2]
    flat, hidden = outputs.layers[-1]
    by_values = by_values[:, None]
    found = [hidden.T @ by_values, by_values.sum(axis=0)]
    found = [hidden.T @ by_logits, by_logits.sum(axis=0), *found]
    slope = (by_logits @ to_logits.T + by_values @ to_value.T) * (hidden > 0)
    found = [flat.T @ slope, slope.sum(axis=0), *found]
    slope = slope @ into.T
    for i in reversed(range(len(strides))):
        kernel = weights[2 * i]
        rows, y, shape = outputs.layers[i]
        slope = slope.reshape(y.shape) * (y > 0)
        flat_slope = slope.reshape(-1, y.shape[-1])
        by_kernel = (rows.T @ flat_slope).reshape(kernel.shape)
        found = [by_kernel, flat_slope.sum(axis=0), *found]
        if i:
            slope = _to_input(flat_slope, kernel, y.shape, shape, strides[i])
    return found


def _patches(x: np.ndarray, size: tuple[int, int], stride: int) -> np.ndarray:
    """[B, H, W, C] -> [B, H', W', h w C], what each output is made of."""
    windows = sliding_window_view(x, size, axis=(1, 2))
    windows = windows[:, ::stride, ::stride].transpose(0, 1, 2, 4, 5, 3)
    return windows.reshape(*windows.shape[:3], -1)


def _to_input(slope, kernel, output_shape, input_shape, stride) -> np.ndarray:
    """The derivative by a convolution's input, [B, H, W, C]."""
    height, width, channels, filters = kernel.shape
    _, rows, columns, _ = output_shape
    by_patches = slope @ kernel.reshape(-1, filters).T
    by_patches = by_patches.reshape(-1, rows, columns, height, width, channels)
    found = np.zeros(input_shape, "float32")
    for i in range(height):
        for j in range(width):
            found[
                :,
                i : i + stride * rows : stride,
                j : j + stride * columns : stride,
            ] += by_patches[:, :, :, i, j]
    return found
