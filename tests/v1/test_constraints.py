"""TensorFlow 1 optimizers: constraints of variables, shapes of gradients."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from tf_lamb import Group, v1

tf1 = tf.compat.v1
OPTIMIZERS = {
    "LAMB": lambda **more: v1.LAMBOptimizer(0.5, **more),
    "LARS": lambda **more: v1.LARSOptimizer(0.5, trust_coefficient=1, **more),
}


def _bounded(x):
    return tf.clip_by_value(x, 0.75, 1.0)


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("mode", ["eager", "function", "graph"])
def test_constraints_are_applied(name, mode):
    """As by TensorFlow's own: the update alone gives 0.5."""

    def variables():
        return [
            tf.Variable([1.0, 1.0], constraint=_bounded, name="bounded"),
            tf.Variable([1.0, 1.0], name="free"),
            tf.Variable([0.5, 2.0], constraint=_bounded, name="frozen"),
        ]

    def step(optimizer, of):
        return optimizer.apply_gradients([(tf.ones(2), v) for v in of])

    optimizer = OPTIMIZERS[name](groups=[Group("frozen", frozen=True)])
    if mode == "graph":
        with tf.Graph().as_default():
            of = variables()
            train = step(optimizer, of)
            with tf1.Session() as session:
                session.run(tf1.global_variables_initializer())
                session.run(train)
                values = session.run(of)
    else:
        of = variables()

        def run():
            step(optimizer, of)

        if mode == "function":
            run = tf.function(run, autograph=False)
        run()
        values = [v.numpy() for v in of]
    expected = [[0.75, 0.75], [0.5, 0.5], [0.5, 2.0]]
    np.testing.assert_allclose(values, expected, rtol=1e-5)


def test_constraints_are_applied_in_each_replica():
    strategy = tf.distribute.MirroredStrategy(
        tf.config.list_logical_devices("CPU")[:2],
        cross_device_ops=tf.distribute.HierarchicalCopyAllReduce(),
    )
    assert strategy.num_replicas_in_sync == 2
    with strategy.scope():
        weight = tf.Variable([1.0, 1.0], constraint=_bounded)
        optimizer = v1.LAMBOptimizer(0.5)

    @functools.partial(tf.function, autograph=False)
    def step():
        strategy.run(lambda: optimizer.apply_gradients([(tf.ones(2), weight)]))

    step()
    for value in strategy.experimental_local_results(weight):
        np.testing.assert_allclose(value, 0.75, rtol=1e-5)


@pytest.mark.parametrize("shape", [(), (1,), (2, 2)])
def test_a_gradient_of_another_shape_is_refused(shape):
    weight = tf.Variable([1.0, 1.0], name="w")
    text = r"expected a gradient of shape \(2,\) for variable 'w', got one of"
    with pytest.raises(ValueError, match=text):
        v1.LAMBOptimizer(0.5).apply_gradients([(tf.ones(shape), weight)])


def test_a_complex_gradient_is_refused():
    weight = tf.Variable([1.0, 1.0], name="w")
    text = "expected a real gradient for variable 'w', got complex64"
    with pytest.raises(ValueError, match=text):
        v1.LAMBOptimizer(0.5).apply_gradients(
            [(tf.ones(2, tf.complex64), weight)]
        )


def test_a_gradient_of_unknown_rank_is_taken():
    weight = tf.Variable([1.0, 1.0], name="w")
    optimizer = v1.LAMBOptimizer(0.5)

    @functools.partial(
        tf.function, autograph=False, input_signature=[tf.TensorSpec(None)]
    )
    def step(grad):
        optimizer.apply_gradients([(grad, weight)])

    step(tf.ones(2))
    np.testing.assert_allclose(weight, 0.5, rtol=1e-5)
