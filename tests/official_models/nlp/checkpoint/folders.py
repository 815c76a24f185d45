"""Checkpoints in folders, for tests: of the fixture's Hugging Face BERT."""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from official_models.common import weights

FIXTURE = Path(__file__).parents[1] / "bert/hf_fixture.npz"
V = 60
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS += [f"word{i}" for i in range(V - len(WORDS))]
CONFIG = {
    "model_type": "bert",
    "vocab_size": V,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 24,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}


def fixture(part):
    """The arrays of the fixture under a name, by the rest of theirs."""
    with np.load(FIXTURE) as arrays:
        return {
            name.removeprefix(f"{part}/"): arrays[name]
            for name in arrays.files
            if name.startswith(f"{part}/")
        }


def write(folder, state=None, words=WORDS, **changes):
    """Hugging Face's layout of it; a change to None leaves a value out."""
    folder.mkdir(parents=True, exist_ok=True)
    state = fixture("state") if state is None else state
    state = {n: np.ascontiguousarray(x) for n, x in state.items()}
    save_file(state, folder / "model.safetensors")
    config = {n: x for n, x in {**CONFIG, **changes}.items() if x is not None}
    (folder / "config.json").write_text(json.dumps(config))
    if words:
        (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    return folder


def values(model):
    """{path: array} of a model's variables."""
    return {p: v.numpy() for p, v in weights.by_path(model).items()}


def same_values(one, other):
    """Asserts that two models have equal variables."""
    one, other = values(one), values(other)
    assert one.keys() == other.keys()
    for path, array in one.items():
        np.testing.assert_array_equal(other[path], array, err_msg=path)
