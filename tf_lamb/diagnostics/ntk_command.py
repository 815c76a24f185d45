"""`python -m tf_lamb.diagnostics ntk`: its flags, and what it writes."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np

from tf_lamb.diagnostics import inputs, ntk
from tf_lamb.diagnostics.at_weights import AtWeights
from tf_lamb.diagnostics.command_line import count, facts, positive, show
from tf_lamb.diagnostics.examples import Examples

__all__ = ["arguments", "run"]


def arguments(add: Any) -> None:
    """Declares the flags.

    Args:
      add: `add_argument` of a parser.
    """
    add(
        "--other",
        help="A later checkpoint, from which the drift is taken.",
    )
    add(
        "--examples",
        type=count,
        default=100,
        help="The regression learns from so many examples.",
    )
    add(
        "--held_out",
        type=count,
        default=100,
        help="The regression predicts so many examples.",
    )
    add(
        "--batch_size",
        type=count,
        default=10,
        help="So many examples are differentiated at once.",
    )
    add(
        "--statistics",
        choices=("saved", "recomputed"),
        default="saved",
        help="Batch normalisation takes its own, or those of the examples.",
    )
    add(
        "--ridge",
        type=positive,
        default=1e-3,
        help="The regression's ridge over the kernel's mean diagonal.",
    )
    add(
        "--memory_gib",
        type=positive,
        default=2.0,
        help="What needs more is refused. The Jacobian lies in a temporary "
        "file of the output folder.",
    )


def run(arguments: argparse.Namespace) -> None:
    """Empirical neural tangent kernel: drift, and kernel regression."""
    train, total = arguments.examples, arguments.examples + arguments.held_out
    if min(train, arguments.held_out) < 2:
        raise ValueError(
            "--examples, --held_out: expected two or more of each, for error "
            f"bars, got {train} and {arguments.held_out}."
        )
    model = inputs.load_model(arguments.model, arguments.loss)
    models = {"MODEL": model}
    if arguments.other:
        models["OTHER"] = inputs.load_same(
            model, arguments.other, arguments.loss
        )
    examples = Examples(inputs.load_data(arguments.data), arguments.seed)
    x, y, weight = examples.draw(total)
    inputs.check_dtypes(model, x)
    if weight is not None:
        show("sample_weight is ignored: the kernel and its regression take all")
    found = {
        name: ntk.Jacobian(
            each_one, x, _others(each_one, (x, y, weight), arguments)
        )
        for name, each_one in models.items()
    }
    first = found["MODEL"]
    wanted, classes = ntk.targets(y, first.outputs)
    _check_memory(first, arguments)
    folder = arguments.output_dir
    digests = {
        f"weights_{k}": inputs.weights_digest(v) for k, v in models.items()
    }
    kept = inputs.Progress(
        folder, model, {**facts(arguments), **digests}, (x, y)
    )
    began = time.monotonic()
    kernels: dict[str, np.ndarray] = {}
    eigenvalues: dict[str, np.ndarray] = {}
    reports: dict[str, dict[str, Any]] = {}
    for name, jacobian in found.items():
        kernel, outputs = _kernel(name, jacobian, arguments, kept)
        kernels[name] = kernel
        predicted = ntk.regress(kernel, wanted, train, arguments.ridge)
        eigenvalues[name] = np.linalg.eigvalsh(kernel)[::-1]
        reports[name] = dict(
            regression=ntk.fit(predicted, wanted[train:], classes),
            model=ntk.fit(outputs[train:], wanted[train:], classes),
            trace=float(np.trace(kernel)),
            eigenvalues=eigenvalues[name][:20],
        )
    change = None
    if arguments.other:
        change = ntk.drift(kernels["MODEL"], kernels["OTHER"], first.outputs)
    report = dict(
        kernels=reports,
        drift=change,
        rows=first.shape[0],
        outputs=first.outputs,
        parameters=first.parameters,
        bytes_estimated=first.bytes_needed(arguments.batch_size),
        seconds=round(time.monotonic() - began, 1),
        arguments=facts(arguments),
    )
    inputs.write_json(folder / "ntk.json", report)
    sorted_by = wanted.argmax(1) if classes else wanted[:, 0]
    order = np.argsort(sorted_by, kind="stable")
    ntk.plot(folder / "ntk.png", eigenvalues, kernel, order)
    for name, one in reports.items():
        show(f"{name}: kernel regression {_shown(one['regression'])}")
        show(f"{name}: the model itself {_shown(one['model'])}")
    if change:
        show(
            f"drift: relative change {change.relative_change:.4g} ± "
            f"{change.relative_change_error:.1g}, 1 - alignment "
            f"{change.cosine_distance:.4g} ± {change.cosine_distance_error:.1g}"
            " (jackknife over examples)"
        )
    show(f"-> {folder}/ntk.json, ntk.png, kernel_*.npz")


def _others(model: Any, drawn: Any, arguments: Any) -> Any:
    """Values of the variables that are not trained, or None: the model's."""
    if arguments.statistics == "saved":
        return None
    half = (arguments.examples + arguments.held_out) // 2
    at = AtWeights(model, drawn, min(half, arguments.batch_size))
    return at.with_statistics(at.weights())


