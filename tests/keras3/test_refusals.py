"""What is refused, and what the message names, on every backend."""

import keras
import numpy as np
import pytest

import tf_lamb
from tests.keras3 import problems

OPTIMIZERS = ("LAMB", "LARS")


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("dtype", ["int32", "uint8", "bool", "complex64"])
def test_variables_that_are_not_floating_are_refused_by_name(name, dtype):
    weight = keras.Variable(np.ones(3, "float32"), name="weight")
    try:
        other = keras.Variable(
            np.ones(3, dtype), dtype=dtype, name="other", trainable=False
        )
    except ValueError as error:
        # Keras has no complex variables then, nor could anyone pass one.
        assert dtype in str(error)
        return
    optimizer = getattr(tf_lamb, name)(0.1)
    with pytest.raises(ValueError, match=f"variable 'other' is {dtype}; exp"):
        optimizer.build([weight, other])
    assert not optimizer.built and not hasattr(optimizer, "_slots")


def test_pattern_without_a_match_names_the_nearest_and_changes_nothing():
    optimizer = tf_lamb.LAMB(exclude_from_weight_decay=["Bais"])
    variables = problems.make_variables(problems.initial_values())
    with pytest.raises(ValueError, match="'Bais' matches none of 3.*'bias'"):
        optimizer.build(variables)
    assert not optimizer.built


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"learning_rate": -1.0}, "learning_rate: expected a number >= 0"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"beta_1": 1.0}, r"beta_1: expected a number in \[0, 1\), got 1.0"),
        ({"beta_2": -0.1}, "beta_2"),
        ({"epsilon": 0}, "epsilon: expected a number > 0"),
        ({"weight_decay": -0.1}, "weight_decay"),
        ({"norm": "l3"}, "norm: expected one of 'l2', 'l1', 'linf'"),
        ({"nesterov": "yes"}, "nesterov: expected one of None, 'nadam'"),
        ({"phi_bounds": (2, 1)}, "phi_bounds: expected a pair"),
        ({"phi_bounds": 3}, "phi_bounds"),
        (
            {"trust_ratio_bounds": (10, 0.01)},
            r"trust_ratio_bounds: expected a pair .* got \(10, 0.01\)",
        ),
        ({"trust_ratio_bounds": (0, float("nan"))}, "trust_ratio_bounds"),
        ({"clipnorm": -1}, "clipnorm: expected a number > 0"),
        ({"exclude_from_weight_decay": "bias"}, r"write \['bias'\]"),
        ({"exclude_from_weight_decay": ["("]}, "not a regular expression"),
        ({"exclude_from_layer_adaptation": [3]}, "not a regular expression"),
        ({"clipnorm": 1.0, "clipvalue": 1.0}, "Only one of"),
        ({"momentun": 1.0}, "not recognized"),
    ],
)
def test_bad_lamb_arguments(arguments, message):
    with pytest.raises(ValueError, match=message) as caught:
        tf_lamb.LAMB(**arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"momentum": 1.0}, "momentum"),
        ({"form": "lars"}, "form: expected one of 'you2017', 'optax'"),
        ({"trust_coefficient": 0}, "trust_coefficient"),
        ({"form": "you2020", "nesterov": True}, "not defined"),
    ],
)
def test_bad_lars_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        tf_lamb.LARS(**arguments)
