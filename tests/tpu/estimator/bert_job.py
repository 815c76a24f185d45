"""A tiny BERT job: its records, configuration, checkpoint, and its runs."""

import json
import sys
from pathlib import Path

import numpy as np
import tensorflow as tf

from official_models.nlp.bert import data, records
from tests.tpu.estimator import job_process

tf1 = tf.compat.v1
V, T, P = 50, 16, 3
CLS, SEP, MASK = 2, 3, 4
CONFIG = {
    "vocab_size": V,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "max_position_embeddings": 24,
    "type_vocab_size": 2,
}


def write_inputs(folder: Path) -> None:
    """`records/` of 50 examples, and `config.json`, `no_dropout.json`."""
    rng = np.random.default_rng(1)
    ids = rng.integers(5, V, (50, T), np.int32)
    ids[:, [0, 6, 13]] = CLS, SEP, SEP
    ids[:, 14:] = 0
    segment_ids = np.zeros_like(ids)
    segment_ids[:, 7:14] = 1
    packed = data.PackedPairs(
        ids,
        segment_ids,
        np.full(50, 14, np.int32),
        ids >= 5,
        rng.integers(0, 2, 50, np.int32),
    )
    records.write_records(
        packed,
        folder / "records",
        num_shards=2,
        seed=7,
        vocab_size=V,
        mask_id=MASK,
        special_ids=(CLS, SEP),
        max_predictions=P,
    )
    (folder / "config.json").write_text(json.dumps(CONFIG))
    none = {name: 0.0 for name in CONFIG if name.endswith("dropout_prob")}
    (folder / "no_dropout.json").write_text(json.dumps({**CONFIG, **none}))


def shapes(layers=CONFIG["num_hidden_layers"]) -> dict[str, tuple]:
    """The published names of this BERT's variables, and their shapes."""
    h, i = CONFIG["hidden_size"], CONFIG["intermediate_size"]

    def dense(path, rows, columns):
        return {f"{path}/kernel": (rows, columns), f"{path}/bias": (columns,)}

    def norm(path):
        path = f"{path}/LayerNorm"
        return {f"{path}/gamma": (h,), f"{path}/beta": (h,)}

    found = {
        "bert/embeddings/word_embeddings": (V, h),
        "bert/embeddings/position_embeddings": (24, h),
        "bert/embeddings/token_type_embeddings": (2, h),
        **norm("bert/embeddings"),
        **dense("bert/pooler/dense", h, h),
        **dense("cls/predictions/transform/dense", h, h),
        **norm("cls/predictions/transform"),
        "cls/predictions/output_bias": (V,),
        "cls/seq_relationship/output_weights": (2, h),
        "cls/seq_relationship/output_bias": (2,),
    }
    for layer in range(layers):
        path = f"bert/encoder/layer_{layer}"
        for name in ("query", "key", "value"):
            found |= dense(f"{path}/attention/self/{name}", h, h)
        found |= dense(f"{path}/attention/output/dense", h, h)
        found |= norm(f"{path}/attention/output")
        found |= dense(f"{path}/intermediate/dense", h, i)
        found |= dense(f"{path}/output/dense", i, h) | norm(f"{path}/output")
    return found


def write_checkpoint(path: Path, changes=None, *, moments=False) -> dict:
    """A checkpoint as the published code writes them; gives its weights.

    Args:
        path: prefix.
        changes: {name: shape, or None to leave it out}.
        moments: with `adam_m`, `adam_v` and `global_step`.
    """
    rng = np.random.default_rng(3)
    sizes = {**shapes(), **(changes or {})}
    weights = {
        name: (name.endswith("gamma") + 0.1 * rng.normal(size=shape)).astype(
            "float32"
        )
        for name, shape in sizes.items()
        if shape is not None
    }
    state = dict(weights)
    if moments:
        for name, value in weights.items():
            state |= {f"{name}/adam_m": value, f"{name}/adam_v": value**2}
        state["global_step"] = np.int64(900)
    with tf.Graph().as_default(), tf1.Session() as session:
        for name, value in state.items():
            tf1.get_variable(name, initializer=value)
        session.run(tf1.global_variables_initializer())
        tf1.train.Saver().save(
            session, str(path), write_meta_graph=False, write_state=False
        )
    return weights


def command(folder: Path, run: str, *arguments) -> list[str]:
    """The command of one job that writes to `folder/run`."""
    return [
        *(sys.executable, "-m", "tpu.bert_pretraining"),
        *("--output_dir", str(folder / run)),
        *("--bert_config_file", str(folder / "config.json")),
        *("--input_file", str(folder / "records")),
        f"--max_seq_length={T}",
        f"--max_predictions_per_seq={P}",
        *("--train_batch_size=8", "--eval_batch_size=10"),
        *("--learning_rate=0.02", "--num_warmup_steps=4"),
        *map(str, arguments),
    ]


def run(*arguments) -> str:
    """Runs a `command` to its end; gives what it printed."""
    return job_process.run(command(*arguments))
