"""Heads switched off: by the sweep, by whole passes, while training."""

import keras
import numpy as np
import pytest

from official_models.nlp.checkpoint import models
from official_models.nlp.head_analysis import disable, maps
from tests.official_models import scripts
from tests.official_models.nlp.head_analysis.small import (
    ALBERT,
    BERT,
    LENGTHS,
    inputs,
)


def classifier(config, seed=1):
    return models.make(config, "classifier", num_labels=3, seed=seed)


def _logits(model):
    return np.asarray(keras.ops.convert_to_numpy(model(inputs())))


@pytest.mark.parametrize("config", [BERT, ALBERT], ids=["bert", "albert"])
def test_the_sweep_is_n_whole_passes(config):
    model, other = classifier(config), classifier(config)
    batches = maps.batches_of(inputs(), 3, trim=config is BERT)
    sweep = disable.Sweep(model, batches)
    layers, heads = sweep.sizes
    plain, changed = _logits(other), []
    for layer in range(layers):
        np.testing.assert_allclose(sweep.logits(), plain, atol=3e-5)
        places = [*((layer, h) for h in range(heads)), (layer,)]
        for place in places:
            off = place[1:] or range(heads)
            disable.switch_off(other, [place])
            expected = _logits(other)
            np.testing.assert_allclose(sweep.logits(off), expected, atol=3e-5)
            changed.append(abs(expected - plain).max())
        if layer + 1 < layers:
            sweep.next_layer()
    assert min(changed) > 1e-3
    with pytest.raises(ValueError, match="the last one"):
        sweep.next_layer()


def test_the_sweep_of_a_model_that_has_a_head_off_already():
    model, other = classifier(BERT), classifier(BERT)
    disable.switch_off(model, [(1, 0)])
    sweep = disable.Sweep(model, maps.batches_of(inputs(), 5, trim=False))
    disable.switch_off(other, [(0, 1), (1, 0)])
    np.testing.assert_allclose(sweep.logits([1]), _logits(other), atol=3e-5)
    sweep.next_layer()
    disable.switch_off(other, [(1,)])
    np.testing.assert_allclose(sweep.logits([1]), _logits(other), atol=3e-5)


def test_switching_off_nothing_is_bit_identical():
    model, other = classifier(BERT), classifier(BERT)
    disable.switch_off(model, [(0, 1), (1,)])
    assert models.encoder_of(model).uniform_heads == ((0, 1), (1, 0), (1, 1))
    assert not (_logits(model) == _logits(other)).all()
    disable.switch_off(model, [])
    assert (_logits(model) == _logits(other)).all()


@pytest.mark.parametrize("place", [(2, 0), (0, 2), (-1, 0), (2,)])
def test_a_head_that_is_not_there_is_refused(place):
    with pytest.raises(ValueError, match="^places: .* expected 0 to 1"):
        disable.switch_off(classifier(BERT), [place])


def test_a_model_without_classifier_is_refused():
    model = models.make(BERT, "encoder")
    batches = maps.batches_of(inputs(), 5)
    scripts.refusal(lambda: disable.Sweep(model, batches), "no classifier")


def test_a_head_stays_off_while_it_is_fine_tuned():
    """Its query and key are not trained: nothing depends on them."""
    model = classifier(BERT)
    disable.switch_off(model, [(1, 1)])
    attention = models.encoder_of(model).applied[1].attention
    before = keras.ops.convert_to_numpy(attention.query.kernel).copy()
    loss = keras.losses.SparseCategoricalCrossentropy(True)
    model.compile("sgd", loss, jit_compile=False)
    labels = np.arange(len(LENGTHS)) % 3
    model.fit(inputs(), labels, epochs=2, verbose=0)
    after = keras.ops.convert_to_numpy(attention.query.kernel)
    half = BERT.hidden_size // 2
    assert (before[:, half:] == after[:, half:]).all()
    assert (before[:, :half] != after[:, :half]).any()
    (batch,) = maps.batches_of(inputs(), 5, trim=False)
    found = maps.read(maps.reader(model), batch)
    for row, length in enumerate(LENGTHS):
        np.testing.assert_allclose(
            found[row, 1, 1, :, :length], 1 / length, rtol=1e-6
        )
