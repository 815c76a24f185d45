r"""Damaged inputs by the thousand: what comes of each.

    python -m tests.robustness.run --inputs 10000 \
        --output tests/robustness/results/inputs.json

Each input is a function of the seed and its number. The table counts, for each
kind, inputs that were refused in one line, taken, taken in silence though the
damage must show, ended in a fault, or did not end. Faults are printed with the
number that repeats them (--only N).
"""

from __future__ import annotations

import argparse
import collections
import random
import sys
import tempfile
from pathlib import Path

from tqdm import tqdm

from benchmarks import measure
from tests.robustness import constructors, damage, outcomes, readers

KINDS = (*readers.READERS, *constructors.CONSTRUCTORS)
Counts = dict[str, collections.Counter]


def one(number: int, seed: int, root: Path) -> tuple[str, outcomes.Outcome]:
    """Makes input `number`, and reads it; gives its kind and its outcome.

    Args:
        number: from 0; kinds take turns.
        seed: of the run.
        root: folder for the files.
    """
    kind = KINDS[number % len(KINDS)]
    rng = random.Random(f"{seed}/{number}")
    if kind in readers.READERS:
        reader = readers.READERS[kind]
        folder = readers.damaged(kind, root, rng)
        call, refusals = lambda: reader.read(folder), reader.refusals
    else:
        made = constructors.CONSTRUCTORS[kind]
        values = damage.of_values(made.arguments, rng)

        def call():
            made.check(made.make(**values))

        refusals = (ValueError, TypeError)
    found = outcomes.of(call, refusals)
    if kind in constructors.CONSTRUCTORS and found.name != "accepted":
        detail = f"{outcomes.shown(values, made.arguments)}: {found.detail}"
        found = outcomes.Outcome(found.name, detail)
    return kind, found


def table(counts: Counts) -> str:
    """The counts as a table in Markdown."""
    lines = [
        "| kind | " + " | ".join(outcomes.NAMES) + " |",
        "| --- |" + " ---: |" * len(outcomes.NAMES),
    ]
    total: collections.Counter = collections.Counter()
    for kind, found in counts.items():
        total += found
        numbers = " | ".join(str(found[name]) for name in outcomes.NAMES)
        lines.append(f"| {kind} | {numbers} |")
    numbers = " | ".join(str(total[name]) for name in outcomes.NAMES)
    return "\n".join([*lines, f"| all | {numbers} |"])


def main() -> None:
    """Counts outcomes; status 1 if there is a fault, a hang or a silent one."""
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--inputs", type=int, default=300, help="how many")
    parser.add_argument("--seed", type=int, default=1, help="of the damages")
    parser.add_argument("--only", type=int, help="number of one input")
    parser.add_argument("--output", type=Path, help="JSON file of the counts")
    args = parser.parse_args()
    numbers = range(args.inputs) if args.only is None else [args.only]
    counts: Counts = {kind: collections.Counter() for kind in KINDS}
    wrong = 0
    with tempfile.TemporaryDirectory() as root:
        for number in tqdm(numbers, disable=not sys.stderr.isatty()):
            kind, found = one(number, args.seed, Path(root))
            counts[kind][found.name] += 1
            if found.name in ("silent", "fault", "hang"):
                wrong += 1
                print(f"--only {number}: {kind}: {found.name}: {found.detail}")
    print(table(counts))
    if args.output:
        value = dict(
            provenance=measure.provenance(seed=args.seed),
            counts=counts,
        )
        measure.write_json(args.output, value)
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
