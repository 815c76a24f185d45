"""Times a step of LAMB without groups, with 1 and with 24, in turns.

    python -m benchmarks.groups --output benchmarks/results/groups.json

All update the variables of BERT-base by the same gradients, each with moments
of its own. The 24 groups differ by rate and decay, which are inputs of the
kernels that all share. The other rows show what a ratio of each filter, and of
each layer, costs. Ratios are medians of the rounds' own. Takes three minutes on
two cores and 8 GiB; --quick half a minute.
"""

import sys
import time

from benchmarks import measure, optimizers, shapes

MODULE = "benchmarks.groups"
ROUNDS = 31
BASE = "no group"
VARIANTS = {
    BASE: lambda group: [],
    "1 group": lambda group: [group("", 0.5)],
    "24 groups": lambda group: [
        group(f"layer_{i}/{part}", 0.9**i, weight_decay=0.001 * (i + 1))
        for i in range(12)
        for part in ("attention", "")
    ],
    "a ratio of each filter": lambda group: [
        group("", trust_ratio_per="filter")
    ],
    "a ratio of each layer": lambda group: [group("", trust_ratio_per="layer")],
}


def _make(name, sizes, kernels):
    """A step of one variant, its first time, and the kernels it added."""
    import tf_lamb
    from tf_lamb import tf_update

    before = tf_update.trace_count()
    step = optimizers.of_optimizer(
        lambda: tf_lamb.LAMB(
            optimizers.RATE,
            weight_decay=optimizers.DECAY,
            groups=VARIANTS[name](tf_lamb.Group),
            unmatched="ignore",
        )
    )(sizes)
    began = time.perf_counter()
    step()
    seconds = time.perf_counter() - began
    kernels[name] = tf_update.trace_count() - before
    return step, seconds


def run(quick: bool) -> dict:
    """Times all variants; returns what the JSON has."""
    sizes = tuple(shapes.bert(2, 64, 1000, 256) if quick else shapes.bert())
    rounds = 5 if quick else ROUNDS
    kernels, first, steps = {}, {}, {}
    for name in VARIANTS:
        steps[name], first[name] = _make(name, sizes, kernels)
        steps[name]()
    times = {name: [] for name in VARIANTS}
    for i in range(rounds):
        print(f"\rround {i + 1} of {rounds}", end="", flush=True)
        for name, step in steps.items():
            began = time.perf_counter()
            step()
            times[name].append(time.perf_counter() - began)
    print()
    return {
        "provenance": measure.provenance(seed=optimizers.SEED),
        "variables": len(sizes),
        "variants": {
            name: {
                "seconds": measure.summary(values),
                "ratio": measure.summary(
                    [a / b for a, b in zip(values, times[BASE])]
                ),
                "first_step_seconds": first[name],
                "kernels_added": kernels[name],
            }
            for name, values in times.items()
        },
    }


def render(result: dict) -> str:
    """The table of a result in Markdown."""
    rows = []
    for name, row in result["variants"].items():
        s, ratio = row["seconds"], row["ratio"]
        ms = [
            1e3 * s[k] for k in ("median", "lower_quartile", "upper_quartile")
        ]
        low, high = ratio["lower_quartile"], ratio["upper_quartile"]
        rows.append(
            [
                name,
                "{:.1f} ({:.1f}-{:.1f})".format(*ms),
                f"{ratio['median']:.2f} ({low:.2f}-{high:.2f})",
                f"{row['first_step_seconds']:.1f}",
                row["kernels_added"],
            ]
        )
    head = [
        f"LAMB, {result['variables']} variables",
        "ms a step (quartiles)",
        "ratio (quartiles)",
        "first step, s",
        "kernels it added",
    ]
    return measure.table(head, rows)


def main(arguments=None) -> int:
    parser = measure.parser(MODULE, __doc__, quick="small variables, 5 rounds")
    return measure.measured(parser, run, render, arguments)


if __name__ == "__main__":
    sys.exit(main())
