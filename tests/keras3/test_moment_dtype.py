"""Moments in bfloat16: what is stored, how it is rounded, what it costs."""

import keras
import ml_dtypes
import numpy as np
import pytest

import tf_lamb
from tests.keras3 import problems
from tf_lamb import arithmetic

ARGUMENTS = dict(weight_decay=0.05, exclude_from_weight_decay=["bias"])


@pytest.mark.parametrize("name", ["LAMB", "LARS"])
def test_stays_near_float32_moments_and_stores_half(name):
    ends = []
    for dtype in ("float32", "bfloat16"):
        optimizer = getattr(tf_lamb, name)(
            0.02, moment_dtype=dtype, **ARGUMENTS
        )
        ends.append(problems.values_of(problems.run(optimizer, 30)))
        moments = [s for slots in optimizer._slots for s in slots]
        assert {arithmetic.dtype_name(s) for s in moments} == {dtype}
    start = problems.initial_values()
    moved = max(np.abs(ends[0][k] - start[k]).max() for k in start)
    apart = max(np.abs(ends[0][k] - ends[1][k]).max() for k in start)
    assert 0 < apart < 0.05 * moved


def test_rounding_by_chance_keeps_the_mean_and_can_decay():
    # Between two neighbours of bfloat16.
    x = np.random.default_rng(0).uniform(1, 1 + 1 / 128, 200_000)
    x = x.astype("float32")
    rounded = keras.ops.convert_to_numpy(
        arithmetic.round_by_chance(
            # Keras 3.10 has no `view`; on TensorFlow ours are used anyway.
            keras.ops if hasattr(keras.ops, "view") else tf_lamb.tf_ops,
            keras.ops.convert_to_tensor(x),
            keras.ops.convert_to_tensor(np.float32(3)),
        )
    )
    assert set(rounded) == {1.0, 1.0 + 1 / 128}
    assert rounded.mean() == pytest.approx(x.mean(), abs=3e-5)
    exact = rounded.astype(ml_dtypes.bfloat16).astype("float32")
    np.testing.assert_array_equal(exact, rounded)


def test_second_moment_decays_where_rounding_to_nearest_would_not():
    variable = keras.Variable(np.ones((64, 64), "float32"), name="w")
    optimizer = tf_lamb.LAMB(1e-3, beta_2=0.999, moment_dtype="bfloat16")
    grad = np.random.default_rng(0).normal(size=(64, 64)).astype("float32")
    optimizer.apply([keras.ops.convert_to_tensor(grad)], [variable])
    first = float(
        np.mean(keras.ops.convert_to_numpy(_second_moment(optimizer)))
    )
    for _ in range(50):
        optimizer.apply([keras.ops.zeros((64, 64))], [variable])
    last = float(np.mean(keras.ops.convert_to_numpy(_second_moment(optimizer))))
    assert last / first == pytest.approx(0.999**50, rel=2e-3)


def _second_moment(optimizer):
    return keras.ops.cast(optimizer._slots[1][0], "float32")


def _mean_of_each_sign(slot, sign):
    m = keras.ops.convert_to_numpy(keras.ops.cast(slot, "float32"))
    return np.array([m[sign > 0].mean(), m[sign < 0].mean()])


# LAMB's first moment; LARS' momentum that is added before the local rate is
# known, and after it.
SLOW = {
    "LAMB": ("LAMB", {"beta_1": 0.999}),
    "LARS-you2020": ("LARS", {"momentum": 0.999, "form": "you2020"}),
    "LARS-timm": ("LARS", {"momentum": 0.999, "form": "timm"}),
}


@pytest.mark.parametrize("name, arguments", SLOW.values(), ids=SLOW)
def test_a_first_moment_decays_where_rounding_to_nearest_would_not(
    name, arguments
):
    variable = keras.Variable(np.ones((64, 64), "float32"), name="w")
    optimizer = getattr(tf_lamb, name)(
        1e-4, moment_dtype="bfloat16", **arguments
    )
    rng = np.random.default_rng(0)
    grad = rng.uniform(0.5, 1, (64, 64)) * rng.choice([-1, 1], (64, 64))
    for _ in range(5):
        problems.apply(optimizer, [variable], {"w": grad.astype("float32")})
    slot = optimizer._slots[0][0]
    first = _mean_of_each_sign(slot, grad)
    assert first[0] > 0 > first[1]
    for _ in range(100):
        problems.apply(optimizer, [variable], {"w": 0 * grad})
    decayed = _mean_of_each_sign(slot, grad) / first
    np.testing.assert_allclose(decayed, 0.999**100, rtol=5e-3)


def test_config_and_bad_value():
    optimizer = tf_lamb.LARS(moment_dtype="bfloat16")
    config = optimizer.get_config()
    assert config["moment_dtype"] == "bfloat16"
    assert tf_lamb.LARS.from_config(config).moment_dtype == "bfloat16"
    with pytest.raises(ValueError, match="moment_dtype: expected one of None"):
        tf_lamb.LAMB(moment_dtype="float16")


def test_float64_variables_keep_float64_moments():
    variable = keras.Variable(np.ones(3), dtype="float64", name="w")
    optimizer = tf_lamb.LAMB(moment_dtype="bfloat16")
    optimizer.build([variable])
    wide = arithmetic.dtype_name(variable)  # JAX has float32 only, by default
    stored = {arithmetic.dtype_name(s[0]) for s in optimizer._slots}
    assert stored == {"float64" if wide == "float64" else "bfloat16"}
