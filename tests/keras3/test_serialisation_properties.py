"""Configs, files and states: what is written is what is read.

Whatever the arguments of the optimizer are.
"""

import json

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tf_lamb
from tests.keras3 import problems
from tests.optimizer_arguments import (
    RATES,
    SCHEDULES,
    arguments_of,
    check_config,
    check_schedule,
    make_rate,
)
from tests.properties import CONFIGS, FILES, STEPS


def _through_json(optimizer):
    """The optimizer that the text of its config makes."""
    text = json.dumps(keras.optimizers.serialize(optimizer))
    return keras.optimizers.deserialize(json.loads(text))


@pytest.mark.parametrize("name", ["LAMB", "LARS"])
@CONFIGS
@given(RATES, st.data())
def test_a_config_holds_every_argument(name, rate, data):
    arguments = data.draw(arguments_of(name))
    optimizer = getattr(tf_lamb, name)(make_rate(tf_lamb, rate), **arguments)
    check_config(keras, optimizer, arguments, rate)


@CONFIGS
@given(SCHEDULES, st.integers(0, 300))
def test_a_schedule_comes_back_with_its_rates(drawn, step):
    check_schedule(keras, make_rate(tf_lamb, drawn), step)


@CONFIGS
@given(
    st.lists(
        st.text(st.characters(codec="utf-8", exclude_characters="\\(){}[]*+?|"))
    ),
    st.booleans(),
)
def test_any_pattern_survives(patterns, adaptation):
    """Letters of any language, anchors, an empty text, an empty list."""
    which = "layer_adaptation" if adaptation else "weight_decay"
    argument = f"exclude_from_{which}"
    optimizer = tf_lamb.LAMB(**{argument: patterns})
    again = _through_json(optimizer)
    assert again.get_config()[argument] == patterns
    assert again.get_config() == optimizer.get_config()


def _assert_same(some, others):
    for one, two in zip(some, others, strict=True):
        np.testing.assert_array_equal(
            *(
                keras.ops.convert_to_numpy(keras.ops.cast(v, "float32"))
                for v in (one, two)
            )
        )


@pytest.mark.parametrize("name", ["LAMB", "LARS"])
@STEPS
@given(st.data())
def test_a_copy_that_takes_over_the_state_takes_the_same_steps(name, data):
    arguments = {**data.draw(arguments_of(name)), "jit_compile": False}
    optimizer = getattr(tf_lamb, name)(0.05, **arguments)
    variables, twins = (
        problems.make_variables(problems.initial_values()) for _ in range(2)
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


LAYERS = st.lists(
    st.tuples(st.sampled_from(["in", "mid", "a_b"]), st.integers(1, 4)),
    min_size=1,
    max_size=3,
    unique_by=lambda layer: layer[0],
)


def _train(model):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(8, 3)).astype("float32")
    y = rng.normal(size=(8, *model.output_shape[1:])).astype("float32")
    model.fit(x, y, batch_size=4, epochs=1, shuffle=False, verbose=0)


@pytest.mark.parametrize("name", ["LAMB", "LARS"])
@FILES
@given(LAYERS, RATES, st.data())
def test_a_keras_file_is_the_model_and_its_optimizer(
    tmp_path_factory, name, layers, rate, data
):
    arguments = {**data.draw(arguments_of(name)), "jit_compile": False}
    optimizer = getattr(tf_lamb, name)(make_rate(tf_lamb, rate), **arguments)
    model = keras.Sequential([keras.Input((3,))])
    for layer, units in layers:
        model.add(keras.layers.Dense(units, name=layer))
    # On TensorFlow, tracing would be most of the time; on JAX, all else is.
    eager = keras.config.backend() == "tensorflow"
    model.compile(optimizer, "mse", run_eagerly=eager)
    _train(model)
    path = tmp_path_factory.mktemp("files") / "model.keras"
    model.save(path)
    loaded = keras.saving.load_model(path)
    config = optimizer.get_config()
    assert loaded.optimizer.get_config() == config
    # Keras may give a loaded model's variables other paths.
    assert [t[1:] for t in loaded.optimizer.treatments.values()] == (
        [t[1:] for t in optimizer.treatments.values()]
    )
    loaded.run_eagerly = eager
    for each in (model, loaded):
        _train(each)
    _assert_same(
        [*model.variables, *optimizer.variables],
        [*loaded.variables, *loaded.optimizer.variables],
    )
