"""Every argument, ours and Keras', is checked; one line says what is wrong."""

import inspect

import keras
import numpy as np
import pytest

import tf_lamb
from tests.argument_cases import (
    REFUSED_BY_KERAS,
    accepted_values,
    check_kept,
    check_refused,
    check_refused_by_assignment,
)

CASES = [(o, a) for o, table in REFUSED_BY_KERAS.items() for a in table]


def _made(optimizer, argument, value):
    return getattr(tf_lamb, optimizer)(**{argument: value})


@pytest.mark.parametrize("optimizer, argument", CASES)
def test_what_is_refused(optimizer, argument):
    check_refused(
        getattr(tf_lamb, optimizer),
        argument,
        REFUSED_BY_KERAS[optimizer][argument],
    )


@pytest.mark.parametrize("optimizer, argument", CASES)
def test_what_is_refused_by_assignment(optimizer, argument):
    check_refused_by_assignment(
        getattr(tf_lamb, optimizer)(),
        argument,
        REFUSED_BY_KERAS[optimizer][argument],
    )


@pytest.mark.parametrize("optimizer, argument", CASES)
def test_what_is_accepted_and_how_it_is_kept(optimizer, argument):
    tensor = keras.ops.convert_to_tensor
    values, kept = accepted_values(optimizer, argument, tensor)
    check_kept(getattr(tf_lamb, optimizer), argument, values, kept)


@pytest.mark.parametrize("optimizer", REFUSED_BY_KERAS)
def test_no_argument_is_without_cases(optimizer):
    ours = inspect.signature(getattr(tf_lamb, optimizer)).parameters
    owner = next(
        base
        for base in keras.optimizers.Optimizer.__mro__
        if base.__name__ == "BaseOptimizer"
    )
    base = inspect.signature(owner.__init__).parameters
    assert "ema_momentum" in base
    elsewhere = {  # `tests/test_exclusion.py`, `test_groups.py`
        "exclude_from_weight_decay",
        "exclude_from_layer_adaptation",
        "groups",
    }
    every = {*ours, *base} - {"self", "args", "kwargs"} - elsewhere
    assert every == set(REFUSED_BY_KERAS[optimizer])


def test_no_accumulation_by_none_and_one():
    for steps in (None, 1, 1.0):
        optimizer = tf_lamb.LAMB(gradient_accumulation_steps=steps)
        assert optimizer.gradient_accumulation_steps is None
    with pytest.raises(ValueError, match="or None for no accumulation, got 0"):
        tf_lamb.LAMB(gradient_accumulation_steps=0)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64", "int32"])
def test_a_rate_may_be_a_variable_or_a_tensor_of_any_dtype(dtype):
    """Its value is read once."""
    value = keras.Variable(2, dtype=dtype, trainable=False)
    optimizer = tf_lamb.LAMB(value)
    value.assign(1)
    assert float(optimizer.learning_rate) == 2
    optimizer.learning_rate = value
    assert float(optimizer.learning_rate) == 1


def test_the_rate_of_a_function_is_not_replaced_by_a_number():
    optimizer = tf_lamb.LAMB(lambda: 0.25)
    with pytest.raises(TypeError, match="^learning_rate: .*got 0.5; let the f"):
        optimizer.learning_rate = 0.5
    assert optimizer.learning_rate == 0.25
    optimizer.learning_rate = lambda: 0.125
    assert optimizer.learning_rate == 0.125


def test_the_old_name_of_the_rate_of_addons():
    with pytest.warns(FutureWarning, match="0.4.0 removes; write learning"):
        optimizer = tf_lamb.LAMB(lr=0.5)
    assert float(optimizer.learning_rate) == 0.5


def test_a_schedule_of_numpy_is_no_schedule_of_keras():
    schedule = tf_lamb.schedules.WarmupPolynomial(0.1, 10)
    with pytest.raises(ValueError, match="a LearningRateSchedule of this Ker"):
        tf_lamb.LAMB(schedule)
    tf_lamb.LAMB(tf_lamb.WarmupPolynomial(0.1, 10))


def test_names_are_numbered_as_those_of_keras_are():
    keras.backend.clear_session()
    names = [tf_lamb.LAMB().name for _ in range(3)]
    names += [tf_lamb.LARS().name for _ in range(2)]
    assert names == ["LAMB", "LAMB_1", "LAMB_2", "LARS", "LARS_1"]
    assert tf_lamb.LAMB(name="LAMB").name == "LAMB"
    paths = [v.path for _ in range(2) for v in tf_lamb.LAMB().variables]
    assert len(set(paths)) == len(paths)


@pytest.mark.skipif(
    not hasattr(keras.optimizers, "MultiOptimizer"),
    reason="this Keras has no MultiOptimizer",
)
def test_two_in_one_multi_optimizer():
    parts = keras.optimizers.OptimizerMap(
        tf_lamb.LAMB(0.1), {"out/.*": tf_lamb.LAMB(0.2)}
    )
    model = keras.Sequential(
        [
            keras.Input((3,)),
            keras.layers.Dense(2, name="hidden"),
            keras.layers.Dense(1, name="out"),
        ],
        name="net",
    )
    model.compile(keras.optimizers.MultiOptimizer(parts), "mse")
    model.fit(np.ones((4, 3)), np.ones((4, 1)), verbose=0)
    tree = model.get_state_tree()["optimizer_variables"]
    assert len(keras.tree.flatten(tree)) == len(model.optimizer.variables)


def test_the_registered_name_is_found():
    for identifier in (
        "tf_lamb>LAMB",
        {"class_name": "tf_lamb>LAMB", "config": {"beta_1": 0.5}},
    ):
        found = keras.optimizers.get(identifier)
        assert isinstance(found, tf_lamb.LAMB)
    assert found.beta_1 == 0.5
    with pytest.raises(ValueError, match="optimizer identifier: LAMB"):
        keras.optimizers.get("LAMB")
