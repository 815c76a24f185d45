"""`python -m tf_lamb.diagnostics landscape`: its flags, and what it writes."""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np

from tf_lamb.diagnostics import inputs, landscape
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
        "--examples",
        type=count,
        default=1024,
        help="The loss is taken of so many examples.",
    )
    add(
        "--batch_size",
        type=count,
        default=128,
        help="So many examples are taken at once.",
    )
    add(
        "--dimensions",
        type=int,
        choices=(1, 2),
        default=2,
        help="The slice is a line, or a plane and the line in it.",
    )
    add(
        "--points",
        type=count,
        default=21,
        help="Each axis has so many places, an odd number.",
    )
    add(
        "--span",
        type=positive,
        default=1.0,
        help="Each axis is from -span to span; 1 is a filter's own norm.",
    )
    add(
        "--vectors",
        choices=landscape.VECTORS,
        default="zero",
        help="Whether biases, scales and offsets stay, or move as one filter.",
    )


def run(arguments: argparse.Namespace) -> None:
    """Loss on filter-normalised slices through the weights, 1-D and 2-D."""
    places = landscape.offsets(arguments.span, arguments.points)
    model = inputs.load_model(arguments.model, arguments.loss)
    examples = Examples(inputs.load_data(arguments.data), arguments.seed)
    drawn = examples.draw(arguments.examples)
    inputs.check_dtypes(model, drawn[0])
    at = AtWeights(model, drawn, batch_size=arguments.batch_size)
    directions = [
        landscape.direction(
            model, np.random.default_rng([arguments.seed, i]), arguments.vectors
        )
        for i in range(arguments.dimensions)
    ]
    still = [
        variable.path
        for variable, part in zip(model.trainable_variables, directions[0])
        if not part.any()
    ]
    if len(still) == len(directions[0]):
        raise ValueError(
            "model: no variable would move; give --vectors whole, or a model "
            "with kernels that are not 0."
        )
    show(f"{len(still)} of {len(directions[0])} variables do not move")
    folder = arguments.output_dir
    kept = inputs.Progress(folder, model, facts(arguments), drawn)
    began = time.monotonic()
    found = landscape.measure(
        at,
        directions,
        places,
        kept=kept.keep,
        before=kept.found,
        progress=show,
    )
    middle = len(found.offsets_2) // 2, len(found.offsets) // 2
    report = dict(
        found._asdict(),
        loss=found.losses[middle],
        loss_standard_error=found.errors[middle],
        examples=at.examples,
        do_not_move=still,
        cosine_of_directions=_cosine(*directions) if directions[1:] else None,
        seconds=round(time.monotonic() - began, 1),
        arguments=facts(arguments),
    )
    inputs.write_json(folder / "landscape.json", report)
    landscape.plot(folder / "landscape.png", found)
    least = np.unravel_index(np.nanargmin(found.losses), found.losses.shape)
    show(
        f"loss {found.losses[middle]:.6g} ± {found.errors[middle]:.2g} "
        f"(standard error over {at.examples // arguments.batch_size} batches) "
        f"at the weights; least on the slice {found.losses[least]:.6g} at "
        f"alpha {found.offsets[least[1]]:g}, beta "
        f"{found.offsets_2[least[0]]:g}, a difference of "
        f"{found.losses[least] - found.losses[middle]:.2g} ± "
        f"{found.rise_errors[least]:.1g}"
    )
    show(f"-> {folder}/landscape.json, landscape.png")


def _cosine(one: list[np.ndarray], other: list[np.ndarray]) -> float:
    products = [
        sum(float(np.vdot(a, b)) for a, b in zip(x, y))
        for x, y in ((one, other), (one, one), (other, other))
    ]
    return products[0] / float(np.sqrt(products[1] * products[2]))
