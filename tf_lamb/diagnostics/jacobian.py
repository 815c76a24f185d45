r"""Singular values of Jacobians: how a network stretches its inputs.

For one example `x` and the outputs `z(x)`, or of one place in the network with
respect to another, the largest singular values of

$$J = \frac{\partial z}{\partial x}$$

by Golub-Kahan-Lanczos bidiagonalisation (SciPy's PROPACK) of `J v` and `J^T
u`, which the backend's autodiff gives; `J` is formed only where its smaller
side is at most three times the values that are asked for. Inference mode:
batch normalisation has its moving statistics, so that each example has a
Jacobian of its own. Keras 3 on TensorFlow or JAX; it needs SciPy.

References:
  Golub and Kahan 1965; Larsen 1998 (PROPACK); Pennington et al. 2017
  (arXiv:1711.04735), what a Jacobian's singular values say of a training.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from tf_lamb import check
from tf_lamb.diagnostics import precision, probe
from tf_lamb.diagnostics.examples import leaves

__all__ = ["Jacobian", "SingularValues", "between", "singular_values"]


class SingularValues(NamedTuple):
    """The largest singular values of a Jacobian.

    Attributes:
      values: descending, `[k]`.
      residuals: `[k]`: some singular value is no farther than this from the
        one given (the residual of its vectors, and the dtype's rounding).
    """

    values: np.ndarray
    residuals: np.ndarray


def between(
    model: Any, first: str | None = None, last: str | None = None
) -> Any:
    """The part of a functional model from one layer's output to another's.

    Args:
      model: of Keras 3.
      first: the layer whose output is the input; None: the model's input.
      last: the layer whose output it is; None: the model's output.

    Raises:
      ValueError: there is no such layer, or no way from one to the other.
    """
    import keras

    if first is None and last is None:
        return model
    graph = getattr(model, "_functional", None) or model
    start = graph.input if first is None else _output(graph, first)
    end = graph.output if last is None else _output(graph, last)
    return keras.Model(start, end)


def _output(graph: Any, name: str) -> Any:
    """A layer's output in this model; a loaded layer has others too."""
    layer = graph.get_layer(name)
    for nodes in graph._nodes_by_depth.values():
        for node in nodes:
            if node.operation is layer:
                return node.outputs[0]
    raise ValueError(f"layer {name!r}: its output is not one of the model's.")


class Jacobian:
    """Products with the Jacobian of a model at one example.

    Args:
      model: of Keras 3, of one input and any outputs, which become one vector.
      x: the example, without a batch axis, floating point.

    Raises:
      ValueError: the backend is torch, the input is not one of floats, or the
        model computes in float16 or bfloat16.
    """

    def __init__(self, model: Any, x: Any) -> None:
        import keras

        backend = probe.backend_of(model)
        if not hasattr(model, "stateless_call") or backend == "torch":
            raise ValueError(
                "model: expected one of Keras 3 on TensorFlow or JAX, got one "
                f"on {backend}."
            )
        if len(leaves(x)) != 1 or np.asarray(leaves(x)[0]).dtype.kind != "f":
            raise ValueError(
                "x: a Jacobian is with respect to one input of floats; got "
                f"{[str(np.asarray(a).dtype) for a in leaves(x)]}; begin at a "
                "layer behind embeddings."
            )
        inputs = getattr(model, "inputs", None)
        dtype = inputs[0].dtype if inputs else None
        self._x = keras.ops.convert_to_tensor(
            np.asarray(leaves(x)[0])[None], dtype=dtype
        )
        programs = {"jax": _jax_programs, "tensorflow": _tensorflow_programs}
        self._forward, self._back = programs[backend](model)
        wide = "64" in str(self._x.dtype)
        self.epsilon = max(
            precision.epsilon(model), 2.0 ** (-52 if wide else -23)
        )
        if self.epsilon > 2.0**-23:  # the iteration would find values twice
            raise ValueError(
                "model: its Jacobian is too coarse, because layers compute in "
                "float16 or bfloat16; expected float32 or float64: make the "
                "model under that dtype policy, and give it the weights."
            )
        outputs = np.asarray(self._forward(self._x, self._x))
        self.shape = outputs.size, int(np.prod(self._x.shape))

    def times(self, vector: np.ndarray) -> np.ndarray:
        """`J v`, float64 `[outputs]`.

        Args:
          vector: `v`, `[inputs]`.
        """
        part = np.reshape(vector, self._x.shape)
        return _wide(self._forward(self._x, self._tensor(part)))

    def transposed_times(self, vector: np.ndarray) -> np.ndarray:
        """`J^T u`, float64 `[inputs]`.

        Args:
          vector: `u`, `[outputs]`.
        """
        return _wide(self._back(self._x, self._tensor(np.ravel(vector))))

    def _tensor(self, array: np.ndarray) -> Any:
        import keras

        return keras.ops.convert_to_tensor(array, dtype=self._x.dtype)


def _wide(value: Any) -> np.ndarray:
    return np.asarray(value, np.float64).ravel()


def singular_values(
    jacobian: Jacobian, count: int = 10, seed: int = 0
) -> SingularValues:
    """The largest singular values.

    Args:
      jacobian: at one example.
      count: of them, `k`; at most the smaller side of the matrix are found.
      seed: of the first vector.

    Raises:
      ValueError: SciPy is not installed, a product is not finite, or the
        iteration did not end.
    """
    try:
        from scipy.sparse import linalg
    except ImportError as error:
        raise ValueError(
            "singular values need SciPy, which is not installed: pip install "
            "scipy."
        ) from error
    rows, columns = jacobian.shape
    count = min(check.count("count", count), rows, columns)
    if not np.isfinite(jacobian.times(np.ones(columns))).all():
        raise ValueError("model: its Jacobian is not finite at these inputs.")
    if min(rows, columns) <= 3 * count:  # it takes no fewer products
        u, values, v = np.linalg.svd(_dense(jacobian), full_matrices=False)
        u, values, v = u[:, :count], values[:count], v[:count]
    else:
        # In the model's precision: PROPACK takes products to be exact to its
        # own, and finds values twice where they are not.
        dtype = np.float64 if jacobian.epsilon < 1e-10 else np.float32
        operator = linalg.LinearOperator(
            jacobian.shape,
            matvec=lambda v: jacobian.times(v).astype(dtype),
            rmatvec=lambda u: jacobian.transposed_times(u).astype(dtype),
            dtype=dtype,
        )
        random = np.random.default_rng(seed)
        try:
            u, values, v = linalg.svds(
                operator,
                count,
                tol=10 * jacobian.epsilon,
                maxiter=min(rows, columns, 10 * count + 50),
                v0=random.normal(size=rows).astype(dtype),
                solver="propack",
            )
        except np.linalg.LinAlgError as error:
            raise ValueError(f"singular values: {error}") from error
    order = np.argsort(-values)
    values, u, v = (
        np.asarray(a, np.float64)
        for a in (values[order], u[:, order], v[order])
    )
    residuals = [
        np.hypot(
            np.linalg.norm(jacobian.times(v[i]) - values[i] * u[:, i]),
            np.linalg.norm(
                jacobian.transposed_times(u[:, i]) - values[i] * v[i]
            ),
        )
        / np.sqrt(2)
        for i in range(len(values))
    ]
    rounding = jacobian.epsilon * values[:1]
    return SingularValues(values, np.asarray(residuals) + rounding)


def _dense(jacobian: Jacobian) -> np.ndarray:
    """All of it, by as many products as its smaller side is long."""
    rows, columns = jacobian.shape
    if rows < columns:
        return np.stack([jacobian.transposed_times(e) for e in np.eye(rows)])
    return np.stack([jacobian.times(e) for e in np.eye(columns)], axis=1)


def _flat(outputs: Any) -> Any:
    import keras

    parts = [keras.ops.reshape(z, (-1,)) for z in leaves(outputs)]
    return parts[0] if len(parts) == 1 else keras.ops.concatenate(parts)


def _tensorflow_programs(model: Any) -> tuple[Any, Any]:
    import tensorflow as tf

    def forward(x: Any, vector: Any) -> Any:
        with tf.autodiff.ForwardAccumulator(x, vector) as up:
            z = _flat(model(x, training=False))
        return up.jvp(z, unconnected_gradients="zero")

    def back(x: Any, vector: Any) -> Any:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(x)
            z = _flat(model(x, training=False))
        return tape.gradient(
            z, x, output_gradients=vector, unconnected_gradients="zero"
        )

    return tuple(tf.function(f, autograph=False) for f in (forward, back))


def _jax_programs(model: Any) -> tuple[Any, Any]:
    import jax

    def outputs(x: Any) -> Any:
        return _flat(model(x, training=False))

    def forward(x: Any, vector: Any) -> Any:
        return jax.jvp(outputs, (x,), (vector,))[1]

    def back(x: Any, vector: Any) -> Any:
        return jax.vjp(outputs, x)[1](vector)[0]

    return jax.jit(forward), jax.jit(back)
