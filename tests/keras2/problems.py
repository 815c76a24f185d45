"""The problems of `tests/keras3/problems.py` on plain TensorFlow variables."""

import tensorflow as tf

from tests.keras3 import problems


def make_variables(values):
    return [tf.Variable(value, name=name) for name, value in values.items()]


def run(optimizer, steps, first_step=0, variables=None, start=None):
    """`steps` steps of `optimizer`; returns its variables."""
    if variables is None:
        variables = make_variables(start or problems.initial_values())
    for step in range(first_step, first_step + steps):
        grads = problems.gradients(step)
        optimizer.apply_gradients(
            [(tf.constant(grads[_name(v)]), v) for v in variables]
        )
    return variables


def values_of(variables):
    """{name: array} of variables, as float64."""
    return {_name(v): v.numpy().astype("float64") for v in variables}


def _name(variable):
    return variable.name.split(":")[0]
