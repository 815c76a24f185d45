"""Weights between the Keras BERT and Hugging Face's state dictionaries.

The names of `BertModel`, `BertForPreTraining`, `BertForMaskedLM`,
`BertForSequenceClassification` and `BertForQuestionAnswering` in `transformers`
become those of Google's checkpoints, which are the paths of our variables.
Kernels are transposed; nothing else changes, so that a round trip is exact to
the bit.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

import keras
import numpy as np

from official_models.common import weights

Renames = tuple[tuple[str, str], ...]


class Naming(NamedTuple):
    """How Hugging Face names the variables of one family of models.

    Attributes:
        prefix: Of the encoder in a model with a head, such as "bert.".
        renames: Regexes and replacements, applied in turn to a path of ours.
        tied: {second name of a tied parameter: its name}.
        parts: First parts of names that a bare encoder has.
    """

    prefix: str
    renames: Renames
    tied: Mapping[str, str]
    parts: tuple[str, ...] = ("embeddings", "encoder", "pooler")

    def name_of(self, path: str) -> str:
        """Their name of the variable with this path."""
        for pattern, replacement in self.renames:
            path = re.sub(pattern, replacement, path)
        return path

    def modern(self, name: str) -> str:
        """The name in a model with a head, of a name of any version."""
        name = re.sub(r"LayerNorm\.gamma$", "LayerNorm.weight", name)
        name = re.sub(r"LayerNorm\.beta$", "LayerNorm.bias", name)
        if name.split(".")[0] in self.parts:
            return self.prefix + name
        return name

    def is_constant(self, name: str) -> bool:
        """Whether some versions keep it among the weights; it is none."""
        return bool(re.search(r"\.(position_ids|token_type_ids)$", name))


# What all families have in common: heads and leaves.
HEADS: Renames = (
    (r"^output_(weights|bias)$", r"classifier/output_\1"),
    ("^cls/squad/", "qa_outputs/"),
)
LEAVES: Renames = (
    (r"_embeddings$", "_embeddings/weight"),
    (r"/(kernel|gamma|output_weights)$", "/weight"),
    (r"/(beta|output_bias)$", "/bias"),
    ("/", "."),
)
BERT = Naming(
    "bert.",
    (*HEADS, (r"/layer_(\d+)/", r"/layer/\1/"), *LEAVES),
    {
        "cls.predictions.decoder.weight": (
            "bert.embeddings.word_embeddings.weight"
        ),
        "cls.predictions.decoder.bias": "cls.predictions.bias",
    },
)


def from_hf_state_dict(
    state: Mapping[str, np.ndarray],
    model: keras.Model,
    naming: Naming = BERT,
) -> None:
    """Assigns Hugging Face weights to the variables of a model.

    Args:
        state: the state dictionary of a `BertModel` for a `bert_encoder`, of
            a `BertForPreTraining` for a `bert_pretrainer`, and so on, as NumPy
            arrays. The older endings `LayerNorm.gamma` and `LayerNorm.beta`
            are read as well.
        model: any model with the variables of `Bert`, all of which are set.
        naming: of the model's family.

    Raises:
        ValueError: the state lacks a name, has one too many, or an array of
            another shape; or two names of one tied parameter disagree.
            Nothing is assigned then.
    """
    state = {
        naming.modern(name): np.asarray(array) for name, array in state.items()
    }
    state = {n: x for n, x in state.items() if not naming.is_constant(n)}
    for alias, name in naming.tied.items():
        array = state.pop(alias, None)
        if array is None:
            continue
        if not np.array_equal(array, state.setdefault(name, array)):
            raise ValueError(
                f"state: {alias!r} differs from {name!r}, expected one tied "
                "parameter"
            )
    variables = _variables(model, naming)
    problem = weights.differences(
        {name: _to_hf(v).shape for name, v in variables.items()},
        {name: array.shape for name, array in state.items()},
    )
    if problem:
        raise ValueError(f"state: {problem}")
    for name, variable in variables.items():
        array = state[name]
        variable.assign(array.T if is_kernel(variable.path) else array)


def to_hf_state_dict(
    model: keras.Model, naming: Naming = BERT
) -> dict[str, np.ndarray]:
    """The variables of a model under Hugging Face's names.

    Args:
        model: a `bert_encoder`, or one with a head.
        naming: of the model's family.

    Returns:
        What `load_state_dict` of `BertModel` takes, or, if the model has
        pretraining heads, of `BertForPreTraining`, and so on.
    """
    state = {name: _to_hf(v) for name, v in _variables(model, naming).items()}
    if all(name.startswith(naming.prefix) for name in state):
        return {
            name.removeprefix(naming.prefix): x for name, x in state.items()
        }
    aliases = {
        alias: state[name]
        for alias, name in naming.tied.items()
        if all(n in state for n in naming.tied.values())
    }
    return {**state, **aliases}


def is_kernel(path: str) -> bool:
    """Whether theirs is the transpose of the variable with this path."""
    return path.endswith("/kernel")


def _variables(model: keras.Model, naming: Naming) -> dict[str, keras.Variable]:
    """The model's variables by their names in a model with heads."""
    variables = weights.by_path(model)
    return {naming.name_of(path): v for path, v in variables.items()}


def _to_hf(variable: keras.Variable) -> np.ndarray:
    array = keras.ops.convert_to_numpy(variable)
    return array.T.copy() if is_kernel(variable.path) else array
