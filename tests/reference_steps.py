"""Variables, gradients and steps for the tests of the naive references.

Shapes: variables "kernel" [5, 4], "bias" [4] and "scale" [4].
"""

import numpy as np


def variables(seed=0):
    """A 2-D kernel, a bias that starts at zero, a scale that starts at one."""
    kernel = np.random.default_rng(seed).normal(size=(5, 4))
    return {"kernel": kernel, "bias": np.zeros(4), "scale": np.ones(4)}


def gradients(steps, seed=1):
    """Gradients without a zero element, so that epsilon = 0 is allowed."""
    rng = np.random.default_rng(seed)
    shapes = {name: x.shape for name, x in variables().items()}
    return [
        {
            name: rng.choice([-1.0, 1.0], shape) * rng.uniform(0.1, 2.0, shape)
            for name, shape in shapes.items()
        }
        for _ in range(steps)
    ]


def run(optimizer, grads, params=None):
    params = variables() if params is None else params
    for g in grads:
        params = optimizer.step(params, g)
    return params


def distance(left, right):
    """Largest difference of one variable, relative to that variable."""
    return np.max(
        [
            np.max(np.abs(left[name] - right[name]))
            / np.max(np.abs(left[name]))
            for name in left
        ]
    )


def assert_close(left, right, atol=1e-12):
    assert left.keys() == right.keys()
    for name in left:
        np.testing.assert_allclose(left[name], right[name], rtol=0, atol=atol)


def one_step(optimizer, x, g):
    return optimizer.step({"x": np.array(x)}, {"x": np.array(g)})["x"]
