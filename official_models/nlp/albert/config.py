"""Reads `albert_config.json`, the sizes beside a published checkpoint."""

from official_models.common.errors import InputError
from official_models.nlp.albert.model import AlbertConfig
from official_models.nlp.bert import config
from official_models.nlp.transformer.layers import BertConfig

# Of the models that were tried and not published; all that were have these.
FIXED = {
    "num_hidden_groups": 1,
    "inner_group_num": 1,
    "net_structure_type": 0,
    "gap_size": 0,
    "num_memory_blocks": 0,
    "down_scale_factor": 1,
}


def read_config(path: str) -> BertConfig | AlbertConfig:
    """The configuration in an `albert_config.json` or a `bert_config.json`.

    Args:
        path: the file, on `gs://` too; it is an ALBERT's if it has an
            "embedding_size".

    Raises:
        InputError: it cannot be read, holds something else, or an ALBERT of
            more than one group of layers.
    """
    found = config.read_json(path)
    if "embedding_size" not in found:
        return config.make_config(path, found)
    for name, expected in FIXED.items():
        if found.get(name, expected) != expected:
            raise InputError(
                f"{path}: {name}: got {found[name]!r}, expected {expected}: "
                "one layer, applied again and again"
            )
    return config.make_config(
        path, found, AlbertConfig, embedding_size=found["embedding_size"]
    )
