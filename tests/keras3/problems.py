"""Small problems on which an optimizer is held against the reference."""

import keras
import numpy as np

SHAPES = {"kernel": (5, 7), "bias": (7,), "scale": (1,)}


def initial_values(dtype="float32", seed=0):
    """A 2-D kernel, a bias of zeros and a scalar-like scale of ones."""
    rng = np.random.default_rng(seed)
    return {
        "kernel": rng.normal(size=SHAPES["kernel"]).astype(dtype),
        "bias": np.zeros(SHAPES["bias"], dtype),
        "scale": np.ones(SHAPES["scale"], dtype),
    }


def gradients(step, dtype="float32", seed=1):
    """Gradients of very different sizes, the same for every run."""
    rng = np.random.default_rng([seed, step])
    factors = {"kernel": 1.0, "bias": 1e-3, "scale": 30.0}
    return {
        name: (factors[name] * rng.normal(size=shape)).astype(dtype)
        for name, shape in SHAPES.items()
    }


def make_variables(values):
    """Keras variables of the values' dtypes, with their names as paths."""
    return [
        keras.Variable(value, dtype=str(value.dtype), name=name)
        for name, value in values.items()
    ]


def apply(optimizer, variables, grads):
    """One update by NumPy gradients, None where there is none.

    On JAX by `stateless_apply`, which is how `fit` does it there.
    """
    tensors = [
        None
        if grads[v.name] is None
        else keras.ops.convert_to_tensor(grads[v.name], dtype=v.dtype)
        for v in variables
    ]
    if keras.config.backend() != "jax":
        optimizer.apply(tensors, variables)
        return
    if not optimizer.built:
        optimizer.build(variables)
    state = [*variables, *optimizer.variables]
    if not hasattr(optimizer, "jitted_apply"):
        import jax

        optimizer.jitted_apply = jax.jit(optimizer.stateless_apply)
    values = optimizer.jitted_apply(
        [v.value for v in optimizer.variables],
        tensors,
        [v.value for v in variables],
    )
    for variable, value in zip(state, [*values[0], *values[1]]):
        variable.assign(value)


def values_of(variables):
    """{name: array} of variables, as float64."""
    return {
        v.name: keras.ops.convert_to_numpy(
            keras.ops.cast(
                v.value, "float64" if v.dtype == "float64" else "float32"
            )
        ).astype("float64")
        for v in variables
    }


def run(optimizer, steps, dtype="float32", first_step=0, variables=None):
    """`steps` steps of `optimizer`; returns its variables."""
    if variables is None:
        variables = make_variables(initial_values(dtype))
    for step in range(first_step, first_step + steps):
        apply(optimizer, variables, gradients(step, dtype))
    return variables


def run_reference(reference, steps, dtype="float32"):
    """The same steps of a float64 reference; returns its parameters."""
    params = {
        name: value.astype("float64")
        for name, value in initial_values(dtype).items()
    }
    for step in range(steps):
        grads = {
            name: grad.astype("float64")
            for name, grad in gradients(step, dtype).items()
        }
        params = reference.step(params, grads)
    return params


def distance(got, expected):
    """Largest difference, relative to the larger of 1 and the values.

    NaN if there is one: `max` would drop a NaN that does not come first.
    """
    return np.max(
        [
            np.max(
                np.abs(got[name] - expected[name])
                / np.maximum(np.abs(expected[name]), 1)
            )
            for name in expected
        ]
    )


def assert_equal(variables, expected, tolerance=1e-7):
    """Variables have the values of others, but for rounding."""
    assert distance(values_of(variables), values_of(expected)) < tolerance
