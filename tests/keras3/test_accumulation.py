"""Gradient accumulation, on every backend."""

import warnings

import keras
import numpy as np
import pytest

import tf_lamb
from tests.keras3 import problems


@pytest.mark.parametrize("name", ["LAMB", "LARS"])
@pytest.mark.parametrize(
    "clip", [{}, {"clipnorm": 0.05}, {"global_clipnorm": 0.05}]
)
def test_accumulated_micro_batches_equal_one_large_batch(name, clip):
    """k micro-batches give the update of their mean, clipping included."""
    k = 4
    make = getattr(tf_lamb, name)
    accumulated = make(0.1, gradient_accumulation_steps=k, **clip)
    whole = make(0.1, **clip)
    a = problems.make_variables(problems.initial_values())
    b = problems.make_variables(problems.initial_values())
    for update in range(3):
        grads = [problems.gradients(k * update + i) for i in range(k)]
        for part in grads:
            problems.apply(accumulated, a, part)
        mean = {n: np.mean([part[n] for part in grads], 0) for n in grads[0]}
        problems.apply(whole, b, mean)
    assert (
        problems.distance(problems.values_of(a), problems.values_of(b)) < 1e-6
    )


def test_accumulation_touches_nothing_but_its_sums_in_between():
    optimizer = tf_lamb.LAMB(0.1, gradient_accumulation_steps=3, use_ema=True)
    variables = problems.run(optimizer, 2)
    initial = problems.initial_values()
    assert problems.distance(problems.values_of(variables), initial) == 0
    for slots in optimizer._slots:
        for slot in slots:
            assert not keras.ops.convert_to_numpy(slot).any()
    assert int(keras.ops.convert_to_numpy(optimizer.iterations)) == 0


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_small_micro_batches_count_beside_large_ones(dtype):
    """Sums in the variable's dtype would lose every quarter."""
    parts = [1024.0, *[0.25] * 6, -1024.0]
    variable = keras.Variable(np.ones(3), dtype=dtype, name="w")
    optimizer = tf_lamb.LARS(
        1.0,
        momentum=0.0,
        exclude_from_layer_adaptation=["w"],
        gradient_accumulation_steps=len(parts),
    )
    for part in parts:
        grad = np.full(3, part, "float32")
        problems.apply(optimizer, [variable], {"w": grad})
    moved = 1 - keras.ops.convert_to_numpy(keras.ops.cast(variable, "float32"))
    np.testing.assert_array_equal(moved, 1.5 / len(parts))
    (total,) = optimizer._accumulated_gradients
    assert total.dtype == "float32"


def test_nonfinite_micro_batch_skips_its_update_and_is_forgotten():
    optimizer = tf_lamb.LAMB(0.1, gradient_accumulation_steps=2)
    variables = problems.make_variables(problems.initial_values())
    bad = problems.gradients(0)
    bad["kernel"][0, 0] = np.nan
    problems.apply(optimizer, variables, bad)
    problems.apply(optimizer, variables, problems.gradients(1))
    assert optimizer.skipped_steps == 1
    initial = problems.initial_values()
    assert problems.distance(problems.values_of(variables), initial) == 0
    problems.run(optimizer, 2, variables=variables)
    assert problems.distance(problems.values_of(variables), initial) > 1e-3


@pytest.mark.skipif(
    keras.config.backend() != "jax",
    reason="JAX's program; TensorFlow's: tests/test_tf_accumulation.py",
)
def test_accumulating_branch_only_adds_on_jax():
    import jax

    optimizer = tf_lamb.LAMB(0.1, gradient_accumulation_steps=2, use_ema=True)
    variables = problems.make_variables(problems.initial_values())
    optimizer.build(variables)
    state = [[v.value for v in vs] for vs in (optimizer.variables, variables)]
    grads = [keras.ops.ones(v.shape) for v in variables]
    program = jax.make_jaxpr(optimizer.stateless_apply)(
        state[0], grads, state[1]
    )
    (condition,) = [e for e in program.jaxpr.eqns if e.primitive.name == "cond"]
    accumulate, update = map(_operations, condition.params["branches"])
    assert accumulate == ["add"] * len(variables)
    assert {"sqrt", "div", "mul"} <= set(update)


def _operations(program):
    """Names of the primitives of a program and of those that it calls."""
    names = []
    for equation in getattr(program, "jaxpr", program).eqns:
        inner = [p for p in equation.params.values() if hasattr(p, "eqns")]
        inner += [p for p in equation.params.values() if hasattr(p, "jaxpr")]
        names += [equation.primitive.name] if not inner else []
        for each in inner:
            names += _operations(each)
    return sorted(names)


