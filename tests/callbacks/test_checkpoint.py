"""`multi_worker.Checkpoint` resumes a run to the same state, scaled or not."""

import numpy as np
import pytest

from tests.callbacks import kerases
from tests.callbacks.kerases import ON_TENSORFLOW, POLICIES, fit, make_model

BATCHES, BEFORE = 6, 4


def _model(front, policy):
    optimizer = front.LAMB(0.05, weight_decay=0.1)
    if policy == "mixed_float16":
        # The scale doubles every two steps.
        optimizer = front.keras.mixed_precision.LossScaleOptimizer(
            optimizer, initial_scale=16.0, dynamic_growth_steps=2
        )
    return make_model(front, policy, optimizer)


def _scale(optimizer):
    scale = getattr(optimizer, "dynamic_scale", None)  # Keras 3
    return float(
        getattr(optimizer, "loss_scale", 1) if scale is None else scale
    )


def _state(model):
    optimizer = model.optimizer
    own = optimizer.variables
    own = own() if callable(own) else own
    return [
        *map(np.asarray, model.get_weights()),
        *(np.asarray(v) for v in own),
        _scale(optimizer),
    ]


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", ON_TENSORFLOW)
def test_a_run_resumes_to_the_same_state(name, policy, tmp_path):
    from tf_lamb import multi_worker

    front = kerases.front_end(name)
    whole = _model(front, policy)
    steps = multi_worker.Checkpoint(tmp_path / "whole", every=2)
    assert steps.restore(whole) == 0
    fit(whole, [steps], batches=BATCHES)
    assert steps.step == BATCHES
    if policy == "mixed_float16":
        assert _scale(whole.optimizer) == 16 * 2 ** (BATCHES / 2)

    killed = _model(front, policy)
    steps = multi_worker.Checkpoint(tmp_path / "killed", every=2)
    steps.restore(killed)
    fit(killed, [steps], batches=BEFORE)
    resumed = _model(front, policy)
    steps = multi_worker.Checkpoint(tmp_path / "killed", every=2)
    assert steps.restore(resumed) == BEFORE
    for a, b in zip(_state(resumed), _state(killed), strict=True):
        np.testing.assert_array_equal(a, b)
    fit(resumed, [steps], first=BEFORE, batches=BATCHES)
    for a, b in zip(_state(resumed), _state(whole), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", ON_TENSORFLOW)
def test_an_optimizer_that_is_built_is_not_built_again(name, policy, tmp_path):
    """A model that was trained, and then given a checkpoint callback."""
    from tf_lamb import multi_worker

    model = _model(kerases.front_end(name), policy)
    fit(model, batches=2)
    before = len(_state(model))
    steps = multi_worker.Checkpoint(tmp_path, every=2)
    assert steps.restore(model) == 0
    fit(model, [steps], batches=2)
    assert len(_state(model)) == before
