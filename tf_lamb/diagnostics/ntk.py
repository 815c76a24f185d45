r"""The neural tangent kernel of a model on a few examples.

    python -m tf_lamb.diagnostics ntk MODEL DATA --other LATER

For a model `f` with `k` outputs and trainable weights `theta` (`p` numbers),
and `n` examples,

$$K = J J^\top,\qquad J = \frac{\partial f(x_i; \theta)_c}{\partial \theta},
  \qquad J: [n k, p],\quad K: [n k, n k]$$

with rows by example, then by output. Training moves the outputs as this kernel
says for as long as it does not change; two checkpoints' kernels `K`, `K'` say
by how much it did:

$$\frac{\|K' - K\|_F}{\|K\|_F},\qquad
  1 - \frac{\langle K, K'\rangle_F}{\|K\|_F\, \|K'\|_F}$$

The second does not see a change of scale. Kernel regression with targets `y`
and a ridge `rho`,

$$\hat y_* = \bar y + K_{*} (K + \lambda I)^{-1} (y - \bar y),\qquad
  \lambda = \rho\, \mathrm{tr}(K) / (n k)$$

says how well a model that only moved by this kernel would do. Derivatives are
those of inference mode; outputs are those of the model as it is: have it give
logits, not probabilities. Keras 3 on TensorFlow or JAX.

References:
  Jacot et al. 2018 (arXiv:1806.07572); Fort et al. 2020 (arXiv:2010.15110) for
  the drift and for regression with a trained model's kernel.
"""

from __future__ import annotations

from typing import Any, Callable, NamedTuple

import numpy as np

from tf_lamb import check, figures
from tf_lamb.diagnostics import probe
from tf_lamb.diagnostics.at_weights import compiled, mean_and_error, tensor
from tf_lamb.diagnostics.examples import each, leaves

__all__ = [
    "Drift",
    "Jacobian",
    "Regression",
    "drift",
    "fit",
    "gram",
    "plot",
    "regress",
    "targets",
]

_COLUMNS = 8192  # of the Jacobian, in float64 at once
_GROUPS = 20  # of examples, that the jackknife leaves out in turn


class Drift(NamedTuple):
    """By how much a second kernel differs from a first.

    The standard errors are those of the jackknife over examples: how much other
    examples would change the numbers, not another training.

    Attributes:
      relative_change: of the Frobenius norm.
      relative_change_error: its standard error.
      cosine_distance: 1 - kernel alignment, in [0, 1].
      cosine_distance_error: its standard error.
    """

    relative_change: float
    relative_change_error: float
    cosine_distance: float
    cosine_distance_error: float


class Regression(NamedTuple):
    """How well predictions fit held-out examples; standard errors over these.

    Attributes:
      squared_error: mean over examples and outputs.
      squared_error_error: its standard error.
      score: share of right classes, or None where targets are no classes.
      score_error: its standard error, or None; with two right and two wrong
        examples more (Agresti, Coull 1998), so that it is not 0 where all are
        right.
    """

    squared_error: float
    squared_error_error: float
    score: float | None
    score_error: float | None


