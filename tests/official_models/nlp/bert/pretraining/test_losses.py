"""Losses and accuracies of a compiled step, against NumPy."""

import keras
import numpy as np
import pytest
import scipy.special

from official_models.nlp.bert.model import bert_pretrainer
from official_models.nlp.bert.pretraining.losses import (
    pretraining_losses,
    pretraining_metrics,
)
from tests.official_models.nlp.bert.small_bert import config_of
from tests.official_models.nlp.bert.test_model import (
    B,
    P,
    make_batch,
    numpy_of,
    randomise,
)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_losses_and_accuracies_of_a_compiled_step(jit_compile):
    model = bert_pretrainer(config_of())
    randomise(model)
    x, y, weights = make_batch()
    weights["masked_lm"] = np.random.default_rng(2).random((B, P), "float32")
    outputs = numpy_of(model(x))
    expected = {}
    for name, labels in y.items():
        nll = -np.take_along_axis(
            scipy.special.log_softmax(outputs[name].astype("float64"), -1),
            labels[..., np.newaxis],
            -1,
        )[..., 0]
        w = weights[name]
        # Google's denominator; w sums to more than 1.
        expected[f"{name}_loss"] = (w * nll).sum() / (w.sum() + 1e-5)
        hits = outputs[name].argmax(-1) == labels
        expected[f"{name}_accuracy"] = (w * hits).sum() / w.sum()
    expected["loss"] = expected["masked_lm_loss"]
    expected["loss"] += expected["next_sentence_loss"]
    model.compile(
        keras.optimizers.SGD(0.0),
        loss=pretraining_losses(),
        weighted_metrics=pretraining_metrics(),
        jit_compile=jit_compile,
    )
    actual = model.train_on_batch(x, y, weights, return_dict=True)
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(
            actual[name], value, rtol=2e-5, atol=1e-7, err_msg=name
        )