@pytest.mark.parametrize("use_ema", [False, True])
def test_a_fit_of_too_few_batches_says_that_nothing_was_updated(use_ema):
    """And leaves the weights, of which there are no averages yet."""
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    model.compile(
        tf_lamb.LAMB(0.1, gradient_accumulation_steps=8, use_ema=use_ema), "mse"
    )
    before = model.get_weights()
    x, y = np.ones((7, 4), "float32"), np.ones((7, 3), "float32")
    with pytest.warns(UserWarning, match="no weight was updated.*steps=8"):
        model.fit(x, y, batch_size=1, verbose=0)
    for a, b in zip(model.get_weights(), before):
        np.testing.assert_array_equal(a, b)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*no weight was updated")
        model.fit(x, y, batch_size=1, verbose=0)
    assert np.abs(model.get_weights()[0] - before[0]).max() > 0


def test_a_fit_of_skipped_steps_leaves_the_weights():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    model.compile(tf_lamb.LAMB(0.1, use_ema=True), "mse")
    before = model.get_weights()
    nan = np.full((4, 4), np.nan, "float32")
    model.fit(nan, np.ones((4, 3), "float32"), verbose=0)
    assert model.optimizer.skipped_steps == 1
    for a, b in zip(model.get_weights(), before):
        np.testing.assert_array_equal(a, b)


def test_averages_are_of_variables_without_gradient_too():
    """Of two micro-batches an update; the second weight's stop after two."""
    optimizer = tf_lamb.LARS(
        0.1,
        momentum=0.0,
        exclude_from_layer_adaptation=[""],
        gradient_accumulation_steps=2,
        use_ema=True,
        ema_momentum=0.5,
        ema_overwrite_frequency=3,
    )
    variables = [
        keras.Variable(np.ones(1, "float32"), name=name) for name in "ab"
    ]
    optimizer.build(variables)
    one = keras.ops.ones(1)
    for grads in [(one, one)] * 4 + [(one, None)] * 2:
        optimizer.apply(list(grads), variables)
    # b: 0.9, 0.8, 0.8; its averages: 0.9, 0.85, 0.825, which overwrite it.
    found = [float(keras.ops.convert_to_numpy(v)[0]) for v in variables]
    assert found == pytest.approx([0.775, 0.825], rel=1e-6)


def test_a_variable_without_elements_is_accumulated():
    optimizer = tf_lamb.LARS(0.1, gradient_accumulation_steps=2)
    empty = keras.Variable(np.ones((0, 3), "float32"), name="empty")
    bias = keras.Variable(np.ones(3, "float32"), name="bias")
    optimizer.build([empty, bias])
    for _ in range(2):
        grads = [keras.ops.ones((0, 3)), keras.ops.ones(3)]
        optimizer.apply(grads, [empty, bias])
    assert int(keras.ops.convert_to_numpy(optimizer.iterations)) == 1
    assert (keras.ops.convert_to_numpy(bias) < 1).all()


def test_a_sum_waits_for_an_update_in_which_its_variable_has_a_gradient():
    made = {}
    for name in ("waits", "at once"):
        variable = keras.Variable(np.ones((2, 2), "float32"), name="kernel")
        other = keras.Variable(np.ones((2, 2), "float32"), name="other")
        made[name] = variable, other
    grads = np.random.default_rng(0).normal(size=(4, 2, 2)).astype("float32")
    grads = [keras.ops.array(grad) for grad in grads]
    waiting = tf_lamb.LAMB(0.1, gradient_accumulation_steps=2)
    waiting.build(made["waits"])
    for used, each in zip((True, False, True, True), grads):
        waiting.apply([each if used else None, each], made["waits"])
        if not used:  # the update of its first window
            value = keras.ops.convert_to_numpy(made["waits"][0])
            assert (value == 1).all()
    plain = tf_lamb.LAMB(0.1)
    plain.build(made["at once"])
    total = (grads[0] + grads[2] + grads[3]) / 2
    other = (grads[0] + grads[1]) / 2, (grads[2] + grads[3]) / 2
    plain.apply([None, other[0]], made["at once"])
    plain.apply([total, other[1]], made["at once"])
    for one, same in zip(*made.values()):
        np.testing.assert_allclose(
            keras.ops.convert_to_numpy(one),
            keras.ops.convert_to_numpy(same),
            atol=1e-6,
        )
