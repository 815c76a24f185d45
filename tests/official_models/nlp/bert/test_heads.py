"""The heads of fine-tuning, under every Keras there is."""

import keras
import numpy as np
import pytest

from official_models.nlp.bert import heads
from tests.official_models.nlp.bert.small_bert import V, config_of
from tests.official_models.nlp.bert.test_forward import (
    features,
    path_of,
    randomise,
)

TOKENS = "input_ids", "input_mask", "segment_ids"
B, T = 3, 10


def inputs():
    return {name: features()[name] for name in TOKENS}


def test_a_classifier_is_a_linear_layer_on_the_pooled_output():
    model = heads.bert_classifier(config_of(), 3)
    values = randomise(model.variables)
    assert values["output_weights"].shape == (3, 32)
    assert values["output_bias"].shape == (3,)
    pooled = np.asarray(model.get_layer("bert")(**inputs())[1])
    expected = pooled @ values["output_weights"].T + values["output_bias"]
    actual = np.asarray(model(inputs()))
    assert np.abs(expected).max() > 1
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)
    trained = np.asarray(model(inputs(), training=True))
    assert np.abs(trained - actual).max() > 0.01  # dropout of .1


def test_a_span_is_two_linear_layers_on_each_token():
    model = heads.bert_span(config_of())
    values = randomise(model.variables)
    weights = values["cls/squad/output_weights"]
    sequence = np.asarray(model.get_layer("bert")(**inputs())[0])
    expected = sequence @ weights.T + values["cls/squad/output_bias"]
    actual = model(inputs())
    for i, name in enumerate(("start_logits", "end_logits")):
        assert actual[name].shape == (B, T)
        np.testing.assert_allclose(
            np.asarray(actual[name]), expected[..., i], rtol=1e-5, atol=1e-5
        )


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (
            lambda **kw: heads.bert_classifier(config_of(), 2, **kw),
            {"output_weights", "output_bias"},
        ),
        (
            lambda **kw: heads.bert_span(config_of(), **kw),
            {"cls/squad/output_weights", "cls/squad/output_bias"},
        ),
    ],
    ids=["classifier", "span"],
)
def test_names_initial_weights_and_mixed_precision(make, names):
    model = make(seed=1, dtype="mixed_bfloat16")
    paths = {path_of(v): v for v in model.trainable_variables}
    assert {p for p in paths if not p.startswith("bert/")} == names
    weights = next(v for p, v in paths.items() if p.endswith("t_weights"))
    assert 0 < np.abs(np.asarray(weights)).max() <= 0.04 + 1e-7
    other = next(
        np.asarray(v)
        for v in make(seed=2).trainable_variables
        if path_of(v) == path_of(weights)
    )
    assert np.abs(np.asarray(weights) - other).max() > 0
    outputs = model(inputs())
    for logits in outputs.values() if isinstance(outputs, dict) else [outputs]:
        assert "float32" in str(logits.dtype)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"num_labels": 0}, "num_labels: got 0"), ({"dropout": 1.0}, "dropout")],
)
def test_refuses(change, message):
    with pytest.raises(ValueError, match=message):
        heads.bert_classifier(config_of(), **{"num_labels": 2, **change})


def test_learns_and_is_saved(tmp_path):
    """Which of two tokens a text has: separable, so learned entirely."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 64).astype("int32")
    x = {
        "input_ids": rng.integers(10, V, (64, 8)).astype("int32"),
        "input_mask": np.ones((64, 8), "int32"),
        "segment_ids": np.zeros((64, 8), "int32"),
    }
    x["input_ids"][:, 0] = 2
    x["input_ids"][:, 4] = 5 + labels
    model = heads.bert_classifier(config_of(initializer_range=0.1), 2)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(2e-3), loss)
    model.fit(x, labels, 32, epochs=20, verbose=0)
    logits = np.asarray(model.predict(x, 64, verbose=0))
    assert (logits.argmax(-1) == labels).all()
    model.save_weights(str(tmp_path / "model.weights.h5"))
    other = heads.bert_classifier(config_of(), 2, seed=3)
    other.load_weights(str(tmp_path / "model.weights.h5"))
    np.testing.assert_allclose(
        np.asarray(other.predict(x, 64, verbose=0)), logits, atol=1e-6
    )
