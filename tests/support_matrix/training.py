"""A cell of the table on TensorFlow, and the run that it has to equal."""

import contextlib

import tensorflow as tf

from tests.support_matrix.features import (
    BATCH,
    EPOCHS,
    data,
    inner,
    make_model,
    make_optimizer,
    whole_batches,
)


def _dataset(feature, batch_size):
    options = tf.data.Options()
    # Every worker reads all rows and keeps its own.
    options.experimental_distribute.auto_shard_policy = (
        tf.data.experimental.AutoShardPolicy.DATA
    )
    dataset = tf.data.Dataset.from_tensor_slices(data(feature))
    return dataset.batch(batch_size).with_options(options)


def _native(variable):
    """TensorFlow's own variable."""
    is_native = isinstance(variable, tf.Variable)
    return variable if is_native else getattr(variable, "value", variable)


def gradients(model, optimizer, batch, batch_size):
    """Gradients of this replica's part of the global mean loss."""
    inputs, y = batch
    with tf.GradientTape() as tape:
        errors = tf.square(model(inputs, training=True) - y)
        loss = tf.reduce_sum(errors) / batch_size
        if hasattr(optimizer, "get_scaled_loss"):
            loss = optimizer.get_scaled_loss(loss)
        elif hasattr(optimizer, "scale_loss"):
            loss = optimizer.scale_loss(loss)
    return tape.gradient(loss, list(map(_native, model.trainable_variables)))


def apply(model, optimizer, grads):
    """One call of the optimizer, in a replica."""
    if hasattr(optimizer, "get_unscaled_gradients"):
        grads = optimizer.get_unscaled_gradients(grads)
    optimizer.apply_gradients(zip(grads, model.trainable_variables))


def _sum(grads):
    if grads[0] is None:
        return None
    return tf.add_n([tf.convert_to_tensor(g) for g in grads])


def finish(model, optimizer):
    """What `fit` does at its end."""
    optimizer = inner(optimizer)
    if getattr(optimizer, "use_ema", False):
        optimizer.finalize_variable_values(model.trainable_variables)


def own_loop(strategy, model, optimizer, feature, batch_size=BATCH, parts=1):
    """Trains by `strategy.run`; adds up gradients of `parts` of a batch."""

    def step(*batch):
        shards = zip(
            *(tf.split(t, parts) for t in tf.nest.flatten(list(batch)))
        )
        each = [
            gradients(
                model, optimizer, tf.nest.pack_sequence_as(batch, s), batch_size
            )
            for s in shards
        ]
        grads = each[0] if parts == 1 else [_sum(gs) for gs in zip(*each)]
        apply(model, optimizer, grads)

    run = tf.function(lambda *batch: strategy.run(step, args=batch))
    dataset = strategy.experimental_distribute_dataset(
        _dataset(feature, batch_size)
    )
    for _ in range(EPOCHS):
        for batch in dataset:
            run(*batch)
    finish(model, optimizer)


def _has_own_loop(lamb, feature):
    return feature.own_loop or issubclass(lamb, tf.compat.v1.train.Optimizer)


def make(keras, lamb, feature, arguments, strategy=None):
    """Model and optimizer under the strategy."""
    with strategy.scope() if strategy else contextlib.nullcontext():
        model = make_model(keras, feature)
        optimizer = make_optimizer(keras, lamb, feature, arguments)
        if not _has_own_loop(lamb, feature):
            model.compile(optimizer, "mse", jit_compile=False)
    return model, optimizer


def train(keras, lamb, feature, strategy, loop=None):
    """Runs a cell; returns model and optimizer.

    Args:
      loop: "fit" or "custom loop"; None for what the feature says.
    """
    model, optimizer = make(keras, lamb, feature, feature.arguments, strategy)
    if loop == "custom loop" or _has_own_loop(lamb, feature):
        own_loop(strategy, model, optimizer, feature)
    else:
        dataset = _dataset(feature, BATCH)
        model.fit(dataset, epochs=EPOCHS, shuffle=False, verbose=0)
    return model, optimizer


def expected(keras, lamb, feature, replicas):
    """The run on one device: whole batches, no accumulation, no strategy.

    In half precision a gradient is rounded after the sum over its part of the
    batch, so there the parts are those of the replicas and micro-batches.
    """
    arguments, batch_size = whole_batches(feature)
    model, optimizer = make(keras, lamb, feature, arguments)
    micro_batches = batch_size // BATCH
    parts = 1 if feature.policy == "float32" else replicas * micro_batches
    strategy = tf.distribute.get_strategy()
    own_loop(strategy, model, optimizer, feature, batch_size, parts)
    return model, optimizer
