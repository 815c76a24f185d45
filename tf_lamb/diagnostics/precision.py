"""How exactly a model computes."""

from __future__ import annotations

from typing import Any

__all__ = ["epsilon"]

# Of one rounding, by dtype.
_EPSILON = {
    "float64": 2.0**-52,
    "float32": 2.0**-23,
    "float16": 2.0**-10,
    "bfloat16": 2.0**-7,
}


def epsilon(model: Any) -> float:
    """The relative rounding error of a model's numbers: of its coarsest dtype.

    Args:
      model: of Keras 3.
    """
    found = {str(v.dtype) for v in model.trainable_variables}
    found |= {
        getattr(layer, "compute_dtype", "")
        for layer in model._flatten_layers()
        if not layer._layers  # one with layers of its own computes by these
        and type(layer).__name__ != "InputLayer"
    }
    return max((_EPSILON[d] for d in found if d in _EPSILON), default=2.0**-23)
