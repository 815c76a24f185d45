"""What has to be the same of a model on every worker, as JSON.

`multi_worker.build_same` compares it. Names that Keras makes up, seeds and
addresses in memory, which differ between processes that run the same script,
are left out.
"""

from typing import Any, Dict, Mapping, Optional

import tensorflow as tf

# In configs: names of layers, seeds, Python's ids of objects.
_MAY_DIFFER = ("name", "seed", "shared_object_id")
# In a model's config: how its layers are wired, by their names.
_WIRED = ("layers", "input_layers", "output_layers")


def describe(model: Any) -> Dict[str, Any]:
    """What has to be the same on every worker, as {name: JSON value}.

    Versions; variables; class and config of each layer (activations, dtype
    policies, connections); loss; class and config of the optimizer.

    Args:
      model: a compiled model.
    """
    facts = {f"version of {p}": v for p, v in _versions(model).items()}
    variables = [
        [
            getattr(v, "path", v.name),
            list(v.shape),
            str(getattr(v.dtype, "name", v.dtype)),
        ]
        for v in model.weights
    ]
    facts["number of variables"] = len(variables)
    facts.update(
        {f"variable {i}": variable for i, variable in enumerate(variables)}
    )
    facts.update(_describe_layers(model))
    facts["loss"] = plain(getattr(model, "loss", None))
    optimizer = getattr(model, "optimizer", None)
    if optimizer is not None:
        facts["optimizer"] = type(optimizer).__name__
        facts.update(_arguments("the optimizer", optimizer.get_config()))
    return facts


def _describe_layers(model: Any) -> Dict[str, Any]:
    """Class and config of each layer; the model itself is layer 0."""
    layers = list(model._flatten_layers(include_self=True, recursive=True))
    aliases = {layer.name: f"layer {i}" for i, layer in enumerate(layers)}
    facts = {"number of layers": len(layers)}
    for i, layer in enumerate(layers):
        facts[f"layer {i}"] = type(layer).__name__
        try:
            config = layer.get_config()
        except Exception:  # whatever it is: a layer need not have a config
            continue
        for name in _WIRED:
            if name in config:
                wires = config.pop(name)
                if name == "layers":  # their own configs follow
                    wires = [x.get("inbound_nodes") for x in wires]
                facts[f"layer {i}'s wiring ({name})"] = plain(wires, aliases)
        facts.update(_arguments(f"layer {i}", config))
    return facts


def _arguments(owner: str, config: Mapping[str, Any]) -> Dict[str, Any]:
    return {
        f"{owner}'s {name}": plain(value)
        for name, value in config.items()
        if name not in _MAY_DIFFER
    }


def plain(value: Any, aliases: Optional[Mapping[str, str]] = None) -> Any:
    """`value` as JSON has it, without what differs between processes.

    Args:
      value: a config, or what is found in one.
      aliases: {text: what stands for it}.
    """
    if isinstance(value, dict):
        if value.get("class_name") == "__lambda__":
            return "lambda"  # its code holds the path of its file
        if set(value) == {"name"}:
            return value["name"]  # of a dtype policy, all that it has
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
    if hasattr(value, "tolist"):  # NumPy's
        return value.tolist()
    if hasattr(value, "get_config"):
        return [type(value).__name__, plain(value.get_config(), aliases)]
    # Never `str`, which may hold an address in memory.
    return getattr(value, "__name__", type(value).__name__)


def _versions(model: Any) -> Dict[str, str]:
    import tf_lamb

    keras = keras_of(model)
    return {
        "tensorflow": tf.__version__,
        "keras": getattr(keras, "__version__", keras.__name__),
        "tf_lamb": tf_lamb.__version__,
    }


def keras_of(model: Any) -> Any:
    """The Keras that a model belongs to."""
    names = {base.__module__.split(".")[0] for base in type(model).__mro__}
    if "tf_keras" in names:
        import tf_keras

        return tf_keras
    import keras

    return keras
