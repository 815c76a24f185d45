"""Steps of an optimizer: rows of `keras_table`."""

import numpy as np
import pytest

from tests.support_matrix.keras_front_end import behaviour

ONES = [1.0, 1.0]


@behaviour("each call counts in `iterations`")
def test_iterations(front):
    optimizer, v = front.LAMB(0.1), front.variable(ONES)
    for count in range(3):
        assert int(front.numpy(optimizer.iterations)) == count
        front.step(optimizer, ([1.0, 2.0], v))


@behaviour("a gradient that is None leaves its variable, with a warning")
def test_none(front):
    optimizer = front.plain()
    one, two = front.variable(ONES, name="one"), front.variable(ONES)
    with pytest.warns(UserWarning, match="Gradients do not exist.*one"):
        front.step(optimizer, (None, one), (ONES, two))
    front.close(one, ONES)
    front.close(two, [0.0, 0.0])


@behaviour("no gradient at all raises")
def test_no_gradient(front):
    with pytest.raises(ValueError, match="(?i)no .*gradient"):
        front.step(front.LAMB(0.1), (None, front.variable(ONES)))


@behaviour("a variable that it was not built with raises")
def test_unknown(front):
    optimizer = front.LAMB(0.1)
    front.step(optimizer, (ONES, front.variable(ONES)))
    with pytest.raises(ValueError, match="built with"):
        front.step(optimizer, (ONES, front.variable(ONES)))


@behaviour("some of its variables can be updated alone")
def test_some(front):
    optimizer = front.plain()
    one, two = front.variable(ONES), front.variable(ONES)
    optimizer.build([one, two])
    front.step(optimizer, (ONES, two))
    front.close(one, ONES)
    front.close(two, [0.0, 0.0])


@behaviour("as many gradients as variables, or it raises")
def test_lengths(front):
    optimizer, v = front.LAMB(0.1), front.variable(ONES)
    optimizer.build([v])
    optimizer.apply([front.tensor(ONES)])
    assert int(front.numpy(optimizer.iterations)) == 1
    with pytest.raises(ValueError):
        optimizer.apply([front.tensor(ONES), front.tensor(ONES)])


@behaviour("variables of TensorFlow beside those of Keras")
def test_native_variables(front):
    import tensorflow as tf

    optimizer = front.plain()
    one, two = front.variable(ONES), tf.Variable(ONES)
    front.step(optimizer, (ONES, one), (ONES, two))
    for v in (one, two):
        front.close(v, [0.0, 0.0])


@behaviour("`build` of an empty list")
def test_empty(front):
    """No error, and the variables that follow are those it is built with."""
    optimizer = front.plain(exclude_from_weight_decay=["."])
    optimizer.build([])
    v = front.variable(ONES)
    optimizer.build([v])
    front.step(optimizer, (ONES, v))
    front.close(v, [0.0, 0.0])


@behaviour("constraints")
def test_constraints(front):
    if front.is_keras_3:
        v = front.variable([0.5, 0.5])
        v.constraint = front.keras.constraints.NonNeg()
    else:
        import tensorflow as tf

        v = tf.Variable([0.5, 0.5], constraint=front.keras.constraints.NonNeg())
    front.step(front.plain(), ([1.0, -1.0], v))
    front.close(v, [0.0, 1.5])


@behaviour("`overwrite_with_gradient`")
def test_overwrite(front):
    one, two = front.variable(ONES), front.variable(ONES)
    one.overwrite_with_gradient = True
    front.step(front.plain(), ([7.0, 8.0], one), (ONES, two))
    front.close(one, [7.0, 8.0])
    front.close(two, [0.0, 0.0])


@behaviour("`overwrite_with_gradient` and accumulation")
def test_overwrite_accumulated(front):
    """At the update it takes the last of the gradients, which are scales."""
    one, two = front.variable(ONES), front.variable(ONES)
    one.overwrite_with_gradient = True
    optimizer = front.plain(gradient_accumulation_steps=2)
    front.step(optimizer, ([3.0, 3.0], one), (ONES, two))
    front.close(one, ONES)
    front.step(optimizer, ([4.0, 4.0], one), ([3.0, 3.0], two))
    front.close(one, [4.0, 4.0])
    front.close(two, [-1.0, -1.0])


@behaviour("decay excluded by name and by variable")
def test_decay(front):
    """Decay 0.5 of ones, without gradients."""
    names = ("plain", "by_name", "by_list", "by_method")
    variables = {n: front.variable(ONES, name=n) for n in names}
    optimizer = front.plain(
        weight_decay=0.5, exclude_from_weight_decay=["^by_name"]
    )
    optimizer.exclude_from_weight_decay(
        var_list=[variables["by_list"]], var_names=["method"]
    )
    front.step(optimizer, *(([0.0, 0.0], v) for v in variables.values()))
    front.close(variables["plain"], [0.5, 0.5])
    for name in names[1:]:
        front.close(variables[name], ONES)
    with pytest.raises(ValueError, match="built"):
        optimizer.exclude_from_weight_decay(var_names=["plain"])


