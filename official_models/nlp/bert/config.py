"""Reads `bert_config.json`, the sizes beside a published checkpoint."""

import json

import tensorflow as tf

from official_models.common.errors import InputError
from official_models.nlp.transformer.layers import BertConfig

# Name in the file -> name in `BertConfig`.
NAMES = {
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "num_hidden_layers": "num_layers",
    "num_attention_heads": "num_heads",
    "intermediate_size": "intermediate_size",
    "max_position_embeddings": "max_position_embeddings",
    "type_vocab_size": "type_vocab_size",
    "hidden_dropout_prob": "hidden_dropout",
    "attention_probs_dropout_prob": "attention_dropout",
    "initializer_range": "initializer_range",
}
REQUIRED = tuple(NAMES)[:5]
# Google's "gelu" is the approximation by tanh.
GELU = {"gelu": "tanh", "gelu_new": "tanh", "gelu_erf": "erf"}


def read_json(path: str) -> dict:
    """What a configuration file holds, on `gs://` too.

    Raises:
        InputError: it cannot be read, or is no JSON object.
    """
    try:
        with tf.io.gfile.GFile(path) as file:
            found = json.loads(file.read())
        if not isinstance(found, dict):
            raise ValueError("holds no JSON object")
    except (tf.errors.OpError, ValueError) as error:
        reason = getattr(error, "message", None) or str(error)
        raise InputError(
            f"{path}: {reason}; expected a bert_config.json"
        ) from error
    return found


def make_config(path: str, found: dict, cls=BertConfig, **more):
    """A configuration of what `read_json` found.

    Args:
        path: where, for messages.
        found: the file's values.
        cls: `BertConfig`, or a class of it.
        more: its further arguments.

    Raises:
        InputError: a value is missing or out of range.
    """
    missing = [name for name in REQUIRED if name not in found]
    if missing:
        raise InputError(
            f"{path}: lacks {', '.join(missing)}; expected a bert_config.json"
        )
    activation = found.get("hidden_act", "gelu")
    if activation not in GELU:
        raise InputError(
            f"{path}: hidden_act: got {activation!r}, expected one of "
            f"{', '.join(GELU)}"
        )
    values = {
        ours: found[name] for name, ours in NAMES.items() if name in found
    }
    try:
        return cls(**values, **more, gelu=GELU[activation])
    except (ValueError, TypeError) as error:
        raise InputError(f"{path}: {error}") from error


def read_config(path: str) -> BertConfig:
    """The configuration in a `bert_config.json`, on `gs://` too.

    Names that a BERT does not need (`pooler_num_fc_layers` and the like) are
    passed over.

    Args:
        path: the file; "hidden_act" is "gelu" (by tanh, as in Google's code)
            or "gelu_erf".

    Raises:
        InputError: it cannot be read, or holds something else.
    """
    found = read_json(path)
    if "embedding_size" in found:
        raise InputError(f"{path}: is an ALBERT's; expected a bert_config.json")
    return make_config(path, found)
