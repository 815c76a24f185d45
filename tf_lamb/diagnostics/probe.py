"""Gradients and weights of a model, read beside its training.

Nothing of the training is touched: the step's compiled program is the same with
and without a probe, and a probe assigns to no variable. A gradient is that of
inference mode (`training=False`): no dropout, batch normalisation with its
moving statistics, no random number drawn.
"""

from __future__ import annotations

import sys
from typing import Any, Callable, Sequence

import numpy as np

from tf_lamb import check, exclusion
from tf_lamb.diagnostics.examples import each, leaves, refuse_weights

# A float16 gradient below 6e-8 is 0: the loss is scaled up by it first.
_SCALE_FLOAT16 = 2.0**10

Loss = Callable[[Any, Any], Any]


def backend_of(model: Any) -> str:
    """ "tensorflow", "jax" or "torch": what a model of any Keras runs on."""
    if not hasattr(model, "stateless_call"):  # tf_keras, TensorFlow 2.15
        return "tensorflow"
    return str(sys.modules["keras"].config.backend())


def sync(model: Any) -> None:
    """Makes a model's variables current (`fit` on JAX holds them apart)."""
    if hasattr(model, "jax_state_sync"):
        model.jax_state_sync()


def exchange(model: Any, optimizer: Any, jit_compile: Any) -> None:
    """Gives a compiled model another optimizer.

    Args:
      model: of Keras 3.
      optimizer: of Keras.
      jit_compile: whether XLA compiles the step, as `compile` takes it.
    """
    model.optimizer = optimizer
    model.jit_compile = jit_compile
    model.train_function = None  # Keras traces it again


def random_states(model: Any) -> list[tuple[Any, np.ndarray]]:
    """States of a model's random generators: the variables, and their values.

    Args:
      model: of Keras 3.
    """
    weights = {id(v) for v in model.weights}
    return [(v, to_numpy(v)) for v in model.variables if id(v) not in weights]


def keys(model: Any) -> tuple[str, ...]:
    """The paths of a model's trainable variables, repeated ones numbered."""
    paths = [getattr(v, "path", v.name) for v in model.trainable_variables]
    return exclusion.unique_keys(paths)


