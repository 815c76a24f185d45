"""tf_keras: configs, files and states are read as they were written.

Whatever the arguments of the optimizer are.
"""

import json

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from tests.keras2 import problems
from tests.keras3.problems import initial_values
from tests.optimizer_arguments import (
    RATES,
    SCHEDULES,
    arguments_of,
    check_config,
    check_schedule,
    make_rate,
)
from tests.properties import CONFIGS, FILES, STEPS
from tf_lamb import keras2

keras = keras2.keras


def _through_json(optimizer):
    """The optimizer that the text of its config makes."""
    text = json.dumps(keras.optimizers.serialize(optimizer))
    return keras.optimizers.deserialize(json.loads(text))


@pytest.mark.parametrize("name", ["LAMB", "LARS"])
@CONFIGS
@given(RATES, st.data())
def test_a_config_holds_every_argument(name, rate, data):
    arguments = data.draw(arguments_of(name))
    optimizer = getattr(keras2, name)(make_rate(keras2, rate), **arguments)
    check_config(keras, optimizer, arguments, rate)


@CONFIGS
@given(SCHEDULES, st.integers(0, 300))
def test_a_schedule_comes_back_with_its_rates(drawn, step):
    check_schedule(keras, make_rate(keras2, drawn), step)


def _assert_same(some, others):
    for one, two in zip(some, others, strict=True):
        np.testing.assert_array_equal(
            *(tf.cast(v, "float32").numpy() for v in (one, two))
        )


@pytest.mark.parametrize("name", ["LAMB", "LARS"])
@STEPS
@given(st.data())
def test_a_copy_that_takes_over_the_state_takes_the_same_steps(name, data):
    arguments = {**data.draw(arguments_of(name)), "jit_compile": False}
    optimizer = getattr(keras2, name)(0.05, **arguments)
    variables, twins = (
        problems.make_variables(initial_values()) for _ in range(2)
    )
    problems.run(optimizer, 3, variables=variables)
    copy = _through_json(optimizer)
    copy.build(twins)
    for twin, variable in zip(twins, variables):
        twin.assign(variable)
    state = {}
    optimizer.save_own_variables(state)
    copy.load_own_variables({k: np.array(v) for k, v in state.items()})
    for each, own in ((optimizer, variables), (copy, twins)):
        problems.run(each, 2, first_step=3, variables=own)
    assert copy.treatments == optimizer.treatments
    assert copy.trust_ratios == optimizer.trust_ratios
    _assert_same([*variables, *optimizer.variables], [*twins, *copy.variables])


@pytest.mark.parametrize("name", ["LAMB", "LARS"])
@FILES
@given(st.integers(1, 4), RATES, st.data())
def test_a_keras_file_is_the_model_and_its_optimizer(
    tmp_path_factory, name, units, rate, data
):
    arguments = {**data.draw(arguments_of(name)), "jit_compile": False}
    optimizer = getattr(keras2, name)(make_rate(keras2, rate), **arguments)
    model = keras.Sequential(
        [
            keras.layers.Dense(units, name="hidden", input_shape=(5,)),
            keras.layers.Dense(1, name="out"),
        ]
    )
    model.compile(optimizer, "mse", run_eagerly=True)
    problems.fit(model, rows=32)
    path = tmp_path_factory.mktemp("files") / "model.keras"
    model.save(path)
    loaded = keras.models.load_model(path)
    assert loaded.optimizer.get_config() == optimizer.get_config()
    assert list(loaded.optimizer.treatments.values()) == (
        list(optimizer.treatments.values())
    )
    loaded.run_eagerly = True
    for each in (model, loaded):
        problems.fit(each, rows=32)
    _assert_same(
        [*model.variables, *optimizer.variables],
        [*loaded.variables, *loaded.optimizer.variables],
    )
