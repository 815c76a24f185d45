"""compat.v1's loss scaler around ours: an overflow changes nothing."""

import numpy as np
import pytest
import tensorflow as tf

from tf_lamb import v1

tf1 = tf.compat.v1
SCALE = 256.0
X = np.random.default_rng(0).normal(size=(8, 3)).astype("float32")
GOOD = np.ones((8, 1), "float32")
# An overflow in the last row, which is the second replica's.
BAD = GOOD * np.where(np.arange(8) == 7, np.inf, 1).astype("float32")[:, None]


def _scaled(optimizer):
    return tf1.mixed_precision.MixedPrecisionLossScaleOptimizer(
        optimizer, tf1.mixed_precision.DynamicLossScale(SCALE)
    )


def _loss(x, w, b, factors):
    return tf.reduce_sum(factors * tf.square(tf.matmul(x, w) + b - 2)) / 8


def _moments(optimizer, variables):
    return [optimizer.get_slot(v, slot) for v in variables for slot in "mv"]


def _in_session(factors, wrap=_scaled):
    """States after each step: variables and moments, then counts, scale."""
    with tf.Graph().as_default(), tf1.Session() as session:
        w = tf1.get_variable(
            "w", initializer=np.ones((3, 1), "float32"), use_resource=True
        )
        b = tf1.get_variable("b", initializer=[0.5], use_resource=True)
        row_factors = tf1.placeholder(tf.float32, (8, 1))
        step = tf1.train.get_or_create_global_step()
        optimizer = v1.LAMBOptimizer(0.05, weight_decay=0.1)
        wrapped = wrap(optimizer)
        operation = wrapped.minimize(
            _loss(tf.constant(X), w, b, row_factors), step
        )
        read = [w, b, *_moments(optimizer, [w, b]), step, optimizer.updates]
        if wrapped is not optimizer:
            read.append(wrapped._loss_scale())
        session.run(tf1.global_variables_initializer())
        states = []
        for values in factors:
            session.run(operation, {row_factors: values})
            states.append(session.run(read))
        return states


def _in_function(factors, strategy):
    """The same in a `tf.function` under a strategy; the state at the end."""
    with strategy.scope():
        w, b = tf.Variable(tf.ones((3, 1))), tf.Variable([0.5])
        step = tf.Variable(
            0,
            dtype=tf.int64,
            trainable=False,
            aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
        )
        optimizer = v1.LAMBOptimizer(0.05, weight_decay=0.1)
        scaled = _scaled(optimizer)

    def replica(x, row_factors):
        scaled.minimize(
            lambda: _loss(x, w, b, row_factors), step, var_list=[w, b]
        )

    run = tf.function(lambda *rows: strategy.run(replica, args=rows))
    rows = tf.data.Dataset.from_tensor_slices(
        (np.tile(X, (len(factors), 1)), np.concatenate(factors))
    )
    for batch in strategy.experimental_distribute_dataset(rows.batch(8)):
        run(*batch)
    state = [w, b, *_moments(optimizer, [w, b]), step, optimizer.updates]
    copies = [strategy.experimental_local_results(v) for v in state]
    for first, *others in copies:
        for other in others:
            np.testing.assert_array_equal(first.numpy(), other.numpy())
    return [c[0].numpy() for c in copies] + [scaled._loss_scale().numpy()]


def test_an_overflow_changes_nothing_and_halves_the_scale():
    states = _in_session([GOOD, BAD, GOOD, GOOD])
    *before, scale_before = states[0]
    *after, scale_after = states[1]
    assert (scale_before, scale_after) == (SCALE, SCALE / 2)
    for a, b in zip(after, before):
        np.testing.assert_array_equal(a, b)
    *end, scale = states[3]
    assert scale == SCALE / 2
    # Powers of two: later steps are bit for bit those of a run without it.
    plain = _in_session([GOOD] * 3, wrap=lambda optimizer: optimizer)[-1]
    assert plain[-2:] == [3, 3]
    for a, b in zip(end, plain):
        np.testing.assert_array_equal(a, b)
    assert np.abs(end[0] - before[0]).max() > 1e-3


@pytest.mark.parametrize("replicas", [1, 2])
def test_an_overflow_on_one_replica_changes_nothing_on_any(replicas, mirrored):
    strategy = mirrored if replicas == 2 else tf.distribute.get_strategy()
    *got, scale = _in_function([GOOD, BAD, GOOD, GOOD], strategy)
    assert scale == SCALE / 2
    plain = _in_session([GOOD] * 3, wrap=lambda optimizer: optimizer)[-1]
    for a, b in zip(got, plain):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)
