"""Calls of an optimizer inside and outside a strategy's replicas."""

import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from tf_lamb import keras2, tf_contexts, v1

keras = keras2.keras
ACCUMULATION = {"gradient_accumulation_steps": 2}


def _keras3():
    import keras

    from tf_lamb import keras3

    return keras3.LAMB, lambda x: keras.Variable(x, name="w")


def _keras2():
    return keras2.LAMB, lambda x: tf.Variable(x, name="w")


FRONT_ENDS = {"keras2": _keras2}
if tf.__version__ >= "2.16":  # the others have no Keras 3
    FRONT_ENDS["keras3"] = _keras3


@pytest.mark.parametrize("arguments", [{}, ACCUMULATION], ids=["", "sums"])
@pytest.mark.parametrize("front_end", FRONT_ENDS)
@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("compiled", [True, False])
def test_outside_the_replicas_one_line_says_where(
    mirrored, front_end, inside, arguments, compiled
):
    lamb, make_variable = FRONT_ENDS[front_end]()
    with mirrored.scope():
        optimizer = lamb(0.1, **arguments)
        variable = make_variable(np.ones(3, "float32"))
        optimizer.build([variable])

    def apply():
        optimizer.apply_gradients([(tf.ones(3), variable)])

    step = tf.function(apply, autograph=False) if compiled else apply
    line = (
        r"^LAMB\w*: gradients were applied outside the replicas of "
        r"MirroredStrategy; .* call strategy.run\(step\).$"
    )
    with pytest.raises(RuntimeError, match=line):
        if inside:
            with mirrored.scope():
                step()
        else:
            step()
    assert np.array(optimizer.iterations.numpy()) == 0
    if not arguments:
        mirrored.run(tf.function(apply, autograph=False))
        np.testing.assert_allclose(np.array(variable), 0.9, rtol=1e-5)


def test_v1_says_so_too(mirrored):
    with mirrored.scope():
        variable = tf.Variable(np.ones(3, "float32"), name="w")
        with pytest.raises(
            RuntimeError, match="outside the replicas of Mirrored"
        ):
            v1.LAMBOptimizer(0.1).apply_gradients([(tf.ones(3), variable)])


def test_averages_of_an_optimizer_that_was_made_outside_the_scope(mirrored):
    """tf_keras lets it train there, so its averages have to arrive too."""
    weights = []
    for in_scope in (True, False):
        keras.utils.set_random_seed(0)
        optimizer = None
        if not in_scope:
            optimizer = keras2.LAMB(0.1, use_ema=True, ema_momentum=0.5)
        with mirrored.scope():
            if in_scope:
                optimizer = keras2.LAMB(0.1, use_ema=True, ema_momentum=0.5)
            layer = keras.layers.Dense(2, input_shape=(3,), name="out")
            model = keras.Sequential([layer])
            model.compile(optimizer, "mse")
        x = np.random.default_rng(0).normal(size=(16, 3)).astype("float32")
        model.fit(x, x[:, :2], batch_size=4, shuffle=False, verbose=0)
        weights.append(model.get_weights())
        kernel = mirrored.experimental_local_results(layer.kernel)
        np.testing.assert_array_equal(*(part.numpy() for part in kernel))
    for one, other in zip(*weights):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("inside", [True, False])
def test_assign_everywhere(mirrored, inside):
    plain = tf.Variable([1.0])
    with mirrored.scope():
        variable = tf.Variable([1.0])
    value = tf.constant([2.0], tf.float64)
    with mirrored.scope() if inside else tf.name_scope("outside"):
        tf_contexts.assign_everywhere(variable, value)
        tf_contexts.assign_everywhere(plain, value)
    parts = mirrored.experimental_local_results(variable)
    assert [float(x[0]) for x in (*parts, plain)] == [2, 2, 2]


def test_kernels_of_a_context_that_was_reset_are_traced_again():
    code = (
        "import numpy as np, tensorflow as tf\n"
        "from tensorflow.python.eager import context\n"
        "from tf_lamb import tf_update, keras2, v1\n"
        "def step(make):\n"
        "    variable = tf.Variable(np.ones(3, 'float32'), name='w')\n"
        "    make(0.1).apply_gradients([(tf.ones(3), variable)])\n"
        "    np.testing.assert_allclose(variable.numpy(), 0.9, rtol=1e-5)\n"
        "for make in (keras2.LAMB, v1.LAMBOptimizer):\n"
        "    for _ in range(2):\n"
        "        step(make)\n"
        "        step(make)\n"
        "        assert tf_update.trace_count() == 1\n"
        "        context._reset_context()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
