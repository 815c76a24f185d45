"""Heads whose attention is replaced by a mean over real tokens."""

import dataclasses

import keras
import numpy as np
import pytest

from official_models.nlp.albert.config import sharing
from official_models.nlp.checkpoint import models
from official_models.nlp.checkpoint.export import export
from official_models.nlp.checkpoint.opening import open_source
from official_models.nlp.checkpoint.source import make
from official_models.nlp.checkpoint.tokenizer import TokenizerFiles
from official_models.nlp.transformer.layers import attention_bias
from tests.official_models import scripts
from tests.official_models.nlp.bert.small_bert import V, config_of
from tests.official_models.nlp.head_analysis import small

T = 7
LENGTHS = np.array([7, 4, 2])


def _albert(mode="all"):
    return dataclasses.replace(small.ALBERT, vocab_size=V, **sharing(mode, 2))


def inputs():
    return small.inputs(LENGTHS, V)


def _numpy(x):
    return np.asarray(keras.ops.convert_to_numpy(x))


@pytest.fixture
def layer():
    encoder = models.make(config_of(initializer_range=0.5), "encoder", seed=1)
    return models.encoder_of(encoder).encoder[0]


@pytest.fixture
def given():
    rng = np.random.default_rng(1)
    x = keras.ops.convert_to_tensor(rng.normal(size=(3, T, 32)).astype("f4"))
    return x, attention_bias(inputs()["input_mask"], "float32")


def test_maps_are_what_the_context_is_made_of(layer, given):
    maps = _numpy(layer.attention.probabilities(*given))
    values = _numpy(layer.attention.values(given[0]))
    expected = np.einsum("bnts,bsnd->btnd", maps, values).reshape(3, T, 32)
    found = _numpy(layer.attention(*given))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(maps.sum(-1), 1, atol=1e-5)
    assert maps.std() > 0.05


def test_uniform_rows_are_one_over_the_real_tokens(layer, given):
    before = _numpy(layer.attention.probabilities(*given))
    maps = _numpy(layer.attention.probabilities(*given, np.array([1, 0])))
    for row, length in enumerate(LENGTHS):
        expected = np.where(np.arange(T) < length, np.float32(1) / length, 0)
        np.testing.assert_allclose(
            maps[row, 0], np.tile(expected, (T, 1)), rtol=1e-6
        )
    np.testing.assert_allclose(
        [maps[i, 0, :, :n].sum(-1) for i, n in enumerate(LENGTHS)], 1, rtol=1e-6
    )
    assert (maps[:, 1] == before[:, 1]).all()


def test_no_head_off_is_bit_identical(layer, given):
    plain = _numpy(layer(*given))
    assert (_numpy(layer(*given, np.zeros(2, bool))) == plain).all()
    assert not (_numpy(layer(*given, np.array([True, False]))) == plain).all()


def test_the_first_rows_alone_are_the_same(layer, given):
    for rows in (1, 3):
        np.testing.assert_allclose(
            _numpy(layer(*given, rows=rows)),
            _numpy(layer(*given))[:, :rows],
            atol=2e-6,
        )


@pytest.mark.parametrize(
    "config", [config_of(initializer_range=0.5), _albert(), _albert("none")]
)
def test_a_model_with_a_head_off(config):
    """Of a shared layer, only where it is applied the second time."""
    plain = models.make(config, "classifier", seed=1)
    model = models.make(config, "classifier", seed=1)
    encoder = models.encoder_of(model)
    encoder.uniform_heads = ((1, 0),)
    found = _numpy(model(inputs()))
    data = inputs()
    bias = attention_bias(data["input_mask"], "float32")
    x = encoder.embedded(data["input_ids"], data["segment_ids"])
    x = encoder.applied[0](x, bias)
    x = encoder.applied[1](x, bias, np.array([True, False]))
    expected = _numpy(model.get_layer("classifier")(encoder.pooled(x)))
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert abs(found - _numpy(plain(data))).max() > 1e-6
    encoder.uniform_heads = ()
    assert (_numpy(model(data)) == _numpy(plain(data))).all()


def test_it_is_saved_and_said(tmp_path):
    model = models.make(config_of(), "classifier", seed=1)
    assert "uniform_heads" not in models.encoder_of(model).get_config()
    models.encoder_of(model).uniform_heads = ((0, 1), (1, 0))
    export(model, tmp_path / "keras", "keras", TokenizerFiles({}))
    loaded = keras.saving.load_model(tmp_path / "keras/model.keras")
    again, _ = make(open_source(tmp_path / "keras"))
    for other in (loaded, again):
        assert models.encoder_of(other).uniform_heads == ((0, 1), (1, 0))
        assert (_numpy(other(inputs())) == _numpy(model(inputs()))).all()
    for format in ("huggingface", "tensorflow"):
        scripts.refusal(
            lambda form=format: export(
                model, tmp_path / form, form, TokenizerFiles({})
            ),
            "heads without attention, such as (0, 1)",
        )
    assert not (tmp_path / "huggingface").exists()
