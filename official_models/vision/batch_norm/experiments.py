"""The four experiments of the study, each from settings to a table.

Every training is a part of a `store.Store`. Settings are chosen by the loss on
the tuning images with one seed that is not reported, then each of the seeds is
trained with them; losses that are reported are of the evaluation images.
"""

from __future__ import annotations

import dataclasses
import functools
import statistics
from collections.abc import Sequence
from typing import Any

from scipy import stats

from official_models.common.errors import InputError
from official_models.common.store import Store
from official_models.vision.batch_norm import cells, teacher_student, theory
from official_models.vision.batch_norm.cells import Cell
from official_models.vision.batch_norm.data import Parts

TUNING_SEED = 2**31
GAP_BATCHES = (16, 32, 64, 128)
LOADS = (0.2, 0.4, 0.6, 0.8, 1.0, 1.5, 2.0, 3.0)


def gap(store: Store) -> list[dict[str, Any]]:
    """The Monte Carlo gap against zeta gamma^2, at gamma = 1 and beta = 0."""
    rows = []
    for name in theory.DISTRIBUTIONS:
        for m in GAP_BATCHES:
            make = functools.partial(_gap, name, m)
            rows.append(store.get(f"gap-{name}-m{m}", make))
    return rows


def _gap(name: str, m: int) -> dict[str, Any]:
    kurtosis = theory.excess_kurtosis(name)
    found = {
        "distribution": name,
        "batch_size": m,
        "zeta": theory.zeta(m, kurtosis, *theory.expected_hessian(name, 1.0)),
    }
    for label, unbiased in (("gap", True), ("gap_of_bn", False)):
        each = theory.monte_carlo_gap(
            name, m, batches=20_000, unbiased=unbiased
        )
        found |= {label: each.mean, f"{label}_error": each.error}
    return found


