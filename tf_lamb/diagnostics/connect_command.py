"""`python -m tf_lamb.diagnostics connect`: its flags, and what it writes."""

from __future__ import annotations

import argparse
import time
from functools import partial
from typing import Any

import numpy as np

from tf_lamb.diagnostics import curve_training, curves, inputs, probe
from tf_lamb.diagnostics.at_weights import (
    AtWeights,
    mean_and_error,
    statistics_layers,
)
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
        required=True,
        help="The model at the other end, a .keras file or module:function.",
    )
    add(
        "--held_out",
        help="Data whose losses and accuracies are shown; default: DATA.",
    )
    add(
        "--examples",
        type=count,
        default=1024,
        help="Losses and batch statistics are taken of so many examples.",
    )
    add(
        "--batch_size",
        type=count,
        default=128,
        help="Steps and batch statistics take so many examples at once.",
    )
    add(
        "--curve",
        choices=curves.KINDS,
        default="bezier",
        help="The kind of the curve.",
    )
    add(
        "--steps",
        type=count,
        default=300,
        help="The curve is trained for so many steps.",
    )
    add(
        "--optimizer",
        choices=curve_training.OPTIMIZERS,
        default="lamb",
        help="The optimizer that trains the curve.",
    )
    add(
        "--rate",
        type=positive,
        default=0.01,
        help="The optimizer's highest rate, from which it falls to 0.",
    )
    add(
        "--points",
        type=count,
        default=21,
        help="Each path has so many places, the ends among them.",
    )


def run(arguments: argparse.Namespace) -> None:
    """Loss along the line, and a trained curve, between two models."""
    if arguments.points < 3:
        raise ValueError("--points: expected 3 or more, the ends among them.")
    model = inputs.load_model(arguments.model, arguments.loss)
    other = inputs.load_same(model, arguments.other, arguments.loss)
    _check_others(model, other)
    data = inputs.load_data(arguments.data)
    drawn = Examples(data, arguments.seed).draw(arguments.examples)
    inputs.check_dtypes(model, drawn[0])
    size = arguments.batch_size
    statistics = at = AtWeights(model, drawn, batch_size=size)
    seen = [inputs.all_of(data, drawn), drawn]
    if arguments.held_out:
        held_out = Examples(inputs.load_data(arguments.held_out), 0)
        drawn = held_out.draw(arguments.examples)
        inputs.check_dtypes(model, drawn[0])
        seen.append(drawn)
        at = AtWeights(model, drawn, batch_size=size)
    folder = arguments.output_dir
    digest = {"other_weights": inputs.weights_digest(other)}
    kept = inputs.Progress(folder, model, {**facts(arguments), **digest}, seen)
    began = time.monotonic()
    start = statistics.weights()
    end = [probe.to_numpy(v) for v in other.trainable_variables]
    # A Bezier curve with this bend is the straight line.
    middle = [(a.astype(np.float64) + b) / 2 for a, b in zip(start, end)]
    along: dict[str, Any] = dict(
        places=np.linspace(0, 1, arguments.points).tolist(),
        statistics=statistics,
        at=at,
        kept=kept.keep,
        before=kept.found,
        progress=show,
    )
    paths = {
        "straight": curves.measure(
            "straight",
            weights=lambda t: curves.point("bezier", t, start, middle, end),
            **along,
        )
    }
    curves.barrier(paths["straight"])  # Refuses losses that are not finite.
    curve_file = folder / "curve.npz"
    trained = curve_training.train(
        statistics,
        start,
        end,
        Examples(data, 1000 * arguments.seed + 1),
        kind=arguments.curve,
        steps=arguments.steps,
        batch_size=size,
        optimizer=arguments.optimizer,
        rate=arguments.rate,
        seed=arguments.seed,
        kept=partial(inputs.write_arrays, curve_file, kept.key),
        before=inputs.read_arrays(curve_file, kept.key),
        progress=show,
    )
    paths[arguments.curve] = curves.measure(
        arguments.curve,
        weights=lambda t: curves.point(
            arguments.curve, t, start, trained.bend, end
        ),
        **along,
    )
    barriers = {name: curves.barrier(path) for name, path in paths.items()}
    normed = [layer.name for layer in statistics_layers(model)]
    report = dict(
        paths=paths,
        barriers=barriers,
        ends_as_saved=[_as_saved(at, model), _as_saved(at, other)],
        training_losses=trained.losses,
        statistics_recomputed=normed,
        distance=_distance(start, end),
        bend_from_the_line=_distance(middle, trained.bend),
        examples=at.examples,
        seconds=round(time.monotonic() - began, 1),
        arguments=facts(arguments),
    )
    inputs.write_json(folder / "connect.json", report)
    curves.plot(folder / "connect.png", paths)
    show(
        f"statistics recomputed at each place: {', '.join(normed)}"
        if normed
        else "no batch normalisation: no statistics to recompute"
    )
    for name, high in barriers.items():
        show(
            f"{name}: barrier {high.value:.4g}; between the ends, the loss is "
            f"at most {high.rise:.4g} ± {high.standard_error:.2g} (standard "
            f"error over {at.examples // size} batches) above the line, at "
            f"t = {high.place:.3g}"
        )
    show(f"-> {folder}/connect.json, connect.png, curve.npz (the bend)")


def _check_others(model: Any, other: Any) -> None:
    """Refuses two models whose variables differ that nothing here moves."""
    layers = statistics_layers(model)
    moved = {id(v) for n in layers for v in (n.moving_mean, n.moving_variance)}
    for ours, theirs in zip(
        model.non_trainable_variables, other.non_trainable_variables
    ):
        if id(ours) in moved or "float" not in str(ours.dtype):
            continue  # whole numbers: states of random generators
        values = probe.to_numpy(ours), probe.to_numpy(theirs)
        if not np.array_equal(*values):
            raise ValueError(
                f"--other: {theirs.path} does not train and differs from "
                f"MODEL's by up to {abs(values[0] - values[1]).max():.3g}; "
                "expected the same, or make its layer trainable in both."
            )


def _as_saved(at: AtWeights, model: Any) -> dict[str, Any]:
    """Loss and accuracy with the statistics that a model was saved with."""
    found = at.measure(
        [probe.to_numpy(v) for v in model.trainable_variables],
        [probe.to_numpy(v) for v in model.non_trainable_variables],
    )
    names = "loss", "score"
    return {
        name: None if values is None else mean_and_error(values)
        for name, values in zip(names, found)
    }


def _distance(one: curves.Weights, other: curves.Weights) -> float:
    squares = (
        np.sum(np.square(a.astype(np.float64) - b)) for a, b in zip(one, other)
    )
    return float(np.sqrt(sum(squares)))
