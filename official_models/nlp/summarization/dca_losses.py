r"""Losses of deep communicating agents, as functions of arrays.

Axes: B batch, L tokens, Q sentences, H hidden, E extended vocabulary.

    MLE-SEM = MLE + lambda SEM
    mixed = gamma RL + (1 - gamma) MLE-SEM

These forms and both factors are our choice: there is no published code.

A reward is a number that no gradient flows through. Its scale is a factor of
RL's gradient, so that LAMB, alone with RL, takes the same steps whatever it is:
README.md beside this file says what follows.

References:
    Celikyilmaz, Bosselut, He, Choi 2018 (arXiv:1803.10357);
    Rennie et al. 2017 (arXiv:1612.00563), self-critical training
"""

from __future__ import annotations

import keras

from official_models.common import ops
from official_models.common.layer import registration

register = registration("tf_lamb_models.summarization")
GAMMA, LAMBDA = 0.97, 0.1  # our choice
_TINY = 1e-12


def picked(log_p, tokens):
    """log P of each token, [B, L] of [B, L, E] and [B, L]."""
    index = ops.cast(tokens, "int32")[..., None]
    return ops.squeeze(ops.take_along_axis(log_p, index, axis=-1), -1)


def mle(log_p, labels, mask):
    """Mean over all real tokens of -log P, over the extended vocabulary.

    Args:
        log_p: [B, L, E].
        labels: [B, L].
        mask: 1 for a token, 0 for padding, [B, L].
    """
    mask = ops.cast(mask, log_p.dtype)
    total = ops.sum(mask * picked(log_p, labels))
    return -total / ops.maximum(ops.sum(mask), 1)


def cohesion(states, ends):
    """SEM: sums of cosines between the states of consecutive sentence ends.

    It is to be minimised (our reading): a sentence then says something other
    than the one before.

    Args:
        states: Of the decoder, [B, L, H].
        ends: 1 where a sentence ends, else 0, [B, L].

    Returns:
        [B], in [1 - Q, Q - 1]; 0 of a summary of one sentence.
    """
    ends = ops.cast(ends, states.dtype)
    square = ops.sum(states * states, axis=-1, keepdims=True)
    units = states * ops.rsqrt(ops.maximum(square, _TINY))
    cosines = ops.einsum("bth,buh->btu", units, units)
    rank = ops.cumsum(ends, axis=1)
    follows = ops.cast(
        rank[:, None, :] == rank[:, :, None] + 1, states.dtype
    )  # [B, t, u]
    both = ends[:, :, None] * ends[:, None, :]
    return ops.sum(cosines * follows * both, axis=(1, 2))


def intermediate_rewards(rewards):
    """r_q = r(s_1..q) - r(s_1..q-1), with r of no sentence = 0.

    Args:
        rewards: r(s_1..q), [B, Q]; after the last sentence it stays as it is.

    Returns:
        [B, Q]; sums to r of the whole summary.
    """
    before = ops.pad(rewards[:, :-1], ((0, 0), (1, 0)))
    return rewards - before


def rewards_to_come(intermediate, sentences):
    """Of each token, the intermediate rewards of its sentence and all later.

    A token changes what later sentences gain, too, so that the gradient is
    unbiased with these, and would not be with its own sentence's alone (our
    choice).

    Args:
        intermediate: Of `intermediate_rewards`, [B, Q].
        sentences: Number of each token's sentence, from 0, [B, L].

    Returns:
        [B, L].
    """
    to_come = ops.flip(
        ops.cumsum(ops.flip(intermediate, axis=1), axis=1), axis=1
    )
    return ops.take_along_axis(to_come, ops.cast(sentences, "int32"), axis=1)


def self_critical(log_p, sample, mask, sampled, greedy):
    """RL: the mean over B of sum_t (r(greedy) - r(sample)) log P(sample_t).

    Where the sample is the greedy summary, its gradient is exactly zero.

    Args:
        log_p: Along the sample, [B, L, E].
        sample: Tokens that were drawn, the end included, [B, L].
        mask: 1 for them, 0 for what follows, [B, L].
        sampled: Reward of the sample, [B]; or of `rewards_to_come` for each
            token, [B, L].
        greedy: Of the greedy summary, of the same shape.
    """
    advantage = ops.cast(ops.stop_gradient(greedy - sampled), log_p.dtype)
    if len(advantage.shape) == 1:
        advantage = advantage[:, None]
    mask = ops.cast(mask, log_p.dtype)
    return ops.mean(ops.sum(advantage * mask * picked(log_p, sample), axis=1))


def mixed(rl, mle_sem, gamma: float = GAMMA):
    """gamma RL + (1 - gamma) MLE-SEM.

    Raises:
        ValueError: `gamma` is not in [0, 1].
    """
    if not 0 <= gamma <= 1:
        raise ValueError(f"gamma: got {gamma!r}, expected a number in [0, 1]")
    return gamma * rl + (1 - gamma) * mle_sem


@register
class ExtendedCrossEntropy(keras.losses.Loss):
    """`mle`, for `compile`: of labels [B, L] and log P [B, L, E]."""

    def __init__(self, name: str = "extended_cross_entropy", **kwargs):
        kwargs.setdefault("reduction", "mean_with_sample_weight")
        super().__init__(name=name, **kwargs)

    def call(self, y_true, y_pred):
        return -picked(y_pred, y_true)


@register
class SemanticCohesion(keras.losses.Loss):
    """The mean of `cohesion`, for `compile`: of ends and states [B, L, H]."""

    def __init__(self, name: str = "semantic_cohesion", **kwargs):
        kwargs.setdefault("reduction", "sum_over_batch_size")
        super().__init__(name=name, **kwargs)

    def call(self, y_true, y_pred):
        return cohesion(y_pred, y_true)
