r"""Self-critical training of communicating agents by rewards of ROUGE.

In each update, for each document, the network as it is draws a summary and
takes the most probable one, token by token. With r of the first q sentences
against the reference, the loss is

$$\gamma \sum_t (R^{greedy}_{q(t)} - R_{q(t)}) \log P(y_t)
  + (1 - \gamma)(MLE + \lambda SEM),\qquad R_q = r(all) - r(s_1..s_{q-1})$$

q(t) is the sentence of token t, and R_q what it and later ones gain. R^greedy
depends on nothing that is drawn from sentence q on, so that it is a baseline.

Axes: B batch, L tokens of what was drawn, Q sentences at most.

References:
    Celikyilmaz, Bosselut, He, Choi 2018 (arXiv:1803.10357);
    Rennie et al. 2017 (arXiv:1612.00563)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import keras
import numpy as np
import tensorflow as tf
from rouge_score import rouge_scorer

from official_models.common import backend
from official_models.nlp.summarization import dca, dca_losses
from official_models.nlp.summarization.dca_decoding import AgentStepper
from official_models.nlp.summarization.inputs import Encoding, Marks, stack

REWARDS = ("rougeLsum", "rouge1", "rouge2")
SAMPLED, GREEDY = "reward", "greedy_reward"


class Writer(Protocol):
    """What `dca_decoding.AgentStepper` does."""

    def start(self, inputs: dict[str, np.ndarray], beams: int) -> None:
        """Reads documents."""

    def step(self, tokens: np.ndarray) -> np.ndarray:
        """log P of the token after each row's, [R, E]."""


class Drawn(NamedTuple):
    """Summaries of a batch that were drawn, and their rewards.

    Attributes:
        previous: The token before each, int32 [B, L].
        tokens: The end included, int32 [B, L].
        mask: 1 for them, 0 for what follows, float32 [B, L].
        sentences: Number of each token's sentence, from 0, int32 [B, L].
        sampled: r of the first 1 to Q sentences, float32 [B, Q]; after the
            last one it stays as it is.
        greedy: The same of the greedy summaries.
    """

    previous: Any
    tokens: Any
    mask: Any
    sentences: Any
    sampled: Any
    greedy: Any


def roll_out(
    writer: Writer,
    inputs: dict[str, np.ndarray],
    marks: Marks,
    longest: int,
    rng: np.random.Generator,
) -> tuple[list[list[int]], list[list[int]]]:
    """Summaries that are drawn, and the greedy ones, of the same documents.

    Args:
        writer: The network as it is.
        inputs: Of B documents.
        marks: Of summaries.
        longest: Tokens at most, the end included.
        rng: Draws.

    Returns:
        Both, [B] each: tokens, with the end if it was reached.
    """
    writer.start(inputs, 2)
    rows = 2 * len(inputs["input_ids"])
    ids = np.full((rows, 1), marks.begin, "int32")
    ended = np.zeros(rows, bool)
    for _ in range(longest):
        log_p = writer.step(ids)
        chosen = np.argmax(log_p, -1)
        chosen[0::2] = _draw(log_p[0::2], rng)
        ids = np.concatenate([ids, chosen[:, None].astype("int32")], 1)
        ended |= chosen == marks.end
        if ended.all():
            break
    found = [_until_end(row, marks.end) for row in ids[:, 1:].tolist()]
    return found[0::2], found[1::2]


