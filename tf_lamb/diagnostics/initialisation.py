r"""Initial weights that depend on data or on depth: LSUV and Fixup.

Xavier (`GlorotUniform`), He (`HeNormal`) and orthogonal weights
(`Orthogonal`) are Keras' own initialisers: give a layer those. The two here
need to see the whole model, so they are passes over a built one.

**LSUV**: layer by layer, in the order in which they are called, an orthogonal
kernel is divided by the standard deviation of the layer's outputs before the
activation, until their variance on a batch is 1.

**Fixup**: a residual network of `L` branches, none of them normalised, keeps
its updates of a size that does not depend on depth if the last of a branch's
`m` kernels and the head are 0, and the other ones are He's times

$$L^{-1/(2m - 2)}$$

References:
  Mishkin and Matas 2016 (arXiv:1511.06422), algorithm 1; Zhang, Dauphin and Ma
  2019 (arXiv:1901.09321), rules 1 and 2.
"""

from __future__ import annotations

import contextlib
from typing import Any, Iterator, NamedTuple, Sequence

import numpy as np

from tf_lamb import check
from tf_lamb.diagnostics import probe
from tf_lamb.diagnostics.examples import each

__all__ = ["Scaled", "fixup", "lsuv"]


class Scaled(NamedTuple):
    """What LSUV did to a layer.

    Attributes:
      layer: its path.
      before: variance of its outputs with the weights that it was given (or
        with orthogonal ones, if they were asked for).
      after: variance of its outputs now.
      rounds: divisions of the kernel.
    """

    layer: str
    before: float
    after: float
    rounds: int


def lsuv(
    model: Any,
    data: Any,
    *,
    tolerance: float = 0.02,
    rounds: int = 10,
    orthogonal: bool = True,
    seed: int = 0,
) -> list[Scaled]:
    """Scales kernels until each layer's outputs have variance 1 on a batch.

    It scales every layer with a trainable `kernel` and an `activation`: dense,
    einsum-dense and convolutional ones, those inside of attention too.
    Outputs are those before the activation, over all examples, places and
    channels. Biases, embeddings, recurrent cells (whose activation gets states
    too) and other weights stay. The model runs in
    inference mode: no dropout, batch normalisation with its moving statistics.

    Args:
      model: built, of Keras 3 on any backend; its weights are changed.
      data: inputs of one batch, in the model's structure; a tuple `(x, y)` or
        `(x, y, sample_weight)` is one of inputs and labels, of which only the
        inputs are used.
      tolerance: of the variance, `|variance - 1| <= tolerance`; > 0.
      rounds: divisions of a kernel at most, >= 1.
      orthogonal: whether kernels are made orthogonal first, as in the paper.
      seed: of the orthogonal kernels.

    Returns:
      What was done, in the order of the layers' calls.

    Raises:
      ValueError: an argument is out of its range; the model has no such layer;
        a layer's outputs are constant, not finite, or do not reach the
        variance (biases that are not 0 may do that). Layers before it are
        scaled by then.
    """
    import keras

    check.positive("tolerance", tolerance)
    check.count("rounds", rounds)
    x = data[0] if isinstance(data, tuple) else data
    x = each(keras.ops.convert_to_tensor, x)
    layers = _in_order_of_calls(model, x)
    done = []
    for number, layer in enumerate(layers):
        if orthogonal:
            draw = keras.initializers.Orthogonal(seed=seed + number)
            layer.kernel.assign(draw(layer.kernel.shape, "float32"))
        before = found = _variance(model, layer, x)
        count = 0
        while abs(found - 1) > tolerance and count < rounds:
            kernel = probe.to_numpy(layer.kernel).astype(np.float64)
            layer.kernel.assign(kernel / np.sqrt(found))
            found, count = _variance(model, layer, x), count + 1
        if abs(found - 1) > tolerance:
            raise ValueError(
                f"layer {layer.path!r}: its outputs have variance {found:.3g} "
                f"after {rounds} divisions, expected 1 ± {tolerance:g}; set "
                "its bias to 0, or raise tolerance or rounds."
            )
        done.append(Scaled(layer.path, before, found, count))
    return done


