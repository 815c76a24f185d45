"""The optimizers of update_step.py: how one step of each is made, and where.

`OPTIMIZERS` has them by environment; nothing is imported before it is used.
Those of one framework update the same weights by the same gradients, each with
moments of its own, so that a process has room for all of them.
"""

import functools
import importlib.util
import sys
import types
from typing import Callable, Dict, List, NamedTuple, Tuple

import numpy as np

Shapes = Tuple[Tuple[str, Tuple[int, ...]], ...]
RATE, DECAY = 1e-4, 0.01
SEED = 1


class Timed(NamedTuple):
    """An optimizer under measurement.

    Attributes:
      name: as the table has it.
      make: function of shapes; gives a function that makes one step and waits
        for its end.
      baseline: whose time the ratio is taken of.
    """

    name: str
    make: Callable[[Shapes], Callable[[], None]]
    baseline: str


def arrays(shapes: Shapes, part: int):
    """Reproducible float32 arrays: weights (`part` 0) or gradients (1)."""
    for i, (_, shape) in enumerate(shapes):
        rng = np.random.default_rng([SEED, part, i])
        yield rng.uniform(-0.05, 0.05, shape).astype("float32")


# TensorFlow ---------------------------------------------------------------


@functools.lru_cache(maxsize=1)
def _tf_arrays(shapes: Shapes):
    import tensorflow as tf

    weights = [
        tf.Variable(x, name=name)
        for x, (name, _) in zip(arrays(shapes, 0), shapes)
    ]
    return weights, [tf.constant(x) for x in arrays(shapes, 1)]


def _tf_steps(step, grads, last, jit_compile=None):
    import tensorflow as tf

    compiled = tf.function(step, jit_compile=jit_compile, autograph=False)

    def run():
        compiled(*grads)
        np.asarray(tf.reshape(last, [-1])[0])

    return run


def of_optimizer(make, jit_compile=None):
    """A step of a Keras optimizer, under `tf.function`."""

    def timed(shapes):
        weights, grads = _tf_arrays(shapes)
        optimizer = make()
        if hasattr(optimizer, "build"):
            optimizer.build(weights)

        def step(*grads):
            optimizer.apply_gradients(zip(grads, weights))

        return _tf_steps(step, grads, weights[-1], jit_compile)

    return timed


def _tf_lamb(name, **arguments):
    def make():
        import tf_lamb

        return getattr(tf_lamb, name)(RATE, weight_decay=DECAY, **arguments)

    return of_optimizer(make)


def _keras_lamb():
    import keras

    return keras.optimizers.Lamb(RATE, weight_decay=DECAY)


def _tfa_lamb():
    import tensorflow_addons as tfa

    return tfa.optimizers.LAMB(RATE, weight_decay=DECAY)


def _adamw_rule(w, g, m, v):
    """AdamW with the bias corrections of step 3, of arrays of TensorFlow."""
    import tensorflow as tf

    m = 0.9 * m + 0.1 * g
    v = 0.999 * v + 0.001 * g * g
    u = m * (1 / (1 - 0.9**3)) / (tf.sqrt(v * (1 / (1 - 0.999**3))) + 1e-6)
    return w - RATE * (u + DECAY * w), m, v


def _momentum_rule(w, g, m):
    m = 0.9 * m + RATE * (g + DECAY * w)
    return w - m, m


def _kernels(rule, slots, in_place):
    """A rule as one XLA kernel a shape: the floor that others are held to."""

    def timed(shapes):
        import tensorflow as tf

        weights, grads = _tf_arrays(shapes)
        rows = [
            (w, *(tf.Variable(tf.zeros_like(w)) for _ in range(slots)))
            for w in weights
        ]
        kernels = {}

        def by_handles(shape):
            def kernel(grad, *handles):
                old = [
                    tf.ensure_shape(
                        tf.raw_ops.ReadVariableOp(resource=h, dtype=tf.float32),
                        shape,
                    )
                    for h in handles
                ]
                new = rule(old[0], grad, *old[1:])
                for handle, value in zip(handles, new):
                    tf.raw_ops.AssignVariableOp(resource=handle, value=value)
                return tf.zeros(())

            return kernel

        def kernel(shape):
            if shape not in kernels:
                body = by_handles(shape) if in_place else rule
                kernels[shape] = tf.function(
                    body, jit_compile=True, autograph=False
                )
            return kernels[shape]

        def step(*grads):
            for row, grad in zip(rows, grads):
                call = kernel(tuple(grad.shape))
                if in_place:
                    call(grad, *(v.handle for v in row))
                    continue
                new = call(row[0], grad, *row[1:])
                for variable, value in zip(row, new):
                    variable.assign(value)

        return _tf_steps(step, grads, weights[-1])

    return timed


