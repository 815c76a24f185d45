"""Trains the networks: validation, patience, and another start after F1 = 0."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np

import tf_lamb
from official_models.nlp.term_weighting import metrics, model, statistics
from tf_lamb import check

Array = np.ndarray
# And their rates. Adam's is the paper's; LAMB's and Adam's have the best
# validation F1 of three rates on three categories of Reuters: see README.md.
OPTIMIZERS = {"lamb": 0.003, "lars": 1.0, "adam": 0.005}
_PREDICTED_AT_ONCE = 1024
_PRETRAINING_STEPS = 500
_PRESENT_MULTIPLE = 256


@dataclasses.dataclass(frozen=True)
class Settings:
    """How a network is made and trained; the defaults are the paper's code's.

    Args:
        kind: Of `model.LearnedWeights`, as the next four.
        output: Activation.
        hidden: Units of the local network.
        dropout: Rate.
        learn_tf: Whether tf is learned.
        pretrain: A key of `statistics.TARGETS`: the network first learns this
            function; None: it does not.
        optimizer: A key of `OPTIMIZERS`.
        learning_rate: None: that of `OPTIMIZERS`.
        batch_size: Documents; -1: all.
        max_steps: Updates, at most.
        validate_every: Updates between two validations.
        patience: Validations without a better F1 that end a training.
        restart_before: A training that ends with a best F1 of 0 before this
            step begins anew, with other weights.

    Raises:
        ValueError: An argument is out of range.
    """

    kind: str = "local"
    output: str = "identity"
    hidden: int = 1000
    dropout: float = 0.2
    learn_tf: bool = False
    pretrain: str | None = None
    optimizer: str = "lamb"
    learning_rate: float | None = None
    batch_size: int = 100
    max_steps: int = 100_000
    validate_every: int = 100
    patience: int = 20
    restart_before: int = 10_000

    def __post_init__(self):
        check.one_of("kind", self.kind, model.KINDS)
        check.one_of("output", self.output, model.OUTPUTS)
        check.count("hidden", self.hidden, 1)
        check.share("dropout", self.dropout)
        check.one_of("optimizer", self.optimizer, tuple(OPTIMIZERS))
        if self.pretrain is not None:
            check.one_of("pretrain", self.pretrain, tuple(statistics.TARGETS))
        if self.learning_rate is not None:
            check.positive("learning_rate", self.learning_rate)
        if self.batch_size != -1:
            check.count("batch_size", self.batch_size, 1)
        for name in ("max_steps", "validate_every", "patience"):
            check.count(name, getattr(self, name), 1)
        check.count("restart_before", self.restart_before, 0)


class Documents(NamedTuple):
    """Counts over their sum, sparse [D, F], and labels, bool [D]."""

    shares: Any
    labels: Array


class Learned(NamedTuple):
    """What was learned.

    Attributes:
        weights: w, float64 [F]; its sign is such that the sum is not below 0.
        tf_weights: Kernels and biases of the learned tf, None without.
        f1: The best on the validation documents.
        steps: Updates, over all starts.
        restarts: How many starts had a best F1 of 0.
    """

    weights: Array
    tf_weights: list[Array] | None
    f1: float
    steps: int
    restarts: int


def make_optimizer(settings: Settings) -> keras.optimizers.Optimizer:
    """The optimizer of the settings, at a constant rate."""
    rate = settings.learning_rate or OPTIMIZERS[settings.optimizer]
    if settings.optimizer == "lamb":
        return tf_lamb.LAMB(rate, weight_decay=0.0)
    if settings.optimizer == "lars":
        return tf_lamb.LARS(rate, 0.9, weight_decay=0.0)
    return keras.optimizers.Adam(rate)


def make_model(
    settings: Settings, table: statistics.Table, seed: int
) -> keras.Model:
    """A network with the terms' rates, pretrained if the settings say so."""
    rates = table.rates.astype("float32")
    made = model.make(
        len(rates),
        seed=seed,
        kind=settings.kind,
        output=settings.output,
        hidden=settings.hidden,
        dropout=settings.dropout,
        learn_tf=settings.learn_tf,
    )
    layer = made.get_layer("weighting")
    layer.rates.assign(rates)
    if settings.pretrain:
        pretrain(layer, statistics.TARGETS[settings.pretrain](table))
    return made


