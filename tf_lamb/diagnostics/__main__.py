"""`python -m tf_lamb.diagnostics COMMAND`: what is to be known of a training.

    python -m tf_lamb.diagnostics spectrum MODEL DATA --output_dir runs/spectrum
    python -m tf_lamb.diagnostics landscape MODEL DATA --output_dir runs/slice
    python -m tf_lamb.diagnostics connect MODEL DATA --other OTHER
    python -m tf_lamb.diagnostics ntk MODEL DATA --other LATER
    python -m tf_lamb.diagnostics advise MODEL DATA --output_dir runs/advice
    python -m tf_lamb.diagnostics prune MODEL DATA --output_dir runs/prune

MODEL is a `.keras` file, DATA an `.npz` file with `x` and `y`; either may be
`module:function`, which gives a model, or arrays `(x, y)` or a
`tf.data.Dataset` of batches. Each writes JSON and a plot, and resumes.
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any, Sequence

import numpy as np

from tf_lamb.diagnostics import (
    advice,
    at_weights,
    connect_command,
    curvature,
    inputs,
    jacobian,
    landscape_command,
    noise_scale,
    ntk_command,
    probe,
    prune_command,
    spectrum,
)
from tf_lamb.diagnostics.command_line import count as _count
from tf_lamb.diagnostics.command_line import facts as _facts
from tf_lamb.diagnostics.command_line import positive as _rate
from tf_lamb.diagnostics.command_line import show as _show
from tf_lamb.diagnostics.command_line import whole as _whole
from tf_lamb.diagnostics.examples import Examples, each

_STATISTICS = 8  # batches, from which batch normalisation takes its statistics


def parser() -> argparse.ArgumentParser:
    """The command line."""
    main_parser = argparse.ArgumentParser(
        prog="python -m tf_lamb.diagnostics",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = main_parser.add_subparsers(dest="command", required=True)
    for name, function in COMMANDS.items():
        command = commands.add_parser(name, help=function.__doc__)
        command.set_defaults(function=function)
        command.add_argument("model", help="A .keras file or module:function.")
        command.add_argument("data", help="An .npz file or module:function.")
        add = command.add_argument
        add("--output_dir", type=Path, default=Path(f"runs/{name}"))
        add("--loss", help="Compiled with the model; default: its own.")
        add("--seed", type=_whole, default=0, help="Of all that is random.")
        _ARGUMENTS[name](add)
    return main_parser


def _spectrum_arguments(add: Any) -> None:
    add("--examples", type=_count, default=1024, help="Of the loss.")
    add("--batch_size", type=_count, default=256, help="Taken at once.")
    add("--steps", type=_count, default=30, help="Of Lanczos, a vector.")
    add("--vectors", type=_count, default=4, help="Random ones.")
    add("--matrices", default=",".join(spectrum.MATRICES), help="With commas.")
    add("--jacobians", type=_count, help="Of so many examples; default: none.")
    add("--singular_values", type=_count, default=10, help="Of a Jacobian.")
    add("--jacobian_from", help="A layer's output; default: the input.")
    add("--jacobian_to", help="A layer's output; default: the output.")


def _advise_arguments(add: Any) -> None:
    add("--batch_size", type=_count, default=256, help="Of a training step.")
    add("--small_batch", type=_count, help="Default: a 16th of --batch_size.")
    add(
        "--records",
        type=_count,
        default=20,
        help="Of each noise scale.",
    )
    add("--train_steps", type=_count, default=60, help="Before the second one.")
    add("--range_steps", type=_count, default=60, help="Of a range test.")
    add("--range_tests", type=_count, default=3, help="Their number.")
    add("--lowest_rate", type=_rate, default=1e-4, help="Where tests begin.")
    add("--highest_rate", type=_rate, default=1.0, help="Where tests end.")


def _count_up(text: str, step: int) -> None:
    _show(f"{text} {step}")


def run_spectrum(arguments: argparse.Namespace) -> None:
    """Largest eigenvalues, trace and density of Hessian and Gauss-Newton."""
    names = arguments.matrices.split(",")
    unknown = set(names) - set(spectrum.MATRICES)
    if unknown:
        raise ValueError(
            f"--matrices: {', '.join(sorted(unknown))}; expected any of "
            f"{', '.join(spectrum.MATRICES)}."
        )
    model = inputs.load_model(arguments.model, arguments.loss)
    examples = Examples(inputs.load_data(arguments.data), arguments.seed)
    drawn = examples.draw(arguments.examples)
    inputs.check_dtypes(model, drawn[0])
    size = min(arguments.batch_size, arguments.examples)
    at = curvature.Curvature(model, drawn, batch_size=size)
    folder = arguments.output_dir
    kept = inputs.Progress(folder, model, _facts(arguments), drawn)
    folder.mkdir(parents=True, exist_ok=True)  # for Lanczos' vectors
    began, found = time.monotonic(), {}
    for name in names:
        found[name] = spectrum.measure(
            at,
            name,
            steps=arguments.steps,
            vectors=arguments.vectors,
            seed=arguments.seed,
            kept=kept.keep,
            before=kept.found,
            folder=str(folder),
            progress=_show,
        )
    jacobians = _jacobians(model, drawn[0], kept, arguments)
    report: dict[str, Any] = dict(found)
    report.update(
        {k: v._asdict() for k, v in found.items()},
        parameters=at.size,
        examples=at.examples,
        loss=at.loss(),
        jacobians=jacobians,
        seconds=round(time.monotonic() - began, 1),
        arguments=_facts(arguments),
    )
    if "hessian" in found:
        largest = found["hessian"].lambda_max
        line = spectrum.rate_warning(model.optimizer, largest)
        report["warning"] = line
        if line:
            print(line, file=sys.stderr)
    inputs.write_json(folder / "spectrum.json", report)
    spectrum.plot(folder / "spectrum.png", found, at.size)
    for name, one in found.items():
        _show(
            f"{name}: largest eigenvalue {one.lambda_max:.6g} ± "
            f"{one.lambda_max_residual:.1g} (bound), smallest "
            f"{one.lambda_min:.6g} ± {one.lambda_min_residual:.1g}, trace "
            f"{one.trace.value:.6g} ± {one.trace.standard_error:.2g} "
            "(standard error)"
        )
    if jacobians:
        tops: Any = np.array([one["values"][0] for one in jacobians])
        _show(
            f"Jacobians of {len(tops)} examples: largest singular value "
            f"{tops.mean():.6g} on average, from {tops.min():.6g} to "
            f"{tops.max():.6g}"
        )
    _show(f"-> {folder}/spectrum.json, spectrum.png")


def _jacobians(
    model: Any, x: Any, kept: inputs.Progress, arguments: argparse.Namespace
) -> list[dict[str, Any]]:
    """Singular values of each example's Jacobian, kept when it is done."""
    count = arguments.jacobians or 0
    if count > arguments.examples:
        raise ValueError(
            f"--jacobians {count}: expected at most --examples "
            f"{arguments.examples}."
        )
    names = arguments.jacobian_from, arguments.jacobian_to
    part = jacobian.between(model, *names) if count else None
    if count and names[0]:
        x = probe.to_numpy(jacobian.between(model, None, names[0])(x))
    for i in range(count):
        if f"jacobian/{i}" not in kept.found:
            at = jacobian.Jacobian(part, each(lambda a, i=i: a[i], x))
            found = jacobian.singular_values(
                at, arguments.singular_values, arguments.seed
            )
            kept.keep(f"jacobian/{i}", found)
            _show(f"Jacobian {i + 1}/{count}: largest {found.values[0]:.6g}")
    return [kept.found[f"jacobian/{i}"] for i in range(count)]


