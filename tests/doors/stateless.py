"""A cell of the table on JAX or torch, and the run that it has to equal."""

import contextlib

import keras
import numpy as np

from tests.doors.features import (
    BATCH,
    EPOCHS,
    ROWS,
    data,
    inner,
    make_model,
    make_optimizer,
    whole_batches,
)


@contextlib.contextmanager
def data_parallel(devices):
    """`keras.distribution.DataParallel` over `devices` devices; 0 for none."""
    if not devices:
        yield
        return
    names = keras.distribution.list_devices("cpu")[:devices]
    assert len(names) == devices, "tests/conftest.py forces eight devices"
    before = keras.distribution.distribution()
    keras.distribution.set_distribution(
        keras.distribution.DataParallel(devices=names)
    )
    try:
        yield
    finally:
        keras.distribution.set_distribution(before)


def _batches(feature, batch_size):
    (x, ids), y = data(feature)
    for _ in range(EPOCHS):
        for i in range(0, ROWS, batch_size):
            rows = slice(i, i + batch_size)
            yield (x[rows], ids[rows]), y[rows]


def _jax_loop(model, optimizer, feature, batch_size):
    import jax

    optimizer.build(model.trainable_variables)

    def loss(trainable, fixed, inputs, y):
        pred, _ = model.stateless_call(trainable, fixed, inputs, training=True)
        return keras.ops.mean(keras.ops.square(pred - y))

    @jax.jit
    def step(trainable, fixed, state, inputs, y):
        grads = jax.grad(loss)(trainable, fixed, inputs, y)
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
        x, ids, y = arrays
        trainable, state = step(trainable, fixed, state, (x, ids), y)
    for variable, value in zip(model.trainable_variables, trainable):
        variable.assign(value)


def _torch_loop(model, optimizer, feature, batch_size):
    optimizer.build(model.trainable_variables)
    for (x, ids), y in _batches(feature, batch_size):
        model.zero_grad()
        inputs = [keras.ops.convert_to_tensor(a) for a in (x, ids)]
        error = model(inputs, training=True) - keras.ops.convert_to_tensor(y)
        (error**2).mean().backward()
        variables = model.trainable_variables
        optimizer.apply([v.value.grad for v in variables], variables)


def _run(lamb, feature, arguments, batch_size, own_loop):
    model = make_model(keras, feature)
    optimizer = make_optimizer(keras, lamb, feature, arguments)
    if own_loop:
        loop = {"jax": _jax_loop, "torch": _torch_loop}
        loop[keras.config.backend()](model, optimizer, feature, batch_size)
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


def train(lamb, feature, devices=0):
    """Runs a cell; returns weights and the count of skipped updates."""
    with data_parallel(devices):
        model, optimizer = _run(
            lamb, feature, feature.arguments, BATCH, feature.own_loop
        )
        weights = [np.asarray(w) for w in model.get_weights()]
        return weights, inner(optimizer).skipped_steps


def expected(lamb, feature):
    """`fit` on one device: whole batches, no accumulation."""
    arguments, batch_size = whole_batches(feature)
    model, optimizer = _run(lamb, feature, arguments, batch_size, False)
    initial = make_model(keras, feature).get_weights()
    return model.get_weights(), initial, inner(optimizer).skipped_steps