def _draw(log_p: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A token of each row, by its probability."""
    below = np.cumsum(np.exp(log_p.astype("float64")), axis=-1)
    level = rng.random((len(below), 1)) * below[:, -1:]
    return np.argmax(below > level, -1)


def _until_end(tokens: list[int], end: int) -> list[int]:
    return tokens[: tokens.index(end) + 1] if end in tokens else tokens


class Rewards:
    """ROUGE F1 of the first sentences of summaries, words stemmed.

    References are those of training: the first one, as far as it is read
    (--max_target), in the vocabulary's words.

    Args:
        encoding: Of summaries.
        name: In `REWARDS`.
    """

    def __init__(self, encoding: Encoding, name: str = REWARDS[0]):
        self._encoding, self._name = encoding, name
        self._scorer = rouge_scorer.RougeScorer([name], use_stemmer=True)

    def __call__(
        self, tokens: Sequence[int], reference: Sequence[int]
    ) -> list[float]:
        """r(s_1), r(s_1, s_2), ...: of each sentence, in [0, 1]."""
        breaks = [
            i
            for i, token in enumerate(tokens)
            if token == self._encoding.marks.sentence
        ]
        target = "\n".join(self._encoding.text(reference))
        found = []
        for end in (*breaks, len(tokens)):
            text = "\n".join(self._encoding.text(tokens[:end]))
            score = self._scorer.score(target, text)
            found.append(float(score[self._name].fmeasure))
        return found


def _held(rewards: list[list[float]], size: int) -> np.ndarray:
    """[B, Q], each row's last value repeated."""
    rows = [[*row, *[row[-1]] * (size - len(row))] for row in rewards]
    return np.array(rows, "float32")


def drawn_of(
    sampled: Sequence[list[int]],
    greedy: Sequence[list[int]],
    references: Sequence[Sequence[int]],
    rewards: Rewards,
    marks: Marks,
) -> Drawn:
    """What the loss needs of summaries that were rolled out.

    Args:
        sampled: Of B documents.
        greedy: Of the same.
        references: Tokens, the end included; what follows it does not count.
        rewards: Of each.
        marks: Of summaries.
    """
    references = [_until_end(list(row), marks.end) for row in references]
    pairs = [
        [rewards(tokens, wanted) for tokens, wanted in zip(rows, references)]
        for rows in (sampled, greedy)
    ]
    size = max(len(row) for rows in pairs for row in rows)
    tokens = stack([np.array(row) for row in sampled])
    breaks = (tokens == marks.sentence).astype("int32")
    mask = stack([np.ones(len(row)) for row in sampled])
    begin = np.full((len(tokens), 1), marks.begin, "int32")
    return Drawn(
        np.concatenate([begin, tokens[:, :-1]], 1),
        tokens,
        mask.astype("float32"),
        # A break belongs to the sentence that it ends.
        (np.cumsum(breaks, 1) - breaks).astype("int32"),
        *(_held(rows, size) for rows in pairs),
    )


_TYPES = Drawn(*["int32"] * 2, "float32", "int32", *["float32"] * 2)


def loss_of(log_p, drawn: Drawn):
    """RL with intermediate rewards, along what was drawn; exactly 0, and
    without a gradient, where that is the greedy summary.

    Args:
        log_p: Of the network, [B, L, E].
        drawn: Rewards and tokens.
    """
    come = [
        dca_losses.rewards_to_come(
            dca_losses.intermediate_rewards(rewards), drawn.sentences
        )
        for rewards in (drawn.sampled, drawn.greedy)
    ]
    return dca_losses.self_critical(log_p, drawn.tokens, drawn.mask, *come)


class SelfCritical(keras.Model):
    """Agents, and how `fit` trains them by rewards; for TensorFlow.

    What is drawn in an update is a function of the seed and of its number, so
    that a resumed run draws the same.

    Args:
        agents: A `dca.communicating_agents`, trained by MLE.
        encoding: Of documents and summaries.
        gamma: Weight of RL, in [0, 1].
        reward: In `REWARDS`.
        seed: Of what is drawn.

    Attributes:
        agents: As given.

    Raises:
        ValueError: TensorFlow runs operations in one thread, as on one core.
    """

    def __init__(
        self,
        agents: keras.Model,
        encoding: Encoding,
        *,
        gamma: float = dca_losses.GAMMA,
        reward: str = REWARDS[0],
        seed: int = 0,
    ):
        super().__init__(name="self_critical")
        if backend.operation_threads() < 2:
            raise ValueError(
                "SelfCritical: TensorFlow runs operations in one thread, in "
                "which drawing would wait for itself; expected two: set "
                "TF_NUM_INTEROP_THREADS=2, or call backend.allow_nested_calls "
                "before TensorFlow computes anything"
            )
        self.dtype_policy = agents.dtype_policy  # `compile` looks at it
        self.agents = agents
        self._layer = agents.get_layer(dca.AGENTS)
        self._gamma, self._draws_by = gamma, seed
        self._encoding = encoding
        self._rewards = Rewards(encoding, reward)
        self._writer = AgentStepper(agents)
        self._means = {
            name: keras.metrics.Mean(name=name) for name in (SAMPLED, GREEDY)
        }
        self.built = True

    def call(self, inputs):
        """As `agents`."""
        return self.agents(inputs)

    def draw(self, ids, mask, labels, number) -> Drawn:
        """Summaries and rewards of a batch, as arrays.

        Args:
            ids: [B, M, I].
            mask: [B, M, I].
            labels: Of the references, [B, L].
            number: Of the update, or of its micro-batch.
        """
        rng = np.random.default_rng((self._draws_by, int(number)))
        marks, longest = self._encoding.marks, self._encoding.max_target - 1
        inputs = dict(zip(dca.SOURCE, (ids, mask), strict=True))
        pair = roll_out(self._writer, inputs, marks, longest, rng)
        return drawn_of(*pair, labels.tolist(), self._rewards, marks)

    def train_step(self, data):
        """An update: draws, judges, and takes the gradient of `mixed`."""
        x, y, weight = data
        labels = y[dca.LOG_P]
        given = [*(x[name] for name in dca.SOURCE), labels]
        found = tf.numpy_function(
            self.draw, [*given, self.optimizer.iterations.value], list(_TYPES)
        )
        for array in found:
            array.set_shape((None, None))
        drawn = Drawn(*found)
        with tf.GradientTape() as tape:
            # Documents are read once, for both.
            out = self._layer(
                *(x[name] for name in (*dca.SOURCE, dca.TARGET)),
                other_ids=drawn.previous,
            )
            rl = loss_of(out.pop(dca.ALONG), drawn)
            mle_sem = self.compute_loss(x, y, out, weight)
            loss = dca_losses.mixed(rl, mle_sem, self._gamma)
            scaled = self.optimizer.scale_loss(loss)
        variables = self.trainable_variables
        gradients = tape.gradient(scaled, variables)
        self.optimizer.apply_gradients(zip(gradients, variables))
        self._loss_tracker.update_state(loss)
        self._means[SAMPLED].update_state(drawn.sampled[:, -1])
        self._means[GREEDY].update_state(drawn.greedy[:, -1])
        return self.compute_metrics(x, y, out, weight)

    def test_step(self, data):
        """The loss of MLE and cohesion; nothing is drawn."""
        logs = super().test_step(data)
        return {k: v for k, v in logs.items() if k not in self._means}


def bare(model: keras.Model) -> keras.Model:
    """The agents that are in it, or the model itself."""
    return model.agents if isinstance(model, SelfCritical) else model
