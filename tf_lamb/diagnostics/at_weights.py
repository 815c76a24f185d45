r"""A model's loss and accuracy at any weights, batch by batch.

Nothing is assigned to the model: weights go in by value. `B` is the number of
batches. The standard error of a mean over batches,

$$s = \sqrt{\frac{1}{B (B - 1)} \sum_b (L_b - \bar L)^2},$$

says how far the mean is likely to be from that of all examples there are, from
which these were drawn. It is not the error of a difference between weights,
which is smaller, because the examples are the same: that is the standard error
of the differences `L_b(w) - L_b(v)`.

Keras 3 on TensorFlow or JAX.
"""

from __future__ import annotations

from typing import Any, Callable, NamedTuple, Sequence

import numpy as np

from tf_lamb import check
from tf_lamb.diagnostics import probe
from tf_lamb.diagnostics.examples import each, leaves

__all__ = [
    "AtWeights",
    "Measured",
    "mean_and_error",
    "renew_statistics",
    "statistics_layers",
]


class Measured(NamedTuple):
    """What batches gave at some weights.

    Attributes:
      losses: of each batch, `[B]`, float64.
      scores: share of right classes in each batch, `[B]`, or None where the
        targets are no classes.
    """

    losses: np.ndarray
    scores: np.ndarray | None


def mean_and_error(values: Any) -> tuple[float, float]:
    """A mean, and its standard error.

    Args:
      values: of batches, `[B]`, two at least.
    """
    values = np.asarray(values, np.float64)
    error = values.std(ddof=1) / np.sqrt(len(values))
    return float(values.mean()), float(error)


def statistics_layers(model: Any) -> list[Any]:
    """The layers whose batch statistics can be recomputed.

    Args:
      model: of Keras 3.

    Returns:
      Those that have `moving_mean` and `moving_variance` and are trainable. (A
      frozen one normalises by what it has, in training too.)

    Raises:
      ValueError: one of them says no `momentum` below 1, or renormalises.
    """
    found = []
    for layer in model._flatten_layers():
        if not hasattr(layer, "moving_mean") or not layer.trainable:
            continue
        momentum = getattr(layer, "momentum", None)
        if momentum is None or momentum >= 1 or getattr(layer, "renorm", False):
            raise ValueError(
                f"layer {layer.name!r} ({type(layer).__name__}): its batch "
                "statistics cannot be recomputed; expected an attribute "
                "momentum below 1, as keras.layers.BatchNormalization has "
                "it, and no renorm."
            )
        found.append(layer)
    return found


def renew_statistics(model: Any, data: Any, batch_size: int) -> int:
    """Gives batch normalisation the statistics of data, at a model's weights.

    Moving statistics lag behind: those of a model that was trained for 60 steps
    are mostly of the weights that it began with, and its gradient in inference
    mode is not near that of a training step.

    Args:
      model: of Keras 3 on TensorFlow or JAX; its weights stay.
      data: `(x, y, sample_weight or None)`, arrays of `n` examples.
      batch_size: examples of a batch, see `AtWeights.with_statistics`.

    Returns:
      How many layers got others; 0 where there is no batch normalisation.

    Raises:
      ValueError: see `statistics_layers` and `AtWeights`.
    """
    layers = statistics_layers(model)
    if layers:
        at = AtWeights(model, data, batch_size)
        moving = {
            id(v) for x in layers for v in (x.moving_mean, x.moving_variance)
        }
        found = at.with_statistics(at.weights())
        for variable, value in zip(model.non_trainable_variables, found):
            if id(variable) in moving:
                variable.assign(value)
    return len(layers)


