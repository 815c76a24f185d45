"""What a command line names: a model, a data set, an output folder."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from tf_lamb.diagnostics import probe
from tf_lamb.diagnostics.examples import leaves

__all__ = ["Progress", "check_dtypes", "load_data", "load_model", "write_json"]


def load_model(name: str, loss: str | None = None) -> Any:
    """A model of Keras 3, built and with a loss.

    Args:
      name: a `.keras` file, or `module:function`, which gives a model.
      loss: compiled with it, a name that Keras knows; None: its own.

    Raises:
      ValueError: there is none such, it is not built or has no loss.
    """
    import keras

    if ":" in name:
        model = _call("MODEL", name)
    else:
        if not os.path.isfile(name):
            raise ValueError(
                f"MODEL {name}: no such file; expected a .keras file or "
                "module:function."
            )
        try:
            model = keras.models.load_model(name)
        except Exception as error:
            first = str(error).strip().split("\n")[0][:200]
            raise ValueError(
                f"MODEL {name}: Keras cannot read it ({first}); of a model "
                "with classes of your own give module:function."
            ) from error
    if not isinstance(model, keras.Model):
        raise ValueError(
            f"MODEL {name}: expected a model of Keras {keras.__version__}, got "
            f"{type(model).__module__}.{type(model).__name__}."
        )
    if not model.built or not model.trainable_variables:
        raise ValueError(
            f"MODEL {name}: it has no weights to train; build it (call it on "
            "an input) and make some trainable."
        )
    if loss is not None:
        model.compile(optimizer=model.optimizer or "sgd", loss=loss)
    if not model.compiled or model.loss is None:
        raise ValueError(
            f"MODEL {name}: it has no loss; compile it before it is saved, or "
            "give --loss."
        )
    return model


def load_data(name: str) -> Any:
    """`(x, y)`, `(x, y, sample_weight)` of arrays, or batches of them.

    Args:
      name: an `.npz` file with `x`, `y` and perhaps `sample_weight`, or
        `module:function`, which gives such a tuple or a `tf.data.Dataset`.

    Raises:
      ValueError: there is none such.
    """
    if ":" in name:
        return _call("DATA", name)
    if not os.path.isfile(name):
        raise ValueError(
            f"DATA {name}: no such file; expected an .npz file with x and y, "
            "or module:function."
        )
    try:
        with np.load(name, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
    except (ValueError, OSError, AttributeError) as error:
        raise ValueError(
            f"DATA {name}: NumPy cannot read it as .npz."
        ) from error
    if not {"x", "y"} <= set(arrays):
        raise ValueError(
            f"DATA {name}: expected arrays x and y, got {sorted(arrays)}."
        )
    unused = sorted(set(arrays) - {"x", "y", "sample_weight"})
    if unused:
        print(f"DATA {name}: ignored: {', '.join(unused)}", file=sys.stderr)
    weight = arrays.get("sample_weight")
    pair = arrays["x"], arrays["y"]
    return pair if weight is None else (*pair, weight)


def _call(kind: str, name: str) -> Any:
    module, _, function = name.partition(":")
    sys.path.insert(0, os.getcwd())
    try:
        made = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"{kind} {name}: {error}; expected module:function that can be "
            "imported from here."
        ) from error
    finally:
        sys.path.pop(0)
    return made()


def check_dtypes(model: Any, x: Any) -> None:
    """Checks that data are of the kinds of numbers that a model takes.

    Args:
      model: of Keras 3; one without `inputs` is not checked.
      x: its inputs, arrays in its structure.

    Raises:
      ValueError: whole numbers where it takes floats, or the reverse.
    """
    found = leaves(x)
    inputs = getattr(model, "inputs", None) or []
    if len(inputs) != 1 or len(found) != 1:
        return  # Keras matches several by name, and says what is missing.
    wanted, kind = str(inputs[0].dtype), np.asarray(found[0]).dtype
    if "float" in wanted and kind.kind in "iub":
        raise ValueError(
            f"data: x is {kind} where the model takes {wanted}; convert it, "
            "for images: x.astype('float32') / 255."
        )
    if "int" in wanted and kind.kind == "f":
        raise ValueError(
            f"data: x is {kind} where the model takes {wanted}; convert it."
        )


def write_json(path: Path, value: Any) -> None:
    """Writes a file under a temporary name and renames it.

    Args:
      path: of the file.
      value: dicts, lists, numbers and text; infinite numbers become null.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    text = json.dumps(_plain(value), indent=1, allow_nan=False)
    temporary.write_text(text + "\n", encoding="utf-8")
    temporary.replace(path)


def _plain(value: Any) -> Any:
    if hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_plain(v) for v in value]
    if isinstance(value, (float, np.floating)):
        return float(value) if np.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value


class Progress:
    """What a command has measured so far, kept in its output folder.

    Args:
      folder: of the command.
      model: whose weights the measurements are of.
      facts: the arguments that decide what is measured.
    """

    def __init__(self, folder: Path, model: Any, facts: dict[str, Any]) -> None:
        self._path = folder / "progress.json"
        digest = hashlib.sha256()
        for variable in model.variables:
            digest.update(np.ascontiguousarray(probe.to_numpy(variable)).data)
        self._key = {**_plain(facts), "weights": digest.hexdigest()}
        self.found: dict[str, Any] = {}
        if self._path.exists():
            kept = json.loads(self._path.read_text(encoding="utf-8"))
            if kept["of"] == self._key:
                self.found = kept["found"]
                print(f"resumes from {self._path}", flush=True)
            else:
                print(
                    f"{self._path} is of other weights or arguments: begins "
                    "anew",
                    flush=True,
                )

    def keep(self, name: str, value: Any) -> None:
        """Keeps one measurement.

        Args:
          name: of it.
          value: as for `write_json`.
        """
        self.found[name] = _plain(value)
        write_json(self._path, {"of": self._key, "found": self.found})
