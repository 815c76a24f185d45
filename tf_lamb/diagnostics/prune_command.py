"""`python -m tf_lamb.diagnostics prune`: its flags, and what it writes."""

from __future__ import annotations

import argparse
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tf_lamb.diagnostics import inputs, masks, tickets
from tf_lamb.diagnostics.command_line import (
    count,
    facts,
    positive,
    show,
    whole,
)
from tf_lamb.diagnostics.examples import Examples, each, leaves

__all__ = ["arguments", "run"]

HELD_OUT = 0.2  # of arrays, where no others are given


def arguments(add: Any) -> None:
    """Declares the flags.

    Args:
      add: `add_argument` of a parser.
    """
    add("--held_out", help="Data of the score; default: a fifth of DATA.")
    add("--examples", type=count, default=1024, help="Of --held_out, scored.")
    add("--metric", help="The score; default: the first compiled, or loss.")
    add("--batch_size", type=count, default=128, help="Of a training step.")
    add("--steps", type=count, default=1000, help="Of each training.")
    add("--rewind_step", type=whole, default=0, help="k; 0: to the start.")
    add("--rounds", type=count, default=8, help="Of pruning.")
    add("--share", type=positive, default=0.2, help="Pruned in each round.")
    add("--scope", choices=masks.SCOPES, default="layer", help="Of a share.")
    add("--seeds", type=count, default=3, help="Their number.")


def run(arguments: argparse.Namespace) -> None:
    """Lottery tickets: pruning with rewinding, and its two controls."""
    if arguments.rewind_step >= arguments.steps:
        raise ValueError(
            f"--rewind_step {arguments.rewind_step}: expected one below "
            f"--steps {arguments.steps}."
        )
    if arguments.share >= 1:
        raise ValueError(f"--share {arguments.share:g}: expected one below 1.")
    model = inputs.load_model(arguments.model, arguments.loss)
    data, held_out = _split(arguments)
    drawn = Examples(data, 0).draw(arguments.batch_size)
    inputs.check_dtypes(model, drawn[0])
    masks.prunable(model)
    folder = arguments.output_dir
    seen = inputs.all_of(data, drawn), held_out
    kept = inputs.Progress(folder, model, facts(arguments), seen)
    trainer = tickets.Trainer(model, arguments.batch_size, arguments.steps)
    began = time.monotonic()
    for i in range(arguments.seeds):
        seed = 1000 * arguments.seed + i
        _Seed(seed, model, trainer, data, held_out, kept, arguments).run()
    trainer.close()
    rows = tickets.summary([kept.found[name] for name in kept.found])
    metric = next(iter(kept.found.values()))["metric"]
    report = dict(
        metric=metric,
        rows=rows,
        cells=kept.found,
        pruned=[
            model.trainable_variables[i].path for i in masks.prunable(model)
        ],
        seconds=round(time.monotonic() - began, 1),
        arguments=facts(arguments),
    )
    inputs.write_json(folder / "prune.json", report)
    tickets.plot(folder / "prune.png", rows, metric)
    show("kind           sparsity     mean  deviation  seeds  diverged")
    for row in rows:
        show(
            f"{row.kind:13s} {100 * row.sparsity:8.2f}% {row.mean:8.4f} "
            f"{row.deviation:10.4f} {row.seeds:6d} {row.diverged:9d}"
        )
    show(f"-> {folder}/prune.json, prune.png")


def _split(arguments: argparse.Namespace) -> tuple[Any, Any]:
    """Data of the training and the examples of the score."""
    data = inputs.load_data(arguments.data)
    if arguments.held_out:
        other = Examples(inputs.load_data(arguments.held_out), 0)
        return data, other.draw(arguments.examples)
    if not isinstance(data, tuple):
        raise ValueError(
            "DATA: batches, of which nothing can be held out; give --held_out."
        )
    data = each(np.asarray, data)
    have = len(leaves(data)[0])
    order = np.random.default_rng(arguments.seed).permutation(have)
    cut = max(1, int(HELD_OUT * have))
    x, y, weight = (*each(lambda a: a[order[:cut]], data), None)[:3]
    return each(lambda a: a[order[cut:]], data), (x, y, weight)