@behaviour("one clipping argument at most")
def test_clip_arguments(front):
    names = ("clipnorm", "clipvalue", "global_clipnorm")
    for one in names:
        assert getattr(front.LAMB(**{one: 0.5}), one) == 0.5
        for two in set(names) - {one}:
            with pytest.raises(ValueError, match="(?i)(only|at most) one"):
                front.LAMB(**{one: 0.5, two: 0.5})


@behaviour("`clipnorm`, `clipvalue`, `global_clipnorm`")
def test_clip(front):
    for clip, first, second in (
        ("clipnorm", [0.6, 0.8], [0.3, 0.4]),
        ("clipvalue", [1.0, 1.0], [0.3, 0.4]),
        ("global_clipnorm", np.divide([3, 4], 25.25**0.5), None),
    ):
        one, two = (front.variable([0.0, 0.0]) for _ in range(2))
        optimizer = front.plain(**{clip: 1.0})
        front.step(optimizer, ([3.0, 4.0], one), ([0.3, 0.4], two))
        if second is None:
            second = np.divide(first, 10)
        front.close(one, np.negative(first))
        front.close(two, np.negative(second))


def _averages(front, optimizer):
    return [front.numpy(v) for v in optimizer._model_variables_moving_average]


@behaviour("EMA: begins at the first update, overwrites")
def test_ema(front):
    v = front.variable([3.0, 4.0])
    optimizer = front.plain(
        use_ema=True, ema_momentum=0.75, ema_overwrite_frequency=3
    )
    for weights, average in (
        ([2.0, 3.0], [2.0, 3.0]),
        ([1.0, 2.0], [1.75, 2.75]),
        ([1.3125, 2.3125], [1.3125, 2.3125]),  # (3 * 1.75 + 0) / 4
    ):
        front.step(optimizer, (ONES, v))
        front.close(v, weights)
        front.close(_averages(front, optimizer)[0], average)


@behaviour("EMA: `fit` ends at the averages")
def test_ema_fit(front):
    optimizer = front.plain(0.1, use_ema=True, ema_momentum=0.5)
    model = front.model(optimizer)
    front.fit(model)
    for v, average in zip(
        model.trainable_variables, _averages(front, optimizer)
    ):
        front.close(v, average, 0)
    alone = front.model(front.plain(0.1))
    front.fit(alone)
    assert np.abs(model.get_weights()[0] - alone.get_weights()[0]).max() > 1e-3


@behaviour("accumulation: a mean, a count of updates")
def test_accumulation(front):
    v = front.variable(ONES)
    optimizer = front.plain(gradient_accumulation_steps=3)
    for call, expected in enumerate(([1, 1], [1, 1], [-1, -2], [-1, -2]), 1):
        front.step(optimizer, ([1.0 * call, 1.5 * call], v))
        front.close(v, expected)
        if front.is_keras_3:
            assert int(front.numpy(optimizer.iterations)) == call // 3


@behaviour("accumulation: decay acts once an update")
def test_accumulated_decay(front):
    one, three = front.variable([0.9, 0.5]), front.variable([0.9, 0.5])
    shared = dict(weight_decay=0.05)
    alone = front.LAMB(0.1, **shared)
    accumulating = front.LAMB(0.1, gradient_accumulation_steps=3, **shared)
    rng = np.random.default_rng(0)
    for _ in range(3):
        grads = rng.normal(size=(3, 2)).astype("float32")
        front.step(alone, (grads.mean(axis=0), one))
        for g in grads:
            front.step(accumulating, (g, three))
    front.close(one, front.numpy(three))


@behaviour("float16, bfloat16 and float64 variables")
def test_dtypes(front):
    # JAX has no float64 without a flag.
    for dtype in ("float16", "bfloat16", "float64")[: 2 if front.is_jax else 3]:
        v = front.variable(ONES, dtype=dtype)
        front.step(front.plain(), ([0.5, 0.25], v))
        assert front.dtype(v) == dtype
        front.close(v, [0.5, 0.75])


@behaviour("`fit`, compiled and eager")
def test_fit(front):
    weights = []
    for eager in (False, True):
        model = front.model(front.LAMB(0.05), run_eagerly=eager)
        loss = front.fit(model, epochs=4).history["loss"]
        assert loss[-1] < loss[0]
        weights.append(model.get_weights())
    for one, two in zip(*weights):
        np.testing.assert_allclose(one, two, atol=1e-6)


@behaviour("`fit` and `evaluate` of a model without weights")
def test_nothing_to_train(front):
    for exclude in (None, ["bias"]):
        model = front.model(front.LAMB(0.1, exclude_from_weight_decay=exclude))
        model.trainable = False
        model.compile(model.optimizer, "mse")
        front.fit(model)
        x = np.zeros((4, 3), "float32")
        loss = model.evaluate(x, np.zeros((4, 1), "float32"), verbose=0)
        np.testing.assert_allclose(loss, 0.25)
