"""One training step of each optimizer, its gradients given.

Weights, gradients and moments exist before the first call of a step.
"""

import functools
from typing import Callable, Dict, NamedTuple

import numpy as np

EXCLUDED = ("layer_norm", "bias")
_RATES = dict(learning_rate=1e-3, weight_decay=0.01)


class Step(NamedTuple):
    """What `make` builds.

    Attributes:
      run: makes one step and waits for it.
      optimizer: with its slots built (optax: None).
    """

    run: Callable[[], None]
    optimizer: object = None


def is_excluded(name: str) -> bool:
    """Whether a variable is without weight decay and trust ratio."""
    return any(word in name for word in EXCLUDED)


def _weights(shapes, seed):
    rng = np.random.default_rng(seed)
    for name, shape in shapes:
        yield name, shape, rng.uniform(-0.05, 0.05, shape).astype("float32")


def _tf_lamb(shapes, seed, **arguments):
    import tf_lamb

    words = [w for w in EXCLUDED if any(w in name for name, _ in shapes)]
    return _keras(
        tf_lamb.LAMB(exclude_from_weight_decay=words, **_RATES, **arguments),
        shapes,
        seed,
    )


def _keras_lamb(shapes, seed, jit_compile=False):
    import keras

    optimizer = keras.optimizers.Lamb(**_RATES)
    optimizer.exclude_from_weight_decay(var_names=list(EXCLUDED))
    return _keras(optimizer, shapes, seed, jit_compile)


def _keras(optimizer, shapes, seed, jit_compile=None):
    import keras
    import tensorflow as tf

    variables = [
        keras.Variable(value, name=name.replace("/", "_"))
        for name, _, value in _weights(shapes, seed)
    ]
    grads = [
        tf.random.stateless_uniform(shape, [seed, i], -1e-2, 1e-2)
        for i, (_, shape) in enumerate(shapes)
    ]
    optimizer.build(variables)

    @tf.function(jit_compile=jit_compile, autograph=False)
    def step(*grads):
        optimizer.apply(list(grads))

    @functools.lru_cache(None)
    def traced():
        return step.get_concrete_function(*grads)

    # A `tf.function` would compare every argument with its signature, in
    # Python; in a training step gradients are no arguments.
    def run():
        traced()(*grads)

    return Step(run, optimizer)


def _optax(shapes, seed):
    import jax
    import optax

    def mask(tree):
        return {name: not is_excluded(name) for name in tree}

    # Its trust ratio has no mask.
    optimizer = optax.lamb(**_RATES, mask=mask)
    weights = {
        name: jax.device_put(value) for name, _, value in _weights(shapes, seed)
    }
    grads = {name: x * 0.1 + 1e-3 for name, x in weights.items()}
    state = {"weights": weights, "slots": optimizer.init(weights)}
    del weights

    def update(state, grads):
        updates, slots = optimizer.update(
            grads, state["slots"], state["weights"]
        )
        weights = optax.apply_updates(state["weights"], updates)
        return {"weights": weights, "slots": slots}

    update = jax.jit(update, donate_argnums=0)
    jax.block_until_ready((state, grads))

    def run():
        new = jax.block_until_ready(update(dict(state), grads))
        state.update(new)

    return Step(run)


# Name -> function of shapes and seed.
OPTIMIZERS: Dict[str, Callable[..., Step]] = {
    "tf_lamb.LAMB": _tf_lamb,
    "tf_lamb.LAMB, skip_nonfinite=False": lambda shapes, seed: _tf_lamb(
        shapes, seed, skip_nonfinite=False
    ),
    "keras.optimizers.Lamb, graph": _keras_lamb,
    "keras.optimizers.Lamb, jit_compile": lambda shapes, seed: _keras_lamb(
        shapes, seed, jit_compile=True
    ),
    "optax.lamb, jitted": _optax,
}


def make(name: str, shapes, seed: int) -> Step:
    """The step of optimizer `name` on variables of `(name, shape)`."""
    return OPTIMIZERS[name](shapes, seed)
