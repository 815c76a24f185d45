"""Configs and arguments of other optimizers and Kerases.

`tfa.optimizers.LAMB` and the legacy optimizers of Keras 2 know `decay`; and
each Keras serialises a schedule in a form that others read only in part:
without a module, with `name=None`, or (in `.h5` files) without the name under
which a class is registered.
"""

from __future__ import annotations

from typing import Any, Callable, Mapping

# Only in the configs of Keras 2.
_DROPPED = ("is_legacy_optimizer",)
# Keras takes 0 for None, and so did version 0.1.0.
_ZERO_IS_NONE = ("gradient_accumulation_steps", "ema_overwrite_frequency")


def decayed(
    learning_rate: Any, arguments: dict[str, Any], schedules: Any
) -> Any:
    r"""The rate that the legacy argument `decay` means.

    $$\eta_t = \frac{\eta}{1 + \text{decay} \cdot t}$$

    with `t` the number of steps before this one.

    Args:
      learning_rate: a number, a schedule or a function.
      arguments: further keyword arguments; `decay` is taken out, None or a
        number >= 0.
      schedules: the module `keras.optimizers.schedules` of a Keras.

    Returns:
      `learning_rate`, as a schedule if it decays.

    Raises:
      ValueError: the rate is no number, and shall decay.
    """
    decay = arguments.pop("decay", None)
    if not decay:
        return learning_rate
    if callable(learning_rate):
        raise ValueError(
            "decay: expected 0 beside a learning_rate that is a schedule or a "
            f"function, got {decay!r}; put the decay into the schedule."
        )
    rate = float(learning_rate)
    return schedules.InverseTimeDecay(rate, decay_steps=1, decay_rate=decay)


def translated(
    config: Mapping[str, Any],
    custom_objects: Mapping[str, Any] | None,
    schedules: Any,
    registered: Callable[[str], Any],
) -> dict[str, Any]:
    """A config as this Keras' `from_config` takes it.

    Args:
      config: of any Keras, or of `tfa.optimizers.LAMB`; it is not changed.
      custom_objects: {name: class}, which come first.
      schedules: the module `keras.optimizers.schedules` of this Keras.
      registered: function of a name (`tf_lamb>WarmupPolynomial`) that returns
        the class that is registered under it, or None.

    Returns:
      A copy; a schedule in it is an object, if its class is known.

    Raises:
      ValueError: its schedule is of tensorflow_addons.
    """
    config = {
        k: None if k in _ZERO_IS_NONE and v == 0 else v
        for k, v in config.items()
        if k not in _DROPPED
    }
    for argument in ("learning_rate", "weight_decay"):
        value = config.get(argument)
        if isinstance(value, Mapping) and isinstance(
            value.get("config"), Mapping
        ):
            config[argument] = _schedule(
                argument, value, custom_objects or {}, schedules, registered
            )
    return config


def _schedule(
    argument: str,
    serialized: Mapping[str, Any],
    custom_objects: Mapping[str, Any],
    schedules: Any,
    registered: Callable[[str], Any],
) -> Any:
    """The schedule, or `serialized` itself if its class is not known."""
    names = [serialized.get("registered_name"), serialized.get("class_name")]
    found: Any = None
    for name in filter(None, names):
        found = found or custom_objects.get(name) or registered(name)
    found = found or getattr(schedules, str(names[-1]), None)
    if isinstance(found, type) and hasattr(found, "from_config"):
        config = dict(serialized["config"])
        if config.get("name", "") is None:
            del config["name"]
        made: Any = found.from_config(config)
        return made
    if str(names[0]).startswith("Addons>"):
        raise ValueError(
            f"{argument}: the config has the schedule {names[1]!r} of "
            "tensorflow_addons, which is not known here; put another one into "
            f"config[{argument!r}], or give a class of your own by "
            f"custom_objects={{{names[0]!r}: ...}}; load_model(path, "
            "compile=False) reads the weights."
        )
    return serialized