# JAX, torch ---------------------------------------------------------------


def _optax(shapes):
    import jax
    import optax

    optimizer = optax.lamb(RATE, weight_decay=DECAY)
    weights = [jax.device_put(x) for x in arrays(shapes, 0)]
    grads = [jax.device_put(x) for x in arrays(shapes, 1)]
    state = [weights, optimizer.init(weights)]

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(weights, slots, grads):
        updates, slots = optimizer.update(grads, slots, weights)
        return optax.apply_updates(weights, updates), slots

    def run():
        state[:] = jax.block_until_ready(step(*state, grads))

    return run


@functools.lru_cache(maxsize=1)
def _torch_arrays(shapes: Shapes):
    import torch

    weights = []
    for x, g in zip(arrays(shapes, 0), arrays(shapes, 1)):
        weight = torch.nn.Parameter(torch.from_numpy(x))
        weight.grad = torch.from_numpy(g)
        weights.append(weight)
    return weights


def _torch_adamw(shapes):
    import torch

    optimizer = torch.optim.AdamW(
        _torch_arrays(shapes), RATE, weight_decay=DECAY, fused=True
    )
    return optimizer.step


def _torch_momentum(shapes):
    import torch

    optimizer = torch.optim.SGD(
        _torch_arrays(shapes), RATE, 0.9, weight_decay=DECAY, fused=True
    )
    return optimizer.step


@functools.lru_cache(maxsize=1)
def timm_lamb():
    """timm's Lamb, without timm's `__init__`, which wants torchvision."""
    (folder,) = importlib.util.find_spec("timm").submodule_search_locations
    for name, path in (("timm", folder), ("timm.optim", f"{folder}/optim")):
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].__path__ = [path]
    return importlib.import_module("timm.optim.lamb").Lamb


def _timm(shapes):
    # No global clip, as in the others.
    optimizer = timm_lamb()(
        _torch_arrays(shapes), RATE, weight_decay=DECAY, max_grad_norm=None
    )
    return optimizer.step


ADAMW, MOMENTUM = "AdamW, XLA kernels in place", "SGD momentum, XLA in place"
# Environment -> its optimizers.
OPTIMIZERS: Dict[str, List[Timed]] = {
    "tensorflow": [
        Timed(ADAMW, _kernels(_adamw_rule, 2, True), ADAMW),
        Timed(
            "AdamW, XLA kernels, new buffers",
            _kernels(_adamw_rule, 2, False),
            ADAMW,
        ),
        Timed("tf_lamb.LAMB", _tf_lamb("LAMB", skip_nonfinite=False), ADAMW),
        Timed("tf_lamb.LAMB, skips NaN (default)", _tf_lamb("LAMB"), ADAMW),
        Timed(
            "tf_lamb.LAMB, bfloat16 moments",
            _tf_lamb("LAMB", skip_nonfinite=False, moment_dtype="bfloat16"),
            ADAMW,
        ),
        Timed("keras.optimizers.Lamb, graph", of_optimizer(_keras_lamb), ADAMW),
        Timed(
            "keras.optimizers.Lamb, jit_compile",
            of_optimizer(_keras_lamb, True),
            ADAMW,
        ),
        Timed(MOMENTUM, _kernels(_momentum_rule, 1, True), MOMENTUM),
        Timed(
            "SGD momentum, XLA, new buffers",
            _kernels(_momentum_rule, 1, False),
            MOMENTUM,
        ),
        Timed("tf_lamb.LARS", _tf_lamb("LARS", skip_nonfinite=False), MOMENTUM),
        Timed("tf_lamb.LARS, skips NaN (default)", _tf_lamb("LARS"), MOMENTUM),
    ],
    "jax": [Timed("optax.lamb, jitted, donated", _optax, ADAMW)],
    "torch": [
        Timed("torch AdamW, fused", _torch_adamw, ADAMW),
        Timed("timm Lamb", _timm, ADAMW),
        Timed("torch SGD momentum, fused", _torch_momentum, MOMENTUM),
    ],
    "tf215": [
        Timed("tfa LAMB (TF 2.15), graph", of_optimizer(_tfa_lamb), ADAMW),
        Timed(
            "tfa LAMB (TF 2.15), jit_compile",
            of_optimizer(_tfa_lamb, True),
            ADAMW,
        ),
    ],
}
