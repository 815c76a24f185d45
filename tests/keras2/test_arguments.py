"""Every argument, ours and Keras', is checked; one line says what is wrong."""

import inspect
import warnings

import numpy as np
import pytest
import tensorflow as tf

from tests.argument_cases import (
    REFUSED_BY_KERAS,
    accepted_values,
    check_kept,
    check_refused,
    check_refused_by_assignment,
)
from tf_lamb import Group, keras2

keras = keras2.keras
CASES = [(o, a) for o, table in REFUSED_BY_KERAS.items() for a in table]


@pytest.mark.parametrize("optimizer, argument", CASES)
def test_what_is_refused(optimizer, argument):
    check_refused(
        getattr(keras2, optimizer),
        argument,
        REFUSED_BY_KERAS[optimizer][argument],
    )


@pytest.mark.parametrize("optimizer, argument", CASES)
def test_what_is_refused_by_assignment(optimizer, argument):
    check_refused_by_assignment(
        getattr(keras2, optimizer)(),
        argument,
        REFUSED_BY_KERAS[optimizer][argument],
    )


@pytest.mark.parametrize("optimizer, argument", CASES)
def test_what_is_accepted_and_how_it_is_kept(optimizer, argument):
    values, kept = accepted_values(optimizer, argument, tf.constant)
    if argument in ("learning_rate", "clipnorm", "use_ema"):
        values = [*values, tf.Variable(kept)]
    check_kept(getattr(keras2, optimizer), argument, values, kept)


@pytest.mark.parametrize("optimizer", REFUSED_BY_KERAS)
def test_no_argument_is_without_cases(optimizer):
    ours = inspect.signature(getattr(keras2, optimizer)).parameters
    base = {
        name
        for owner in keras.optimizers.Optimizer.__mro__
        if owner.__name__ in ("_BaseOptimizer", "Optimizer")
        for name in inspect.signature(owner.__init__).parameters
    }
    assert "ema_momentum" in base
    elsewhere = {  # `tests/test_exclusion.py`
        "exclude_from_weight_decay",
        "exclude_from_layer_adaptation",
        "groups",
    }
    of_keras_3 = {"loss_scale_factor", "gradient_accumulation_steps"}
    every = {*ours, *base, *of_keras_3} - {"self", "args", "kwargs"}
    assert every - elsewhere == set(REFUSED_BY_KERAS[optimizer])


def test_the_old_names_of_addons():
    with pytest.warns(FutureWarning, match="0.4.0 removes; write learning"):
        optimizer = keras2.LAMB(lr=0.5)
    assert float(optimizer.learning_rate) == 0.5
    with pytest.raises(ValueError, match="^decay: expected a number >= 0, got"):
        keras2.LAMB(decay="0.1")


