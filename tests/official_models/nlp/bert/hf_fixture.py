"""Makes hf_fixture.npz: small random Hugging Face BERTs and their outputs.

    .venv-torch/bin/python tests/official_models/nlp/bert/hf_fixture.py

The file holds one state of `BertForPreTraining` under `state/`, inputs under
`inputs/`, and for either GELU the outputs under `erf/` and `tanh/`.
`tests/hugging_face/test_parity.py` checks that the committed file is what this
script makes.
"""

import pathlib

import numpy as np
import torch
import transformers

PATH = pathlib.Path(__file__).with_suffix(".npz")
ACTIVATIONS = {"erf": "gelu", "tanh": "gelu_new"}
SIZES = {
    "vocab_size": 60,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 24,
}


def make_model(activation: str, seed: int) -> transformers.BertForPreTraining:
    """A random model whose biases and LayerNorms are not trivial.

    Args:
        activation: Hugging Face's name of the GELU.
        seed: the same seed gives the same weights for any activation.
    """
    config = transformers.BertConfig(**SIZES, hidden_act=activation)
    config._attn_implementation = "eager"
    model = transformers.BertForPreTraining(config).eval()
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            noise = rng.normal(0.0, 0.2, tuple(parameter.shape))
            centre = 1.0 if name.endswith("LayerNorm.weight") else 0.0
            parameter.copy_(torch.from_numpy(noise + centre))
    return model


def make_inputs(seed: int, batch: int = 3, tokens: int = 16) -> dict:
    """Random inputs whose rows are padded by 0, 3, 6, ... tokens."""
    rng = np.random.default_rng(seed)
    lengths = tokens - 3 * np.arange(batch)[:, np.newaxis]  # [B, 1]
    shape = (batch, tokens)
    inputs = {
        "input_ids": rng.integers(1, SIZES["vocab_size"], shape),
        "input_mask": np.arange(tokens) < lengths,
        "segment_ids": np.arange(tokens) >= lengths // 2,
        "masked_lm_positions": rng.integers(0, lengths, (batch, 4)),
    }
    inputs["input_ids"] *= inputs["input_mask"]
    return {name: array.astype("int32") for name, array in inputs.items()}


def run(model: transformers.BertForPreTraining, inputs: dict) -> dict:
    """The outputs of `bert_encoder` and `bert_pretrainer`, by their names."""
    ids, mask, segments, positions = (
        torch.from_numpy(array).long() for array in inputs.values()
    )
    with torch.no_grad():
        encoded = model.bert(ids, mask, segments)
        heads = model(ids, mask, segments)
    rows = torch.arange(len(ids))[:, None]
    outputs = {
        "sequence_output": encoded.last_hidden_state,
        "pooled_output": encoded.pooler_output,
        "masked_lm": heads.prediction_logits[rows, positions],
        "next_sentence": heads.seq_relationship_logits,
    }
    return {name: tensor.numpy() for name, tensor in outputs.items()}


def state_of(model: torch.nn.Module) -> dict:
    """The state dictionary as NumPy arrays."""
    return {name: t.numpy() for name, t in model.state_dict().items()}


def make_fixture() -> dict:
    """The arrays of hf_fixture.npz."""
    inputs = make_inputs(seed=1)
    arrays = {f"inputs/{name}": array for name, array in inputs.items()}
    for gelu, activation in ACTIVATIONS.items():
        model = make_model(activation, seed=0)
        for name, array in run(model, inputs).items():
            arrays[f"{gelu}/{name}"] = array
        for name, array in state_of(model).items():
            arrays[f"state/{name}"] = array
    return arrays


if __name__ == "__main__":
    np.savez_compressed(PATH, **make_fixture())
    print(f"{PATH}: {PATH.stat().st_size:,} bytes")
