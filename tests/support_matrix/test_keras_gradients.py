"""Kinds of gradients and ways to a step: rows of `keras_table`."""

import numpy as np
import pytest

from tests.support_matrix.keras_front_end import behaviour

ROWS = np.ones((3, 2), "float32")
# Row 2 twice, row 0 once: [[1, 2], [0, 0], [3, 3]] as a dense gradient.
INDICES, VALUES = [2, 0, 2], [[1.0, 2.0], [1.0, 2.0], [2.0, 1.0]]
DENSE = np.float32([[1, 2], [0, 0], [3, 3]])


@behaviour("sparse gradients: repeated rows, clipping")
def test_sparse(front):
    """They are the dense gradients that they stand for, in every row."""
    for arguments in ({}, {"clipnorm": 1.0}, {"clipvalue": 1.5}):
        results = []
        for sparse in (False, True):
            v = front.variable(ROWS, name="table")
            optimizer = front.LAMB(0.1, weight_decay=0.1, **arguments)
            for _ in range(2):
                grad = (
                    front.sparse(INDICES, VALUES, (3, 2))
                    if sparse
                    else front.tensor(DENSE)
                )
                front.step(optimizer, (grad, v))
            results.append(front.numpy(v))
        np.testing.assert_allclose(*results, rtol=1e-6)


@behaviour("sparse gradients and accumulation")
def test_sparse_accumulation(front):
    v = front.variable(ROWS, name="table")
    optimizer = front.plain(gradient_accumulation_steps=2)
    for _ in range(2):
        front.step(optimizer, (front.sparse(INDICES, VALUES, (3, 2)), v))
    front.close(v, ROWS - DENSE)


@behaviour("an embedding in `fit`")
def test_embedding(front):
    layers = front.keras.layers
    model = front.keras.Sequential(
        [
            front.keras.Input((2,), dtype="int32"),
            layers.Embedding(4, 2, name="words"),
            layers.Flatten(),
            layers.Dense(1, name="dense"),
        ]
    )
    table = np.linspace(0.1, 0.8, 8).reshape(4, 2)
    model.set_weights([table, np.ones((4, 1)), np.zeros(1)])
    model.compile(front.plain(0.1, weight_decay=0.5), "mse")
    ids = np.array([[0, 1], [1, 1]], "int32")
    model.fit(ids, np.zeros((2, 1), "float32"), batch_size=2, verbose=0)
    got = model.get_weights()[0]
    # Rows that no id names decay, as a dense gradient would have it.
    np.testing.assert_allclose(got[2:], 0.95 * table[2:], rtol=1e-6)
    assert np.abs(got[:2] - 0.95 * table[:2]).min() > 1e-3


@behaviour("`stateless_apply`")
def test_stateless(front):
    """It changes no variable; TensorFlow refuses it, as Keras does there."""
    optimizer, v = front.plain(use_ema=True), front.variable([1.0, 2.0])
    with pytest.raises(ValueError, match="(?i)built|not supported"):
        optimizer.stateless_apply([], [front.tensor([1.0, 0.5])], [v.value])
    optimizer.build([v])
    state = [x.value for x in optimizer.variables]
    grads = [front.tensor([1.0, 0.5])]
    if front.name == "Keras 3, TensorFlow":
        with pytest.raises(ValueError, match="not supported"):
            optimizer.stateless_apply(state, grads, [v.value])
        return
    values, state = optimizer.stateless_apply(state, grads, [v.value])
    front.close(values[0], [0.0, 1.5])
    front.close(v, [1.0, 2.0])
    assert int(front.numpy(optimizer.iterations)) == 0
    assert int(front.numpy(state[0])) == 1
    with pytest.raises(ValueError, match="(?i)length|correspond"):
        optimizer.stateless_apply(state[1:], grads, values)
    with pytest.raises(ValueError, match="(?i)variables"):
        optimizer.stateless_apply(state, grads, [])


@behaviour("`minimize`")
def test_minimize(front):
    import tensorflow as tf

    optimizer, v = front.plain(0.5), front.variable([1.0, -2.0])
    optimizer.minimize(lambda: tf.reduce_sum(tf.square(v)), [v])
    front.close(v, [0.0, 0.0])
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(v)
    optimizer.minimize(loss, [v], tape=tape)
    front.close(v, [-0.5, -0.5])
    assert int(front.numpy(optimizer.iterations)) == 2


@behaviour("MirroredStrategy: steps, EMA, accumulation")
def test_mirrored(front, mirrored):
    """Each of two replicas gives the same gradient, and both are summed."""
    for arguments, calls, expected, average in (
        ({}, 1, [-1.0, 0.0], None),
        ({"clipnorm": 1.0}, 1, np.subtract(1, [0.8944272, 0.4472136]), None),
        ({"use_ema": True, "ema_momentum": 0.5}, 2, [-3, -1], [-2, -0.5]),
        ({"gradient_accumulation_steps": 2}, 3, [-1.0, 0.0], None),
    ):
        with mirrored.scope():
            v = front.variable([1.0, 1.0], name="v")
            optimizer = front.plain(**arguments)
            optimizer.build([v])
        for _ in range(calls):
            mirrored.run(
                lambda optimizer=optimizer, v=v: optimizer.apply_gradients(
                    [(front.tensor([1.0, 0.5]), v)]
                )
            )
        native = v.value if front.is_keras_3 else v
        for value in mirrored.experimental_local_results(native):
            front.close(value, expected)
        if average is not None:
            (mean,) = optimizer._model_variables_moving_average
            front.close(mean, average)