class Jacobian:
    """Derivatives of a model's outputs of each example.

    Args:
      model: built, with one output, of Keras 3 on TensorFlow or JAX.
      x: inputs, arrays of `n` examples in the model's structure.
      others: values of the variables that are not trained; None: the model's.

    Raises:
      ValueError: the model is none for this.
    """

    def __init__(self, model: Any, x: Any, others: Any = None) -> None:
        backend = probe.backend_of(model)
        if not hasattr(model, "stateless_call") or backend == "torch":
            raise ValueError(
                "model: expected one of Keras 3 on TensorFlow or JAX, got one "
                f"of {type(model).__module__.split('.')[0]} on {backend}."
            )
        self.model, self._x = model, x
        if others is None:
            others = [v.value for v in model.non_trainable_variables]
        self._others = [
            tensor(a, v) for a, v in zip(others, model.non_trainable_variables)
        ]
        self.examples = len(leaves(x)[0])
        first = model(each(lambda a: tensor(a[:1]), x), training=False)
        if not hasattr(first, "shape"):
            raise ValueError(
                "model: expected one output, got "
                f"{len(leaves(first))}; make a model of one of them."
            )
        self.outputs = int(np.prod(tuple(first.shape)[1:], dtype=np.int64))
        self.parameters = sum(
            int(np.prod(v.shape)) for v in model.trainable_variables
        )
        self.dtype = np.result_type(
            *(probe.to_numpy(v).dtype for v in model.trainable_variables)
        )
        programs = {"jax": self._jax, "tensorflow": self._tensorflow}
        self._program = compiled(programs[backend], backend)

    @property
    def shape(self) -> tuple[int, int]:
        """`[n k, p]`."""
        return self.examples * self.outputs, self.parameters

    def bytes_needed(self, batch_size: int) -> int:
        """About how much memory the Jacobian and its kernel take.

        Args:
          batch_size: examples that are differentiated at once.

        Returns:
          Bytes: the Jacobian, two copies of a batch's rows, `_COLUMNS` columns
          in float64, and four matrices of the kernel's size.
        """
        rows, columns = self.shape
        batch = min(batch_size, self.examples) * self.outputs
        item = self.dtype.itemsize
        return (
            item * rows * columns
            + 2 * item * batch * columns
            + 8 * rows * min(columns, _COLUMNS)
            + 4 * 8 * rows * rows
        )

    def rows(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Derivatives and outputs of some examples.

        Args:
          start: the first example.
          stop: that behind the last.

        Returns:
          `[(stop - start) k, p]` and `[stop - start, k]`.
        """
        model = self.model
        part = each(lambda a: tensor(a[start:stop]), self._x)
        weights = [tensor(v.value) for v in model.trainable_variables]
        found, outputs = self._program(weights, self._others, part)
        rows = (stop - start) * self.outputs
        flat = [np.asarray(a).reshape(rows, -1) for a in found]
        values = np.asarray(outputs, np.float64)
        return np.concatenate(flat, 1), values.reshape(-1, self.outputs)

    def _outputs(self, weights: Any, others: Any, x: Any) -> Any:
        import keras

        model = self.model
        pairs = [
            *zip(model.trainable_variables, weights),
            *zip(model.non_trainable_variables, others),
        ]
        with keras.StatelessScope(pairs):
            predicted = model(x, training=False)
        return keras.ops.reshape(predicted, (-1, self.outputs))

    def _jax(self, weights: Any, others: Any, x: Any) -> Any:
        import jax

        def one(values: Any, example: Any) -> Any:
            batch = jax.tree.map(lambda a: a[None], example)
            found = self._outputs(values, others, batch)[0]
            return found, found

        by_example = jax.vmap(jax.jacrev(one, has_aux=True), (None, 0))
        return by_example(weights, x)

    def _tensorflow(self, weights: Any, others: Any, x: Any) -> Any:
        import tensorflow as tf

        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(weights)
            found = self._outputs(weights, others, x)
        # No example's outputs depend on another's inputs in inference mode.
        jacobian = tape.jacobian(found, weights, unconnected_gradients="zero")
        return jacobian, found


def gram(
    jacobian: np.ndarray, progress: Callable[[str], None] = lambda line: None
) -> np.ndarray:
    """`J J^T`, added up in float64, `[n k, n k]`.

    Args:
      jacobian: `[n k, p]`; it may lie in a file.
      progress: called with a line of text.
    """
    rows, columns = jacobian.shape
    found = np.zeros((rows, rows))
    for start in range(0, columns, _COLUMNS):
        part = np.asarray(jacobian[:, start : start + _COLUMNS], np.float64)
        found += part @ part.T
        done = min(start + _COLUMNS, columns)
        progress(f"kernel: parameters {done}/{columns}")
    return found


def drift(first: np.ndarray, second: np.ndarray, outputs: int) -> Drift:
    """By how much a kernel changed.

    Args:
      first: `[n k, n k]`.
      second: of the same examples and outputs.
      outputs: `k`.

    Raises:
      ValueError: fewer than two examples, or a kernel is 0 or not finite.
    """
    examples = len(first) // outputs
    norms = float(np.linalg.norm(first)), float(np.linalg.norm(second))
    if examples < 2 or not all(0 < norm < np.inf for norm in norms):
        raise ValueError(
            "kernels: expected finite ones, not 0, of two examples or more; "
            f"got norms {norms[0]:.3g} and {norms[1]:.3g} of {examples}."
        )
    count = min(examples, _GROUPS)
    group = np.repeat(np.arange(examples) * count // examples, outputs)
    whole = _change(first, second)
    left_out = []
    for i in range(count):
        keep = np.flatnonzero(group != i)
        square = np.ix_(keep, keep)
        left_out.append(_change(first[square], second[square]))
    spread = np.asarray(left_out).std(0) * np.sqrt(count - 1)
    return Drift(whole[0], float(spread[0]), whole[1], float(spread[1]))


def _change(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    norm = np.linalg.norm
    change = norm(second - first) / norm(first)
    # As a difference of unit matrices, which is exact where they are equal.
    apart = norm(second / norm(second) - first / norm(first))
    return float(change), float(apart**2 / 2)


def targets(y: Any, outputs: int) -> tuple[np.ndarray, bool]:
    """What a regression predicts.

    Args:
      y: `[n]` or `[n, 1]` whole numbers, classes; or `[n, ...]` of `k` numbers.
      outputs: `k`.

    Returns:
      `[n, k]` float64, classes as 0 and 1; and whether they are classes.

    Raises:
      ValueError: they are neither.
    """
    y = np.asarray(y)
    flat = y.reshape(len(y), -1)
    if y.dtype.kind in "iub" and flat.shape[1] == 1 and outputs > 1:
        if flat.min() < 0 or flat.max() >= outputs:
            raise ValueError(
                f"data: expected classes from 0 to {outputs - 1}, as the model "
                f"has outputs, got {flat.min()} to {flat.max()}."
            )
        return np.eye(outputs)[flat[:, 0].astype(int)], True
    if flat.shape[1] != outputs:
        raise ValueError(
            f"data: expected y of {outputs} numbers an example, as the model "
            f"has outputs, or whole numbers, classes; got {flat.shape[1]} of "
            f"{y.dtype}."
        )
    one_hot = outputs > 1 and np.isin(flat, (0, 1)).all()
    is_class = bool(one_hot and (flat.sum(1) == 1).all())
    return flat.astype(np.float64), is_class


def regress(
    kernel: np.ndarray, y: np.ndarray, train: int, ridge: float
) -> np.ndarray:
    """Predictions of kernel regression.

    Args:
      kernel: `[n k, n k]`.
      y: targets, `[n, k]`; those of the first `train` examples are used.
      train: examples that are learned from; the rest is predicted.
      ridge: `rho`, > 0.

    Returns:
      `[n - train, k]`.
    """
    check.positive("ridge", ridge)
    outputs = y.shape[1]
    cut = train * outputs
    learned = kernel[:cut, :cut]
    strength = ridge * np.trace(learned) / cut
    mean = y[:train].mean(0)
    weights = np.linalg.solve(
        learned + strength * np.eye(cut), np.ravel(y[:train] - mean)
    )
    return mean + (kernel[cut:, :cut] @ weights).reshape(-1, outputs)


def fit(predicted: np.ndarray, y: np.ndarray, classes: bool) -> Regression:
    """How well predictions fit targets.

    Args:
      predicted: `[m, k]`.
      y: `[m, k]`.
      classes: whether the largest output is the answer.
    """
    error = mean_and_error(np.square(predicted - y).mean(1))
    if not classes:
        return Regression(*error, None, None)
    right = predicted.argmax(1) == y.argmax(1)
    share = (right.sum() + 2) / (len(right) + 4)
    deviation = np.sqrt(share * (1 - share) / (len(right) + 4))
    return Regression(*error, float(right.mean()), float(deviation))


def plot(
    path: Any,
    eigenvalues: dict[str, np.ndarray],
    kernel: np.ndarray,
    order: Any,
) -> None:
    """Draws the eigenvalues of kernels, and the last kernel by example.

    Args:
      path: of a PNG file.
      eigenvalues: of kernels, descending, `[n k]`, by name.
      kernel: the last of these kernels, `[n k, n k]`.
      order: of the examples in the picture, `[n]`; by class, if they have some.
    """
    figure = figures.new("ntk.plot", 10.5, 4)
    left, right = figure.subplots(1, 2)
    for name, values in eigenvalues.items():
        left.loglog(
            np.arange(1, len(values) + 1),
            np.maximum(values, values[0] * 1e-12),
            label=name,
        )
    left.set_xlabel("rank")
    left.set_ylabel("eigenvalue of the kernel")
    left.legend()
    n = len(order)
    by_output = kernel.reshape(n, len(kernel) // n, n, len(kernel) // n)
    by_example = np.einsum("icjc->ij", by_output)
    image = right.imshow(
        by_example[np.ix_(order, order)], interpolation="nearest"
    )
    figure.colorbar(image, ax=right)
    right.set_xlabel("example")
    right.set_title(f"{name}: sum over outputs, examples by target")
    figures.save(figure, path)
