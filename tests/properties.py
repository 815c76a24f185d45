"""What the property tests share: settings, arrays, rounding.

Hypothesis draws the same examples in every run (`derandomize`), and prints the
smallest one that fails, with the line that repeats it.
"""

import os

import numpy as np
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as array_strategies

_SAME = dict(
    derandomize=True,
    deadline=None,
    database=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
# Of arithmetic alone; of an optimizer's config, some steps, a file.
QUICK = settings(max_examples=100, **_SAME)
CONFIGS = settings(max_examples=25, **_SAME)
# On JAX each of the last two compiles for seconds.
_JAX = os.environ.get("KERAS_BACKEND") == "jax"
# They show the first example that fails: a search for the smallest one would
# take minutes.
_AS_FOUND = dict(_SAME, phases=[Phase.explicit, Phase.generate])
STEPS = settings(max_examples=2 if _JAX else 8, **_AS_FOUND)
FILES = settings(max_examples=1 if _JAX else 3, **_AS_FOUND)

# Zero, or of a size at which float64 rounds each operation to 1e-16 of it.
ELEMENTS = st.one_of(
    st.just(0.0),
    st.floats(2.0**-10, 8.0),
    st.floats(-8.0, -(2.0**-10)),
)
SHAPES = st.one_of(
    st.just(()),
    array_strategies.array_shapes(max_dims=3, max_side=4),
)
# Of phi.
_BOUND = st.one_of(st.just(0.0), st.floats(2.0**-6, 4.0))
BOUNDS = st.one_of(st.none(), st.tuples(_BOUND, _BOUND).map(sorted).map(tuple))
# A scaling by it is exact: no element is rounded.
POWERS_OF_TWO = st.integers(-12, 12).map(lambda k: 2.0**k)


def arrays(shape, elements=ELEMENTS):
    """float64 arrays of a shape."""
    return array_strategies.arrays(np.float64, shape, elements=elements)


@st.composite
def problems(draw, max_steps=4):
    """A parameter, and a gradient for each of some steps: `x, [g, ...]`."""
    shape = draw(SHAPES)
    steps = draw(st.integers(1, max_steps))
    return draw(arrays(shape)), [draw(arrays(shape)) for _ in range(steps)]


def mix(draw, shape):
    """A function that reorders and reshapes the elements of an array."""
    size = int(np.prod(shape, dtype=int))
    order = np.array(draw(st.permutations(range(size))), dtype=int)
    return lambda x: np.reshape(x, -1)[order].reshape(1, size)


def assert_close(got, expected, tolerance, size=0.0):
    """Differences are below `tolerance` times the larger of both sizes.

    Args:
      size: of what was added up to get the arrays, where that is larger than
        they are.
    """
    scale = max(np.max(np.abs(expected), initial=0.0), np.max(size))
    error = np.max(np.abs(got - expected), initial=0.0)
    assert error <= tolerance * scale, f"{error} of {scale}: {got} {expected}"
