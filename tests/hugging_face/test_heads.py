"""Live parity of the heads of fine-tuning with Hugging Face's, on torch."""

import os

import numpy as np
import pytest

pytest.importorskip("transformers", reason="make test-torch has it")
os.environ.setdefault("KERAS_BACKEND", "torch")

import keras  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402

from official_models.nlp.bert import huggingface  # noqa: E402
from official_models.nlp.bert.heads import (  # noqa: E402
    bert_classifier,
    bert_span,
)
from official_models.nlp.bert.model import bert_encoder  # noqa: E402
from tests.official_models.nlp.bert.small_bert import config_of  # noqa: E402

if keras.backend.backend() != "torch":
    pytest.skip("needs KERAS_BACKEND=torch", allow_module_level=True)

K, B, T = 3, 3, 10


def theirs_of(cls, num_labels):
    """A random model of theirs whose biases are not all 0."""
    config = config_of()
    torch.manual_seed(0)
    model = cls(
        transformers.BertConfig(
            vocab_size=config.vocab_size,
            hidden_size=config.hidden_size,
            num_hidden_layers=config.num_layers,
            num_attention_heads=config.num_heads,
            intermediate_size=config.intermediate_size,
            max_position_embeddings=config.max_position_embeddings,
            hidden_act="gelu_new",
            num_labels=num_labels,
        )
    ).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def features():
    rng = np.random.default_rng(0)
    lengths = np.array([[T], [6], [3]])
    return {
        "input_ids": rng.integers(1, 60, (B, T)).astype("int32"),
        "input_mask": (np.arange(T) < lengths).astype("int32"),
        "segment_ids": (np.arange(T) >= lengths // 2).astype("int32"),
    }


def give(model, theirs, head, prefix):
    """Copies their encoder, and their linear layer `head`."""
    encoder = bert_encoder(config_of())
    state = {n: p.numpy() for n, p in theirs.bert.state_dict().items()}
    if not any(name.startswith("pooler") for name in state):
        size = config_of().hidden_size
        state["pooler.dense.weight"] = np.zeros((size, size), "float32")
        state["pooler.dense.bias"] = np.zeros(size, "float32")
    huggingface.from_hf_state_dict(state, encoder)
    values = {v.path: v for v in encoder.trainable_variables}
    values[f"{prefix}output_weights"] = head.weight.detach()
    values[f"{prefix}output_bias"] = head.bias.detach()
    for variable in model.trainable_variables:
        variable.assign(values.pop(variable.path))
    assert not values


def run(theirs):
    ids, mask, segments = (
        torch.from_numpy(x).long() for x in features().values()
    )
    with torch.no_grad():
        return theirs(ids, mask, segments)


def test_classifier():
    theirs = theirs_of(transformers.BertForSequenceClassification, K)
    model = bert_classifier(config_of(), K)
    give(model, theirs, theirs.classifier, "")
    expected = run(theirs).logits.numpy()
    assert np.ptp(expected) > 0.5
    actual = keras.ops.convert_to_numpy(model(features()))
    np.testing.assert_allclose(actual, expected, atol=1e-5)


def test_span():
    theirs = theirs_of(transformers.BertForQuestionAnswering, 2)
    model = bert_span(config_of())
    give(model, theirs, theirs.qa_outputs, "cls/squad/")
    expected, actual = run(theirs), model(features())
    for name in ("start_logits", "end_logits"):
        logits = expected[name].numpy()
        assert np.ptp(logits) > 0.5
        found = keras.ops.convert_to_numpy(actual[name])
        np.testing.assert_allclose(found, logits, atol=1e-5)
