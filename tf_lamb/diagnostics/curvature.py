r"""Products of a loss's second derivatives with vectors, by autodiff.

For the loss `L` of a model with weights `theta`, and its outputs `z`,

$$H v = \nabla_\theta \langle \nabla_\theta L, v\rangle,\qquad
  G v = J^\top\, \frac{\partial^2 L}{\partial z^2}\, J v,\qquad
  J = \frac{\partial z}{\partial\theta}$$

Neither matrix is ever formed. Derivatives are those of inference mode: no
dropout, batch normalisation with its moving statistics. Keras 3 on TensorFlow
or JAX.

References:
  Pearlmutter 1994 (Hessian-vector products); Schraudolph 2002 (`G v`).
"""

from __future__ import annotations

import re
from typing import Any, Callable

import numpy as np

from tf_lamb import check
from tf_lamb.diagnostics import precision, probe
from tf_lamb.diagnostics.examples import each, leaves, refuse_weights

__all__ = ["Curvature", "refuse_wrong_layers"]

# On TensorFlow they take moments by `tf.nn.moments`, which stops the gradient
# of the mean. (Batch normalisation does so in training mode only.)
WRONG_ON_TENSORFLOW = ("LayerNormalization", "GroupNormalization")

# What TensorFlow and JAX say of an operation that cannot be differentiated.
_NO_DERIVATIVE = re.compile(
    "gradient registry has no entry|No gradient defined|forward-mode|"
    "[Dd]ifferentiation rule"
)


def refuse_wrong_layers(model: Any) -> None:
    """Refuses a model through which second derivatives are silently wrong.

    Args:
      model: of Keras 3.

    Raises:
      ValueError: it has such a layer, which is named with what to use instead.
    """
    if probe.backend_of(model) != "tensorflow":
        return
    for layer in model._flatten_layers():
        kinds = [c for c in type(layer).__mro__ if c.__module__[:6] == "keras."]
        if any(c.__name__ in WRONG_ON_TENSORFLOW for c in kinds):
            raise ValueError(
                f"layer {layer.name!r} ({type(layer).__name__}): its second "
                "derivative is wrong on TensorFlow, where tf.nn.moments stops "
                "the gradient of the mean; run with KERAS_BACKEND=jax, or "
                "write the layer with keras.ops.mean and keras.ops.var."
            )


