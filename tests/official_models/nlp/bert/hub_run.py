"""What test_finetune_hub.py asks of a process with Keras 3: a tiny encoder.

    python -m tests.official_models.nlp.bert.hub_run FOLDER

writes an encoder in Hugging Face's layout, its module, and what the model
itself computes, for the module to be held against.
"""

import json
import sys
from pathlib import Path

import keras
import numpy as np
from safetensors.numpy import save_file

from official_models.nlp.bert import hub, huggingface
from official_models.nlp.bert.config import BertConfig
from official_models.nlp.bert.model import bert_encoder

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "film"]


def main(folder):
    folder = Path(folder)
    config = BertConfig(len(WORDS), 32, 2, 4, 64, 16, gelu="erf")
    keras.utils.set_random_seed(0)
    model = bert_encoder(config)
    state = huggingface.to_hf_state_dict(model)
    encoder = folder / "encoder"
    encoder.mkdir()
    save_file(
        {n: np.ascontiguousarray(x) for n, x in state.items()},
        encoder / "model.safetensors",
    )
    (encoder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    hf = {
        "vocab_size": len(WORDS),
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "max_position_embeddings": 16,
        "type_vocab_size": 2,
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1,
        "layer_norm_eps": 1e-12,
        "hidden_act": "gelu",
    }
    (encoder / "config.json").write_text(json.dumps(hf))
    again = hub.read_encoder(encoder)
    hub.export(again, folder / "module", encoder / "vocab.txt")
    ids = np.array([[2, 5, 7, 3], [2, 6, 3, 0]], "int32")
    mask = np.array([[1, 1, 1, 1], [1, 1, 1, 0]], "int32")
    outputs = model.predict(
        {"input_ids": ids, "input_mask": mask, "segment_ids": 0 * ids},
        verbose=0,
    )
    np.savez(folder / "expected.npz", ids=ids, mask=mask, **outputs)


if __name__ == "__main__":
    main(sys.argv[1])
