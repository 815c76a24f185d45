"""TensorFlow's checkpoints of BERT and ALBERT, by name and of objects.

Google's code saves each variable under its name, which is the path of ours.
Model Garden saves objects: its keys number the layers of the encoder, and its
attention kernels have the heads on an axis of their own, as [H, N, D] or, after
the attention, [N, D, H]. Both are read; the first form is written.

References:
    https://github.com/google-research/bert (`modeling.py`)
    https://github.com/tensorflow/models (`official/nlp/modeling`)
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import tensorflow as tf

from official_models.common.checkpoint_list import saved_steps
from official_models.common.errors import InputError, first_line
from official_models.nlp.bert.config import BertConfig

# What a checkpoint holds beside the weights.
STATE = (
    r"/(adam_m|adam_v|AdamWeightDecayOptimizer(_\d+)?|LAMBOptimizer(_\d+)?"
    r"|LARSOptimizer(_\d+)?|Momentum|Adam(_\d+)?)$",
    r"^(global_step|updates|skipped_steps|beta[12]_power)$",
    r"^(save_counter|_CHECKPOINTABLE_OBJECT_GRAPH|optimizer|step)\b",
    r"/\.OPTIMIZER_SLOT/",
)
VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"
_LAYER = re.compile(
    rf"(?:(?:model|encoder)/)*layer_with_weights-(\d+)/(.+){re.escape(VALUE)}"
)
_MASKED_LM = re.compile(rf"(?:model/)*masked_lm/(.+){re.escape(VALUE)}")
# Model Garden's attribute -> path in a layer of BERT and of ALBERT.
_BLOCK = {
    **{
        f"_attention_layer/_{name}_dense": (
            f"attention/self/{name}",
            f"attention_1/self/{name}",
        )
        for name in ("query", "key", "value")
    },
    **dict.fromkeys(
        ("_attention_layer/_output_dense", "_attention_output_dense"),
        ("attention/output/dense", "attention_1/output/dense"),
    ),
    "_attention_layer_norm": ("attention/output/LayerNorm", "LayerNorm"),
    "_intermediate_dense": ("intermediate/dense", "ffn_1/intermediate/dense"),
    "_output_dense": ("output/dense", "ffn_1/intermediate/output/dense"),
    "_output_layer_norm": ("output/LayerNorm", "LayerNorm_1"),
}
_HEAD = {
    "dense": "transform/dense",
    "layer_norm": "transform/LayerNorm",
}


def prefix_of(path: str) -> str | None:
    """The checkpoint at a prefix, or the last one in a folder; or None."""
    if tf.io.gfile.exists(f"{path}.index"):
        return path
    if path.endswith(".index") and tf.io.gfile.exists(path):
        return path.removesuffix(".index")
    if not tf.io.gfile.isdir(path):
        return None
    last = [*saved_steps(path).values()]
    if last:
        return last[-1]
    found = tf.io.gfile.glob(f"{path.rstrip('/')}/*.index")
    return found[0].removesuffix(".index") if len(found) == 1 else None


def read_shapes(checkpoint: str, where: str) -> dict[str, list[int]]:
    """{name: shape} of a checkpoint's weights, without optimizer state.

    Args:
        checkpoint: Prefix, or folder, of a TensorFlow checkpoint.
        where: Begins an error's message.

    Raises:
        InputError: It cannot be read.
    """
    try:
        found = dict(tf.train.list_variables(checkpoint))
    except (tf.errors.OpError, ValueError) as error:
        raise InputError(
            f"{where}: cannot be read ({first_line(error)}); expected the "
            "prefix of a checkpoint, such as bert_model.ckpt, or its folder"
        ) from error
    return {
        name: shape
        for name, shape in found.items()
        if not any(re.search(pattern, name) for pattern in STATE)
    }


class Arrays:
    """The arrays of a checkpoint, by the paths of our variables.

    Args:
        prefix: Of the checkpoint.
        where: Begins messages.

    Attributes:
        files: Of the checkpoint.
        shapes: {name: shape} there.

    Raises:
        InputError: It cannot be read, or its layers are in an order unknown.
    """

    def __init__(self, prefix: str, where: str):
        self.shapes = read_shapes(prefix, where)
        self.files = sorted(
            tf.io.gfile.glob(f"{prefix}.index")
            + tf.io.gfile.glob(f"{prefix}.data-*")
        )
        self._where = where
        self._reader = tf.train.load_checkpoint(prefix)
        self._keys = (
            _object_keys(self.shapes, where)
            if any(_LAYER.fullmatch(name) for name in self.shapes)
            else {}
        )

    def name_of(self, path: str) -> str:
        """The name there of the variable of a path."""
        return self._keys.get(path, path)

    def shape_of(self, path: str) -> tuple[int, ...]:
        """The shape it has as a variable of ours."""
        shape = tuple(self.shapes[self.name_of(path)])
        if not self._keys or len(shape) < 2 or path.endswith("embeddings"):
            return shape
        if path.endswith("bias"):
            return (int(np.prod(shape)),)
        if "output" in path.split("/")[-3:-1]:
            return (int(np.prod(shape[:-1])), shape[-1])
        return (shape[0], int(np.prod(shape[1:])))

    def read(self, path: str) -> np.ndarray:
        """Its values.

        Raises:
            InputError: The files of the checkpoint are damaged.
        """
        try:
            array = self._reader.get_tensor(self.name_of(path))
        # The reader raises these for files that are cut short.
        except (
            tf.errors.OpError,
            IndexError,
            RuntimeError,
            MemoryError,
        ) as error:
            raise InputError(
                f"{self._where}: cannot be read ({first_line(error)}); copy "
                "the checkpoint's files anew"
            ) from error
        return array.reshape(self.shape_of(path))

    def num_heads(self) -> int | None:
        """N, where the checkpoint's shapes tell it."""
        for path, key in self._keys.items():
            if path.endswith("self/query/bias") and len(self.shapes[key]) == 2:
                return self.shapes[key][0]
        return None


