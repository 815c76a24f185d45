"""Finds LAMB and LARS inside of what wraps them.

A model's optimizer need not be the one that `compile` was given: under the
policy `mixed_float16`, Keras puts a `LossScaleOptimizer` around it, which has
no `trust_ratios`, `skipped_steps` or `describe()`.
"""

from __future__ import annotations

from typing import Any, Iterator

# What an optimizer of this package has, in every Keras and in `tf_lamb.v1`.
_OURS = ("describe", "treatments", "trust_ratios")
# Where a model or a wrapper has what it wraps.
_INSIDE = (
    "module",  # torch's DistributedDataParallel, of a model
    "optimizer",  # a model; wrappers outside of TensorFlow and Keras
    "inner_optimizer",  # LossScaleOptimizer of each Keras
    "optimizers",  # Keras 3's MultiOptimizer
    "_optimizer",  # TensorFlow 1's loss scaler
    "_opt",  # CrossShardOptimizer
)


def find_optimizers(model_or_optimizer: Any) -> list[Any]:
    """All optimizers of this package in a model or an optimizer.

    Args:
      model_or_optimizer: a compiled model of any Keras; or an optimizer, also
        one that wraps others: `LossScaleOptimizer` (Keras 3, tf_keras,
        TensorFlow 1), Keras 3's `MultiOptimizer`, `CrossShardOptimizer`. A
        `MultiOptimizer` that was given a function has its optimizers once it
        is built.

    Returns:
      The LAMB and LARS optimizers, outer ones first; [] if there is none.

    Example:
      >>> import keras, tf_lamb
      >>> scaler = keras.optimizers.LossScaleOptimizer(tf_lamb.LAMB(0.01))
      >>> [type(optimizer).__name__
      ...  for optimizer in tf_lamb.find_optimizers(scaler)]
      ['LAMB']
    """
    return [x for x in _walk(model_or_optimizer) if _is_ours(x)]


def find_optimizer(model_or_optimizer: Any) -> Any:
    """The optimizer of this package in a model or an optimizer.

    Args:
      model_or_optimizer: as `find_optimizers` takes it.

    Returns:
      The LAMB or LARS optimizer, with `trust_ratios`, `skipped_steps`,
      `treatments` and `describe()`.

    Raises:
      ValueError: there is none, or there are several.

    Example:
      >>> import keras, tf_lamb
      >>> model = keras.Sequential(
      ...     [keras.Input((3,)), keras.layers.Dense(2, name="head")],
      ... )
      >>> scaler = keras.optimizers.LossScaleOptimizer(tf_lamb.LAMB(0.01))
      >>> model.compile(scaler, "mse")
      >>> tf_lamb.find_optimizer(model) is scaler.inner_optimizer
      True
    """
    found = find_optimizers(model_or_optimizer)
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(
            f"{type(x).__name__} {getattr(x, 'name', '')!r}" for x in found
        )
        raise ValueError(
            f"find_optimizer: found {len(found)} optimizers of tf_lamb in "
            f"{type(model_or_optimizer).__name__}: {names}; expected one; "
            "find_optimizers gives them all."
        )
    seen = list(_walk(model_or_optimizer))
    names = " > ".join(type(x).__name__ for x in seen)
    hint = ""
    if getattr(seen[-1], "optimizers", None) == []:
        hint = " (which has its optimizers once it is built)"
    raise ValueError(
        f"find_optimizer: found no LAMB or LARS of tf_lamb in {names}{hint}; "
        "compile the model with one, or pass the optimizer itself."
    )


def innermost(optimizer: Any) -> Any:
    """An optimizer without the loss scalers of a Keras around it.

    Args:
      optimizer: of any Keras; None stays None.
    """
    while getattr(optimizer, "inner_optimizer", None) is not None:
        optimizer = optimizer.inner_optimizer
    return optimizer


def _is_ours(thing: Any) -> bool:
    return all(hasattr(type(thing), name) for name in _OURS)


def _walk(thing: Any) -> Iterator[Any]:
    """`thing` and what it wraps, each once; what ours have is not searched."""
    waiting, seen = [thing], set()
    while waiting:
        thing = waiting.pop(0)
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        yield thing
        if _is_ours(thing):
            continue
        inside = [getattr(thing, name, None) for name in _INSIDE]
        flat = [x for y in inside for x in (y if isinstance(y, list) else [y])]
        waiting = [x for x in flat if x is not None] + waiting