class Curvature:
    """The loss of some examples at a model's weights, and its derivatives.

    Vectors are flat, float64, of all trainable variables in their order. The
    derivatives themselves have the dtype of the model.

    Args:
      model: built, of Keras 3.
      data: `(x, y, sample_weight or None)`, arrays of `n` examples.
      loss: function of `(y, y_pred)`; None: that of `compile`, regularizers
        and what layers add to it included. It has to be a mean over examples.
        The Gauss-Newton matrix is that of the outputs: it has no part of a
        regularizer, nor of a loss that layers add.
      batch_size: examples that are differentiated at once; the loss is the
        mean over batches. A rest is left out.

    Raises:
      ValueError: the model, the loss or a layer is none for this, there are
        fewer examples than a batch, or sample weights beside `loss`.
    """

    def __init__(
        self, model: Any, data: Any, loss: Any = None, batch_size: int = 256
    ) -> None:
        backend = probe.backend_of(model)
        if not hasattr(model, "stateless_call") or backend == "torch":
            raise ValueError(
                "model: expected one of Keras 3 on TensorFlow or JAX, got one "
                f"of {type(model).__module__.split('.')[0]} on {backend}."
            )
        if not model.trainable_variables:
            raise ValueError(
                "model: expected trainable weights, got none; call it on an "
                "input to build it."
            )
        refuse_wrong_layers(model)
        self.model, self._loss = model, loss
        self._variables = list(model.trainable_variables)
        self._others = list(model.non_trainable_variables)
        self._shapes = [tuple(v.shape) for v in self._variables]
        self.size = sum(int(np.prod(s)) for s in self._shapes)
        self.epsilon = precision.epsilon(model)
        refuse_weights(loss, data[2])
        self._batches = _batches(data, check.count("batch_size", batch_size))
        self.examples = len(self._batches) * batch_size
        programs = {"jax": _jax_programs, "tensorflow": _tensorflow_programs}
        self._programs = programs[backend](self)

    def loss(self) -> float:
        """The loss at the model's weights."""
        return float(self._mean("loss", [])[0])

    def gradient(self) -> np.ndarray:
        """The gradient, `[size]`."""
        return self._mean("gradient", [])

    def hessian_vector(self, vector: np.ndarray) -> np.ndarray:
        """`H v`, `[size]`.

        Args:
          vector: `v`, `[size]`.
        """
        return self._mean("hessian", self._parts(vector))

    def gauss_newton_vector(self, vector: np.ndarray) -> np.ndarray:
        """`G v`, `[size]`, split at the model's outputs.

        Args:
          vector: `v`, `[size]`.
        """
        return self._mean("gauss_newton", self._parts(vector))

    def functions(self, values: Any) -> tuple[Any, Any, Any]:
        """At these weights: outputs of a batch, loss of outputs, loss of it.

        Args:
          values: of the trainable variables, tensors.
        """
        import keras

        def scope(batch: Any) -> Any:
            pairs = [
                *zip(self._variables, values),
                *zip(self._others, batch[3]),
            ]
            return keras.StatelessScope(pairs, collect_losses=True)

        def outputs(batch: Any) -> Any:
            with scope(batch):
                return self.model(batch[0], training=False)

        def value(predicted: Any, batch: Any) -> Any:
            x, y, weight, _ = batch
            if self._loss is None:
                return self.model.compute_loss(
                    x=x, y=y, y_pred=predicted, sample_weight=weight
                )
            return keras.ops.mean(self._loss(y, predicted))

        def loss(predicted: Any, batch: Any) -> Any:
            with scope(batch):
                return value(predicted, batch)

        def whole(batch: Any) -> Any:
            # One scope: losses that layers add belong to it.
            with scope(batch):
                return value(self.model(batch[0], training=False), batch)

        return outputs, loss, whole

    def _mean(self, name: str, vector: list[Any]) -> np.ndarray:
        """Over batches, one float64 array: no second copy beside it."""
        total = np.zeros(1 if name == "loss" else self.size)
        weights = [v.value for v in self._variables]
        others = [v.value for v in self._others]
        for number, batch in enumerate(self._batches, start=1):
            found = list(self._run(name, weights, vector, (*batch, others)))
            if number == len(self._batches):
                vector.clear()  # as soon as it is not needed
            end = 0
            while found:
                part = np.ravel(np.asarray(found.pop(0)))
                start, end = end, end + part.size
                total[start:end] += part
        total /= len(self._batches)
        return total

    def _run(self, name: str, *arguments: Any) -> Any:
        try:
            return self._programs[name](*arguments)
        except (LookupError, TypeError, NotImplementedError) as error:
            text = " ".join(str(error).split())
            if not _NO_DERIVATIVE.search(text):
                raise
            raise ValueError(
                "model: an operation of it or of its loss has no second "
                f"derivative ({text[-160:]}); replace the layer that uses it."
            ) from error

    def _parts(self, vector: np.ndarray) -> list[Any]:
        vector = np.asarray(vector)
        if vector.shape != (self.size,):
            raise ValueError(
                f"vector: expected shape ({self.size},), got {vector.shape}."
            )
        parts, start = [], 0
        for variable, shape in zip(self._variables, self._shapes):
            end = start + int(np.prod(shape))
            part = vector[start:end].reshape(shape)
            parts.append(_tensor(part, variable.dtype))
            start = end
        return parts


def _tensor(array: np.ndarray, dtype: Any = None) -> Any:
    import keras

    return keras.ops.convert_to_tensor(array, dtype=dtype)


