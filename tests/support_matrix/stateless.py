"""A cell of the table on JAX or torch, and the run that it has to equal."""

import contextlib

import keras
import numpy as np

from tests.support_matrix.features import (
    BATCH,
    EPOCHS,
    ROWS,
    data,
    inner,
    make_model,
    make_optimizer,
    whole_batches,
)
from tf_lamb import sharding

MESH = (2, 4)
# Of every model of the features; what it does not name is on every device.
LAYOUTS = {
    "hidden/kernel": (None, "model"),
    "hidden/bias": ("model",),
    "shared/kernel": ("model", None),
    "out/kernel": ("model", None),
    "words/embeddings": (None, "model"),
}


def model_parallel(shape=MESH, layouts=LAYOUTS):
    """A mesh of that many rows, which share the batch, and columns."""
    mesh = keras.distribution.DeviceMesh(
        shape, ("batch", "model"), _devices(shape[0] * shape[1])
    )
    layout_map = keras.distribution.LayoutMap(mesh)
    for pattern, axes in layouts.items():
        layout_map[pattern] = axes
    return keras.distribution.ModelParallel(
        layout_map=layout_map, batch_dim_name="batch"
    )


def _devices(count):
    names = keras.distribution.list_devices("cpu")[:count]
    assert len(names) == count, "tests/conftest.py forces eight devices"
    return names


@contextlib.contextmanager
def under(strategy):
    """The distribution of a row of the table."""
    if strategy == "no strategy":
        yield
        return
    if strategy.startswith("ModelParallel"):
        distribution = model_parallel()
    else:
        distribution = keras.distribution.DataParallel(devices=_devices(8))
    with distribution.scope():
        yield


def _batches(feature, batch_size):
    (x, ids), y = data(feature)
    for _ in range(EPOCHS):
        for i in range(0, ROWS, batch_size):
            rows = slice(i, i + batch_size)
            yield (x[rows], ids[rows]), y[rows]


def _finish(model, optimizer):
    """What `fit` does at its end."""
    optimizer.finalize_variable_values(model.trainable_variables)


def _scaled(optimizer, loss):
    return getattr(optimizer, "scale_loss", lambda loss: loss)(loss)


def _parts(arrays, parts):
    """The arrays of each of `parts` equal parts of a batch."""
    return zip(*(keras.ops.split(a, parts) for a in arrays))


def _jax_loop(model, optimizer, feature, batch_size, parts):
    import jax

    optimizer.build(model.trainable_variables)

    def loss(trainable, fixed, state, x, ids, y):
        mapping = zip(optimizer.variables, state)
        pred, _ = model.stateless_call(
            trainable, fixed, (x, ids), training=True
        )
        value = keras.ops.sum(keras.ops.square(pred - y)) / batch_size
        with keras.StatelessScope(state_mapping=list(mapping)):
            return _scaled(optimizer, value)

    @jax.jit
    def step(trainable, fixed, state, *arrays):
        each = [
            jax.grad(loss)(trainable, fixed, state, *part)
            for part in _parts(arrays, parts)
        ]
        grads = [sum(gs) for gs in zip(*each)]
        return optimizer.stateless_apply(state, grads, trainable)

    trainable = [v.value for v in model.trainable_variables]
    fixed = [v.value for v in model.non_trainable_variables]
    state = [v.value for v in optimizer.variables]
    distribution = keras.distribution.distribution()
    for (x, ids), y in _batches(feature, batch_size):
        arrays = [keras.ops.convert_to_tensor(a) for a in (x, ids, y)]
        if distribution:
            arrays = [
                keras.distribution.distribute_tensor(
                    a, distribution.get_data_layout(a.shape)
                )
                for a in arrays
            ]
        trainable, state = step(trainable, fixed, state, *arrays)
    variables = [*model.trainable_variables, *optimizer.variables]
    for variable, value in zip(variables, [*trainable, *state]):
        variable.assign(value)


def _torch_loop(model, optimizer, feature, batch_size, parts):
    optimizer.build(model.trainable_variables)
    for (x, ids), y in _batches(feature, batch_size):
        model.zero_grad()
        arrays = [keras.ops.convert_to_tensor(a) for a in (x, ids, y)]
        for *inputs, target in _parts(arrays, parts):
            error = model(inputs, training=True) - target
            loss = (error**2).sum() / batch_size
            _scaled(optimizer, loss).backward()  # adds to what is there
        variables = model.trainable_variables
        optimizer.apply([v.value.grad for v in variables], variables)


def _run(lamb, feature, arguments, batch_size, loop, parts=1, split=False):
    model = make_model(keras, feature)
    optimizer = make_optimizer(keras, lamb, feature, arguments)
    if split:
        sharding.shard_state(inner(optimizer))
    if loop == "custom loop":
        own = {"jax": _jax_loop, "torch": _torch_loop}[keras.config.backend()]
        own(model, optimizer, feature, batch_size, parts)
        _finish(model, optimizer)
        return model, optimizer
    model.compile(optimizer, "mse", jit_compile="auto")
    (x, ids), y = data(feature)
    model.fit(
        (x, ids),
        y,
        batch_size=batch_size,
        epochs=EPOCHS,
        shuffle=False,
        verbose=0,
    )
    return model, optimizer


def train(lamb, feature, loop, strategy="no strategy"):
    """Runs a cell; returns weights and the count of skipped updates."""
    with under(strategy):
        split = strategy.endswith("shard_state")
        model, optimizer = _run(
            lamb, feature, feature.arguments, BATCH, loop, split=split
        )
        weights = [np.asarray(w) for w in model.get_weights()]
        return weights, inner(optimizer).skipped_steps


def expected(lamb, feature, loop):
    """The other loop on one device: whole batches, no accumulation.

    In half precision a gradient is rounded after the sum over its part of the
    batch, so there the parts are those of the micro-batches.
    """
    arguments, batch_size = whole_batches(feature)
    parts = 1 if feature.policy == "float32" else batch_size // BATCH
    # Only a loop of one's own can add up parts.
    other = "fit" if loop == "custom loop" and parts == 1 else "custom loop"
    model, optimizer = _run(lamb, feature, arguments, batch_size, other, parts)
    initial = make_model(keras, feature).get_weights()
    return model.get_weights(), initial, inner(optimizer).skipped_steps
