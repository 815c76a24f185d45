"""LAMB and LARS for large-batch training, as Keras optimizers.

Names are resolved on first use, so that `import tf_lamb` needs neither Keras
nor a framework, and `tf_lamb.rules`, `tf_lamb.schedules` work without either.
"""

import importlib

__version__ = "0.1.0"

_KERAS = ("LAMB", "LARS", "WarmupPolynomial", "Rewarmup")
_MODULES = (
    "callbacks",
    "exclusion",
    "fused",
    "keras3",
    "rules",
    "schedules",
)

__all__ = ["__version__", *_KERAS, *_MODULES]  # noqa: PLE0604


def __getattr__(name: str):
    if name in _KERAS:
        return getattr(importlib.import_module("tf_lamb.keras3"), name)
    if name in _MODULES:
        return importlib.import_module(f"tf_lamb.{name}")
    raise AttributeError(f"module 'tf_lamb' has no attribute {name!r}")


def __dir__():
    return sorted(__all__)
