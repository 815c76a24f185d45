"""Describes a model as JSON, to compare the models of several workers.

`multi_worker.build_same` compares the descriptions. They leave out what differs
between processes that run the same script: names that Keras makes up, seeds and
addresses in memory.
"""

from __future__ import annotations

from typing import Any, Mapping

import tensorflow as tf

# In configs: names of layers, seeds, Python's ids of objects.
_MAY_DIFFER = ("name", "seed", "shared_object_id")
# In a model's config: how its layers are connected, by their names.
_WIRED = ("layers", "input_layers", "output_layers")


def describe(model: Any) -> dict[str, Any]:
    """Everything that has to be the same on every worker.

    Versions; variables; class and config of each layer (activations, dtype
    policies, connections); loss; class and config of the optimizer.

    Args:
      model: a compiled model, of Keras 3 or tf_keras.

    Returns:
      {name: JSON value}.
    """
    described: dict[str, Any] = {
        f"version of {p}": v for p, v in _versions(model).items()
    }
    variables = [
        [
            getattr(v, "path", v.name),
            list(v.shape),
            str(getattr(v.dtype, "name", v.dtype)),
        ]
        for v in model.weights
    ]
    described["number of variables"] = len(variables)
    described.update(
        {f"variable {i}": variable for i, variable in enumerate(variables)}
    )
    described.update(_describe_layers(model))
    described["loss"] = plain(getattr(model, "loss", None))
    optimizer = getattr(model, "optimizer", None)
    if optimizer is not None:
        described["optimizer"] = type(optimizer).__name__
        described.update(_arguments("the optimizer", optimizer.get_config()))
    return described


def _describe_layers(model: Any) -> dict[str, Any]:
    """Class and config of each layer; the model itself is layer 0."""
    layers = list(model._flatten_layers(include_self=True, recursive=True))
    aliases = {layer.name: f"layer {i}" for i, layer in enumerate(layers)}
    described: dict[str, Any] = {"number of layers": len(layers)}
    for i, layer in enumerate(layers):
        described[f"layer {i}"] = type(layer).__name__
        try:
            config = layer.get_config()
        except Exception:  # whatever it is: a layer need not have a config
            continue
        for name in _WIRED:
            if name in config:
                wires = config.pop(name)
                if name == "layers":  # their own configs follow
                    wires = [x.get("inbound_nodes") for x in wires]
                described[f"layer {i}'s wiring ({name})"] = plain(
                    wires, aliases
                )
        described.update(_arguments(f"layer {i}", config))
    return described


def _arguments(owner: str, config: Mapping[str, Any]) -> dict[str, Any]:
    return {
        f"{owner}'s {name}": plain(value)
        for name, value in config.items()
        if name not in _MAY_DIFFER
    }


def plain(value: Any, aliases: Mapping[str, str] | None = None) -> Any:
    """`value` as a JSON value, without what differs between processes.

    Args:
      value: a config, or a value in a config.
      aliases: {string: its replacement}.
    """
    if isinstance(value, dict):
        if value.get("class_name") == "__lambda__":
            return "lambda"  # its code holds the path of its file
        if set(value) == {"name"}:
            return value["name"]  # a dtype policy, which has nothing else
        return {
            str(name): plain(x, aliases)
            for name, x in value.items()
            if name not in _MAY_DIFFER
        }
    if isinstance(value, (list, tuple)):
        return [plain(x, aliases) for x in value]
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, str):
        return (aliases or {}).get(value, value)
    if hasattr(value, "tolist"):  # a NumPy array
        return value.tolist()
    if hasattr(value, "get_config"):
        return [type(value).__name__, plain(value.get_config(), aliases)]
    # Never `str`, which may hold an address in memory.
    return getattr(value, "__name__", type(value).__name__)


def _versions(model: Any) -> dict[str, str]:
    import tf_lamb

    keras = keras_of(model)
    return {
        "tensorflow": tf.__version__,
        "keras": getattr(keras, "__version__", keras.__name__),
        "tf_lamb": tf_lamb.__version__,
    }


def keras_of(model: Any) -> Any:
    """The Keras module, Keras 3 or tf_keras, that a model belongs to.

    Args:
      model: a Keras model.
    """
    names = {base.__module__.split(".")[0] for base in type(model).__mro__}
    if "tf_keras" in names:
        import tf_keras

        return tf_keras
    import keras

    return keras