class _Seed:
    """The trainings of one seed, each kept when it is done."""

    def __init__(
        self,
        seed: int,
        model: Any,
        trainer: tickets.Trainer,
        data: Any,
        held_out: Any,
        kept: inputs.Progress,
        arguments: argparse.Namespace,
    ) -> None:
        self._seed, self._data, self._held_out = seed, data, held_out
        self._model, self._trainer = model, trainer
        self._kept, self._arguments = kept, arguments
        self._folder: Path = arguments.output_dir / f"seed_{seed}"

    def run(self) -> None:
        """Every round's ticket, then its controls."""
        for number in range(self._arguments.rounds + 1):
            self._once(number, "ticket")
            for kind in tickets.KINDS[1:] if number else ():
                self._once(number, kind)

    def _once(self, number: int, kind: str) -> None:
        name = f"{self._seed}/{number}/{kind}"
        if name in self._kept.found:
            return
        left = self._masks(number)
        weights, first = self._start(kind), self._arguments.rewind_step
        if kind == "random_mask":
            random = np.random.default_rng([self._seed, number])
            left = masks.shuffled(left, random)
        if kind == "reinitialised":
            first = 0
        self._train(name, weights, left, first)
        metric, score = self._trainer.score(
            self._held_out, self._arguments.metric
        )
        if kind == "ticket" and number < self._arguments.rounds:
            self._write(
                f"masks_{number + 1}",
                masks.by_magnitude(
                    self._trainer.trained(),
                    left,
                    self._arguments.share,
                    self._arguments.scope,
                ),
            )
        sparse = masks.sparsity(left)
        show(f"{name}: {metric} {score:.4f} at sparsity {100 * sparse:.2f}%")
        cell = dict(seed=self._seed, round=number, kind=kind, sparsity=sparse)
        self._kept.keep(name, {**cell, "metric": metric, "score": score})

    def _train(self, name: str, weights: Any, left: Any, first: int) -> Any:
        return self._trainer.train(
            weights,
            left,
            Examples(self._data, self._seed),  # the same order each time
            first=first,
            last=None if name else self._arguments.rewind_step,
            progress=partial(self._count_up, name or f"{self._seed}/rewind"),
        )

    def _count_up(self, name: str, step: int) -> None:
        if step % max(1, self._arguments.steps // 10) == 0:
            show(f"{name}: step {step}/{self._arguments.steps}")

    def _start(self, kind: str) -> list[np.ndarray]:
        """Weights from which a network is trained."""
        if kind == "reinitialised":
            # Far from the seeds of all other draws.
            return tickets.initial_weights(self._model, self._seed + 500_000)
        found = self._read("rewind")
        if not found:
            start = tickets.initial_weights(self._model, self._seed)
            if self._arguments.rewind_step:
                start = self._train("", start, {}, 0)
            self._write("rewind", dict(enumerate(start)))
            found = dict(enumerate(start))
        return [found[i] for i in range(len(found))]

    def _masks(self, number: int) -> masks.Masks:
        if number:
            return self._read(f"masks_{number}")
        trained = self._model.trainable_variables
        return {
            i: np.ones(tuple(trained[i].shape), bool)
            for i in masks.prunable(self._model)
        }

    def _read(self, name: str) -> dict[int, np.ndarray]:
        found = inputs.read_arrays(self._folder / f"{name}.npz", self._kept.key)
        return {int(i[1:]): a for i, a in found.items()}

    def _write(self, name: str, arrays: dict[int, np.ndarray]) -> None:
        inputs.write_arrays(
            self._folder / f"{name}.npz",
            self._kept.key,
            {f"a{i}": a for i, a in arrays.items()},
        )
