"""BERT against Hugging Face's outputs, on TensorFlow and JAX."""

import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest

from official_models.nlp.bert import huggingface
from official_models.nlp.bert.model import bert_encoder, bert_pretrainer
from official_models.nlp.bert.pretraining.losses import pretraining_losses
from tests.official_models.nlp.bert.small_bert import V, config_of

FIXTURE = pathlib.Path(__file__).with_name("hf_fixture.npz")
ROOT = pathlib.Path(__file__).parents[4]


def encoder_inputs(x: dict) -> dict:
    return {k: v for k, v in x.items() if k != "masked_lm_positions"}


def numpy_of(outputs: dict) -> dict:
    return {k: keras.ops.convert_to_numpy(v) for k, v in outputs.items()}


@pytest.fixture(scope="module")
def fixture() -> dict:
    with np.load(FIXTURE) as arrays:
        return dict(arrays)


def part(fixture: dict, name: str) -> dict:
    prefix = f"{name}/"
    return {
        k.removeprefix(prefix): v
        for k, v in fixture.items()
        if k.startswith(prefix)
    }


@pytest.mark.parametrize("gelu", ["tanh", "erf"])
def test_parity_with_hugging_face(fixture, gelu):
    state, inputs = part(fixture, "state"), part(fixture, "inputs")
    pretrainer = bert_pretrainer(config_of(gelu=gelu))
    huggingface.from_hf_state_dict(state, pretrainer)
    encoder = bert_encoder(config_of(gelu=gelu))
    huggingface.from_hf_state_dict(encoder_state(state), encoder)
    outputs = {**pretrainer(inputs), **encoder(encoder_inputs(inputs))}
    for name, expected in part(fixture, gelu).items():
        np.testing.assert_allclose(
            outputs[name], expected, atol=1e-5, err_msg=name
        )
    other = part(fixture, "erf" if gelu == "tanh" else "tanh")
    difference = outputs["sequence_output"] - other["sequence_output"]
    assert np.abs(difference).max() > 1e-4


def encoder_state(state: dict) -> dict:
    """The state of BertModel within that of BertForPreTraining."""
    return {
        k.removeprefix("bert."): v
        for k, v in state.items()
        if k.startswith("bert.")
    }


def test_conversion_round_trip_is_exact(fixture):
    state = part(fixture, "state")
    for expected, model in (
        (state, bert_pretrainer(config_of())),
        (encoder_state(state), bert_encoder(config_of())),
    ):
        huggingface.from_hf_state_dict(expected, model)
        actual = huggingface.to_hf_state_dict(model)
        assert actual.keys() == expected.keys()
        for name, array in expected.items():
            np.testing.assert_array_equal(actual[name], array)


def test_conversion_reads_older_names(fixture):
    state = encoder_state(part(fixture, "state"))
    older = {
        k.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): v
        for k, v in state.items()
    }
    older["embeddings.position_ids"] = np.arange(24)[np.newaxis]
    model = bert_encoder(config_of())
    huggingface.from_hf_state_dict(older, model)
    np.testing.assert_array_equal(
        huggingface.to_hf_state_dict(model)["embeddings.LayerNorm.weight"],
        state["embeddings.LayerNorm.weight"],
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda s: s.pop("bert.pooler.dense.bias"),
            "^state: lacks 'bert.pooler.dense.bias'$",
        ),
        (
            lambda s: s.update({"bert.extra": np.zeros(3)}),
            "^state: has unknown 'bert.extra'$",
        ),
        (
            lambda s: s.update({"bert.pooler.dense.weight": np.zeros((3, 2))}),
            r"'bert.pooler.dense.weight' of shape \(3, 2\), expected \(32, 32",
        ),
        (
            lambda s: s.update(
                {"cls.predictions.decoder.bias": np.ones(V, "float32")}
            ),
            "'cls.predictions.decoder.bias' differs from",
        ),
        (
            lambda s: [s.pop(k) for k in list(s) if "layer.1" in k],
            "lacks 'bert.encoder.layer.1.* and 12 more$",
        ),
    ],
)
def test_conversion_refuses_and_assigns_nothing(fixture, change, message):
    state = part(fixture, "state")
    change(state)
    model = bert_pretrainer(config_of())
    before = model.get_weights()
    with pytest.raises(ValueError, match=message) as error:
        huggingface.from_hf_state_dict(state, model)
    assert "\n" not in str(error.value)
    for a, b in zip(before, model.get_weights()):
        np.testing.assert_array_equal(a, b)


JAX_SCRIPT = """
import sys
import numpy as np
from official_models.nlp.bert import huggingface, model
from official_models.nlp.bert.config import BertConfig
from official_models.nlp.bert.pretraining.losses import pretraining_losses

with np.load(sys.argv[1]) as arrays:
    arrays = dict(arrays)
bert = model.bert_pretrainer(BertConfig(60, 32, 2, 2, 64, 24))
huggingface.from_hf_state_dict(
    {k[6:]: v for k, v in arrays.items() if k.startswith("state/")}, bert
)
inputs = {k[7:]: v for k, v in arrays.items() if k.startswith("inputs/")}
outputs = {k: np.asarray(v) for k, v in bert(inputs).items()}
y = {k: v.argmin(-1) for k, v in outputs.items()}
w = {k: np.ones(v.shape, "float32") for k, v in y.items()}
bert.compile("sgd", pretraining_losses(), jit_compile=True)
losses = bert.test_on_batch(inputs, y, w)
np.savez(sys.argv[2], losses=losses, **outputs)
assert "tensorflow" not in sys.modules
"""


def test_jax_backend_agrees(fixture, tmp_path):
    pytest.importorskip("jax")
    subprocess.run(
        [sys.executable, "-c", JAX_SCRIPT, FIXTURE, tmp_path / "out.npz"],
        check=True,
        cwd=ROOT,
        env={**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"},
    )
    model = bert_pretrainer(config_of())
    huggingface.from_hf_state_dict(part(fixture, "state"), model)
    inputs = part(fixture, "inputs")
    outputs = numpy_of(model(inputs))
    y = {k: v.argmin(-1) for k, v in outputs.items()}
    weights = {k: np.ones(v.shape, "float32") for k, v in y.items()}
    model.compile("sgd", pretraining_losses())
    losses = model.test_on_batch(inputs, y, weights)
    with np.load(tmp_path / "out.npz") as jax_outputs:
        np.testing.assert_allclose(jax_outputs["losses"], losses, rtol=1e-5)
        for name, array in outputs.items():
            np.testing.assert_allclose(jax_outputs[name], array, atol=1e-5)
