"""Which cells a study has, and which of them come next.

A study asks one question: rates are chosen at the smallest batch, then scaled
by rule; how good is each optimizer at the other batches? Its stages are

    tune      rates at the base batch, on a validation split, by a ladder
    grid      every batch, optimizer and rule, from the rate of `tune`
    retune    rates at the largest batch, on the same split, by a ladder
    retuned   the best of `retune`, on the test split
    variation the named optimizer at the largest batch, one thing changed

What comes next is a function of what is done, so a study can be stopped
anywhere and resumed. NumPy and the standard library only.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

from tf_lamb import schedules

SPLIT_SEED = 0  # of tuning, whose runs are never among the reported ones
MAX_RUNGS = 7


@dataclasses.dataclass(frozen=True)
class Cell:
    """One training run.

    Attributes:
        stage: tune, grid, retune, retuned or variation.
        optimizer: lamb, lars, adamw or sgd.
        rule: sqrt or linear, by which the rate came from the base batch.
        batch: examples a step.
        learning_rate: peak rate.
        warmup_epochs: of the linear warmup.
        seed: of weights, order and augmentation.
        variation: what is changed, a name that the task knows; "" for none.
    """

    stage: str
    optimizer: str
    rule: str
    batch: int
    learning_rate: float
    warmup_epochs: float
    seed: int
    variation: str = ""

    @property
    def key(self) -> str:
        """Its name in a file of results."""
        parts = [self.stage, self.optimizer, self.rule, str(self.batch)]
        parts += [f"{self.learning_rate:.4g}", str(self.seed), self.variation]
        return "/".join(part for part in parts if part)

    @property
    def validates(self) -> bool:
        """Whether it is judged by the validation split."""
        return self.stage in ("tune", "retune")


@dataclasses.dataclass(frozen=True)
class Study:
    """What is varied.

    Attributes:
        batches: ascending; the first is the base batch.
        epochs: of every run.
        warmup_epochs: at the base batch; grows with the batch.
        first_rates: {optimizer: rate at which its ladder begins}.
        factor: between two rungs of a ladder.
        methods: (optimizer, rule) in the order of the table.
        higher_is_better: whether the score is an accuracy, not a loss.
        variations: (optimizer, name) pairs, run at the largest batch.
        retune_from: rung, counted from the rule's rate, at which the ladder of
            the largest batch begins.
    """

    batches: tuple[int, ...]
    epochs: float
    warmup_epochs: float
    first_rates: Mapping[str, float]
    factor: float = 2.0
    methods: tuple[tuple[str, str], ...] = (
        ("lamb", "sqrt"),
        ("lars", "sqrt"),
        ("adamw", "sqrt"),
        ("sgd", "sqrt"),
        ("sgd", "linear"),
    )
    higher_is_better: bool = True
    variations: tuple[tuple[str, str], ...] = ()
    retune_from: int = 0

    @property
    def worst(self) -> float:
        """The score of a run that diverged."""
        return 0.0 if self.higher_is_better else 100.0

    def better(self, one: float, other: float) -> bool:
        """Whether score `one` beats `other`; NaN beats nothing."""
        if math.isnan(other):
            return not math.isnan(one)
        return one > other if self.higher_is_better else one < other

    def warmup(self, batch: int) -> float:
        """Epochs of warmup at a batch, by the linear-epoch rule."""
        return schedules.scale_warmup(
            self.warmup_epochs,
            base_batch_size=self.batches[0],
            global_batch_size=batch,
        )


def rung(first: float, factor: float, step: int) -> float:
    """Rate number `step` of a ladder, rounded so that it has one name."""
    return float(f"{first * factor**step:.4g}")


def climb(
    scores: Mapping[int, float], better, first: int = 0
) -> tuple[tuple[int, ...], int | None]:
    """One look at a ladder of rates.

    Args:
        scores: {rung: score} of what is done.
        better: whether a score beats another.
        first: the rung to begin at.

    Returns:
        The rungs that are wanted next, and the best rung if it has a worse
        (or equal) neighbour on both sides, or the ladder is at its limit;
        None while it is not known.
    """
    if not scores:
        return (first,), None
    best, *others = sorted(scores, key=lambda r: abs(r - first))
    for r in others:
        if better(scores[r], scores[best]):
            best = r
    wanted = tuple(r for r in (best + 1, best - 1) if r not in scores)
    if wanted and len(scores) < MAX_RUNGS:
        return wanted, None
    return (), best


def _ladder(
    study: Study, stage, optimizer, rule, batch, first, scores, first_rung=0
):
    """Pending cells of a ladder and its best rate."""

    def cell(r):
        return Cell(
            stage,
            optimizer,
            rule,
            batch,
            rung(first, study.factor, r),
            study.warmup(batch),
            SPLIT_SEED,
        )

    done = {}
    for r in range(-MAX_RUNGS, MAX_RUNGS + 1):
        if cell(r).key in scores:
            done[r] = scores[cell(r).key]
    wanted, best = climb(done, study.better, first_rung)
    rate = None if best is None else rung(first, study.factor, best)
    return [cell(r) for r in wanted], rate


def tuned_rates(
    study: Study, scores: Mapping[str, float]
) -> dict[str, float | None]:
    """{optimizer: its best rate at the base batch, None if not known yet}."""
    return {
        name: _ladder(
            study, "tune", name, "sqrt", study.batches[0], first, scores
        )[1]
        for name, first in study.first_rates.items()
    }


def grid_cell(
    study: Study, optimizer: str, rule: str, batch: int, rate: float, seed: int
) -> Cell:
    """The cell of the grid whose rate follows from that at the base batch.

    At the base batch both rules give one cell, called sqrt.
    """
    base = study.batches[0]
    scaled = schedules.scale_learning_rate(
        rate, base_batch_size=base, global_batch_size=batch, rule=rule
    )
    return Cell(
        "grid",
        optimizer,
        "sqrt" if batch == base else rule,
        batch,
        float(f"{scaled:.4g}"),
        study.warmup(batch),
        seed,
    )


def retuned_rates(
    study: Study, scores: Mapping[str, float]
) -> dict[str, float | None]:
    """{optimizer: its best rate at the largest batch, or None}."""
    return {
        name: _retune(study, name, rate, scores)[1] if rate else None
        for name, rate in tuned_rates(study, scores).items()
    }


def _retune(study, name, rate, scores):
    batch = study.batches[-1]
    first = grid_cell(study, name, "sqrt", batch, rate, 1).learning_rate
    return _ladder(
        *(study, "retune", name, "sqrt", batch, first, scores),
        first_rung=study.retune_from,
    )


def pending(
    study: Study, seeds: Sequence[int], scores: Mapping[str, float]
) -> list[Cell]:
    """The cells that can be run now and are not done, most urgent first.

    The grid of the first seed comes before retuning, further seeds after it;
    the base batch, to which all others are held, before the largest.

    Args:
        study: what is varied.
        seeds: of the grid, in order.
        scores: {key of a cell: its score} of what is done.
    """
    tune, first, rest = [], [], []
    rates = tuned_rates(study, scores)
    again = retuned_rates(study, scores)
    largest = study.batches[-1]
    for name, start in study.first_rates.items():
        base = study.batches[0]
        tune += _ladder(study, "tune", name, "sqrt", base, start, scores)[0]
        if rates[name]:
            first += _retune(study, name, rates[name], scores)[0]
    grids = [
        [
            grid_cell(study, name, rule, batch, rates[name], seed)
            for batch in (study.batches[0], *study.batches[:0:-1])
            for name, rule in study.methods
            if rates[name]
        ]
        for seed in seeds
    ]
    for seed in seeds:
        for name, rate in again.items():
            if rate:
                warmup = study.warmup(largest)
                cell = ("retuned", name, "sqrt", largest, rate, warmup, seed)
                rest.append(Cell(*cell))
    variations = [
        dataclasses.replace(
            grid_cell(study, name, "sqrt", largest, rates[name], seed),
            stage="variation",
            variation=variation,
        )
        for seed in seeds[:1]
        for name, variation in study.variations
        if rates[name]
    ]
    order = [*tune, *grids[0], *first, *variations]
    for k, grid in enumerate(grids[1:], 1):
        order += grid
        order += [c for c in rest if c.seed in (seeds[0], seeds[k])]
    order += rest
    unique = {cell.key: cell for cell in order if cell.key not in scores}
    return list(unique.values())