def _in_order_of_calls(model: Any, x: Any) -> list[Any]:
    found = [
        layer
        for layer in model._flatten_layers()
        if getattr(layer, "kernel", None) is not None
        and hasattr(layer, "activation")
        and layer.kernel.trainable
        and not hasattr(layer, "recurrent_kernel")
    ]
    order: list[Any] = []
    with contextlib.ExitStack() as stack:
        for layer in found:
            stack.enter_context(
                _watched(layer, lambda z, layer=layer: order.append(layer))
            )
        model(x, training=False)
    unique = list({id(layer): layer for layer in order}.values())
    if not unique:
        raise ValueError(
            "model: expected a layer with a trainable kernel and an "
            "activation, got none."
        )
    return unique


@contextlib.contextmanager
def _watched(layer: Any, see: Any) -> Iterator[None]:
    """`see` gets what the layer's activation gets."""
    activation = layer.activation

    def watching(z: Any) -> Any:
        see(z)
        return z if activation is None else activation(z)

    layer.activation = watching
    try:
        yield
    finally:
        layer.activation = activation


def _variance(model: Any, layer: Any, x: Any) -> float:
    seen: list[np.ndarray] = []
    with _watched(layer, lambda z: seen.append(probe.to_numpy(z).ravel())):
        model(x, training=False)
    found = float(np.concatenate(seen).astype(np.float64).var())
    if not 0 < found < np.inf:
        raise ValueError(
            f"layer {layer.path!r}: its outputs have variance {found:g}; "
            "expected a positive one; are the data constant, is a layer before "
            "it dead, or are its weights not finite?"
        )
    return found


def fixup(
    model: Any,
    branches: Sequence[Sequence[str]],
    head: str | None = None,
    seed: int = 0,
) -> None:
    """Sets the kernels of a residual network without normalisation.

    Scalar biases and multipliers (the paper's rule 3) are part of the
    architecture, which this leaves as it is, and so are kernels outside of the
    branches.

    Args:
      model: built, of Keras 3 on any backend; its weights are changed.
      branches: for each residual branch, the names of its layers with kernels,
        in the order of their calls; `model.get_layer` knows them.
      head: the layer that gives the logits; None: none is set.
      seed: of the kernels.

    Raises:
      ValueError: there are no branches, an empty one, or no such layer.
    """
    import keras

    if not branches or not all(branches):
        raise ValueError(
            f"branches: expected names of layers for each, got {branches!r}."
        )
    if any(isinstance(branch, str) for branch in branches):
        raise ValueError(
            f"branches: expected a list of lists of names, got {branches!r}."
        )
    layers = [[_with_kernel(model, n) for n in names] for names in branches]
    top = [] if head is None else [_with_kernel(model, head)]
    for branch in layers:
        depth = len(branch)
        for layer in branch[:-1]:
            draw = keras.initializers.HeNormal(seed=seed)
            seed += 1
            scale = len(layers) ** (-1 / (2 * depth - 2))
            layer.kernel.assign(draw(layer.kernel.shape, "float32") * scale)
    for layer in [*(branch[-1] for branch in layers), *top]:
        layer.kernel.assign(np.zeros(tuple(layer.kernel.shape), "float32"))
        if getattr(layer, "bias", None) is not None:
            layer.bias.assign(np.zeros(tuple(layer.bias.shape), "float32"))


def _with_kernel(model: Any, name: str) -> Any:
    layer = model.get_layer(name)  # Keras' ValueError lists the layers
    if getattr(layer, "kernel", None) is None:
        raise ValueError(f"layer {name!r}: expected one with a kernel.")
    return layer
