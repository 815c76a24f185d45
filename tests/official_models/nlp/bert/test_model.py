"""BERT: names, heads, seeds, saving."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from official_models.nlp.bert.config import BertConfig
from official_models.nlp.bert.model import bert_encoder, bert_pretrainer
from official_models.nlp.bert.pretraining.losses import (
    pretraining_losses,
    pretraining_metrics,
)
from tests.official_models.nlp.bert.small_bert import V, config_of

B, T, P = 4, 16, 3


def make_batch(seed: int = 0) -> tuple[dict, dict, dict]:
    """Random inputs, the last rows padded, with labels and weights."""
    rng = np.random.default_rng(seed)
    lengths = T - 2 * np.arange(B)[:, np.newaxis]
    x = {
        "input_ids": rng.integers(1, V, (B, T)),
        "input_mask": np.arange(T) < lengths,
        "segment_ids": np.arange(T) >= lengths // 2,
        "masked_lm_positions": rng.integers(0, lengths, (B, P)),
    }
    y = {
        "masked_lm": rng.integers(0, V, (B, P)),
        "next_sentence": rng.integers(0, 2, B),
    }
    weights = {
        "masked_lm": rng.integers(0, 2, (B, P)).astype("float32"),
        "next_sentence": np.ones(B, "float32"),
    }
    x = {name: array.astype("int32") for name, array in x.items()}
    y = {name: array.astype("int32") for name, array in y.items()}
    return x, y, weights


def encoder_inputs(x: dict) -> dict:
    return {k: v for k, v in x.items() if k != "masked_lm_positions"}


def randomise(model: keras.Model, seed: int = 0, scale: float = 0.3) -> None:
    """Draws every trainable variable anew, so that none is 0 or 1."""
    rng = np.random.default_rng(seed)
    for v in model.trainable_variables:
        centre = 1.0 if v.path.endswith("gamma") else 0.0
        v.assign(centre + scale * rng.normal(size=v.shape))


def numpy_of(outputs: dict) -> dict:
    return {k: keras.ops.convert_to_numpy(v) for k, v in outputs.items()}


@pytest.mark.parametrize(
    ("size", "parameters"), [("base", 109_482_240), ("large", 335_141_888)]
)
def test_parameters_of_the_published_sizes(size, parameters, monkeypatch):
    # Zeros in bfloat16, for speed.
    monkeypatch.setattr(
        keras.initializers, "TruncatedNormal", lambda **_: "zeros"
    )
    config = BertConfig.of_size(size)
    model = bert_encoder(config, dtype="bfloat16")
    assert model.count_params() == parameters


def test_paths_are_the_names_of_google_checkpoints():
    model = bert_pretrainer(config_of(num_layers=1, hidden_dropout=0.1))
    layer = "bert/encoder/layer_0"
    expected = {
        **{f"bert/embeddings/{name}_embeddings": (rows, 32) for name, rows in
           (("word", V), ("position", 24), ("token_type", 2))},
        "bert/embeddings/LayerNorm/gamma": (32,),
        "bert/embeddings/LayerNorm/beta": (32,),
        **{f"{layer}/attention/{name}/kernel": (32, 32) for name in
           ("self/query", "self/key", "self/value", "output/dense")},
        **{f"{layer}/attention/{name}/bias": (32,) for name in
           ("self/query", "self/key", "self/value", "output/dense")},
        f"{layer}/attention/output/LayerNorm/gamma": (32,),
        f"{layer}/attention/output/LayerNorm/beta": (32,),
        f"{layer}/intermediate/dense/kernel": (32, 64),
        f"{layer}/intermediate/dense/bias": (64,),
        f"{layer}/output/dense/kernel": (64, 32),
        f"{layer}/output/dense/bias": (32,),
        f"{layer}/output/LayerNorm/gamma": (32,),
        f"{layer}/output/LayerNorm/beta": (32,),
        "bert/pooler/dense/kernel": (32, 32),
        "bert/pooler/dense/bias": (32,),
        "cls/predictions/transform/dense/kernel": (32, 32),
        "cls/predictions/transform/dense/bias": (32,),
        "cls/predictions/transform/LayerNorm/gamma": (32,),
        "cls/predictions/transform/LayerNorm/beta": (32,),
        "cls/predictions/output_bias": (V,),
        "cls/seq_relationship/output_weights": (2, 32),
        "cls/seq_relationship/output_bias": (2,),
    }  # fmt: skip
    actual = {v.path: tuple(v.shape) for v in model.trainable_variables}
    assert actual == expected
    assert all("seed_gen" in v.path for v in model.non_trainable_variables)


def test_padding_does_not_reach_real_positions():
    model = bert_pretrainer(config_of())
    randomise(model)
    x, _, _ = make_batch()
    rng = np.random.default_rng(5)
    padding = x["input_mask"] == 0
    assert padding.any()
    other = {
        **x,
        "input_ids": np.where(
            padding, rng.integers(1, V, (B, T)), x["input_ids"]
        ).astype("int32"),
        "segment_ids": np.where(padding, 0, x["segment_ids"]).astype("int32"),
    }
    first, second = numpy_of(model(x)), numpy_of(model(other))
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])
    unmasked = numpy_of(model({**other, "input_mask": np.ones_like(padding)}))
    assert np.abs(unmasked["masked_lm"] - first["masked_lm"])[-1].max() > 0.01


def test_shapes_unknown_when_traced():
    model = bert_pretrainer(config_of())
    unknown = tf.TensorSpec((None, None), tf.int32)
    x, _, _ = make_batch()
    traced = tf.function(model, input_signature=[{name: unknown for name in x}])
    for batch, tokens, predictions in ((B, T, P), (1, 7, 1)):
        part = {k: v[:batch, :tokens] for k, v in x.items()}
        part["masked_lm_positions"] = np.ones((batch, predictions), "int32")
        expected, actual = model(part), traced(part)
        assert expected["masked_lm"].shape == (batch, predictions, V)
        assert expected["next_sentence"].shape == (batch, 2)
        for name in expected:
            np.testing.assert_allclose(
                actual[name], expected[name], rtol=1e-5, atol=1e-6
            )


def test_too_many_tokens():
    model = bert_encoder(config_of())
    x = {k: np.zeros((1, 25), "int32") for k in encoder_inputs(make_batch()[0])}
    with pytest.raises(ValueError, match="got 25 tokens, expected at most"):
        model(x)


def test_masked_lm_head_is_tied_to_the_embeddings():
    model = bert_pretrainer(config_of())
    words = [v for v in model.weights if V in v.shape and len(v.shape) == 2]
    assert [v.path for v in words] == ["bert/embeddings/word_embeddings"]
    x, y, _ = make_batch()
    with tf.GradientTape() as tape:
        loss = pretraining_losses()["masked_lm"](
            y["masked_lm"], model(x)["masked_lm"]
        )
    gradient = tf.convert_to_tensor(tape.gradient(loss, words[0].value))
    # The softmax reaches every row, the lookup only those of the input.
    assert np.all(np.abs(gradient).max(1) > 0)


def test_mixed_bfloat16():
    model = bert_pretrainer(config_of(), dtype="mixed_bfloat16")
    reference = bert_pretrainer(config_of())
    x, _, _ = make_batch()
    outputs, expected = model(x), reference(x)
    for name in outputs:
        assert outputs[name].dtype == tf.float32
        assert model.output[name].dtype == "float32"
        np.testing.assert_allclose(outputs[name], expected[name], atol=0.02)
    assert {v.dtype for v in model.trainable_variables} == {"float32"}
    encoder = bert_encoder(config_of(), dtype="mixed_bfloat16")
    hidden = encoder(encoder_inputs(x))["sequence_output"]
    assert hidden.dtype == tf.bfloat16


# --- seeds, saving -----------------------------------------------------------


def test_same_seed_same_weights():
    first = bert_pretrainer(config_of(), seed=3)
    keras.random.normal((3,))
    bert_encoder(config_of(hidden_size=16))
    second = bert_pretrainer(config_of(), seed=3)
    other = bert_pretrainer(config_of(), seed=4)
    encoder = bert_encoder(config_of(), seed=3)
    by_path = {v.path: v for v in encoder.trainable_variables}
    matrices = []
    for a, b, c in zip(first.weights, second.weights, other.weights):
        np.testing.assert_array_equal(a, b)
        if a.path in by_path:
            np.testing.assert_array_equal(a, by_path[a.path])
        if len(a.shape) == 2:
            assert np.abs(a - c).max() > 0.01
            assert 0.015 < np.std(a) < 0.02 and np.abs(a).max() <= 0.0401
            matrices.append(np.ravel(a)[:64])
    # No two matrices begin alike.
    assert len(np.unique(np.array(matrices), axis=0)) == len(matrices)


def test_keras_file_keeps_model_and_config(tmp_path):
    config = config_of(hidden_dropout=0.1, gelu="erf")
    model = bert_pretrainer(config, seed=7, dtype="mixed_bfloat16")
    randomise(model)
    model.compile(
        keras.optimizers.SGD(0.1),
        loss=pretraining_losses(),
        weighted_metrics=pretraining_metrics(),
    )
    x, y, weights = make_batch()
    model.train_on_batch(x, y, weights)
    model.save(tmp_path / "bert.keras")
    loaded = keras.models.load_model(tmp_path / "bert.keras")
    assert loaded.get_layer("bert").config == config
    assert loaded.get_layer("cls").seed == 7
    for a, b in zip(model.trainable_variables, loaded.trainable_variables):
        assert a.path == b.path
        np.testing.assert_array_equal(a, b)
    first, second = numpy_of(model(x)), numpy_of(loaded(x))
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])
    assert loaded.test_on_batch(x, y, weights) == model.test_on_batch(
        x, y, weights
    )


@pytest.mark.parametrize("file", ["bert.weights.h5", "bert.keras"])
def test_dropout_goes_on_from_a_checkpoint(tmp_path, file):
    def make(seed):
        config = config_of(hidden_dropout=0.2, attention_dropout=0.2)
        model = bert_pretrainer(config, seed=seed)
        model.compile(keras.optimizers.SGD(0.1), loss=pretraining_losses())
        return model

    batch = make_batch()
    model = make(seed=1)
    for _ in range(2):
        model.train_on_batch(*batch)
    if file.endswith(".keras"):
        model.save(tmp_path / file)
        resumed = keras.models.load_model(tmp_path / file)
    else:
        model.save_weights(tmp_path / file)
        resumed = make(seed=2)
        resumed.load_weights(tmp_path / file)
    states = len(model.variables) - len(model.weights)
    assert states == 1 + 3 * 2
    for a, b in zip(model.variables, resumed.variables):
        np.testing.assert_array_equal(a, b)
    without_states = make(seed=2)
    without_states.set_weights(model.get_weights())
    expected = [model.train_on_batch(*batch)[0] for _ in range(2)]
    actual = [resumed.train_on_batch(*batch)[0] for _ in range(2)]
    np.testing.assert_allclose(actual, expected, rtol=1e-6)
    assert abs(without_states.train_on_batch(*batch)[0] - expected[0]) > 1e-4


def test_weights_of_a_model_without_dropout_load(tmp_path):
    plain = bert_encoder(config_of(), seed=1)
    plain.save_weights(tmp_path / "plain.weights.h5")
    model = bert_encoder(config_of(hidden_dropout=0.1), seed=2)
    model.load_weights(tmp_path / "plain.weights.h5")
    for a, b in zip(plain.weights, model.weights):
        np.testing.assert_array_equal(a, b)


def test_dropout_acts_in_training_only():
    model = bert_encoder(config_of(hidden_dropout=0.5, attention_dropout=0.5))
    plain = bert_encoder(config_of())
    x = encoder_inputs(make_batch()[0])
    reference = plain(x)["sequence_output"]
    np.testing.assert_array_equal(model(x)["sequence_output"], reference)
    first = model(x, training=True)["sequence_output"]
    second = model(x, training=True)["sequence_output"]
    assert np.abs(first - second).max() > 0.1
    np.testing.assert_array_equal(
        plain(x, training=True)["sequence_output"], reference
    )
    assert not plain.non_trainable_variables
