"""What Keras 2 finds where it asks for LAMB or LARS as a legacy optimizer.

`model_to_estimator`, and `compile` under TensorFlow 1 behaviour, replace an
optimizer by the one of `keras.optimizers.legacy` that has its name in lower
case. There is none here: `tf_lamb.v1` has optimizers that run there.
"""

from __future__ import annotations

from typing import Any, Mapping


def no_legacy_optimizer(name: str) -> type:
    """A class to register under a lower-case name; it only says what to do.

    Args:
      name: "LAMB" or "LARS".
    """

    class NoLegacyOptimizer:
        @classmethod
        def from_config(cls, config: Mapping[str, Any]) -> Any:
            raise ValueError(
                f"{name.lower()!r}: Keras asked for a legacy optimizer of this "
                "name, which does not exist; for model_to_estimator and "
                "TensorFlow 1 behaviour compile the model with "
                f"tf_lamb.v1.{name}Optimizer(...); by name, the optimizer for "
                f"Keras is 'tf_lamb>{name}'."
            )

    return NoLegacyOptimizer
