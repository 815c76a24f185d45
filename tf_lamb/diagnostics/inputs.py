"""What a command line names: a model, a data set, an output folder."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import sys
import zlib
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from tf_lamb.diagnostics import probe
from tf_lamb.diagnostics.examples import leaves

__all__ = [
    "Progress",
    "all_of",
    "check_dtypes",
    "load_data",
    "load_model",
    "load_same",
    "read_arrays",
    "weights_digest",
    "write_arrays",
    "write_json",
]

# What NumPy and zipfile raise of a file that is damaged, or no archive.
_NO_ARCHIVE = (
    ValueError,
    OSError,
    EOFError,
    TypeError,
    NotImplementedError,
    BadZipFile,
    zlib.error,
)


def load_model(name: str, loss: str | None = None, what: str = "MODEL") -> Any:
    """A model of Keras 3, built and with a loss.

    Args:
      name: a `.keras` file, or `module:function`, which gives a model.
      loss: compiled with it in place of its own, a name that Keras knows;
        optimizer and metrics stay. None: its own.
      what: the argument, for a message.

    Raises:
      ValueError: there is none such, it is not built or has no loss.
    """
    import keras

    import tf_lamb

    tf_lamb.LAMB  # noqa: B018 - registers our optimizers for saved models
    if ":" in name:
        model = _call(what, name)
    else:
        if not os.path.isfile(name):
            raise ValueError(
                f"{what} {name}: no such file; expected a .keras file or "
                "module:function."
            )
        try:
            model = keras.models.load_model(name)
        except Exception as error:
            first = str(error).strip().split("\n")[0][:200]
            raise ValueError(
                f"{what} {name}: Keras cannot read it ({first}); of a model "
                "with classes of your own give module:function."
            ) from error
    if not isinstance(model, keras.Model):
        raise ValueError(
            f"{what} {name}: expected a model of Keras {keras.__version__}, "
            f"got {type(model).__module__}.{type(model).__name__}."
        )
    if not model.built or not model.trainable_variables:
        raise ValueError(
            f"{what} {name}: it has no weights to train; build it (call it on "
            "an input) and make some trainable."
        )
    if loss is not None:
        compiled = getattr(model, "_compile_config", None)
        before = {} if compiled is None else compiled.config
        model.compile(
            optimizer=model.optimizer or "sgd",
            loss=loss,
            metrics=before.get("metrics"),
            weighted_metrics=before.get("weighted_metrics"),
        )
    if not model.compiled or model.loss is None:
        raise ValueError(
            f"{what} {name}: it has no loss; compile it before it is saved, or "
            "give --loss."
        )
    return model


def load_same(model: Any, name: str, loss: str | None = None) -> Any:
    """A second model, of the same variables as a first.

    Args:
      model: the first.
      name: see `load_model`.
      loss: see `load_model`.

    Raises:
      ValueError: there is none such, or its variables have other shapes.
    """
    other = load_model(name, loss, "--other")
    for ours, theirs in (
        (model.trainable_variables, other.trainable_variables),
        (model.non_trainable_variables, other.non_trainable_variables),
    ):
        shapes = [[tuple(v.shape) for v in found] for found in (ours, theirs)]
        if shapes[0] != shapes[1]:
            differ = [a != b for a, b in zip(*shapes)]
            place = differ.index(True) if any(differ) else len(differ)
            shown = [
                str(s[place]) if place < len(s) else "none" for s in shapes
            ]
            raise ValueError(
                f"--other {name}: expected the variables of MODEL, of the same "
                f"shapes; number {place + 1} is {shown[1]} and not {shown[0]}."
            )
    return other


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
    except _NO_ARCHIVE as error:
        raise ValueError(
            f"DATA {name}: NumPy cannot read it as .npz; it is damaged or "
            "something else; write it again by numpy.savez(path, x=x, y=y)."
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


def write_arrays(path: Path, key: str, arrays: dict[str, Any]) -> None:
    """Writes an `.npz` file under a temporary name and renames it.

    Args:
      path: of the file.
      key: of what it is (see `Progress.key`).
      arrays: by name.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, key=np.asarray(key), **arrays)
    temporary.replace(path)


def read_arrays(path: Path, key: str) -> dict[str, np.ndarray]:
    """What `write_arrays` wrote; nothing where it has another key.

    Args:
      path: of the file; there may be none.
      key: of what is wanted.

    Raises:
      ValueError: the file cannot be read.
    """
    if not path.exists():
        return {}
    try:
        with np.load(path, allow_pickle=False) as file:
            found = {name: file[name] for name in file.files}
    except _NO_ARCHIVE as error:
        raise ValueError(
            f"{path}: NumPy cannot read it as .npz; remove it to begin anew."
        ) from error
    return found if str(found.pop("key", "")) == key else {}


def weights_digest(model: Any) -> str:
    """A digest of all variables of a model.

    Args:
      model: of Keras 3.
    """
    digest = hashlib.sha256()
    for variable in model.variables:
        digest.update(np.ascontiguousarray(probe.to_numpy(variable)).data)
    return digest.hexdigest()


def all_of(data: Any, drawn: Any) -> Any:
    """The data that a command may draw from, as far as they are known.

    Args:
      data: of `load_data`.
      drawn: examples of them, in place of batches.
    """
    return data if isinstance(data, tuple) else drawn


def _data_digest(data: Any) -> str:
    digest = hashlib.sha256()
    for leaf in leaves(data):
        array = np.ascontiguousarray(leaf)
        digest.update(f"{array.dtype} {array.shape}".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _configs_digest(model: Any) -> str:
    """A digest of layers, loss, metrics and optimizer; "" if unknown."""
    try:
        configs = model.get_config(), model.get_compile_config()
        text = json.dumps(configs, sort_keys=True)
    except (NotImplementedError, TypeError, ValueError):
        return ""  # of classes that Keras cannot write down
    return hashlib.sha256(text.encode()).hexdigest()


class Progress:
    """What a command has measured so far, kept in its output folder.

    It is found again by the same command on the same weights, layers, loss,
    optimizer and data.

    Args:
      folder: of the command.
      model: whose weights the measurements are of.
      facts: the arguments that decide what is measured.
      data: arrays that the measurements are of, in any structure.

    Raises:
      ValueError: there is a file of its name that is none of its own.
    """

    def __init__(
        self, folder: Path, model: Any, facts: dict[str, Any], data: Any
    ) -> None:
        self._path = folder / "progress.json"
        self._key = {
            **_plain(facts),
            "weights": weights_digest(model),
            "configs": _configs_digest(model),
            "examples_digest": _data_digest(data),
        }
        self.found: dict[str, Any] = {}
        if self._path.exists():
            try:
                kept = json.loads(self._path.read_text(encoding="utf-8"))
                of, found = kept["of"], dict(kept["found"])
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(
                    f"{self._path}: expected what a command kept there, got "
                    "something else; remove it to begin anew, or give another "
                    "--output_dir."
                ) from error
            if of == self._key:
                self.found = found
                print(f"resumes from {self._path}", flush=True)
            else:
                print(
                    f"{self._path} is of another model, other data or "
                    "arguments: begins anew",
                    flush=True,
                )

    @property
    def key(self) -> str:
        """A digest of what is measured, for files beside `progress.json`."""
        text = json.dumps(self._key, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def keep(self, name: str, value: Any) -> None:
        """Keeps one measurement.

        Args:
          name: of it.
          value: as for `write_json`.
        """
        self.found[name] = _plain(value)
        write_json(self._path, {"of": self._key, "found": self.found})
