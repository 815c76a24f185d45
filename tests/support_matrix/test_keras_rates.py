"""Learning rates of an optimizer: rows of `keras_table`."""

import numpy as np
import pytest

from tests.support_matrix.keras_front_end import behaviour

ONES = [1.0, 1.0]


def _rate(front, optimizer):
    return float(front.numpy(optimizer.learning_rate))


@behaviour("a rate that is assigned")
def test_assigned(front):
    """At once, and in a `fit` that is compiled already."""
    optimizer, v = front.plain(0.5), front.variable(ONES)
    front.step(optimizer, (ONES, v))
    optimizer.learning_rate = 0.25
    assert _rate(front, optimizer) == 0.25
    front.step(optimizer, (ONES, v))
    front.close(v, [0.25, 0.25])

    optimizer = front.plain(0.1)
    model = front.model(optimizer)
    front.fit(model)
    before = model.get_weights()
    optimizer.learning_rate = 0.0
    front.fit(model)
    for one, two in zip(before, model.get_weights()):
        np.testing.assert_array_equal(one, two)


@behaviour("a rate that is a schedule, and stays it")
def test_schedule(front):
    decay = front.keras.optimizers.schedules.PolynomialDecay
    optimizer = front.plain(decay(0.5, 2, end_learning_rate=0.0))
    v = front.variable(ONES)
    for rate, expected in ((0.5, 0.5), (0.25, 0.25), (0.0, 0.25)):
        assert _rate(front, optimizer) == rate or not front.is_keras_3
        front.step(optimizer, (ONES, v))
        front.close(v, [expected, expected])
    with pytest.raises(TypeError, match="(?i)schedule"):
        optimizer.learning_rate = 0.1


@behaviour("a rate that is a function")
def test_function(front):
    rates = iter([0.5, 0.25])
    optimizer, v = front.plain(lambda: next(rates)), front.variable(ONES)
    for expected in (0.5, 0.25):
        front.step(optimizer, (ONES, v))
        front.close(v, [expected, expected])


@behaviour("a schedule in place of a number")
def test_schedule_in_place(front):
    """It counts from then on; Keras 3 forgets the variable of the number."""
    optimizer, v = front.plain(0.5), front.variable(ONES)
    front.step(optimizer, (ONES, v))
    count = len(optimizer.variables)
    decay = front.keras.optimizers.schedules.PolynomialDecay
    optimizer.learning_rate = decay(0.25, 4, end_learning_rate=0.25)
    front.step(optimizer, (ONES, v))
    front.close(v, [0.25, 0.25])
    if front.is_keras_3:
        assert len(optimizer.variables) == count - 1


@behaviour("`LearningRateScheduler`, `ReduceLROnPlateau`")
def test_callbacks(front):
    callbacks = front.keras.callbacks
    model = front.model(front.LAMB(0.5))
    scheduler = callbacks.LearningRateScheduler(lambda epoch, _: 0.5**epoch)
    history = front.fit(model, epochs=3, callbacks=[scheduler]).history
    assert _rate(front, model.optimizer) == 0.25
    logged = history.get("learning_rate", history.get("lr"))
    np.testing.assert_allclose(logged, [1.0, 0.5, 0.25])

    model = front.model(front.LAMB(0.5))
    plateau = callbacks.ReduceLROnPlateau(
        monitor="loss", factor=0.5, patience=1, min_delta=100.0
    )
    front.fit(model, epochs=3, callbacks=[plateau])
    assert _rate(front, model.optimizer) == 0.125
