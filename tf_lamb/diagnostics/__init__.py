"""What a training does, and what its numbers advise."""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    # On first use: `import tf_lamb.diagnostics` brings in nothing.
    if name in ("fixup", "lsuv"):
        from tf_lamb.diagnostics import initialisation

        return getattr(initialisation, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
