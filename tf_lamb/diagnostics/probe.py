"""Gradients and weights of a model, read beside its training.

Nothing of the training is touched: the step's compiled program is the same with
and without a probe, and a probe assigns to no variable. A gradient is that of
inference mode (`training=False`): no dropout, batch normalisation with its
moving statistics, no random number drawn.
"""

from __future__ import annotations

import sys
from typing import Any, Callable, Iterator, Sequence

import numpy as np

from tf_lamb import check, exclusion

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


def keys(model: Any) -> tuple[str, ...]:
    """The paths of a model's trainable variables, repeated ones numbered."""
    paths = [getattr(v, "path", v.name) for v in model.trainable_variables]
    return exclusion.unique_keys(paths)


def each(function: Callable[..., Any], *trees: Any) -> Any:
    """`function` of the leaves of dicts, lists and tuples of one structure."""
    first = trees[0]
    if isinstance(first, dict):
        return {k: each(function, *(t[k] for t in trees)) for k in first}
    if isinstance(first, (list, tuple)):
        return type(first)(each(function, *leaves) for leaves in zip(*trees))
    return None if first is None else function(*trees)


def _leaves(tree: Any) -> list[Any]:
    found: list[Any] = []
    each(found.append, tree)
    return found


class Examples:
    """Draws examples from arrays, or takes them from batches in turn.

    Args:
      data: a tuple `(x, y)` or `(x, y, sample_weight)` of arrays, or of dicts,
        lists or tuples of them, `[examples, ...]` each, from which examples are
        drawn at random; or something that is iterated again and again, such as
        a `tf.data.Dataset`, whose items are such tuples, whole batches.
      seed: of the draws; training draws from other generators.

    Raises:
      ValueError: it is neither, or the arrays have different lengths.
    """

    def __init__(self, data: Any, seed: int = 0) -> None:
        self._data = data
        self._random = np.random.default_rng(seed)
        self._batches: Iterator[Any] = iter(())
        self._arrays = None
        if isinstance(data, tuple):
            self._arrays = _checked(data)
        elif not hasattr(data, "__iter__") or isinstance(data, (str, dict)):
            raise check.refuse(
                "data", data, "a tuple (x, y) of arrays, or batches of them"
            )

    def draw(self, count: int) -> tuple[Any, ...]:
        """As many examples, `(x, y, sample_weight or None)`, NumPy arrays.

        Args:
          count: examples, >= 1.

        Raises:
          ValueError: there are not so many.
        """
        if self._arrays is not None:
            have = len(_leaves(self._arrays)[0])
            if have < count:
                raise ValueError(
                    f"data: expected at least {count} examples, got {have}."
                )
            rows = self._random.choice(have, count, replace=False)
            return _triple(each(lambda a: a[rows], self._arrays))
        batch, have = self._next(), 0
        while (have := len(_leaves(batch)[0])) < count:
            batch = each(
                lambda a, b: np.concatenate([a, b]), batch, self._next()
            )
        return _triple(each(lambda a: a[:count], batch))

    def _next(self) -> tuple[Any, ...]:
        for _ in range(2):
            for item in self._batches:
                if not isinstance(item, tuple):
                    raise check.refuse("data", item, "batches (x, y)")
                return _checked(item)
            self._batches = iter(self._data)
        raise ValueError("data: expected batches, got none; is it used up?")


def _checked(data: tuple[Any, ...]) -> tuple[Any, ...]:
    arrays: tuple[Any, ...] = each(np.asarray, data)
    lengths = {a.shape[0] if a.ndim else 0 for a in _leaves(arrays)}
    if len(data) not in (2, 3) or len(lengths) != 1 or 0 in lengths:
        raise ValueError(
            "data: expected (x, y) or (x, y, sample_weight) of as many "
            f"examples each, got {len(data)} of lengths {sorted(lengths)}."
        )
    return arrays


def _triple(data: tuple[Any, ...]) -> tuple[Any, ...]:
    return (*data, None) if len(data) == 2 else data


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
        """
        with _Unchanged(self.model):
            length = len(_leaves(data)[0])
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

    def weight_norms(
        self, before: Sequence[Any] | None
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Norms of the weights, and of their change since `copies`, `[n]`."""
        now = self._on.copies()
        norms = np.sqrt(np.asarray(self._on.squares(now), np.float64))
        if before is None:
            return norms, None
        change = np.asarray(self._on.squares(now, before), np.float64)
        return norms, np.sqrt(change)

    def value(self, x: Any, y: Any, weight: Any) -> Any:
        """The loss in inference mode, scaled for float16."""
        predicted = self.model(x, training=False)
        if self._loss is None:
            loss = self.model.compute_loss(
                x=x, y=y, y_pred=predicted, sample_weight=weight
            )
        else:
            loss = self._loss(y, predicted)
            loss = sum(loss) / len(loss) if getattr(loss, "shape", ()) else loss
        return loss * self._scale

    def unscaled(self, gradient: Any) -> Any:
        """A gradient of `value` as one of the loss."""
        return gradient if self._scale == 1 else gradient / self._scale