def test_clipvalue_that_has_no_effect_says_so():
    with pytest.warns(UserWarning, match="clipvalue: it has no effect beside"):
        keras2.LAMB(clipvalue=1.0, clipnorm=1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        keras2.LAMB(clipvalue=1.0)
        keras2.LAMB(clipnorm=1.0)


def test_a_rate_may_be_set_inside_a_function():
    """There the number is a tensor whose value is not known yet."""
    optimizer = keras2.LAMB(0.5)
    variable = tf.Variable(np.ones(3, "float32"))
    optimizer.build([variable])

    @tf.function
    def step(rate):
        optimizer.learning_rate = rate
        optimizer.apply_gradients([(tf.ones(3), variable)])

    step(tf.constant(0.25))
    np.testing.assert_allclose(variable.numpy(), 0.75, rtol=1e-5)


def test_iterations_may_be_int32():
    """An Estimator's global step, for one."""
    variable = tf.Variable(np.ones(3, "float32"))
    optimizer = keras2.LAMB(0.1)
    optimizer.iterations = tf.Variable(3, dtype=tf.int32, trainable=False)
    other = tf.Variable(np.ones(3, "float32"))
    wide = keras2.LAMB(0.1)
    wide.iterations.assign(3)
    for _ in range(2):
        optimizer.apply_gradients([(tf.ones(3), variable)])
        wide.apply_gradients([(tf.ones(3), other)])
    assert int(optimizer.iterations) == int(wide.iterations) == 5
    np.testing.assert_array_equal(variable.numpy(), other.numpy())


@pytest.mark.parametrize("patterns", [None, ["bias"]])
def test_an_empty_list_is_no_error_and_builds_nothing(patterns):
    optimizer = keras2.LAMB(0.1, exclude_from_weight_decay=patterns)
    optimizer.build([])
    optimizer.apply_gradients([])
    assert not optimizer.built and optimizer.treatments == {}
    bias = tf.Variable(np.ones(3, "float32"), name="bias")
    optimizer.build([bias])
    optimizer.apply_gradients([(tf.ones(3), bias)])
    assert list(optimizer.treatments) == ["bias"]


@pytest.mark.parametrize("patterns", [None, ["bias"]])
def test_a_model_with_nothing_to_train(patterns):
    frozen = keras.layers.Dense(1, trainable=False, input_shape=(3,))
    model = keras.Sequential([frozen])
    optimizer = keras2.LAMB(0.1, exclude_from_weight_decay=patterns)
    model.compile(optimizer, "mse")
    data = np.ones((8, 3)), np.ones((8, 1))
    history = model.fit(*data, epochs=2, verbose=0).history["loss"]
    assert history[0] == history[1] == model.evaluate(*data, verbose=0)


@pytest.mark.parametrize("norm", ["l2", "l1", "linf"])
@pytest.mark.parametrize("shape", [(0,), (0, 3), (2, 0)])
def test_a_variable_without_elements(norm, shape):
    optimizer = keras2.LARS(0.1, norm=norm, weight_decay=0.1)
    empty = tf.Variable(tf.zeros(shape), name="empty")
    optimizer.apply_gradients([(tf.zeros(shape), empty)])
    assert optimizer.trust_ratios == {"empty": 1}


@pytest.mark.parametrize("name", ["LAMB", "LARS"])
def test_by_name(name):
    """The bare name is asked for by model_to_estimator, too."""
    registered = f"tf_lamb>{name}"
    for identifier in (registered, {"class_name": registered, "config": {}}):
        found = keras.optimizers.get(identifier)
        assert isinstance(found, getattr(keras2, name))
    made = getattr(keras2, name)()
    to_legacy = keras.__internal__.optimizers.convert_to_legacy_optimizer
    line = rf"^'{name.lower()}': .*tf_lamb.v1.{name}Optimizer.*'{registered}'.$"
    for asked in (
        lambda: to_legacy(made),
        lambda: keras.optimizers.get(name.lower()),
        lambda: keras.optimizers.get(
            {"class_name": name.lower(), "config": {}}
        ),
    ):
        with pytest.raises(ValueError, match=line):
            asked()


@pytest.mark.parametrize("shape", [(2,), (), (4,), (2, 2, 1)])
def test_a_gradient_of_another_shape_is_refused(shape):
    """One that fits by broadcasting, too."""
    kernel = tf.Variable(tf.ones((2, 2)), name="kernel")
    text = r"gradient of shape \(2, 2\) for variable 'kernel', got one of"
    with pytest.raises(ValueError, match=text):
        keras2.LAMB(0.1).apply_gradients([(tf.ones(shape), kernel)])


@pytest.mark.parametrize("shape", [(None, 2), None], ids=["length", "rank"])
def test_a_gradient_whose_shape_is_not_known_is_taken(shape):
    kernel = tf.Variable(tf.ones((2, 2)), name="kernel")
    optimizer = keras2.LAMB(0.1)

    step = tf.function(
        lambda grad: optimizer.apply_gradients([(grad, kernel)]),
        input_signature=[tf.TensorSpec(shape)],
        autograph=False,
    )
    step(tf.ones((2, 2)))
    np.testing.assert_allclose(kernel, 0.9, rtol=1e-5)
    # It would fit, by broadcasting.
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"\[1,2\]"):
        step(tf.ones((1, 2)))
    np.testing.assert_allclose(kernel, 0.9, rtol=1e-5)


def test_a_complex_gradient_is_refused():
    kernel = tf.Variable(tf.ones((2, 2)), name="kernel")
    text = "expected a real gradient for variable 'kernel', got complex64"
    with pytest.raises(ValueError, match=text):
        keras2.LAMB(0.1).apply_gradients(
            [(tf.ones((2, 2), tf.complex64), kernel)]
        )


def test_what_is_set_before_build_holds():
    optimizer = keras2.LAMB(0.1)
    optimizer.groups = [Group("kernel", frozen=True)]
    kernel = tf.Variable(tf.ones((2, 2)), name="kernel")
    other = tf.Variable(tf.ones((2, 2)), name="other")
    ones = tf.ones((2, 2))
    optimizer.apply_gradients([(ones, kernel), (ones, other)])
    np.testing.assert_array_equal(kernel, 1)
    np.testing.assert_allclose(other, 0.9, rtol=1e-5)
    for name in ("exclude_from_weight_decay", "exclude_from_layer_adaptation"):
        with pytest.raises(AttributeError, match=f"^{name}: it cannot be set"):
            setattr(optimizer, name, ["kernel"])
    optimizer.lr = 0.25  # another name of the rate, in Keras 2
    assert float(optimizer.learning_rate) == 0.25
