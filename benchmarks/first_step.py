"""Seconds to the first step of LAMB, each in a process of its own.

    python -m benchmarks.first_step --output benchmarks/results/first_step.json

What is measured is the first call of the compiled step: tracing, compiling and
running it, with gradients as arguments. Imports and the making of variables
and slots come before.

The pure time of compiling is that of the same call for one variable of each
distinct signature (shape, excluded or not) in its own fresh process: every
kernel is compiled, once, and nothing else is there. The 3,000 variables have
twelve shapes. Takes five minutes on two cores; --quick half a minute.
"""

import json
import time

from benchmarks import measure
from benchmarks.shapes import bert
from benchmarks.steps import OPTIMIZERS, is_excluded, make
from tf_lamb.diagnostics import command_line

MODULE = "benchmarks.first_step"
LAMB = "tf_lamb.LAMB"
TWELVE = [
    ("kernel", (256, 256)),
    ("kernel", (256, 1024)),
    ("kernel", (1024, 256)),
    ("kernel", (512, 256)),
    ("kernel", (128, 128)),
    ("kernel", (64, 256)),
    ("kernel", (3, 3, 64, 64)),
    ("table", (2, 256)),
    ("bias", (64,)),
    ("bias", (128,)),
    ("bias", (256,)),
    ("bias", (1024,)),
]


def many(count):
    """`count` variables of twelve shapes in turn."""
    return [
        (f"layer_{i}/{TWELVE[i % 12][0]}", TWELVE[i % 12][1])
        for i in range(count)
    ]


def distinct(shapes):
    """One variable of each signature."""
    found = {}
    for name, shape in shapes:
        found.setdefault((tuple(shape), is_excluded(name)), (name, shape))
    return list(found.values())


def _traced_again(step):
    """Kernels traced when rate, decay and the batch change."""
    import tensorflow as tf

    from tf_lamb import tf_update

    before = tf_update.trace_count()
    optimizer = step.optimizer
    step.run()
    optimizer.learning_rate = 0.5
    optimizer.weight_decay = 0.3
    variables = optimizer._trainable_variables

    @tf.function(autograph=False)
    def train(batch):
        scale = tf.reduce_mean(batch)
        optimizer.apply([v * scale for v in variables])

    for size in (8, 16):
        train(tf.ones((size, 4)))
    return tf_update.trace_count() - before


def run_job(job):
    """Measures in this process: `build` and `first` in seconds."""
    start = time.perf_counter()
    step = make(job["optimizer"], job["shapes"], job["seed"])
    built = time.perf_counter()
    step.run()
    result = {
        "build": built - start,
        "first": time.perf_counter() - built,
    }
    if job["optimizer"] == LAMB:
        from tf_lamb import tf_update

        result["kernels"] = tf_update.trace_count()
        if job["retrace"]:
            result["traced_again"] = _traced_again(step)
    return result


def _cases(quick):
    """(name, optimizer, shapes, name of the pure time), in order."""
    if quick:
        base = bert(layers=1, width=64, vocab=1000, ff=256)
        base_name, thousands = "small BERT", many(60)
        peers = ["keras.optimizers.Lamb, graph"]
    else:
        base, base_name = bert(), "BERT-base"
        thousands = many(3000)
        peers = [
            name
            for name in OPTIMIZERS
            if name not in (LAMB, "tf_lamb.LAMB, skip_nonfinite=False")
        ]
    pure, pure_many = (
        f"pure compiling, {name}" for name in (base_name, "12 shapes")
    )
    cases = [
        (pure, LAMB, distinct(base), None),
        (f"{LAMB}, {base_name}", LAMB, base, pure),
        (pure_many, LAMB, distinct(thousands), None),
        (f"{LAMB}, {len(thousands):,} variables", LAMB, thousands, pure_many),
    ]
    cases += [(f"{peer}, {base_name}", peer, base, None) for peer in peers]
    return cases


def measure_all(quick, repeats, seed):
    """Every case `repeats` times, the cases in turn."""
    cases = _cases(quick)
    found = {name: [] for name, *_ in cases}
    for i in range(repeats):
        for name, optimizer, shapes, pure in cases:
            job = dict(
                optimizer=optimizer,
                shapes=shapes,
                seed=seed,
                retrace=optimizer == LAMB and pure is None,
            )
            result = measure.fresh(MODULE, job)
            found[name].append(result)
            print(
                f"{i + 1}/{repeats} {name}: {result['first']:.2f} s", flush=True
            )
    rows = []
    for name, optimizer, shapes, pure in cases:
        results = found[name]
        row = {
            "name": name,
            "optimizer": optimizer,
            "variables": len(shapes),
            "first": measure.summary([r["first"] for r in results]),
            "build": measure.summary([r["build"] for r in results]),
            "pure": pure,
        }
        for key in ("kernels", "traced_again"):
            if key in results[0]:
                row[key] = max(r[key] for r in results)
        rows.append(row)
    medians = {row["name"]: row["first"]["median"] for row in rows}
    for row in rows:
        row["over_pure"] = row["pure"] and (
            medians[row["name"]] / medians[row["pure"]]
        )
    return rows


def markdown(rows):
    """A table of the rows."""
    return measure.table(
        ["", "variables", "kernels", "first step, s", "range", "over pure"],
        [
            [
                row["name"],
                f"{row['variables']:,}",
                row.get("kernels", ""),
                f"{row['first']['median']:.2f}",
                f"{row['first']['min']:.2f}-{row['first']['max']:.2f}",
                f"{row['over_pure']:.2f}" if row["over_pure"] else "",
            ]
            for row in rows
        ],
    )


def main(argv=None):
    parser = measure.parser(MODULE, __doc__, "small variables, once each")
    parser.add_argument(
        "--repeats", type=command_line.count, help="default 3, 1 if --quick"
    )
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    if args.job:
        print(json.dumps(run_job(args.job)))
        return
    repeats = args.repeats or (1 if args.quick else 3)
    rows = measure_all(args.quick, repeats, args.seed)
    if args.output:
        value = dict(provenance=measure.provenance(seed=args.seed), rows=rows)
        measure.write_json(args.output, value)
    print(markdown(rows))


if __name__ == "__main__":
    main()
