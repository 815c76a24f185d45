"""ALBERT's configuration: the published sizes, and `albert_config.json`."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

from official_models.common.errors import InputError
from official_models.common.layer import registration
from official_models.nlp.bert import config as bert_config
from official_models.nlp.bert.config import BertConfig
from tf_lamb import check

# Layers, hidden, heads, intermediate; E is 128 in all. Up to "medium" they are
# BERT's: no such ALBERT was published.
SIZES = {
    **{n: bert_config.SIZES[n] for n in ("tiny", "mini", "small", "medium")},
    "base": (12, 768, 12, 3072),
    "large": (24, 1024, 16, 4096),
    "xlarge": (24, 2048, 16, 8192),
    "xxlarge": (12, 4096, 64, 16384),
}

SHARING = ("all", "attention", "ffn", "none")


def sharing(mode: str, num_layers: int) -> dict[str, Any]:
    """The arguments of an `AlbertConfig` whose layers share what `mode` says.

    Args:
        mode: "all" weights, those of the "attention" or of the feed-forward
            block ("ffn") alone, or "none". The LayerNorm after a block is
            shared with it.
        num_layers: Of the model.

    Raises:
        ValueError: `mode` is none of these.

    References:
        Lan et al. 2019, section 4.5, table 4. The paper does not say which
        LayerNorm goes with which block.
    """
    if mode not in SHARING:
        raise ValueError(
            f"share_parameters: got {mode!r}, expected one of "
            f"{', '.join(SHARING)}"
        )
    return {
        "num_hidden_groups": 1 if mode == "all" else num_layers,
        "shared_part": mode if mode in ("attention", "ffn") else "none",
    }


@registration("tf_lamb_models.albert")
@dataclasses.dataclass(frozen=True)
class AlbertConfig(BertConfig):
    """Sizes and rates of one ALBERT: those of a BERT, E, and what is shared.

    Application i of `num_layers` uses group floor(i / (`num_layers` /
    `num_hidden_groups`)), all of whose `inner_group_num` layers are applied in
    turn. One group shares all weights, as in the published models;
    `num_layers` groups share none, but for their `shared_part`; `sharing` has
    the arguments for each of the paper's ways.

    Args:
        embedding_size: E.
        num_hidden_groups: Groups of layers, at most `num_layers`.
        inner_group_num: Layers of a group.
        shared_part: What all groups have in common: "none", or the
            "attention" or the "ffn" of their layers, each with the LayerNorm
            that follows it. Others' ALBERTs know no such thing.

    Raises:
        ValueError: A value is out of range.

    References:
        https://github.com/google-research/albert (`modeling.py`,
        `transformer_model`)
    """

    sizes: ClassVar[dict[str, tuple[int, int, int, int]]] = SIZES
    published_vocab_size: ClassVar[int] = 30000
    checks: ClassVar = {
        **BertConfig.checks,
        "embedding_size": bert_config.size,
        "num_hidden_groups": bert_config.size,
        "inner_group_num": bert_config.size,
        "shared_part": partial(
            check.one_of, choices=("none", "attention", "ffn")
        ),
    }

    embedding_size: int = 128
    num_hidden_groups: int = 1
    inner_group_num: int = 1
    shared_part: str = "none"

    def __post_init__(self):
        super().__post_init__()
        if self.num_hidden_groups > self.num_layers:
            raise ValueError(
                f"num_hidden_groups: got {self.num_hidden_groups}, expected at "
                f"most num_layers = {self.num_layers}"
            )

    def group_of(self, application: int) -> int:
        """The group of an application, 0 to `num_layers` - 1."""
        # The quotients of transformers, to their last bit.
        return int(application / (self.num_layers / self.num_hidden_groups))

    @property
    def narrow(self) -> BertConfig:
        """The configuration of what is E wide in place of H."""
        fields = {f.name for f in dataclasses.fields(BertConfig)}
        values = {k: v for k, v in vars(self).items() if k in fields}
        return BertConfig(
            **{**values, "hidden_size": self.embedding_size, "num_heads": 1}
        )


# Of models that were tried; all that were published have these.
FIXED = {
    "net_structure_type": 0,
    "gap_size": 0,
    "num_memory_blocks": 0,
    "down_scale_factor": 1,
}
EXPECTED = "an albert_config.json"


def read_config(path: str | os.PathLike) -> AlbertConfig:
    """The configuration in an `albert_config.json`, on `gs://` too.

    Args:
        path: The file.

    Raises:
        InputError: It cannot be read, or holds something else, such as an
            ALBERT of another structure of layers.
    """
    found = bert_config.read_json(path, EXPECTED)
    if "embedding_size" not in found:
        raise InputError(f"{path}: lacks embedding_size; expected {EXPECTED}")
    return make_config(path, found)


def read_either(path: str | os.PathLike) -> BertConfig | AlbertConfig:
    """The configuration in a `bert_config.json` or an `albert_config.json`.

    Args:
        path: The file; it is an ALBERT's if it has an "embedding_size".

    Raises:
        InputError: As in `read_config`.
    """
    found = bert_config.read_json(path)
    make = make_config if "embedding_size" in found else bert_config.make_config
    return make(path, found)


def make_config(
    path: str | os.PathLike,
    found: dict,
    *,
    gelu: Mapping[str, str] = bert_config.GOOGLE_GELU,
) -> AlbertConfig:
    """A configuration of what `bert.config.read_json` found.

    Args:
        path: Where it was found, for messages.
        found: The file's values.
        gelu: What "hidden_act" means, as for `bert.config.read_config`.

    Raises:
        InputError: A value is missing or out of range, or other than in all
            published ones.
    """
    for name, expected in FIXED.items():
        if found.get(name, expected) != expected:
            raise InputError(
                f"{path}: {name}: got {found[name]!r}, expected {expected}: "
                "as in all published models"
            )
    return bert_config.make_config(
        path,
        found,
        AlbertConfig,
        gelu=gelu,
        expected=EXPECTED,
        **{n: found[n] for n in bert_config.ALBERT_NAMES if n in found},
    )