def _noise(
    model: Any,
    examples: Examples,
    arguments: argparse.Namespace,
    what: str,
) -> noise_scale.NoiseScale:
    big, small = arguments.batch_size, arguments.small_batch
    _renew(model, examples, big)
    norms, small_squares, big_squares = probe.Probe(model), [], []
    for k in range(arguments.records):
        pieces, whole = norms.piece_norms(examples.draw(big), small)
        small_squares.append(pieces.sum(1).mean())
        big_squares.append(whole.sum())
        _show(f"noise scale, {what}: record {k + 1}/{arguments.records}")
    return noise_scale.estimate(small_squares, big_squares, small, big)


def _renew(model: Any, examples: Examples, size: int) -> None:
    """Statistics of batch normalisation at the weights as they are."""
    if not at_weights.statistics_layers(model):
        return
    if probe.backend_of(model) == "torch":
        print(
            "warning: on torch, batch normalisation keeps the moving "
            "statistics that it has; after a few steps they are those of other "
            "weights, and so is the noise scale. TensorFlow and JAX take them "
            "anew.",
            file=sys.stderr,
        )
        return
    parts = [examples.draw(size) for _ in range(_STATISTICS)]
    data = each(lambda *arrays: np.concatenate(arrays), *parts)
    layers = at_weights.renew_statistics(model, data, size)
    _show(
        f"batch normalisation in {layers} layers: statistics of "
        f"{_STATISTICS * size:,} examples"
    )


def _noise_once(kept: inputs.Progress, name: str, measure: Any) -> Any:
    """A noise scale that was kept, or is measured now."""
    if name not in kept.found:
        kept.keep(name, measure())
    values = [math.inf if v is None else v for v in kept.found[name].values()]
    *numbers, records = values
    return noise_scale.NoiseScale._make([*numbers, int(records)])


