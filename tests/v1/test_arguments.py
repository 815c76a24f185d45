"""Every argument is checked; one line says what is wrong."""

import inspect
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from tests.argument_cases import REFUSED, accepted_values, check_refused
from tf_lamb import v1

# The base class has it, without a use.
REFUSED_HERE = {
    name: {**table, "use_locking": ["False", 0, None, {}]}
    for name, table in REFUSED.items()
}
CASES = [(o, a) for o, table in REFUSED_HERE.items() for a in table]


def _make(optimizer, **arguments):
    return getattr(v1, f"{optimizer}Optimizer")(**arguments)


@pytest.mark.parametrize("optimizer, argument", CASES)
def test_what_is_refused(optimizer, argument):
    check_refused(
        lambda **one: _make(optimizer, **one),
        argument,
        REFUSED_HERE[optimizer][argument],
    )


@pytest.mark.parametrize("optimizer, argument", CASES)
def test_what_is_accepted_and_how_it_is_kept(optimizer, argument):
    values, kept = accepted_values(optimizer, argument, tf.constant)
    for value in values:
        made = _make(optimizer, **{argument: value})
        rate = argument == "learning_rate"
        got = made._learning_rate if rate else getattr(made, argument)
        if tf.is_tensor(got):  # a rate, which may change
            assert rate and float(got) == kept
            continue
        assert got == kept and type(got) is type(kept), repr(value)


@pytest.mark.parametrize("optimizer", REFUSED_HERE)
def test_no_argument_is_without_cases(optimizer):
    signature = inspect.signature(getattr(v1, f"{optimizer}Optimizer"))
    elsewhere = {  # `tests/test_exclusion.py`
        "exclude_from_weight_decay",
        "exclude_from_layer_adaptation",
        "groups",
    }
    every = {*signature.parameters, "use_locking"} - elsewhere - {"kwargs"}
    assert every == set(REFUSED_HERE[optimizer])


def test_a_variable_as_rate_is_read_at_each_step():
    rate = tf.Variable(0.5)
    variable = tf.Variable(np.ones(3, "float32"), name="w")
    optimizer = v1.LAMBOptimizer(rate)
    optimizer.apply_gradients([(tf.ones(3), variable)])
    np.testing.assert_allclose(variable.numpy(), 0.5, rtol=1e-5)
    rate.assign(0.0)
    optimizer.apply_gradients([(tf.ones(3), variable)])
    np.testing.assert_allclose(variable.numpy(), 0.5, rtol=1e-5)


_OF_TENSORFLOW_1 = """
import numpy as np
import tensorflow as tf
from tf_lamb import Group, v1

tf1 = tf.compat.v1
tf1.disable_v2_behavior()
tf1.enable_resource_variables()
rate = tf1.placeholder_with_default(0.1, ())
results = []
for groups in ([], [Group("kernel", 0.5, trust_ratio_per="filter")],
               [Group("", learning_rate=rate, trust_ratio_per="layer")]):
    kernel, bias = (
        tf1.Variable(np.ones(shape, "float32"), name=f"dense/{name}")
        for name, shape in (("kernel", (3, 4)), ("bias", (4,)))
    )
    optimizer = v1.LAMBOptimizer(rate, groups=groups, clip_by_unit=0.5)
    pairs = [(tf.ones((3, 4)), kernel), (tf.ones((4,)), bias)]
    train = optimizer.apply_gradients(pairs)
    with tf1.Session() as session:
        session.run(tf1.global_variables_initializer())
        session.run(train)
        results.append(session.run(kernel)[0, 0])
np.testing.assert_allclose(results, [0.9, 0.95, 0.9], rtol=1e-5)
"""


def test_with_the_behavior_of_tensorflow_1():
    """Shapes have other dimensions there; a group's rate may be a tensor."""
    subprocess.run([sys.executable, "-c", _OF_TENSORFLOW_1], check=True)
