"""A learner's periods: how many minibatches, and a training that diverges."""

import pytest

from official_models.rl.dqn_lambda import learning
from official_models.rl.dqn_lambda.networks import Shape
from official_models.rl.dqn_lambda.replay import Replay
from tests.official_models.rl.dqn_lambda.test_agent import (
    GridWorld,
    dense_agent,
)
from tests.official_models.scripts import refusal


def settings_of(**changes):
    settings = learning.Settings(80, 40, 20, 20, 5, 10, 40, 0.1, 0.6, 1)
    return settings._replace(**changes)


@pytest.mark.parametrize("parts", [1, 2, 4])
def test_a_period_has_whole_updates_in_however_many_parts(parts):
    """8,000 by 64, in parts of 256, would be 31.25 updates."""
    settings = settings_of(cache_size=8_000, batch_size=256, parts=parts)
    assert settings.updates == 31
    assert settings.minibatches == (31 * parts, 256 // parts)


@pytest.mark.parametrize(
    ("weights", "rate", "part"),
    [
        (3e38, 0.0, "the values of states are not finite after step 40"),
        (1e30, 0.0, "the loss is not finite"),
        # Of one minibatch, whose loss was that before it.
        (1.0, 1e39, "kernel is not finite"),
    ],
    ids=["values", "loss", "last"],
)
def test_a_training_that_diverges_is_said(weights, rate, part):
    shape = Shape((4, 4, 1), 1, 4)
    agent = dense_agent(shape, rate=rate)
    for variable in agent.network.trainable_variables:
        variable.assign(0 * variable + weights)
    learner = learning.Learner(
        settings_of(batch_size=20),
        learning.Estimator(),
        GridWorld(2),
        agent,
        Replay(100, 2, (4, 4, 1), 1, 5),
    )
    learner.collect(0)
    refusal(lambda: learner.train(1), part, "a lower --learning_rate")