class Probe:
    """Norms of a model's gradients and weights.

    Args:
      model: built, of any Keras.
      loss: function of `(y, y_pred)`, a scalar or one value an example; None:
        the loss of `compile` (with regularizers), which has to be a mean over
        examples.

    Raises:
      ValueError: there is no loss.
    """

    def __init__(self, model: Any, loss: Loss | None = None) -> None:
        if loss is not None and not callable(loss):
            raise check.refuse("loss", loss, "a function of (y, y_pred)")
        self.model = model
        self._loss = loss
        layers = [model, *getattr(model, "layers", ())]
        half = any(getattr(x, "compute_dtype", "") == "float16" for x in layers)
        self._scale = _SCALE_FLOAT16 if half else 1.0
        backends = {"jax": _Jax, "torch": _Torch, "tensorflow": _TensorFlow}
        self._on: Any = backends[backend_of(model)](self)
        self._compiled = _compiled_loss(model), list(model.trainable_variables)

    def is_current(self) -> bool:
        """Whether loss and trainable variables are those it was made with."""
        loss, variables = self._compiled
        now = self.model.trainable_variables
        return (
            loss is _compiled_loss(self.model)
            and len(variables) == len(now)
            and all(a is b for a, b in zip(variables, now))
        )

    def piece_norms(
        self, data: Any, size: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Squared norms of gradients, by piece and of their mean.

        Args:
          data: `(x, y, sample_weight or None)`, NumPy arrays.
          size: examples of a piece; a rest is left out.

        Returns:
          Of pieces, `[pieces, n]`, and of their mean gradient, `[n]`, float64,
          in the order of the `n` trainable variables.

        Raises:
          ValueError: there are sample weights, and a loss of one's own.
        """
        refuse_weights(self._loss, data[2])
        with _SilentMetrics(self.model):
            length = len(leaves(data)[0])
            total, squares = None, []
            for start in range(0, length - size + 1, size):
                part = each(lambda a, s=start: a[s : s + size], data)
                found, total = self._on.add_gradient(part, total)
                squares.append(found)
            whole = self._on.squares(total)
        return (
            np.asarray(squares, np.float64),
            np.asarray(whole, np.float64) / len(squares) ** 2,
        )

    def copies(self) -> Sequence[Any]:
        """The weights as they are now, on their device."""
        copied: Sequence[Any] = self._on.copies()
        return copied

    def weight_norms(self) -> np.ndarray:
        """Norms of the weights, `[n]`, float64."""
        squares = self._on.squares(self._on.copies())
        return np.sqrt(np.asarray(squares, np.float64))

    def relative_change(self, before: Sequence[Any]) -> np.ndarray:
        """`|w - before| / |before|`, `[n]`, float64; NaN where that is 0 / 0.

        Args:
          before: what `copies` gave.
        """
        change = self._on.squares(self._on.copies(), before)
        old = np.asarray(self._on.squares(before), np.float64)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.sqrt(np.asarray(change, np.float64) / old)

    def value(self, x: Any, y: Any, weight: Any) -> Any:
        """The loss in inference mode, scaled for float16."""
        predicted = self.model(x, training=False)
        scale = self._scale
        if self._loss is None:
            loss = self.model.compute_loss(
                x=x, y=y, y_pred=predicted, sample_weight=weight
            )
        else:
            loss = self._loss(y, predicted)
            loss = self._on.mean(loss)
        if self._loss is None or hasattr(self._loss, "reduction"):
            scale *= self._on.replicas()  # by which Keras divides
        return loss * scale

    def unscaled(self, gradient: Any) -> Any:
        """A gradient of `value` as one of the loss."""
        return gradient if self._scale == 1 else gradient / self._scale


def _compiled_loss(model: Any) -> Any:
    """What `compile` made of the loss; another object after each call."""
    ours = getattr(model, "_compile_loss", None)
    return getattr(model, "compiled_loss", None) if ours is None else ours


class _SilentMetrics:
    """Metrics that a loss counts itself in, as tf_keras' does, do not count."""

    def __init__(self, model: Any) -> None:
        functional = backend_of(model) == "jax"
        found = [] if functional else list(getattr(model, "metrics", ()))
        if not hasattr(model, "stateless_call"):
            # Before the first step, tf_keras does not list it.
            compiled = getattr(model, "compiled_loss", None)
            found += [getattr(compiled, "_total_loss_mean", None)]
        self._metrics = [m for m in found if m is not None]

    def __enter__(self) -> None:
        for metric in self._metrics:
            metric.update_state = _nothing

    def __exit__(self, *error: Any) -> None:
        for metric in {id(m): m for m in self._metrics}.values():
            del metric.update_state


def _nothing(*args: Any, **kwargs: Any) -> None:
    """In place of a metric's `update_state`."""


def to_numpy(value: Any) -> np.ndarray:
    """A variable or tensor of any backend as an array.

    Args:
      value: it may lie on another device.
    """
    value = getattr(value, "value", value) if hasattr(value, "path") else value
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        if str(value.dtype) == "torch.bfloat16":  # which NumPy has not
            value = value.float()
    found = np.asarray(value.numpy() if hasattr(value, "numpy") else value)
    return found.astype(np.float32) if found.dtype.kind == "V" else found


class _TensorFlow:
    """Compiled by `tf.function`; a mirrored variable is read on one device."""

    def __init__(self, probe: Probe) -> None:
        import tensorflow as tf

        self._tf, self._probe = tf, probe
        self._gradient = tf.function(self._add, reduce_retracing=True)
        # Of one array list, or of the difference of two: a trace each.
        self._squares = {n: tf.function(self._sum) for n in (False, True)}

    def _variables(self) -> list[Any]:
        found = self._probe.model.trainable_variables
        is_keras_3 = hasattr(self._probe.model, "stateless_call")
        return [v.value if is_keras_3 else v for v in found]

    def mean(self, losses: Any) -> Any:
        """The mean of losses."""
        return self._tf.reduce_mean(losses)

    def replicas(self) -> int:
        """Replicas that share a batch."""
        return int(self._tf.distribute.get_strategy().num_replicas_in_sync)

    def _add(self, x: Any, y: Any, weight: Any, total: Any) -> Any:
        tf, variables = self._tf, self._variables()
        with tf.GradientTape() as tape:
            loss = self._probe.value(x, y, weight)
        # A mirrored variable is read from its first replica.
        read = [getattr(v, "values", (v,))[0] for v in variables]
        found = tape.gradient(loss, read, unconnected_gradients="zero")
        found = [tf.cast(tf.convert_to_tensor(g), tf.float32) for g in found]
        found = [self._probe.unscaled(g) for g in found]
        return self._sum(found), [a + g for a, g in zip(total, found)]

    def _sum(self, arrays: Any, minus: Any = None) -> Any:
        tf = self._tf
        wide = [tf.cast(a, tf.float32) for a in arrays]
        if minus is not None:
            wide = [a - tf.cast(b, tf.float32) for a, b in zip(wide, minus)]
        return tf.stack([tf.reduce_sum(tf.square(a)) for a in wide])

    def add_gradient(self, part: Any, total: Any) -> Any:
        """Squared norms of a piece's gradient, and the sum with it."""
        tf = self._tf
        if total is None:
            total = [tf.zeros(v.shape) for v in self._variables()]
        squares, total = self._gradient(
            *each(tf.convert_to_tensor, part), total
        )
        return squares.numpy(), total

    def squares(self, arrays: Any, minus: Any = None) -> Any:
        """Squared norms of arrays, or of their differences."""
        squares = self._squares[minus is not None]
        return squares(list(arrays), minus).numpy()

    def copies(self) -> list[Any]:
        """The weights as they are now."""
        return [self._tf.convert_to_tensor(v) for v in self._variables()]


class _Jax:
    """Compiled by `jax.jit`; state goes in by value and none comes out."""

    def __init__(self, probe: Probe) -> None:
        import jax

        self._jax, self._probe = jax, probe
        self._gradient = jax.jit(self._add)
        self._squares = jax.jit(self._sum)

    def mean(self, losses: Any) -> Any:
        """The mean of losses."""
        return self._jax.numpy.mean(losses)

    def replicas(self) -> int:
        """Replicas that share a batch."""
        return 1

    def _add(self, trained: Any, others: Any, part: Any, total: Any) -> Any:
        import keras

        model, jnp = self._probe.model, self._jax.numpy

        def loss(trained: Any) -> Any:
            state = [
                *zip(model.trainable_variables, trained),
                *zip(model.non_trainable_variables, others),
            ]
            with keras.StatelessScope(state, collect_losses=True):
                return self._probe.value(*part)

        found = self._jax.grad(loss)(trained)
        found = [self._probe.unscaled(g.astype(jnp.float32)) for g in found]
        return self._sum(found), [a + g for a, g in zip(total, found)]

    def _sum(self, arrays: Any, minus: Any = None) -> Any:
        jnp = self._jax.numpy
        wide = [a.astype(jnp.float32) for a in arrays]
        if minus is not None:
            wide = [a - b.astype(jnp.float32) for a, b in zip(wide, minus)]
        return jnp.stack([jnp.sum(jnp.square(a)) for a in wide])

    def add_gradient(self, part: Any, total: Any) -> Any:
        """Squared norms of a piece's gradient, and the sum with it."""
        model, jnp = self._probe.model, self._jax.numpy
        trained = [v.value for v in model.trainable_variables]
        others = [v.value for v in model.non_trainable_variables]
        if total is None:
            total = [jnp.zeros(v.shape) for v in trained]
        squares, total = self._gradient(trained, others, part, total)
        return np.asarray(squares), total

    def squares(self, arrays: Any, minus: Any = None) -> Any:
        """Squared norms of arrays, or of their differences."""
        return np.asarray(self._squares(list(arrays), minus))

    def copies(self) -> list[Any]:
        """The weights as they are now."""
        # The next step of `fit` donates the buffers of the variables.
        copy = self._jax.numpy.copy
        return [copy(v.value) for v in self._probe.model.trainable_variables]


class _Torch:
    """By `torch.autograd.grad`, which leaves `.grad` as it is."""

    def __init__(self, probe: Probe) -> None:
        import torch

        self._torch, self._probe = torch, probe

    def mean(self, losses: Any) -> Any:
        """The mean of losses."""
        return losses.mean()

    def replicas(self) -> int:
        """Replicas that share a batch."""
        return 1

    def _values(self) -> list[Any]:
        return [v.value for v in self._probe.model.trainable_variables]

    def add_gradient(self, part: Any, total: Any) -> Any:
        """Squared norms of a piece's gradient, and the sum with it."""
        import keras

        values = self._values()
        with self._torch.enable_grad():
            tensors = each(keras.ops.convert_to_tensor, part)
            loss = self._probe.value(*tensors)
            found = self._torch.autograd.grad(loss, values, allow_unused=True)
        gradients = [
            self._torch.zeros_like(v, dtype=self._torch.float32)
            if g is None
            else self._probe.unscaled(g.to_dense().float())
            for g, v in zip(found, values)
        ]
        if total is not None:
            total = [a + g for a, g in zip(total, gradients)]
        return self.squares(gradients), total or gradients

    def squares(self, arrays: Any, minus: Any = None) -> Any:
        """Squared norms of arrays, or of their differences."""
        with self._torch.no_grad():
            wide = [a.float() for a in arrays]
            if minus is not None:
                wide = [a - b.float() for a, b in zip(wide, minus)]
            sums = [self._torch.sum(a * a) for a in wide]
            return self._torch.stack(sums).cpu().numpy()

    def copies(self) -> list[Any]:
        """The weights as they are now."""
        return [v.detach().clone() for v in self._values()]