def make_step(settings: Settings, made: keras.Model) -> Callable:
    """An update by documents, float32 [B, F], and labels, float32 [B, 1].

    A local network is computed for the batch's terms alone.
    """
    local = settings.kind == "local"
    trained = model.of_present_terms(made) if local else made
    trained.compile(
        make_optimizer(settings),
        keras.losses.BinaryCrossentropy(from_logits=True),
        jit_compile=False,  # their number changes: XLA would compile anew
    )

    def step(documents: Array, labels: Array) -> None:
        inputs = [documents, present_terms(documents)] if local else documents
        trained.train_on_batch(inputs, labels)

    return step


def present_terms(documents: Array) -> Array:
    """Places of the terms that documents have, int32 [K].

    K is the next multiple of 256, so that few shapes occur; the filling is F.

    Args:
        documents: [B, F].
    """
    places = np.flatnonzero((documents != 0).any(axis=0))
    count = -(-max(len(places), 1) // _PRESENT_MULTIPLE) * _PRESENT_MULTIPLE
    found = np.full(count, documents.shape[1], "int32")
    found[: len(places)] = places
    return found


def pretrain(
    layer: model.LearnedWeights,
    target: Array,
    steps: int = _PRETRAINING_STEPS,
) -> float:
    """Fits w to a function of the terms, by least squares.

    Args:
        layer: With its `rates`.
        target: [F]; it is divided by its largest size, so that a sigmoid can
            reach it.
        steps: Updates of Adam, with all terms.

    Returns:
        The last mean squared error.
    """
    target = target / max(np.abs(target).max(), 1e-30)
    x = keras.ops.convert_to_numpy(layer.net_input(layer.rates))
    y = target.reshape((-1, 1) if layer.kind == "local" else (1, -1))
    layer.net.compile(keras.optimizers.Adam(0.005), "mse", jit_compile=False)
    found = layer.net.fit(x, y, batch_size=len(x), epochs=steps, verbose=0)
    return float(found.history["loss"][-1])


def fit(
    settings: Settings,
    train: Documents,
    validation: Documents,
    table: statistics.Table,
    seed: int,
) -> Learned:
    """Trains a network until its patience or its budget ends.

    Args:
        settings: How.
        train: Documents to learn from.
        validation: Documents that decide which weights are kept.
        table: Of `train` alone.
        seed: Of weights, dropout and batches.
    """
    done = restarts = 0
    while True:
        found = _one_start(
            settings, train, validation, table, (seed, restarts), done
        )
        done = found.steps
        again = found.f1 == 0 and done < settings.restart_before
        if not again or done >= settings.max_steps:
            return found._replace(restarts=restarts)
        restarts += 1


def _one_start(settings, train, validation, table, seeds, done) -> Learned:
    made = make_model(settings, table, seeds[0] + 1_000_003 * seeds[1])
    step = make_step(settings, made)
    rng = np.random.default_rng(seeds)
    count = len(train.labels)
    size = count if settings.batch_size == -1 else settings.batch_size
    size = min(size, count)
    best, kept, waited = -1.0, None, 0
    order, place = rng.permutation(count), 0
    while done < settings.max_steps and waited < settings.patience:
        end = min(done + settings.validate_every, settings.max_steps)
        for _ in range(end - done):
            if place + size > count:
                order, place = rng.permutation(count), 0
            rows = order[place : place + size]
            place += size
            step(
                train.shares[rows].toarray().astype("float32"),
                train.labels[rows, None].astype("float32"),
            )
        done = end
        f1 = metrics.count(validation.labels, decide(made, validation)).f1
        waited += 1
        if f1 > best:
            best, kept, waited = f1, made.get_weights(), 0
    if kept is not None:
        made.set_weights(kept)
    layer = made.get_layer("weighting")
    weights = keras.ops.convert_to_numpy(layer.term_weights(False))
    weights = np.asarray(weights, "float64")
    # -w and the opposite classifier decide alike. Naive Bayes takes no
    # negative numbers, so that the sign is chosen for it.
    weights = weights * (-1.0 if weights.sum() < 0 else 1.0)
    tf_weights = layer.tf_net.get_weights() if layer.tf_net else None
    return Learned(weights, tf_weights, best, done, 0)


def decide(made: keras.Model, documents: Documents) -> Array:
    """What the network says of documents, bool [D]."""
    found = []
    for first in range(0, len(documents.labels), _PREDICTED_AT_ONCE):
        part = documents.shares[first : first + _PREDICTED_AT_ONCE]
        logits = made(part.toarray().astype("float32"), training=False)
        found.append(keras.ops.convert_to_numpy(logits)[:, 0] > 0)
    return np.concatenate(found)
