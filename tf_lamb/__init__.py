"""LAMB and LARS for large-batch training, as Keras optimizers.

Names are resolved on first use: `import tf_lamb` needs neither Keras nor a
framework, and `tf_lamb.rules` and `tf_lamb.schedules` work without both.

`tf_lamb.LAMB` is the class that fits `tf.keras`: that of `tf_lamb.keras2` under
`TF_USE_LEGACY_KERAS=1` and up to TensorFlow 2.15, else that of
`tf_lamb.keras3`.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tf_lamb.diagnostics.monitor import TrainingMonitor as TrainingMonitor
    from tf_lamb.diagnostics.noise_callback import (
        GradientNoiseScale as GradientNoiseScale,
    )
    from tf_lamb.groups import Group as Group
    from tf_lamb.keras3 import LAMB as LAMB
    from tf_lamb.keras3 import LARS as LARS
    from tf_lamb.keras3 import Rewarmup as Rewarmup
    from tf_lamb.keras3 import WarmupPolynomial as WarmupPolynomial
    from tf_lamb.layerwise import layer_decay as layer_decay
    from tf_lamb.local_sgd import LocalSGD as LocalSGD
    from tf_lamb.wrapped import find_optimizer as find_optimizer
    from tf_lamb.wrapped import find_optimizers as find_optimizers

__version__ = "0.1.0"

_KERAS = ("LAMB", "LARS", "WarmupPolynomial", "Rewarmup")
_OTHERS = {
    "GradientNoiseScale": "diagnostics.noise_callback",
    "Group": "groups",
    "LocalSGD": "local_sgd",
    "TrainingMonitor": "diagnostics.monitor",
    "layer_decay": "layerwise",
    "find_optimizer": "wrapped",
    "find_optimizers": "wrapped",
}
_MODULES = (
    "arithmetic",
    "callbacks",
    "diagnostics",
    "exclusion",
    "groups",
    "hyperparameters",
    "keras2",
    "keras3",
    "layerwise",
    "local_sgd",
    "multi_worker",
    "optimizers",
    "rules",
    "schedules",
    "sharding",
    "tf_ops",
    "tf_update",
    "v1",
    "wrapped",
)

__all__ = ["__version__", *_KERAS, *_OTHERS, *_MODULES]  # noqa: PLE0604


def _keras_module() -> str:
    """Name of the module for the Keras that is installed."""
    # TensorFlow's own reading of the variable.
    if os.environ.get("TF_USE_LEGACY_KERAS") in ("true", "True", "1"):
        return "tf_lamb.keras2"
    try:
        keras_3 = int(importlib.metadata.version("keras").split(".")[0]) >= 3
    except importlib.metadata.PackageNotFoundError:
        keras_3 = importlib.util.find_spec("tf_keras") is None
    return "tf_lamb.keras3" if keras_3 else "tf_lamb.keras2"


def __getattr__(name: str) -> Any:
    if name in _KERAS:
        return getattr(importlib.import_module(_keras_module()), name)
    if name in _OTHERS:
        module = importlib.import_module(f"tf_lamb.{_OTHERS[name]}")
        return getattr(module, name)
    if name in _MODULES:
        return importlib.import_module(f"tf_lamb.{name}")
    raise AttributeError(f"module 'tf_lamb' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