class _Unchanged:
    """Sets metrics back that a loss counts itself in, as tf_keras' does."""

    def __init__(self, model: Any) -> None:
        functional = backend_of(model) == "jax"
        metrics = [] if functional else getattr(model, "metrics", [])
        self._variables = [v for m in metrics for v in m.variables]

    def __enter__(self) -> None:
        self._before = [to_numpy(v) for v in self._variables]

    def __exit__(self, *error: Any) -> None:
        for variable, value in zip(self._variables, self._before):
            if not np.array_equal(to_numpy(variable), value, equal_nan=True):
                variable.assign(value)


def to_numpy(value: Any) -> np.ndarray:
    """A variable or tensor of any backend as an array.

    Args:
      value: it may lie on another device.
    """
    value = getattr(value, "value", value) if hasattr(value, "path") else value
    if hasattr(value, "detach"):
        value = value.detach().cpu().float()
    found = np.asarray(value.numpy() if hasattr(value, "numpy") else value)
    return found.astype(np.float32) if found.dtype.kind == "V" else found


class _TensorFlow:
    """Compiled by `tf.function`; a mirrored variable is read on one device."""

    def __init__(self, probe: Probe) -> None:
        import tensorflow as tf

        self._tf, self._probe = tf, probe
        self._gradient = tf.function(self._add, reduce_retracing=True)
        self._squares = tf.function(self._sum, reduce_retracing=True)

    def _variables(self) -> list[Any]:
        found = self._probe.model.trainable_variables
        is_keras_3 = hasattr(self._probe.model, "stateless_call")
        return [v.value if is_keras_3 else v for v in found]

    def _add(self, x: Any, y: Any, weight: Any, total: Any) -> Any:
        tf, variables = self._tf, self._variables()
        with tf.GradientTape() as tape:
            loss = self._probe.value(x, y, weight)
        found = tape.gradient(loss, variables, unconnected_gradients="zero")
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
        tf = self._tf
        if total is None:
            total = [tf.zeros(v.shape) for v in self._variables()]
        squares, total = self._gradient(
            *each(tf.convert_to_tensor, part), total
        )
        return squares.numpy(), total

    def squares(self, arrays: Any, minus: Any = None) -> Any:
        return self._squares(list(arrays), minus).numpy()

    def copies(self) -> list[Any]:
        return [self._tf.convert_to_tensor(v) for v in self._variables()]


class _Jax:
    """Compiled by `jax.jit`; state goes in by value and none comes out."""

    def __init__(self, probe: Probe) -> None:
        import jax

        self._jax, self._probe = jax, probe
        self._gradient = jax.jit(self._add)
        self._squares = jax.jit(self._sum)

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
        model, jnp = self._probe.model, self._jax.numpy
        trained = [v.value for v in model.trainable_variables]
        others = [v.value for v in model.non_trainable_variables]
        if total is None:
            total = [jnp.zeros(v.shape) for v in trained]
        squares, total = self._gradient(trained, others, part, total)
        return np.asarray(squares), total

    def squares(self, arrays: Any, minus: Any = None) -> Any:
        return np.asarray(self._squares(list(arrays), minus))

    def copies(self) -> list[Any]:
        # The next step of `fit` donates the buffers of the variables.
        copy = self._jax.numpy.copy
        return [copy(v.value) for v in self._probe.model.trainable_variables]


class _Torch:
    """By `torch.autograd.grad`, which leaves `.grad` as it is."""

    def __init__(self, probe: Probe) -> None:
        import torch

        self._torch, self._probe = torch, probe

    def _values(self) -> list[Any]:
        return [v.value for v in self._probe.model.trainable_variables]

    def add_gradient(self, part: Any, total: Any) -> Any:
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
        with self._torch.no_grad():
            wide = [a.float() for a in arrays]
            if minus is not None:
                wide = [a - b.float() for a, b in zip(wide, minus)]
            sums = [self._torch.sum(a * a) for a in wide]
            return self._torch.stack(sums).cpu().numpy()

    def copies(self) -> list[Any]:
        return [v.detach().clone() for v in self._values()]
