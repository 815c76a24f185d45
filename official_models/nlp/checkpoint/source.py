"""A checkpoint of BERT or ALBERT, whoever wrote it: its arrays by our paths.

Hugging Face's folders, TensorFlow's checkpoints (by name, as Google's code
writes them, and of objects, as Model Garden's does), `.keras` files and the
folders of our training runs all become a `Source`. `load` gives its arrays to
a model, and says which it had no use for and which were missing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import NamedTuple

import keras
import numpy as np

from official_models.common import weights
from official_models.common.errors import InputError
from official_models.nlp.bert.config import BertConfig
from official_models.nlp.checkpoint import models
from official_models.nlp.checkpoint.tokenizer import TokenizerFiles

# What a model without pretraining does not have, and what another head has.
HEADS = (r"^cls/", r"^output_(weights|bias)$", r"^bert/pooler/")
OTHER_HEADS = (
    *HEADS,
    r"^(cls|predictions|sop_classifier|classifier|qa_outputs)\.",
    r"^(bert|albert)\.pooler\.",
)
# They decide what is computed; the rates do not, at least not in inference.
RATES = ("hidden_dropout", "attention_dropout", "initializer_range")
_SHOWN = 3


class Source(NamedTuple):
    """A checkpoint that is open.

    Attributes:
        where: Begins messages about it, such as its path.
        config: Of its model; None if nothing beside it says.
        names: Of its arrays, as they are there; no optimizer state.
        name_of: A variable's path -> the name it would have there.
        shape_of: A path whose name is there -> shape of our variable.
        read: A path whose name is there -> array of that shape.
        tokenizer: The files beside it.
        files: Those that hold the arrays.
        dropout: Rate before its classifier.
        ignored: Names of arrays that need no place, such as a second name of
            a tied one.
        labels: Names of its classifier's labels; none if they have none.
        uniform_heads: Heads that it computes without attention, as of
            `transformer.layers.Encoder`.
    """

    where: str
    config: BertConfig | None
    names: Collection[str]
    name_of: Callable[[str], str]
    shape_of: Callable[[str], tuple[int, ...]]
    read: Callable[[str], np.ndarray]
    tokenizer: TokenizerFiles
    files: Sequence[str]
    dropout: float = 0.1
    ignored: Collection[str] = ()
    labels: Sequence[str] = ()
    uniform_heads: Sequence[tuple[int, int]] = ()

    def has(self, path: str) -> bool:
        """Whether it holds the variable of this path."""
        return self.name_of(path) in self.names


class Loaded(NamedTuple):
    """What became of a checkpoint's arrays and of a model's variables.

    Attributes:
        loaded: Paths of the variables that have the checkpoint's values.
        new: Paths of those that keep their initial ones.
        unused: Names in the checkpoint of what the model does not have.
    """

    loaded: list[str]
    new: list[str]
    unused: list[str]

    def __str__(self) -> str:
        lines = [f"{len(self.loaded)} variables loaded"]
        if self.new:
            lines.append(f"not in the checkpoint, new: {', '.join(self.new)}")
        if self.unused:
            lines.append(f"in the checkpoint, unused: {', '.join(self.unused)}")
        return "\n".join(lines)


def load(
    source: Source,
    model: keras.Model,
    *,
    new: Iterable[str] = HEADS,
    unused: Iterable[str] = OTHER_HEADS,
) -> Loaded:
    """Gives a model the values of a checkpoint.

    Args:
        source: From `open_source`.
        model: A BERT or an ALBERT of ours, with or without a head.
        new: Regexes of paths that the checkpoint need not have, by default
            those of heads and pooler, which keep their initial values then.
        unused: Regexes of names that the model need not have, by default
            those of other heads.

    Returns:
        What was loaded, what is new, what was not used.

    Raises:
        InputError: It is of another architecture, lacks an array or has one
            too many or one of another shape. Nothing is assigned then.
    """
    if source.config is not None:
        check_architecture(source, models.config_of(model))
    variables = weights.by_path(model)
    there = [path for path in variables if source.has(path)]
    taken = {source.name_of(path) for path in there}
    rest = sorted(set(source.names) - taken - set(source.ignored))
    problem = weights.differences(
        {path: tuple(v.shape) for path, v in variables.items()},
        {path: source.shape_of(path) for path in there}
        | dict.fromkeys(rest, ()),
        new=new,
        unused=unused,
    )
    if problem:
        raise InputError(
            f"{source.where}: is of another model than {model.name}: it "
            f"{problem}; give the model's own checkpoint, or another model"
        )
    # All are read before one is assigned: reading may fail.
    arrays = {path: source.read(path) for path in there}
    for path, array in arrays.items():
        variables[path].assign(array)
    missing = [path for path in variables if path not in arrays]
    return Loaded(there, missing, rest)


def make(source: Source, *, seed: int = 0) -> tuple[keras.Model, Loaded]:
    """The model of a checkpoint, with its values.

    Args:
        source: From `open_source`.
        seed: Of what the checkpoint does not hold.

    Returns:
        The model, an encoder or one with the head that the checkpoint has,
        and what was loaded. Only a pooler and a next-sentence head can be new.

    Raises:
        InputError: As in `load`; or it has no configuration.
    """
    if source.config is None:
        raise InputError(
            f"{source.where}: no configuration beside it; give the model's "
            "bert_config.json or albert_config.json by --config_file"
        )
    head = models.head_of(source.has)
    more = {}
    if head == "classifier":
        labels = source.shape_of(models.MARKS[head])[0]
        more = {"num_labels": labels, "dropout": source.dropout}
    try:
        model = models.make(source.config, head, seed=seed, **more)
    except ValueError as error:
        raise InputError(f"{source.where}: {error}") from error
    models.encoder_of(model).uniform_heads = tuple(source.uniform_heads)
    new = (r"^bert/pooler/", r"^cls/seq_relationship/")
    return model, load(source, model, new=new, unused=())


def check_architecture(source: Source, config: BertConfig) -> None:
    """Holds the configuration of a checkpoint against a model's.

    Raises:
        InputError: They differ in more than rates; it names the first three
            differences.
    """
    theirs, ours = (_architecture(c) for c in (source.config, config))
    found = [
        f"{name} is {theirs.get(name)!r}, this model has {ours.get(name)!r}"
        for name in {**theirs, **ours}
        if theirs.get(name) != ours.get(name)
    ]
    if found:
        more = len(found) - _SHOWN
        end = f"; and {more} more" if more > 0 else ""
        raise InputError(
            f"{source.where}: is of another architecture: "
            f"{'; '.join(found[:_SHOWN])}{end}"
        )


def _architecture(config: BertConfig) -> dict:
    """What decides the result of a model, the family first."""
    values = dataclasses.asdict(config)
    for name in RATES:
        del values[name]
    family = "ALBERT" if models.is_albert(config) else "BERT"
    return {"family": family, **values}
