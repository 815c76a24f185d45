"""The rule of LAMB on NumPy arrays, for tests of the rule itself."""

import numpy as np

from tf_lamb import arithmetic, hyperparameters, rules


def step_of(
    x,
    g,
    m,
    v,
    t,
    rate=0.01,
    decay=0.0,
    adapt=True,
    proceed=None,
    norm_of=arithmetic.whole_norm,
    **hyper,
):
    """One call of the rule: the only place that knows its signature."""
    return rules.lamb(
        np,
        x,
        g,
        m,
        v,
        x.dtype.type(t),
        learning_rate=rate,
        weight_decay=decay,
        adapt=adapt,
        hyper=hyperparameters.Lamb(**hyper),
        proceed=proceed,
        norm_of=norm_of,
    )


def run(x, grads, **arguments):
    """The parameter after all gradients, and the last step's result."""
    m = v = np.zeros_like(x)
    for t, g in enumerate(grads, 1):
        step = step_of(x, g, m, v, t, **arguments)
        x, m, v, _ = step
    return x, step