def _shown(found: ntk.Regression) -> str:
    text = (
        f"squared error {found.squared_error:.4g} ± "
        f"{found.squared_error_error:.1g}"
    )
    if found.score is None:
        return text
    return f"accuracy {found.score:.3f} ± {found.score_error:.3f}, {text}"


def _check_memory(jacobian: ntk.Jacobian, arguments: Any) -> None:
    needed = jacobian.bytes_needed(arguments.batch_size) / 2**30
    if needed > arguments.memory_gib:
        rows, columns = jacobian.shape
        raise ValueError(
            f"model: its Jacobian has {rows:,} rows (examples times "
            f"{jacobian.outputs:,} outputs) and {columns:,} columns, and needs "
            f"about {needed:.3g} GiB; expected at most --memory_gib "
            f"{arguments.memory_gib:g}; take fewer --examples and --held_out, "
            "a smaller model, or more memory."
        )


def _kernel(
    name: str,
    jacobian: ntk.Jacobian,
    arguments: Any,
    kept: inputs.Progress,
) -> tuple[np.ndarray, np.ndarray]:
    """A kernel and the model's outputs, measured now or before."""
    folder = arguments.output_dir
    path = folder / f"kernel_{name.lower()}.npz"
    rows_file = folder / f".jacobian_{name.lower()}.npy"
    before = inputs.read_arrays(path, kept.key)
    if not before:
        rows, outputs = _rows(name, jacobian, arguments, kept, rows_file)
        before = dict(kernel=ntk.gram(rows, show), outputs=outputs)
        if not np.isfinite(before["kernel"]).all():
            raise ValueError(
                f"{name}: expected finite derivatives, got some that are not; "
                "are its weights and the data finite?"
            )
        inputs.write_arrays(path, kept.key, before)
    rows_file.unlink(missing_ok=True)
    return before["kernel"], before["outputs"]


def _rows(
    name: str,
    jacobian: ntk.Jacobian,
    arguments: Any,
    kept: inputs.Progress,
    path: Path,
) -> tuple[np.ndarray, np.ndarray]:
    """The Jacobian in a file, and the outputs; resumes by the file."""
    outputs = kept.found.get(name, {}).get("outputs", [])
    whole = int(np.prod(jacobian.shape)) * jacobian.dtype.itemsize
    if not path.exists() or path.stat().st_size <= whole:  # of a crash
        outputs = []
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = np.lib.format.open_memmap(
        path,
        mode="r+" if outputs else "w+",
        dtype=jacobian.dtype,
        shape=jacobian.shape,
    )
    k, total = jacobian.outputs, jacobian.examples
    for start in range(len(outputs), total, arguments.batch_size):
        stop = min(start + arguments.batch_size, total)
        found, values = jacobian.rows(start, stop)
        rows[start * k : stop * k] = found
        rows.flush()
        outputs = [*outputs, *values.tolist()]
        kept.keep(name, {"outputs": outputs})
        show(f"{name}: Jacobian of example {stop}/{total}")
    return rows, np.asarray(outputs, np.float64)
