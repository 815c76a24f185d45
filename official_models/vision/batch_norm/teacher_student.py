r"""A linear student of a linear teacher: which normalization generalizes.

The teacher is `y = w* x + noise` with |w*| = 1 and x ~ N(0, I) of N inputs; the
student sees P examples in batches of M. Three students:

    "bn"     gamma (w x - mu_B) / s_B            statistics of the batch
    "wn"     gamma w x / |w|, decay zeta gamma^2  weight normalization
    "sgd"    w x

For a linear unit with a squared loss, Gaussian inputs make
`zeta = 3 / (4 M)` (`theory.zeta` with I = 1 and an activity of 1).

Axes: N inputs, P training examples, M examples of a batch.

References:
    Luo et al. 2019 (arXiv:1809.00846), section 4
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np

from official_models.common.errors import InputError
from official_models.vision.batch_norm import theory

Array = np.ndarray
STUDENTS = ("bn", "wn", "sgd")
_EPSILON = 1e-5  # as batch normalization has it


@dataclasses.dataclass(frozen=True)
class Task:
    """What a student is given.

    Args:
        inputs: N.
        load: P / N, above 0.
        noise: Deviation of the teacher's noise.
        batch_size: M, at least 2; at most P.
        steps: Updates.
        learning_rate: Of plain SGD; it falls linearly to 0.
        initial_norm: |w| at the start. What of w is orthogonal to all examples
            no student moves; a small start keeps it small.

    Raises:
        InputError: The load leaves fewer than M examples.
    """

    inputs: int = 100
    load: float = 1.0
    noise: float = 0.5
    batch_size: int = 16
    steps: int = 3000
    learning_rate: float = 0.05
    initial_norm: float = 0.1

    def __post_init__(self):
        if self.batch_size < 2 or self.examples < self.batch_size:
            raise InputError(
                f"load {self.load:g}: {self.examples} examples, expected at "
                f"least a batch, {self.batch_size}, of 2 or more"
            )

    @property
    def examples(self) -> int:
        """P."""
        return round(self.load * self.inputs)


class Outcome(NamedTuple):
    """What a student came to.

    Attributes:
        error: E[(w* x - student(x))^2] / 2 over the whole population, exactly.
        gamma: The scale; |w| of "sgd".
    """

    error: float
    gamma: float


class Gradients(NamedTuple):
    """Derivatives of a batch's loss."""

    weight: Array
    gamma: float


def bn_gradients(w: Array, gamma: float, x: Array, y: Array) -> Gradients:
    """Of mean (y - gamma z)^2 / 2, z normalized by the batch.

    Args:
        w: [N].
        gamma: Scale.
        x: [M, N].
        y: [M].
    """
    h = x @ w
    deviation = np.sqrt(h.var() + _EPSILON)
    z = (h - h.mean()) / deviation
    residual = gamma * z - y
    d_z = gamma * residual / len(y)
    d_h = (d_z - d_z.mean() - z * (d_z * z).mean()) / deviation
    return Gradients(d_h @ x, float((residual * z).mean()))


def wn_gradients(
    w: Array, gamma: float, x: Array, y: Array, decay: float
) -> Gradients:
    """Of mean (y - gamma w x / |w|)^2 / 2 + decay gamma^2.

    Args:
        w: [N].
        gamma: Scale.
        x: [M, N].
        y: [M].
        decay: zeta.
    """
    norm = np.linalg.norm(w)
    direction = w / norm
    z = x @ direction
    residual = gamma * z - y
    d_u = gamma * (residual @ x) / len(y)
    d_w = (d_u - direction * (d_u @ direction)) / norm
    d_gamma = float((residual * z).mean()) + 2 * decay * gamma
    return Gradients(d_w, d_gamma)


def train(kind: str, task: Task, seed: int) -> Outcome:
    """Trains a student and measures it on the population.

    Args:
        kind: One of `STUDENTS`.
        task: What it is given. All kinds are given the same examples and
            batches under a seed.
        seed: Of teacher, examples, initial weights and batches.

    Raises:
        InputError: The kind is unknown.
    """
    if kind not in STUDENTS:
        raise InputError(
            f"student {kind!r}: expected one of {', '.join(STUDENTS)}"
        )
    rng = np.random.default_rng(seed)
    teacher = rng.normal(size=task.inputs)
    teacher /= np.linalg.norm(teacher)
    x = rng.normal(size=(task.examples, task.inputs))
    y = x @ teacher + task.noise * rng.normal(size=task.examples)
    w, gamma = rng.normal(size=task.inputs), 1.0
    w *= task.initial_norm / np.linalg.norm(w)
    decay = theory.zeta(task.batch_size, 0.0, 1.0, 1.0)
    for step in range(task.steps):
        rate = task.learning_rate * (1 - step / task.steps)
        rows = rng.choice(task.examples, task.batch_size, replace=False)
        if kind == "sgd":
            w -= rate * (x[rows] @ w - y[rows]) @ x[rows] / len(rows)
            continue
        if kind == "bn":
            found = bn_gradients(w, gamma, x[rows], y[rows])
        else:
            found = wn_gradients(w, gamma, x[rows], y[rows], decay)
        w = w - rate * found.weight
        gamma -= rate * found.gamma
    return _measured(kind, w, gamma, x, teacher)


def _measured(kind, w, gamma, x, teacher) -> Outcome:
    scale, shift = 1.0, 0.0
    if kind == "bn":  # by the statistics of all training examples
        h = x @ w
        scale = gamma / np.sqrt(h.var() + _EPSILON)
        shift = scale * h.mean()
    elif kind == "wn":
        scale = gamma / np.linalg.norm(w)
    difference = teacher - scale * w
    error = float(difference @ difference + shift**2) / 2
    return Outcome(error, float(np.linalg.norm(w) if kind == "sgd" else gamma))
