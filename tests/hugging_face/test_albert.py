"""Live parity of ALBERT with Hugging Face's, on the torch backend."""

import os
import re

import numpy as np
import pytest

pytest.importorskip("transformers", reason="make test-torch has it")
os.environ.setdefault("KERAS_BACKEND", "torch")

import keras  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402

from official_models.nlp.albert import model as albert  # noqa: E402
from official_models.nlp.albert.config import (  # noqa: E402
    AlbertConfig,
    sharing,
)

if keras.backend.backend() != "torch":
    pytest.skip("needs KERAS_BACKEND=torch", allow_module_level=True)

V, B, T, P = 60, 3, 16, 4
SIZES = {
    "vocab_size": V,
    "embedding_size": 8,
    "hidden_size": 32,
    "intermediate_size": 64,
    "max_position_embeddings": 24,
}
# Theirs -> ours; ours are the published checkpoints' names. Of group 0.
LAYER = (
    "albert.encoder.albert_layer_groups.0.albert_layers.0",
    "bert/encoder/transformer/group_0/inner_group_0",
)
NAMES = {
    "albert.embeddings.LayerNorm": "bert/embeddings/LayerNorm",
    "albert.encoder.embedding_hidden_mapping_in": (
        "bert/encoder/embedding_hidden_mapping_in"
    ),
    f"{LAYER[0]}.attention.dense": f"{LAYER[1]}/attention_1/output/dense",
    f"{LAYER[0]}.attention.LayerNorm": f"{LAYER[1]}/LayerNorm",
    f"{LAYER[0]}.ffn": f"{LAYER[1]}/ffn_1/intermediate/dense",
    f"{LAYER[0]}.ffn_output": f"{LAYER[1]}/ffn_1/intermediate/output/dense",
    f"{LAYER[0]}.full_layer_layer_norm": f"{LAYER[1]}/LayerNorm_1",
    "albert.pooler": "bert/pooler/dense",
    "predictions.dense": "cls/predictions/transform/dense",
    "predictions.LayerNorm": "cls/predictions/transform/LayerNorm",
    **{
        f"{LAYER[0]}.attention.{name}": f"{LAYER[1]}/attention_1/self/{name}"
        for name in ("query", "key", "value")
    },
}
WHOLE = {
    "predictions.bias": "cls/predictions/output_bias",
    "sop_classifier.classifier.weight": "cls/seq_relationship/output_weights",
    "sop_classifier.classifier.bias": "cls/seq_relationship/output_bias",
    **{
        f"albert.embeddings.{name}_embeddings.weight": (
            f"bert/embeddings/{name}_embeddings"
        )
        for name in ("word", "position", "token_type")
    },
}


def _ours(name, tensor):
    """Our name and array of one of their parameters."""
    array = tensor.detach().numpy()
    if name in WHOLE:
        return WHOLE[name], array
    group = re.search(r"albert_layer_groups\.(\d+)", name)
    name = re.sub(r"(albert_layer_groups)\.\d+", r"\1.0", name)
    module, kind = name.rsplit(".", 1)
    if kind == "bias":
        kind = "beta" if "orm" in module else "bias"
    elif "orm" in module:
        kind = "gamma"
    else:
        kind, array = "kernel", array.T
    path = f"{NAMES[module]}/{kind}"
    return path.replace("group_0/", f"group_{group and group[1]}/", 1), array


@pytest.mark.parametrize(
    ("gelu", "activation"), [("erf", "gelu"), ("tanh", "gelu_new")]
)
@pytest.mark.parametrize("mode", ["all", "none"])
def test_outputs(mode, gelu, activation):
    """The other modes are held to clones: transformers has none of them."""
    shared = sharing(mode, 3)
    rng = np.random.default_rng(2)
    config = transformers.AlbertConfig(
        **SIZES,
        num_hidden_layers=3,
        num_hidden_groups=shared["num_hidden_groups"],
        num_attention_heads=2,
        hidden_act=activation,
    )
    config._attn_implementation = "eager"
    theirs = transformers.AlbertForPreTraining(config).eval()
    with torch.no_grad():
        for name, parameter in sorted(theirs.named_parameters()):
            centre = float("orm.weight" in name)
            value = rng.normal(centre, 0.2, tuple(parameter.shape))
            parameter.copy_(torch.from_numpy(value))
    ours = albert.albert_pretrainer(
        AlbertConfig(**SIZES, num_layers=3, num_heads=2, gelu=gelu, **shared)
    )
    values = dict(_ours(*item) for item in theirs.named_parameters())
    assert {v.path for v in ours.trainable_variables} == values.keys()
    for variable in ours.trainable_variables:
        variable.assign(values[variable.path])
    lengths = T - 3 * np.arange(B)[:, None]
    inputs = {
        "input_ids": rng.integers(1, V, (B, T)),
        "input_mask": np.arange(T) < lengths,
        "segment_ids": np.arange(T) >= lengths // 2,
        "masked_lm_positions": rng.integers(0, lengths, (B, P)),
    }
    inputs = {name: x.astype("int32") for name, x in inputs.items()}
    ids, mask, segments, positions = (
        torch.from_numpy(x).long() for x in inputs.values()
    )
    with torch.no_grad():
        heads = theirs(ids, mask, segments)
        expected = {
            "masked_lm": heads.prediction_logits[
                torch.arange(B)[:, None], positions
            ],
            "sentence_order": heads.sop_logits,
        }
    found = ours(inputs)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        actual = keras.ops.convert_to_numpy(found[name])
        np.testing.assert_allclose(actual, value.numpy(), atol=1e-5)
