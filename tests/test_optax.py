"""optax as a second opinion in float32, over 30 steps."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import tf_lamb
from tests.keras3 import problems

CASES = {
    "lamb": (
        lambda: tf_lamb.LAMB(0.02, weight_decay=0.05),
        lambda: optax.lamb(0.02, weight_decay=0.05, eps=1e-6),
    ),
    "lamb_without_decay_of_biases": (
        lambda: tf_lamb.LAMB(
            0.02,
            weight_decay=0.05,
            exclude_from_weight_decay=["bias"],
            exclude_from_layer_adaptation=[],
        ),
        lambda: optax.lamb(
            0.02,
            weight_decay=0.05,
            eps=1e-6,
            mask={"kernel": True, "bias": False, "scale": True},
        ),
    ),
    "lamb_clipped": (
        lambda: tf_lamb.LAMB(0.02, global_clipnorm=0.5),
        lambda: optax.chain(
            optax.clip_by_global_norm(0.5), optax.lamb(0.02, eps=1e-6)
        ),
    ),
    "lamb_clipped_by_unit": (
        lambda: tf_lamb.LAMB(0.02, weight_decay=0.05, clip_by_unit=0.05),
        lambda: optax.chain(
            optax.adaptive_grad_clip(0.05),
            optax.lamb(0.02, weight_decay=0.05, eps=1e-6),
        ),
    ),
    "lars_clipped_globally_and_by_unit": (
        lambda: tf_lamb.LARS(
            0.02,
            trust_coefficient=0.1,
            form="optax",
            global_clipnorm=5.0,
            clip_by_unit=0.2,
        ),
        lambda: optax.chain(
            optax.clip_by_global_norm(5.0),
            optax.adaptive_grad_clip(0.2),
            optax.lars(0.02, weight_decay=0.0, trust_coefficient=0.1),
        ),
    ),
    **{
        f"lars_nesterov_{nesterov}": (
            lambda nesterov=nesterov: tf_lamb.LARS(
                0.02,
                weight_decay=0.05,
                trust_coefficient=0.1,
                form="optax",
                nesterov=nesterov,
            ),
            lambda nesterov=nesterov: optax.lars(
                0.02,
                weight_decay=0.05,
                trust_coefficient=0.1,
                nesterov=nesterov,
            ),
        )
        for nesterov in (False, True)
    },
}


@pytest.mark.parametrize("name", CASES)
def test_equals_optax(name):
    ours, theirs = (make() for make in CASES[name])
    got = problems.values_of(problems.run(ours, 30))
    params = {
        n: jnp.asarray(x, "float32")
        for n, x in problems.initial_values().items()
    }
    state = theirs.init(params)
    for step in range(30):
        grads = {n: jnp.asarray(g) for n, g in problems.gradients(step).items()}
        updates, state = theirs.update(grads, state, params)
        params = optax.apply_updates(params, updates)
    expected = {n: np.asarray(x, "float64") for n, x in params.items()}
    assert problems.distance(got, expected) <= 1e-6
