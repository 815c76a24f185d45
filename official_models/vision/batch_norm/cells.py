"""One training of the study, from its settings to its losses."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import keras
import numpy as np

import tf_lamb
from official_models.common.errors import InputError
from official_models.vision.batch_norm import gamma_decay, layers, model
from official_models.vision.batch_norm.data import Batches, Part, Parts

# What is trained: {arm: (norm, whether gamma decays)}.
ARMS = {
    "bn": ("batch", False),
    "bn_decay": ("batch", True),
    "pn": ("population", False),
    "pn_decay": ("population", True),
    "wn": ("weight", False),
}
OPTIMIZERS = ("lamb", "lars", "sgd")
# Peak rates that each arm is tuned over; chosen after a first look at "bn".
RATES = {
    "lamb": (0.003, 0.01, 0.03, 0.1),
    "lars": (0.3, 1.0, 3.0, 10.0),
    "sgd": (0.01, 0.03, 0.1),
}
_EVALUATION_BATCH = 512


@dataclasses.dataclass(frozen=True)
class Cell:
    """The settings of a training.

    Attributes:
        arm: A key of `ARMS`.
        optimizer: One of `OPTIMIZERS`.
        batch_size: M.
        updates: How many.
        rate: Peak learning rate; a tenth of the updates warm up, the others
            decay linearly.
        decay: Of gamma: its factor in the loss; 0 without.
        seed: Of weights and order.
        filters: Of the first convolution.
    """

    arm: str
    optimizer: str
    batch_size: int
    updates: int
    rate: float
    decay: float
    seed: int
    filters: int

    @property
    def name(self) -> str:
        """Of its file."""
        return (
            f"{self.arm}-{self.optimizer}-m{self.batch_size}-u{self.updates}"
            f"-r{self.rate:g}-d{self.decay:.9g}-f{self.filters}-s{self.seed}"
        )


def make_optimizer(cell: Cell) -> keras.optimizers.Optimizer:
    """LAMB and LARS leave biases and gammas alone; momentum is 0.9."""
    rate = tf_lamb.WarmupPolynomial(
        cell.rate, cell.updates, cell.updates // 10, 0.0
    )
    excluded = "biases_and_norms"
    if cell.optimizer == "lamb":
        return tf_lamb.LAMB(
            rate, weight_decay=0.01, exclude_from_weight_decay=excluded
        )
    if cell.optimizer == "lars":
        return tf_lamb.LARS(
            rate, 0.9, weight_decay=1e-4, exclude_from_weight_decay=excluded
        )
    return keras.optimizers.SGD(rate, 0.9)


def train(
    cell: Cell,
    parts: Parts,
    dtype: str = "float32",
    jit_compile: bool = False,
) -> dict[str, Any]:
    """Trains a network, gives it the population's statistics, measures it.

    Args:
        cell: Settings.
        parts: Images.
        dtype: Policy of the network.
        jit_compile: Whether XLA compiles the step.

    Returns:
        JSON values: the settings; loss and accuracy on each part; the root
        mean square of gamma, of all layers; seconds of the clock.

    Raises:
        InputError: The loss is not finite.
    """
    began = time.monotonic()
    keras.utils.set_random_seed(cell.seed)
    norm, decays = ARMS[cell.arm]
    population = len(parts.train.labels) if norm == "population" else 0
    _, height, _, channels = parts.train.images.shape
    made = model.make(
        model.SmallConfig(
            norm, height, channels, parts.classes, cell.filters, population
        ),
        seed=cell.seed,
        gamma_regularizer=(
            keras.regularizers.L2(cell.decay) if decays and cell.decay else None
        ),
        dtype=dtype,
    )
    made.compile(
        make_optimizer(cell),
        keras.losses.SparseCategoricalCrossentropy(
            from_logits=True, reduction="mean_with_sample_weight"
        ),
        jit_compile=jit_compile,
    )
    batches = Batches(
        parts.train, cell.batch_size, cell.updates, cell.seed, population
    )
    made.fit(batches, shuffle=False, verbose=0)
    layers.measure_population(made, parts.train.images)
    found: dict[str, Any] = dataclasses.asdict(cell)
    for name in ("train", "tuning", "evaluation"):
        found[name] = score(made, getattr(parts, name))
    if not all(np.isfinite(found[n]["loss"]) for n in ("train", "evaluation")):
        raise InputError(
            f"{cell.name}: the loss is not finite: this rate diverges"
        )
    found["gamma"] = root_mean_square_gamma(made)
    found["seconds"] = round(time.monotonic() - began, 2)
    return found


def score(made: keras.Model, part: Part) -> dict[str, float]:
    """Mean cross-entropy, in nats, and accuracy of a part."""
    logits = np.asarray(
        made.predict(part.images, batch_size=_EVALUATION_BATCH, verbose=0),
        "float64",
    )
    top = logits.max(axis=1, keepdims=True)
    log_sum = top[:, 0] + np.log(np.exp(logits - top).sum(axis=1))
    picked = logits[np.arange(len(logits)), part.labels]
    return {
        "loss": float((log_sum - picked).mean()),
        "accuracy": float((logits.argmax(axis=1) == part.labels).mean()),
    }


def root_mean_square_gamma(made: keras.Model) -> float:
    """Over the channels of all layers."""
    each = [
        keras.ops.convert_to_numpy(layer.gamma).ravel()
        for layer in layers.normalizations(made)
    ]
    return float(np.sqrt(np.mean(np.square(np.concatenate(each)))))


def hidden_decay(zeta: float, batch_size: int, reference: int | None) -> float:
    """Gamma's factor in the loss: all of it, or what a larger batch lacks.

    Args:
        zeta: Of a batch of one example.
        batch_size: M.
        reference: M_ref; None: the whole zeta / M, for a network that has no
            statistics of a batch.
    """
    if reference is None:
        return zeta / batch_size
    return gamma_decay.strength(zeta, batch_size, reference)