def _object_keys(names: Mapping[str, list], where: str) -> dict[str, str]:
    """{path of our variable: key} of a checkpoint of Model Garden's."""
    layers: dict[int, dict[str, str]] = {}
    keys = {}
    for name in names:
        if match := _LAYER.fullmatch(name):
            layers.setdefault(int(match[1]), {})[match[2]] = name
        elif match := _MASKED_LM.fullmatch(name):
            if match[1] == "bias":
                keys["cls/predictions/output_bias"] = name
                continue
            module, _, leaf = match[1].partition("/")
            if module in _HEAD:
                keys[f"cls/predictions/{_HEAD[module]}/{leaf}"] = name
    blocks = [i for i in sorted(layers) if _is_block(layers[i])]
    if not blocks:
        raise InputError(
            f"{where}: no Transformer layer in its {len(layers)} layers; "
            "expected an encoder of BERT or ALBERT by Model Garden"
        )
    tables = iter(("word", "position", "token_type"))
    # An ALBERT projects its embeddings, which are normalised before.
    is_albert = any("kernel" in layers[i] for i in layers if i < blocks[0])
    for i in sorted(layers):
        for leaf, name in layers[i].items():
            if leaf.endswith("embeddings"):
                path = f"bert/embeddings/{next(tables, 'unknown')}_embeddings"
            elif leaf in ("gamma", "beta"):
                path = f"bert/embeddings/LayerNorm/{leaf}"
            elif i in blocks:
                path = _block_path(leaf, blocks.index(i), is_albert)
            elif i < blocks[0]:
                path = f"bert/encoder/embedding_hidden_mapping_in/{leaf}"
            else:
                path = f"bert/pooler/dense/{leaf}"
            keys[path] = name
    return keys


def _is_block(leaves: Mapping[str, str]) -> bool:
    return any(leaf.startswith("_attention_layer/") for leaf in leaves)


def _block_path(leaf: str, index: int, is_albert: bool) -> str:
    module, _, last = leaf.rpartition("/")
    if module not in _BLOCK:
        return f"unknown/{leaf}"
    place = (
        "bert/encoder/transformer/group_0/inner_group_0"
        if is_albert
        else f"bert/encoder/layer_{index}"
    )
    return f"{place}/{_BLOCK[module][is_albert]}/{last}"


def check_heads(arrays: Arrays, config: BertConfig, where: str) -> None:
    """Holds the number of heads in the shapes against a configuration.

    Raises:
        InputError: They differ.
    """
    heads = arrays.num_heads()
    if heads not in (None, config.num_heads):
        raise InputError(
            f"{where}: has {heads} attention heads, its configuration says "
            f"{config.num_heads}; give the configuration of this checkpoint"
        )


def write(arrays: Mapping[str, np.ndarray], prefix: Path) -> None:
    """Writes a checkpoint by name, as Google's code for BERT reads it.

    Args:
        arrays: {path of a variable: array}.
        prefix: Where to: `prefix`.index and `prefix`.data-00000-of-00001.
    """
    names = sorted(arrays)
    tf.raw_ops.SaveV2(
        prefix=str(prefix),
        tensor_names=names,
        shape_and_slices=[""] * len(names),
        tensors=[tf.constant(arrays[name]) for name in names],
    )