class AtWeights:
    """The loss of some examples as a function of a model's weights.

    Weights are lists of arrays, those of the model's trainable variables in
    their order; `others` those of its other variables.

    Args:
      model: built, compiled with its loss, of Keras 3 on TensorFlow or JAX.
      data: `(x, y, sample_weight or None)`, arrays of `n` examples.
      batch_size: examples of a batch; a rest is left out.

    Raises:
      ValueError: the model is none for this, or there are fewer examples than
        two batches, which an error bar needs.
    """

    def __init__(self, model: Any, data: Any, batch_size: int = 256) -> None:
        backend = probe.backend_of(model)
        if not hasattr(model, "stateless_call") or backend == "torch":
            raise ValueError(
                "model: expected one of Keras 3 on TensorFlow or JAX, got one "
                f"of {type(model).__module__.split('.')[0]} on {backend}."
            )
        self.model = model
        self._one_hot = _is_one_hot(data[1])
        self._batches = _batches(data, check.count("batch_size", batch_size))
        self.examples = len(self._batches) * batch_size
        self._evaluate = compiled(self._measured, backend)
        self._forward = compiled(self._updated, backend)

    def weights(self) -> list[np.ndarray]:
        """The model's own weights, as they are now."""
        return [probe.to_numpy(v) for v in self.model.trainable_variables]

    def others(self) -> list[np.ndarray]:
        """Its variables that are not trained, as they are now."""
        return [probe.to_numpy(v) for v in self.model.non_trainable_variables]

    def measure(
        self,
        weights: Sequence[Any],
        others: Sequence[Any] | None = None,
    ) -> Measured:
        """Loss and accuracy at weights, in inference mode.

        Args:
          weights: of the trainable variables.
          others: of the others; None: the model's.
        """
        state = self._tensors(weights, others)
        found = np.asarray(
            [
                [float(value) for value in self._evaluate(*state, batch)]
                for batch in self._batches
            ],
            np.float64,
        )
        scores = found[:, 1] if found.shape[1] == 2 else None
        return Measured(found[:, 0], scores)

    def with_statistics(
        self, weights: Sequence[Any], others: Sequence[Any] | None = None
    ) -> list[np.ndarray]:
        """`others` with the statistics of batch normalisation at weights.

        They are mean and variance of all the examples as one batch, by the law
        of total variance from those of equal batches in training mode,
        `mean(v_b) + var(m_b)`. Behind another batch normalisation, its inputs
        are those that were normalised batch by batch.

        Args:
          weights: of the trainable variables.
          others: of the others; None: the model's.

        Raises:
          ValueError: see `statistics_layers`.
        """
        given = self.others() if others is None else list(others)
        layers = statistics_layers(self.model)
        if not layers:
            return given
        place = {
            id(v): i for i, v in enumerate(self.model.non_trainable_variables)
        }
        pairs = [
            (place[id(n.moving_mean)], place[id(n.moving_variance)], n.momentum)
            for n in layers
        ]
        # From zero, an update leaves (1 - momentum) times the batch's value.
        zeroed = list(given)
        for i in [i for pair in pairs for i in pair[:2]]:
            zeroed[i] = np.zeros_like(given[i])
        state = self._tensors(weights, zeroed)
        rows = [self._forward(*state, b)[1] for b in self._batches]
        for mean_at, variance_at, momentum in pairs:
            means, variances = (
                np.asarray([np.asarray(row[i], np.float64) for row in rows])
                / (1 - momentum)
                for i in (mean_at, variance_at)
            )
            given[mean_at] = _as(means.mean(0), given[mean_at])
            variance = variances.mean(0) + means.var(0)
            given[variance_at] = _as(variance, given[variance_at])
        return given

    def loss(
        self, weights: Any, others: Any, batch: Any, training: bool
    ) -> tuple[Any, Any, list[Any]]:
        """Loss, outputs and the other variables afterwards, of tensors.

        Args:
          weights: of the trainable variables.
          others: of the others.
          batch: `(x, y, sample_weight or None)`.
          training: whether dropout and batch statistics act.
        """
        import keras

        x, y, weight = batch
        variables = self.model.non_trainable_variables
        pairs = [
            *zip(self.model.trainable_variables, weights),
            *zip(variables, others),
        ]
        with keras.StatelessScope(pairs, collect_losses=True) as scope:
            predicted = self.model(x, training=training)
            loss = self.model.compute_loss(
                x=x, y=y, y_pred=predicted, sample_weight=weight
            )
            after = [scope.get_current_value(v) for v in variables]
        return loss, predicted, after

    def _measured(self, weights: Any, others: Any, batch: Any) -> list[Any]:
        loss, predicted, _ = self.loss(weights, others, batch, training=False)
        score = _score(batch[1], predicted, self._one_hot)
        return [loss] if score is None else [loss, score]

    def _updated(self, weights: Any, others: Any, batch: Any) -> Any:
        loss, _, after = self.loss(weights, others, batch, training=True)
        return loss, after

    def _tensors(self, weights: Any, others: Any) -> tuple[Any, Any]:
        model = self.model
        if others is None:
            others = self.others()
        return (
            [tensor(a, v) for a, v in zip(weights, model.trainable_variables)],
            [
                tensor(a, v)
                for a, v in zip(others, model.non_trainable_variables)
            ],
        )


def compiled(function: Callable[..., Any], backend: str) -> Callable[..., Any]:
    """A function of tensors, compiled.

    Args:
      function: of tensors and lists or tuples of them.
      backend: "tensorflow" or "jax".
    """
    if backend == "jax":
        import jax

        jitted: Callable[..., Any] = jax.jit(function)
        return jitted
    import tensorflow as tf

    graph: Callable[..., Any] = tf.function(function, autograph=False)
    return graph


def tensor(array: Any, variable: Any = None) -> Any:
    """An array as a tensor.

    Args:
      array: of numbers.
      variable: of Keras, whose dtype it gets; None: its own.
    """
    import keras

    dtype = None if variable is None else variable.dtype
    return keras.ops.convert_to_tensor(array, dtype=dtype)


def _as(value: np.ndarray, like: np.ndarray) -> np.ndarray:
    return value.reshape(like.shape).astype(like.dtype)


def _batches(data: Any, size: int) -> list[Any]:
    have = len(leaves(data[0])[0])
    if have < 2 * size:
        raise ValueError(
            f"data: expected at least {2 * size} examples, two batches of "
            f"{size} for an error bar, got {have}; give a smaller --batch_size."
        )

    def batch(start: int) -> Any:
        return each(
            lambda a: None if a is None else tensor(a[start : start + size]),
            tuple(data),
        )

    return [batch(i * size) for i in range(have // size)]


def _is_one_hot(y: Any) -> bool:
    if not isinstance(y, np.ndarray) or y.ndim < 2 or y.shape[-1] < 2:
        return False
    return bool(np.isin(y, (0, 1)).all() and (y.sum(-1) == 1).all())


def _score(y: Any, predicted: Any, one_hot: bool) -> Any:
    """The share of right classes in a batch, or None."""
    import keras

    if not hasattr(y, "shape") or not hasattr(predicted, "shape"):
        return None  # several targets
    metrics, classes = keras.metrics, predicted.shape[-1]
    if one_hot and tuple(y.shape) == tuple(predicted.shape):
        right = metrics.categorical_accuracy(y, predicted)
    elif (
        "int" in keras.backend.standardize_dtype(y.dtype)
        and (classes or 0) > 1
        and tuple(y.shape) in (predicted.shape[:-1], (*predicted.shape[:-1], 1))
    ):
        right = metrics.sparse_categorical_accuracy(y, predicted)
    else:
        return None
    return keras.ops.mean(right)
