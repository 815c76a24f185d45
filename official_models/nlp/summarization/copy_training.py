"""Agents that are trained on the copy task, by many updates in one call.

Axes: as in `copy_task`; U updates.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import tf_lamb
from official_models.common.errors import InputError
from official_models.nlp.summarization import copy_task, dca, dca_losses
from official_models.nlp.summarization.config import AgentsConfig
from official_models.nlp.summarization.optimization import register

OPTIMIZERS = ("lamb", "adam")
_CALL = 100  # U


@dataclasses.dataclass(frozen=True)
class Setting:
    """A run on the copy task.

    Args:
        communicate: Whether agents send messages; without, there are as many
            parameters.
        seed: Of the first weights and of the examples.
        optimizer: In `OPTIMIZERS`.
        learning_rate: The highest one: it rises for a twentieth of the updates
            and falls linearly to 0.
        updates: Of the run, a multiple of 100.
        batch_size: Examples of an update.
        pairs: As in `copy_task.draw`; chance is 1 / pairs.
        keys: The same.
        hidden_size: H, also of words.
        contextual_layers: K.
        initializer_range: Standard deviation of new matrices.
        test_examples: New ones that are measured.
    """

    communicate: bool
    seed: int
    optimizer: str
    learning_rate: float
    updates: int
    batch_size: int = 32
    pairs: int = 3
    keys: int = 3
    hidden_size: int = 32
    contextual_layers: int = 2
    initializer_range: float = 0.4
    test_examples: int = 3000

    @property
    def agents(self) -> int:
        """M."""
        return 3

    def config(self) -> AgentsConfig:
        """Sizes of the network."""
        return AgentsConfig(
            copy_task.vocab_size(self.keys),
            hidden_size=self.hidden_size,
            embedding_size=self.hidden_size,
            agents=self.agents,
            contextual_layers=self.contextual_layers,
            extra_size=self.pairs,
            unknown_id=copy_task.UNKNOWN,
            communicate=self.communicate,
            initializer_range=self.initializer_range,
        )

    def draw(self, rng: np.random.Generator, number: int):
        """Examples of the task."""
        return copy_task.draw(
            rng, number, agents=self.agents, pairs=self.pairs, keys=self.keys
        )


@register
class Rise(keras.optimizers.schedules.LearningRateSchedule):
    """peak min((t + 1) / w, (S - t) / (S - w)), w a twentieth of S.

    Args:
        peak: Rate at step w.
        steps: S, 20 or more.
    """

    def __init__(self, peak: float, steps: int):
        self.peak, self.steps = peak, steps

    def __call__(self, step):
        t = keras.ops.cast(step, "float32")
        warmup = self.steps // 20
        falling = (self.steps - t) / (self.steps - warmup)
        return self.peak * keras.ops.minimum((t + 1) / warmup, falling)

    def get_config(self) -> dict:
        return {"peak": self.peak, "steps": self.steps}


def make_optimizer(setting: Setting) -> keras.optimizers.Optimizer:
    """LAMB or Adam, gradients clipped to a norm of 1."""
    rate = Rise(setting.learning_rate, setting.updates)
    if setting.optimizer == "adam":
        return keras.optimizers.Adam(rate, global_clipnorm=1.0)
    return tf_lamb.LAMB(rate, weight_decay=0.0, global_clipnorm=1.0)


def right(log_p: Any, labels: Any) -> Any:
    """Which examples have the value first, float32 [N]."""
    first = tf.argmax(log_p[:, 0], axis=-1, output_type=tf.int32)
    return tf.cast(first == labels[:, 0], "float32")


def compiled_updates(
    model: keras.Model, optimizer: keras.optimizers.Optimizer, by_xla: bool
) -> Any:
    """A function of examples [U, N, ...] that does U updates.

    It gives the loss and the share of right answers, [U] each, before each
    update. Compiled once, it serves all `run`s of the same sizes.
    """

    def update(inputs, labels):
        with tf.GradientTape() as tape:
            log_p = model(inputs)[dca.LOG_P]
            loss = dca_losses.mle(log_p, labels, tf.ones_like(labels))
        variables = model.trainable_variables
        gradients = tape.gradient(loss, variables)
        optimizer.apply(gradients, variables)
        return loss, tf.reduce_mean(right(log_p, labels))

    @tf.function(jit_compile=by_xla)
    def many(inputs, labels):
        losses = tf.zeros(_CALL)
        shares = tf.zeros(_CALL)
        for i in tf.range(_CALL):
            now = {name: x[i] for name, x in inputs.items()}
            loss, share = update(now, labels[i])
            at = [[i]]
            losses = tf.tensor_scatter_nd_update(losses, at, [loss])
            shares = tf.tensor_scatter_nd_update(shares, at, [share])
        return losses, shares

    return many


class Trainer:
    """Runs of settings that differ in their seeds alone.

    Args:
        setting: Any of them.
        by_xla: Whether XLA compiles the updates.
    """

    def __init__(self, setting: Setting, by_xla: bool = True):
        self._kind = dataclasses.replace(setting, seed=0)
        self._model = dca.communicating_agents(setting.config())
        self._optimizer = make_optimizer(setting)
        self._optimizer.build(self._model.trainable_variables)
        self._first = [v.numpy() for v in self._optimizer.variables]
        self._many = compiled_updates(self._model, self._optimizer, by_xla)

    @property
    def parameters(self) -> int:
        """How many the network has."""
        return self._model.count_params()

    def run(self, setting: Setting) -> dict[str, Any]:
        """Trains, and measures new examples.

        Returns:
            `accuracy` on `test_examples` new ones, `curve` of (update, loss,
            accuracy) over each hundred updates before it, `parameters`; JSON
            values.

        Raises:
            InputError: The loss is not finite.
        """
        if dataclasses.replace(setting, seed=0) != self._kind:
            raise ValueError(f"{setting}: expected {self._kind} but the seed")
        fresh = dca.communicating_agents(setting.config(), seed=setting.seed)
        self._model.set_weights(fresh.get_weights())
        for v, value in zip(self._optimizer.variables, self._first):
            v.assign(value)
        rng = np.random.default_rng(setting.seed)
        curve = []
        for first in range(0, setting.updates, _CALL):
            loss, share = self._block(setting, rng)
            if not np.isfinite(loss):
                raise InputError(
                    f"the loss is not finite after {first + _CALL} updates; "
                    "lower the learning rate"
                )
            curve.append([first + _CALL, round(loss, 5), round(share, 4)])
        return {
            "accuracy": self._measure(setting),
            "parameters": self.parameters,
            "curve": curve,
        }

    def _block(self, setting: Setting, rng) -> tuple[float, float]:
        """A call's updates: mean loss and share of right answers."""
        size = setting.batch_size
        inputs, labels = setting.draw(rng, _CALL * size)
        shape = (_CALL, size)
        loss, share = self._many(
            {k: x.reshape(*shape, *x.shape[1:]) for k, x in inputs.items()},
            labels.reshape(*shape, -1),
        )
        return float(np.mean(loss)), float(np.mean(share))

    def _measure(self, setting: Setting) -> float:
        # A stream of its own.
        rng = np.random.default_rng((setting.seed, 1))
        inputs, labels = setting.draw(rng, setting.test_examples)
        log_p = self._model.predict_on_batch(inputs)[dca.LOG_P]
        return float(np.mean(right(log_p, labels)))
