"""Live parity of BERT with Hugging Face's, on the torch backend."""

import importlib.util
import os
import pathlib

import numpy as np
import pytest

pytest.importorskip("transformers", reason="make test-torch has it")
os.environ.setdefault("KERAS_BACKEND", "torch")

import keras  # noqa: E402
import torch  # noqa: E402

from official_models.nlp.bert import huggingface  # noqa: E402
from official_models.nlp.bert.config import BertConfig  # noqa: E402
from official_models.nlp.bert.model import (  # noqa: E402
    bert_encoder,
    bert_pretrainer,
)
from official_models.nlp.bert.pretraining.losses import (  # noqa: E402
    pretraining_losses,
)

if keras.backend.backend() != "torch":
    pytest.skip("needs KERAS_BACKEND=torch", allow_module_level=True)

ROOT = pathlib.Path(__file__).parents[1]
_spec = importlib.util.spec_from_file_location(
    "hf_fixture", ROOT / "official_models/nlp/bert/hf_fixture.py"
)
hf = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(hf)

ACTIVATIONS = [("erf", "gelu"), ("tanh", "gelu_new")]
ACTIVATIONS += [("tanh", "gelu_pytorch_tanh")]


def config_of(gelu: str) -> BertConfig:
    return BertConfig(
        vocab_size=hf.SIZES["vocab_size"],
        hidden_size=hf.SIZES["hidden_size"],
        num_layers=hf.SIZES["num_hidden_layers"],
        num_heads=hf.SIZES["num_attention_heads"],
        intermediate_size=hf.SIZES["intermediate_size"],
        max_position_embeddings=hf.SIZES["max_position_embeddings"],
        gelu=gelu,
    )


def assert_equal_states(actual: dict, expected: dict) -> None:
    assert actual.keys() == expected.keys()
    for name, array in expected.items():
        assert actual[name].dtype == array.dtype
        np.testing.assert_array_equal(actual[name], array, err_msg=name)


@pytest.mark.parametrize(("gelu", "activation"), ACTIVATIONS)
@pytest.mark.parametrize("seed", [2, 3])
def test_outputs_and_round_trip(gelu, activation, seed):
    theirs = hf.make_model(activation, seed)
    inputs = hf.make_inputs(seed)
    expected = hf.run(theirs, inputs)

    pretrainer = bert_pretrainer(config_of(gelu))
    state = hf.state_of(theirs)
    huggingface.from_hf_state_dict(state, pretrainer)
    encoder = bert_encoder(config_of(gelu))
    encoder_state = hf.state_of(theirs.bert)
    huggingface.from_hf_state_dict(encoder_state, encoder)

    encoder_inputs = {
        name: inputs[name]
        for name in ("input_ids", "input_mask", "segment_ids")
    }
    outputs = {**pretrainer(inputs), **encoder(encoder_inputs)}
    assert outputs.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_allclose(
            keras.ops.convert_to_numpy(outputs[name]),
            array,
            atol=1e-5,
            err_msg=name,
        )

    assert_equal_states(huggingface.to_hf_state_dict(pretrainer), state)
    assert_equal_states(huggingface.to_hf_state_dict(encoder), encoder_state)
    back = huggingface.to_hf_state_dict(pretrainer)
    hf.make_model(activation, seed + 1).load_state_dict(
        {name: torch.from_numpy(array) for name, array in back.items()},
        strict=True,
    )


def test_loss_and_its_gradient_equal_torch_cross_entropy():
    rng = np.random.default_rng(0)
    logits = torch.tensor(
        rng.normal(0.0, 3.0, (4, 5, 11)), dtype=torch.float32
    ).requires_grad_()
    labels = torch.tensor(rng.integers(0, 11, (4, 5)))
    weights = torch.tensor(rng.integers(0, 2, (4, 5)), dtype=torch.float32)
    ours = pretraining_losses()["masked_lm"](labels, logits, weights)
    (our_gradient,) = torch.autograd.grad(ours, logits)
    nll = torch.nn.functional.cross_entropy(
        logits.transpose(1, 2), labels, reduction="none"
    )
    theirs = (nll * weights).sum() / weights.sum()
    (their_gradient,) = torch.autograd.grad(theirs, logits)
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(our_gradient, their_gradient)


def test_committed_fixture_is_what_the_script_makes():
    made = hf.make_fixture()
    with np.load(hf.PATH) as committed:
        assert set(committed.files) == made.keys()
        for name, array in made.items():
            assert committed[name].dtype == array.dtype, name
            np.testing.assert_allclose(
                committed[name], array, rtol=1e-5, atol=1e-6, err_msg=name
            )
