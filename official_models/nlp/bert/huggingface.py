"""Weights between the Keras BERT and Hugging Face's state dictionaries.

The names of `BertModel` and `BertForPreTraining` in `transformers` become
those of Google's checkpoints, which are the paths of our variables. Kernels
are transposed; nothing else changes, so that a round trip is exact to the bit.
"""

import re
from collections.abc import Mapping

import keras
import numpy as np

from official_models.common import weights

# Applied in turn to a variable's path.
RENAMES = (
    (r"/layer_(\d+)/", r"/layer/\1/"),
    (r"_embeddings$", "_embeddings/weight"),
    (r"/(kernel|gamma|output_weights)$", "/weight"),
    (r"/(beta|output_bias)$", "/bias"),
    ("/", "."),
)
# Second names under which BertForPreTraining lists tied parameters.
TIED = {
    "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
    "cls.predictions.decoder.bias": "cls.predictions.bias",
}
# A constant that some versions keep among the weights.
POSITION_IDS = "bert.embeddings.position_ids"


def from_hf_state_dict(
    state: Mapping[str, np.ndarray], model: keras.Model
) -> None:
    """Assigns Hugging Face weights to the variables of `bert/` and `cls/`.

    Args:
        state: the state dictionary of a `BertModel` for a `bert_encoder`, of
            a `BertForPreTraining` for a `bert_pretrainer`, as NumPy arrays.
            The older endings `LayerNorm.gamma` and `LayerNorm.beta` are read
            as well.
        model: any model with the variables of `Bert`, all of which are set.

    Raises:
        ValueError: the state lacks a name, has one too many, or an array of
            another shape; or two names of one tied parameter disagree.
            Nothing is assigned then.
    """
    state = {_modern(name): np.asarray(array) for name, array in state.items()}
    state.pop(POSITION_IDS, None)
    for alias, name in TIED.items():
        array = state.pop(alias, None)
        if array is None:
            continue
        if not np.array_equal(array, state.setdefault(name, array)):
            raise ValueError(
                f"state: {alias!r} differs from {name!r}, expected one tied "
                "parameter"
            )
    variables = _variables(model)
    problem = weights.differences(
        {name: _to_hf(v).shape for name, v in variables.items()},
        {name: array.shape for name, array in state.items()},
    )
    if problem:
        raise ValueError(f"state: {problem}")
    for name, variable in variables.items():
        array = state[name]
        variable.assign(array.T if _is_kernel(variable) else array)


def to_hf_state_dict(model: keras.Model) -> dict[str, np.ndarray]:
    """The variables of `bert/` and `cls/` under Hugging Face's names.

    Args:
        model: a `bert_encoder` or `bert_pretrainer`.

    Returns:
        What `load_state_dict` of `BertModel` takes, or, if the model has
        pretraining heads, of `BertForPreTraining`.
    """
    state = {
        name: _to_hf(variable) for name, variable in _variables(model).items()
    }
    if any(name.startswith("cls.") for name in state):
        return {
            **state,
            **{alias: state[name] for alias, name in TIED.items()},
        }
    return {name.removeprefix("bert."): state[name] for name in state}


def _modern(name: str) -> str:
    """The name that BertForPreTraining gives to `name` of any version."""
    name = re.sub(r"LayerNorm\.gamma$", "LayerNorm.weight", name)
    name = re.sub(r"LayerNorm\.beta$", "LayerNorm.bias", name)
    if re.match(r"(embeddings|encoder|pooler)\.", name):
        return f"bert.{name}"
    return name


def _variables(model: keras.Model) -> dict[str, keras.Variable]:
    """The model's variables by their names in BertForPreTraining."""
    variables = {}
    for variable in model.weights:
        name = variable.path
        if re.match("(bert|cls)/", name) and "seed_generator" not in name:
            for pattern, replacement in RENAMES:
                name = re.sub(pattern, replacement, name)
            variables[name] = variable
    return variables


def _is_kernel(variable: keras.Variable) -> bool:
    return variable.path.endswith("/kernel")


def _to_hf(variable: keras.Variable) -> np.ndarray:
    array = keras.ops.convert_to_numpy(variable)
    return array.T.copy() if _is_kernel(variable) else array
