"""Losses of communicating agents: words, cohesion, rewards."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from official_models.nlp.summarization import dca, dca_losses

V, EXTRA, H = 12, 3, 6


def test_cross_entropy_over_the_extended_vocabulary():
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(V + EXTRA), (2, 4)).astype("float32")
    labels = np.array([[V + 2, 3, 0, 0], [1, 2, V, 5]])
    mask = np.array([[1, 1, 0, 0], [1, 1, 1, 1]])
    wanted = -np.mean(
        [np.log(p[b, t, labels[b, t]]) for b, t in np.argwhere(mask)]
    )
    log_p = dca.log_of(p)
    assert float(dca_losses.mle(log_p, labels, mask)) == pytest.approx(wanted)
    loss = dca_losses.ExtendedCrossEntropy()
    found = loss(labels, log_p, sample_weight=mask.astype("float32"))
    assert float(found) == pytest.approx(wanted)
    assert np.isfinite(dca.log_of(np.zeros(1, "float32"))).all()


def test_cohesion_by_its_formula():
    rng = np.random.default_rng(0)
    states = rng.normal(size=(2, 7, H)).astype("float32")
    ends = np.array([[0, 1, 0, 1, 1, 0, 0], [0, 0, 0, 0, 0, 1, 0]])
    unit = states / np.linalg.norm(states, axis=-1, keepdims=True)
    wanted = unit[0, 1] @ unit[0, 3] + unit[0, 3] @ unit[0, 4]
    found = dca_losses.cohesion(states, ends)
    np.testing.assert_allclose(found, [wanted, 0], atol=1e-6)
    loss = dca_losses.SemanticCohesion()(ends, states)
    assert float(loss) == pytest.approx(wanted / 2, abs=1e-6)
    # States of zero, and no end: finite, and so is the gradient.
    x = tf.Variable(np.zeros((1, 3, H), "float32"))
    with tf.GradientTape() as tape:
        y = dca_losses.cohesion(x, np.ones((1, 3)))
    assert np.isfinite(tape.gradient(y, x)).all() and float(y[0]) == 0


def test_intermediate_rewards_telescope():
    rewards = np.array([[0.2, 0.1, 0.7], [0.5, 0.5, 0.5]], "float32")
    found = dca_losses.intermediate_rewards(rewards)
    np.testing.assert_allclose(
        found, [[0.2, -0.1, 0.6], [0.5, 0, 0]], atol=1e-6
    )
    np.testing.assert_allclose(np.sum(found, 1), rewards[:, -1], atol=1e-6)
    sentences = np.array([[0, 0, 1, 2], [0, 1, 1, 1]])
    to_come = dca_losses.rewards_to_come(found, sentences)
    wanted = [[0.7, 0.7, 0.5, 0.6], [0.5, 0, 0, 0]]
    np.testing.assert_allclose(to_come, wanted, atol=1e-6)


class Tabular:
    """Two tokens of 3 words: P(y1) P(y2 | y1), by tables of logits."""

    def __init__(self):
        rng = np.random.default_rng(0)
        self.first = tf.Variable(rng.normal(size=3))
        self.second = tf.Variable(rng.normal(size=(3, 3)))
        # r(s_1), r(s_1..2) of each: a token is a sentence here.
        self.r_1 = rng.uniform(size=3)
        self.r_2 = rng.uniform(size=(3, 3))

    def log_p(self, first):
        rows = [self.first, self.second[first]]
        return tf.nn.log_softmax(tf.stack(rows))[None]  # [1, 2, 3]

    def rewards(self, pair):
        return np.array([[self.r_1[pair[0]], self.r_2[pair]]])

    @property
    def variables(self):
        return [self.first, self.second]

    def greedy(self):
        first = int(np.argmax(self.first))
        return first, int(np.argmax(self.second[first]))


def self_critical_of(policy, pair, by_sentence):
    """The loss of one sample, [1] rewards or by token."""
    rewards = [policy.rewards(x) for x in (pair, policy.greedy())]
    if by_sentence:
        rewards = [
            dca_losses.rewards_to_come(
                dca_losses.intermediate_rewards(r), np.array([[0, 1]])
            )
            for r in rewards
        ]
    else:
        rewards = [r[:, -1] for r in rewards]
    return dca_losses.self_critical(
        policy.log_p(pair[0]), np.array([pair]), np.ones((1, 2)), *rewards
    )


@pytest.mark.parametrize("by_sentence", [False, True])
def test_the_expected_self_critical_gradient_is_exact(by_sentence):
    policy = Tabular()
    expected = [np.zeros(v.shape) for v in policy.variables]
    with tf.GradientTape() as tape:
        value = 0.0
        for pair in itertools.product(range(3), range(3)):
            log_p = policy.log_p(pair[0])[0]
            p = tf.exp(log_p[0, pair[0]] + log_p[1, pair[1]])
            value += p * policy.r_2[pair]
        loss = -value
    exact = [
        np.asarray(tf.convert_to_tensor(g))
        for g in tape.gradient(loss, policy.variables)
    ]
    for pair in itertools.product(range(3), range(3)):
        log_p = np.asarray(policy.log_p(pair[0])[0])
        p = np.exp(log_p[0, pair[0]] + log_p[1, pair[1]])
        with tf.GradientTape() as tape:
            loss = self_critical_of(policy, pair, by_sentence)
        for total, part in zip(
            expected, tape.gradient(loss, policy.variables), strict=True
        ):
            total += p * np.asarray(tf.convert_to_tensor(part))
    for one, other in zip(expected, exact, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-12)
        assert np.abs(one).max() > 1e-3


@pytest.mark.parametrize("by_sentence", [False, True])
def test_a_greedy_sample_teaches_nothing(by_sentence):
    policy = Tabular()
    pair = policy.greedy()
    others = [p for p in itertools.product(range(3), range(3)) if p != pair]
    for sample in (pair, others[0]):
        with tf.GradientTape() as tape:
            loss = self_critical_of(policy, sample, by_sentence)
        gradients = tape.gradient(loss, policy.variables)
        zero = all(
            (np.asarray(tf.convert_to_tensor(g)) == 0).all() for g in gradients
        )
        assert zero == (sample == pair)


def test_what_follows_the_end_of_a_sample_does_not_count():
    log_p = np.log(np.full((1, 2, 4), 0.25))
    found = dca_losses.self_critical(
        log_p, np.zeros((1, 2)), np.array([[1, 0]]), np.ones(1), np.zeros(1)
    )
    assert float(found) == pytest.approx(-np.log(0.25))  # (0 - 1) log P


def test_mixed_losses():
    assert dca_losses.mixed(2.0, 3.0) == pytest.approx(0.97 * 2 + 0.03 * 3)
    assert dca_losses.mixed(2.0, 3.0, 0) == 3 and (
        dca_losses.mixed(2.0, 3.0, 1) == 2
    )
    with pytest.raises(ValueError, match="gamma"):
        dca_losses.mixed(1.0, 1.0, 1.5)


def test_a_rewards_scale_does_not_reach_lambs_step():
    """What README.md says of RL and the trust ratio."""
    import tf_lamb

    found = {}
    for scale in (1.0, 1e-3):
        policy = Tabular()
        optimizer = tf_lamb.LAMB(0.1, weight_decay=0.0, epsilon=1e-15)
        pair = (policy.greedy()[0], (policy.greedy()[1] + 1) % 3)
        for _ in range(3):
            with tf.GradientTape() as tape:
                loss = scale * self_critical_of(policy, pair, False)
            gradients = tape.gradient(loss, policy.variables)
            gradients = [tf.convert_to_tensor(g) for g in gradients]
            optimizer.apply(gradients, policy.variables)
        found[scale] = [np.asarray(v) for v in policy.variables]
    for one, other in zip(found[1.0], found[1e-3], strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    assert np.abs(found[1.0][0] - np.asarray(Tabular().first)).max() > 1e-2