def _batches(data: Any, size: int) -> list[Any]:
    x, y, weight = data
    have = len(leaves(x)[0])
    count = have // size
    if not count:
        raise ValueError(
            f"data: expected at least {size} examples, a batch, got {have}."
        )

    def batch(start: int) -> Any:
        return each(
            lambda a: None if a is None else _tensor(a[start : start + size]),
            (x, y, weight),
        )

    return [batch(i * size) for i in range(count)]


Programs = dict[str, Callable[..., Any]]


def _tensorflow_programs(curvature: Curvature) -> Programs:
    import tensorflow as tf

    def dense(gradients: Any) -> list[Any]:
        return [tf.convert_to_tensor(g) for g in gradients]

    def gradients(tape: Any, of: Any, sources: Any) -> list[Any]:
        return dense(tape.gradient(of, sources, unconnected_gradients="zero"))

    def loss(weights: Any, vector: Any, batch: Any) -> Any:
        return [curvature.functions(weights)[2](batch)]

    def gradient(weights: Any, vector: Any, batch: Any) -> Any:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(weights)
            value = curvature.functions(weights)[2](batch)
        return gradients(tape, value, weights)

    def hessian(weights: Any, vector: Any, batch: Any) -> Any:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(weights)
            found = gradient(weights, None, batch)
            along = tf.add_n(
                [tf.reduce_sum(g * v) for g, v in zip(found, vector)]
            )
        return gradients(tape, along, weights)

    def gauss_newton(weights: Any, vector: Any, batch: Any) -> Any:
        outputs, of_outputs, _ = curvature.functions(weights)
        with tf.GradientTape(watch_accessed_variables=False) as down:
            down.watch(weights)
            with tf.autodiff.ForwardAccumulator(weights, vector) as up:
                predicted = outputs(batch)
                z = tf.nest.flatten(predicted)
            j_v = [up.jvp(a, unconnected_gradients="zero") for a in z]
        with tf.GradientTape(watch_accessed_variables=False) as second:
            second.watch(z)
            with tf.GradientTape(watch_accessed_variables=False) as first:
                first.watch(z)
                value = of_outputs(
                    tf.nest.pack_sequence_as(predicted, z), batch
                )
            g = gradients(first, value, z)
            along = tf.add_n([tf.reduce_sum(a * b) for a, b in zip(g, j_v)])
        h_j_v = gradients(second, along, z)
        return dense(
            down.gradient(
                z, weights, output_gradients=h_j_v, unconnected_gradients="zero"
            )
        )

    made = dict(
        loss=loss, gradient=gradient, hessian=hessian, gauss_newton=gauss_newton
    )
    return {name: tf.function(f, autograph=False) for name, f in made.items()}


def _jax_programs(curvature: Curvature) -> Programs:
    import jax

    def loss(weights: Any, vector: Any, batch: Any) -> Any:
        return [curvature.functions(weights)[2](batch)]

    def gradient(weights: Any, vector: Any, batch: Any) -> Any:
        return jax.grad(lambda w: loss(w, None, batch)[0])(weights)

    def hessian(weights: Any, vector: Any, batch: Any) -> Any:
        along = jax.jvp(
            lambda w: gradient(w, None, batch), (weights,), (vector,)
        )
        return along[1]

    def gauss_newton(weights: Any, vector: Any, batch: Any) -> Any:
        def outputs(w: Any) -> Any:
            return curvature.functions(w)[0](batch)

        def of_outputs(z: Any) -> Any:
            return curvature.functions(weights)[1](z, batch)

        z, j_v = jax.jvp(outputs, (weights,), (vector,))
        h_j_v = jax.jvp(jax.grad(of_outputs), (z,), (j_v,))[1]
        return jax.vjp(outputs, weights)[1](h_j_v)[0]

    made = dict(
        loss=loss, gradient=gradient, hessian=hessian, gauss_newton=gauss_newton
    )
    return {name: jax.jit(f) for name, f in made.items()}
