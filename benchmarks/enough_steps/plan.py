"""What is run: rates at the base batch, all batches by rule, rates again.

Every optimizer gets the same: `TRIALS` rates, each twice the one before, at the
base batch and at the largest, one seed, judged by images that are held out;
then seeds on all training images, judged by the test images.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from benchmarks.enough_steps import noise, optimizers
from benchmarks.enough_steps.runs import Program, Split
from official_models.common.store import Store

EPOCHS = 52
WARMUP = 150  # updates, at every batch: the paper's linear-epoch rule
BATCHES = (32, 128, 512, 2_048, 6_000)  # 2,048: 1,508 updates; 6,000: 520
BASE, LARGEST = 32, 2_048
SEEDS = {32: 5, 128: 3, 512: 3, 2_048: 5, 6_000: 3}
TRIALS = 7
TUNING_SEED = 100
# How the rate follows the batch, beside the square root.
ALSO_LINEAR = ("sgd", "lars")


class Sizes(NamedTuple):
    """What a study spans; the constants of this module, or less in a test."""

    epochs: int = EPOCHS
    warmup: int = WARMUP
    batches: tuple[int, ...] = BATCHES
    largest: int = LARGEST
    seeds: dict[int, int] = SEEDS
    trials: int = TRIALS


def scaled(rate: float, rule: str, batch: int, base: int = BASE) -> float:
    """The rate at a batch, from that at the base batch.

    Args:
        rate: At the base batch.
        rule: "sqrt" or "linear".
        batch: Examples of an update.
        base: The base batch.
    """
    factor = batch / base
    return rate * (factor if rule == "linear" else math.sqrt(factor))


def rules_of(name: str) -> tuple[str, ...]:
    """The rules by which an optimizer's rate is scaled."""
    return ("sqrt", "linear") if name in ALSO_LINEAR else ("sqrt",)


def best(found: dict[str, Any]) -> int:
    """The trial with the best score at the end; of none that is finite, 0."""
    scores = np.array([s[-1] for s in found["scores"]], "float64")
    return 0 if np.isnan(scores).all() else int(np.nanargmax(scores))


# The study that is reported.
WHOLE = Sizes()


class Study:
    """Runs what is not there yet.

    Args:
        store: Of the parts.
        splits: To report by, and to choose rates by.
        sizes: What is spanned.
        after_epoch: Called with the part's name after each epoch.
    """

    def __init__(
        self,
        store: Store,
        splits: tuple[Split, Split],
        sizes: Sizes = WHOLE,
        after_epoch: Callable[[str], None] = lambda name: None,
    ):
        self.store, self.splits, self.sizes = store, splits, sizes
        self._after = after_epoch

    def _part(
        self,
        stage: str,
        name: str,
        batch: int,
        rates: Sequence[float],
        seeds: Sequence[int],
    ) -> dict[str, Any]:
        part = f"{stage}-{name}-{batch}"

        def make():
            program = Program(
                name,
                batch,
                self.sizes.epochs,
                self.sizes.warmup,
                self.splits[stage in ("tune", "retune")],
            )
            scores = program.train(rates, seeds, lambda: self._after(part))
            rounded = np.where(
                np.isnan(scores), None, scores.astype("float64").round(3)
            )
            return {
                "batch": batch,
                "rates": list(rates),
                "seeds": list(seeds),
                "updates": program.total,
                "scores": rounded.tolist(),
            }

        return self.store.get(part, make)

    def _trials(self, name: str) -> list[float]:
        lowest = optimizers.LOWEST[name]
        return [float(f"{lowest * 2**i:.4g}") for i in range(self.sizes.trials)]

    def _ladder(self, stage: str, name: str, batch: int, shift: int) -> dict:
        """Trials at a batch; `shift` doublings above those of the base."""
        rates = [rate * 2**shift for rate in self._trials(name)]
        seeds = [TUNING_SEED] * len(rates)
        found = self._part(stage, name, batch, rates, seeds)
        chosen = best(found)
        found["chosen"] = rates[chosen]
        found["at_the_edge"] = chosen in (0, len(rates) - 1)
        return found

    def of(self, name: str) -> dict[str, Any]:
        """All of one optimizer.

        Returns:
            "tune", "retune", "retuned" and "grid" {rule: {batch: part}}.
        """
        sizes = self.sizes
        base = sizes.batches[0]
        tune = self._ladder("tune", name, base, 0)
        grid: dict[str, dict[str, Any]] = {}
        for rule in rules_of(name):
            grid[rule] = {}
            for batch in sizes.batches:
                seeds = range(1, sizes.seeds[batch] + 1)
                rate = scaled(tune["chosen"], rule, batch, base)
                stage = "sqrt" if batch == base else rule
                grid[rule][str(batch)] = self._part(
                    stage, name, batch, [rate] * len(seeds), list(seeds)
                )
        shift = round(math.log2(math.sqrt(sizes.largest / base)))
        retune = self._ladder("retune", name, sizes.largest, shift)
        seeds = range(1, sizes.seeds[sizes.largest] + 1)
        retuned = self._part(
            "retuned",
            name,
            sizes.largest,
            [retune["chosen"]] * len(seeds),
            list(seeds),
        )
        return {
            "tune": tune,
            "grid": grid,
            "retune": retune,
            "retuned": retuned,
        }

    def noise(self, found: dict[str, Any]) -> dict[str, Any]:
        """The gradient noise scale along a run of LAMB at the second batch.

        Args:
            found: What `of("lamb")` gave.
        """
        batch = self.sizes.batches[1]
        rate = found["grid"]["sqrt"][str(batch)]["rates"][0]
        epochs = [e for e in noise.AFTER if e <= self.sizes.epochs]

        def make():
            program = Program(
                "lamb",
                batch,
                self.sizes.epochs,
                self.sizes.warmup,
                self.splits[0],
            )
            return noise.along(
                program, rate, 1, lambda: self._after("noise"), epochs
            )

        return self.store.get("noise", make)

    def epochs_of(self, names: Sequence[str]) -> int:
        """Epochs of all parts, for a progress bar."""
        sizes = self.sizes
        each = len(sizes.batches)
        parts = sum(
            3 + each + (each - 1) * (len(rules_of(name)) - 1) for name in names
        )
        return (parts + ("lamb" in names)) * sizes.epochs