def run_advise(arguments: argparse.Namespace) -> None:
    """Noise scale, useful batch, rate and warmup of LAMB, in words."""
    size = arguments.batch_size
    arguments.small_batch = arguments.small_batch or max(1, size // 16)
    if size % arguments.small_batch or size == arguments.small_batch:
        raise ValueError(
            f"--small_batch {arguments.small_batch}: expected a divisor of "
            f"--batch_size {size}, below it."
        )
    if arguments.lowest_rate >= arguments.highest_rate:
        raise ValueError("--lowest_rate: expected one below --highest_rate.")
    model = inputs.load_model(arguments.model, arguments.loss)
    data = inputs.load_data(arguments.data)

    def drawn(stage: int) -> Examples:
        # Of its own, so that a run that resumes draws the same.
        return Examples(data, 1000 * arguments.seed + stage)

    some = drawn(0).draw(2 * size)
    inputs.check_dtypes(model, some[0])
    folder = arguments.output_dir
    seen = inputs.all_of(data, some)
    kept = inputs.Progress(folder, model, _facts(arguments), seen)
    began = time.monotonic()
    trial = advice.Trial(model, size)
    start = _noise_once(
        kept, "start", lambda: _noise(model, drawn(0), arguments, "as given")
    )
    limits = arguments.lowest_rate, arguments.highest_rate
    rates = np.geomspace(*limits, arguments.range_steps).tolist()
    for i in range(arguments.range_tests):
        if f"range/{i}" not in kept.found:
            text = f"range test {i + 1}/{arguments.range_tests}: step"
            losses = trial.train(rates, drawn(i + 3), partial(_count_up, text))
            kept.keep(f"range/{i}", losses)
    tests = [
        [math.nan if x is None else x for x in kept.found[f"range/{i}"]]
        for i in range(arguments.range_tests)
    ]
    found = advice.summarize(rates, tests)

    def measure_trained() -> noise_scale.NoiseScale:
        n = arguments.train_steps
        warmup = [found.rate * min(1, 10 * (k + 1) / n) for k in range(n)]
        trial.train(
            warmup, drawn(1), lambda k: _show(f"training: step {k}/{n}")
        )
        return _noise(model, drawn(2), arguments, "trained")

    trained = _noise_once(kept, "trained", measure_trained)
    trial.close()
    words = advice.in_words(start, trained, found, size, arguments.train_steps)
    table = advice.rows(trained, found.rate, size)
    report = dict(
        advice=words,
        noise_scale_start=start._asdict(),
        noise_scale_trained=trained._asdict(),
        range_test=found._asdict(),
        batches=[row._asdict() for row in table],
        seconds=round(time.monotonic() - began, 1),
        arguments=_facts(arguments),
    )
    inputs.write_json(folder / "advice.json", report)
    advice.plot(folder / "advice.png", start, trained, found, size)
    _show("   batch     rate  untuned (BERT)  warmup   steps  examples")
    for row in table:
        _show(
            f"{row.batch_size:8,d} {row.rate:8.2g} {row.untuned_bert:15.2g} "
            f"{100 * row.warmup_bert:6.2g}% {row.steps_factor:7.2f} "
            f"{row.examples_factor:9.2f}"
        )
    _show(words)
    _show(f"-> {folder}/advice.json, advice.png")


COMMANDS = {
    "spectrum": run_spectrum,
    "advise": run_advise,
    "ntk": ntk_command.run,
    "landscape": landscape_command.run,
    "connect": connect_command.run,
    "prune": prune_command.run,
}
_ARGUMENTS = {
    "spectrum": _spectrum_arguments,
    "advise": _advise_arguments,
    "ntk": ntk_command.arguments,
    "landscape": landscape_command.arguments,
    "connect": connect_command.arguments,
    "prune": prune_command.arguments,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
      argv: the command line; None: that of the process.

    Returns:
      0, or 2 for bad input, which is one line on standard error.
    """
    arguments = parser().parse_args(argv)
    try:
        if importlib.util.find_spec("matplotlib") is None:
            raise ValueError(
                "plots need matplotlib, which is not installed: pip install "
                "matplotlib."
            )
        arguments.function(arguments)
    except (ValueError, OSError) as error:
        return _refused(str(error))
    except Exception as error:
        if type(error).__name__ != "InvalidArgumentError":
            raise
        # TensorFlow's, of a label out of range: its text ends with the cause.
        lines = str(error).split("[[")[0].strip().splitlines()
        return _refused(f"MODEL does not take DATA: {lines[-1]}")
    return 0


def _refused(text: str) -> int:
    print(f"error: {' '.join(text.split())[:600]}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