def teacher(store: Store, seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Errors of the linear students at each load P / N."""
    rows = []
    for load in LOADS:
        task = teacher_student.Task(load=load)
        for kind in teacher_student.STUDENTS:
            each = [
                store.get(
                    f"teacher-{kind}-p{load:g}-s{seed}",
                    functools.partial(_teacher, kind, task, seed),
                )
                for seed in seeds
            ]
            rows.append(
                {
                    "load": load,
                    "student": kind,
                    "error": spread([x["error"] for x in each]),
                    "gamma": spread([x["gamma"] for x in each]),
                }
            )
    return rows


def _teacher(kind, task, seed) -> dict[str, Any]:
    return teacher_student.train(kind, task, seed)._asdict()


@dataclasses.dataclass(frozen=True)
class Trainer:
    """Trains cells, or finds what they came to.

    Attributes:
        store: Of their files.
        parts: Images.
        filters: Of the network.
        seeds: That are reported.
        zetas: That a decay is tuned over, of a batch of one example.
        dtype: Policy of the network.
        jit_compile: As of `cells.train`.
    """

    store: Store
    parts: Parts
    filters: int
    seeds: Sequence[int]
    zetas: Sequence[float]
    dtype: str = "float32"
    jit_compile: bool = False

    def run(self, cell: Cell) -> dict[str, Any]:
        """What a cell came to; a divergence is an outcome, too."""

        def make():
            try:
                found = cells.train(
                    cell, self.parts, self.dtype, self.jit_compile
                )
            except InputError as error:
                found = {**dataclasses.asdict(cell), "failed": str(error)}
            print(f"{cell.name}: {_said(found)}", flush=True)
            return found

        return self.store.get(cell.name, make)

    def cell(self, arm, optimizer, batch_size, updates, **changes) -> Cell:
        """A cell of the tuning, without a decay."""
        values = {
            "rate": 0.0,
            "decay": 0.0,
            "seed": TUNING_SEED,
            "filters": self.filters,
        }
        return Cell(arm, optimizer, batch_size, updates, **values | changes)

    def tuned_rate(self, cell: Cell) -> Cell:
        """The cell with the rate of the lowest tuning loss."""
        rates = cells.RATES[cell.optimizer]
        return self._best(
            [dataclasses.replace(cell, rate=rate) for rate in rates]
        )

    def tuned_decay(self, cell: Cell, reference: int | None) -> Cell:
        """The cell with the decay of the lowest tuning loss.

        Args:
            cell: With a rate.
            reference: As of `cells.hidden_decay`.
        """
        return self._best(
            [
                dataclasses.replace(
                    cell,
                    decay=cells.hidden_decay(zeta, cell.batch_size, reference),
                )
                for zeta in self.zetas
            ]
        )

    def _best(self, candidates: list[Cell]) -> Cell:
        losses = []
        for cell in candidates:
            found = self.run(cell)
            if "failed" not in found:
                losses.append((found["tuning"]["loss"], cell))
        if not losses:
            raise InputError(
                f"{candidates[0].arm}, {candidates[0].optimizer}: every "
                "setting of the tuning diverged"
            )
        return min(losses, key=lambda pair: pair[0])[1]

    def report(self, cell: Cell) -> dict[str, Any]:
        """A cell with each of the seeds: settings, losses, gamma."""
        each = [
            self.run(dataclasses.replace(cell, seed=seed))
            for seed in self.seeds
        ]
        failed = [x["failed"] for x in each if "failed" in x]
        if failed:
            raise InputError(f"{failed[0]}; a seed of the report")
        settings = dataclasses.asdict(cell)
        settings.pop("seed")
        return {
            **settings,
            "loss": spread([x["evaluation"]["loss"] for x in each]),
            "accuracy": spread([x["evaluation"]["accuracy"] for x in each]),
            "train_loss": spread([x["train"]["loss"] for x in each]),
            "gamma": spread([x["gamma"] for x in each]),
        }


def network(
    trainer: Trainer, batch_sizes: Sequence[int], updates: int
) -> list[dict[str, Any]]:
    """The small network by SGD: BN, PN, PN with the decay, WN, at each M.

    Rates, and the zeta of PN with the decay, are tuned at the middle batch;
    the decay is zeta / M at each. The rate of PN is that of PN with the decay.
    """
    middle = sorted(batch_sizes)[len(batch_sizes) // 2]
    tuned = {}
    for arm in ("bn", "pn", "wn"):
        start = trainer.cell(arm, "sgd", middle, updates)
        tuned[arm] = trainer.tuned_rate(start)
    decaying = dataclasses.replace(tuned["pn"], arm="pn_decay")
    tuned["pn_decay"] = trainer.tuned_decay(decaying, None)
    rows = []
    for m in batch_sizes:
        for cell in tuned.values():
            at_m = dataclasses.replace(
                cell, batch_size=m, decay=cell.decay * middle / m
            )
            rows.append(trainer.report(at_m))
    return rows


def compensation(
    trainer: Trainer, optimizer: str, reference: int, large: int, epochs: int
) -> dict[str, Any]:
    """Does the decay of a small batch restore its loss at a large one?

    Both batches see the same epochs, each with a rate of its own; the large
    one with the decay has the rate of the one without, and its zeta is tuned.

    Args:
        trainer: Trains.
        optimizer: One of `cells.OPTIMIZERS`.
        reference: M_ref.
        large: M, more than M_ref, at most the training images.
        epochs: Of each.
    """
    images = len(trainer.parts.train.labels)
    tuned = {}
    for name, m in (("small", reference), ("large", large)):
        start = trainer.cell("bn", optimizer, m, epochs * (images // m))
        tuned[name] = trainer.tuned_rate(start)
    decaying = dataclasses.replace(tuned["large"], arm="bn_decay")
    tuned["compensated"] = trainer.tuned_decay(decaying, reference)
    found = {name: trainer.report(cell) for name, cell in tuned.items()}
    each = {name: row["loss"]["each"] for name, row in found.items()}
    return {
        "optimizer": optimizer,
        **found,
        "tests": {
            f"{one} - {other}": paired(each[one], each[other])
            for one, other in (
                ("large", "small"),
                ("compensated", "large"),
                ("compensated", "small"),
            )
        },
    }


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Mean, deviation (None of one value), and the values."""
    return {
        "mean": statistics.fmean(values),
        "deviation": statistics.stdev(values) if len(values) > 1 else None,
        "each": list(values),
    }


def paired(one: Sequence[float], other: Sequence[float]) -> dict[str, Any]:
    """Mean difference over seeds and Student's paired test of it.

    Args:
        one: A value of each seed.
        other: The same seeds.

    Returns:
        difference, p (two-sided; None of fewer than two seeds, or where all
        differences are equal), seeds.
    """
    differences = [a - b for a, b in zip(one, other, strict=True)]
    p = None
    if len(set(differences)) > 1:
        p = float(stats.ttest_rel(one, other).pvalue)
    return {
        "difference": statistics.fmean(differences),
        "p": p,
        "seeds": len(differences),
    }


def _said(found: dict[str, Any]) -> str:
    if "failed" in found:
        return "diverged"
    return (
        f"loss {found['evaluation']['loss']:.4f}, training "
        f"{found['train']['loss']:.4f}, gamma {found['gamma']:.3f}, "
        f"{found['seconds']:.1f} s"
    )
