"""A tiny BERT's or ALBERT's job: records, configuration, checkpoint, runs."""

import json
import sys
from pathlib import Path

import numpy as np
import tensorflow as tf

from official_models.nlp.bert.pretraining import packing, records
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
E = 8  # embedding_size of the ALBERT
ALBERT = {
    **CONFIG,
    "embedding_size": E,
    "num_hidden_groups": 1,
    "inner_group_num": 1,
}


def write_inputs(folder: Path) -> None:
    """`records/` of 50 examples, and configurations.

    `config.json` and `albert.json`, the same without dropout as
    `no_dropout.json` and `albert_no_dropout.json`.
    """
    rng = np.random.default_rng(1)
    ids = rng.integers(5, V, (50, T), np.int32)
    ids[:, [0, 6, 13]] = CLS, SEP, SEP
    ids[:, 14:] = 0
    segment_ids = np.zeros_like(ids)
    segment_ids[:, 7:14] = 1
    packed = packing.PackedPairs(
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
    for config, with_dropout, without in (
        (CONFIG, "config", "no_dropout"),
        (ALBERT, "albert", "albert_no_dropout"),
    ):
        none = {n: 0.0 for n in config if n.endswith("dropout_prob")}
        for name, changes in ((with_dropout, {}), (without, none)):
            (folder / f"{name}.json").write_text(
                json.dumps({**config, **changes})
            )


def _dense(path, rows, columns):
    return {f"{path}/kernel": (rows, columns), f"{path}/bias": (columns,)}


def _norm(path, size=CONFIG["hidden_size"]):
    return {f"{path}/gamma": (size,), f"{path}/beta": (size,)}


def _around_the_encoder(width) -> dict[str, tuple]:
    """Embeddings and heads, where the embeddings are so wide."""
    h = CONFIG["hidden_size"]
    return {
        "bert/embeddings/word_embeddings": (V, width),
        "bert/embeddings/position_embeddings": (24, width),
        "bert/embeddings/token_type_embeddings": (2, width),
        **_norm("bert/embeddings/LayerNorm", width),
        **_dense("bert/pooler/dense", h, h),
        **_dense("cls/predictions/transform/dense", h, width),
        **_norm("cls/predictions/transform/LayerNorm", width),
        "cls/predictions/output_bias": (V,),
        "cls/seq_relationship/output_weights": (2, h),
        "cls/seq_relationship/output_bias": (2,),
    }


def shapes(layers=CONFIG["num_hidden_layers"]) -> dict[str, tuple]:
    """The published names of this BERT's variables, and their shapes."""
    h, i = CONFIG["hidden_size"], CONFIG["intermediate_size"]
    found = _around_the_encoder(h)
    for layer in range(layers):
        path = f"bert/encoder/layer_{layer}"
        for name in ("query", "key", "value"):
            found |= _dense(f"{path}/attention/self/{name}", h, h)
        found |= _dense(f"{path}/attention/output/dense", h, h)
        found |= _norm(f"{path}/attention/output/LayerNorm")
        found |= _dense(f"{path}/intermediate/dense", h, i)
        found |= _dense(f"{path}/output/dense", i, h)
        found |= _norm(f"{path}/output/LayerNorm")
    return found


def albert_shapes() -> dict[str, tuple]:
    """The published names of this ALBERT's variables, and their shapes."""
    h, i = CONFIG["hidden_size"], CONFIG["intermediate_size"]
    found = _around_the_encoder(E)
    found |= _dense("bert/encoder/embedding_hidden_mapping_in", E, h)
    path = "bert/encoder/transformer/group_0/inner_group_0"
    for name in ("query", "key", "value"):
        found |= _dense(f"{path}/attention_1/self/{name}", h, h)
    found |= _dense(f"{path}/attention_1/output/dense", h, h)
    found |= _norm(f"{path}/LayerNorm")
    found |= _dense(f"{path}/ffn_1/intermediate/dense", h, i)
    found |= _dense(f"{path}/ffn_1/intermediate/output/dense", i, h)
    return found | _norm(f"{path}/LayerNorm_1")


def write_checkpoint(
    path: Path, changes=None, *, moments=False, of=None
) -> dict:
    """A checkpoint as the published code writes them; gives its weights.

    Args:
        path: prefix.
        changes: {name: shape, or None to leave it out}.
        moments: with `adam_m`, `adam_v` and `global_step`.
        of: {name: shape}; the BERT's by default.
    """
    rng = np.random.default_rng(3)
    sizes = {**(of or shapes()), **(changes or {})}
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
