"""Times a whole training step of BERT, ours and its peers', in turns.

    python -m benchmarks.train_step                # tiny, mini, base
    python -m benchmarks.train_step --quick        # tiny, a small batch

Forward, backward and update on one batch of random tokens, float32, without
dropout. Every environment is a process that holds its models; round by round
each of them makes one step, while the others wait. "The best peer" is the
fastest of transformers on torch and of Keras' own optimizers with our model.
Ours are steps of `train_on_batch`, with metrics and a copy of the batch;
forward and backward pass alone have neither.
keras-hub and Flax are not in the environments of this repository, so they are
not among the peers.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from benchmarks import measure, train_steps, workers
from benchmarks.train_steps import Sizes

MODULE = "benchmarks.train_step"
SIZES = {
    "tiny": Sizes("tiny", 256, 32, 5),
    "mini": Sizes("mini", 64, 64, 10),
    "base": Sizes("base", 4, 128, 20),
    "quick": Sizes("tiny", 8, 16, 2),
}
ROUNDS = 11


def serve(environment: str, name: str) -> None:
    """A worker: reads names of steps, prints seconds.

    Args:
      environment: of `train_steps.STEPS`.
      name: of `SIZES`.
    """
    steps = {}

    def step(word: str) -> float:
        if word == "peak":
            return train_steps.matmul_peak()
        if word not in steps:
            steps[word] = train_steps.STEPS[environment][word](SIZES[name])
        began = time.perf_counter()
        steps[word]()
        return time.perf_counter() - began

    workers.serve(environment, step)


def race(name: str, rounds: int) -> dict:
    """What a model's steps take.

    Args:
      name: of `SIZES`.
      rounds: measured steps of each.

    Returns:
      As JSON values: `seconds` by step, `first` steps, the `peak`.
    """
    running, entries, first = [], [], {}
    try:
        for environment, steps in train_steps.STEPS.items():
            words = ["--worker", environment, "--model", name]
            worker = workers.start(MODULE, environment, words)
            if worker is None:
                continue
            running.append(worker)
            entries += [(worker, step) for step in steps]
        peak = running[0].step("peak")
        for worker, step in entries:
            first[step] = worker.step(step)
            worker.step(step)
            print(f"{name}: {step}: first step {first[step]:.1f} s", flush=True)
        seconds: dict[str, list[float]] = {step: [] for _, step in entries}
        for i in range(rounds):
            print(f"\r{name}: round {i + 1} of {rounds}", end="", flush=True)
            for worker, step in entries:
                seconds[step].append(worker.step(step))
        print()
    finally:
        for worker in running:
            worker.close()
    return _result(name, seconds, first, peak)


def _result(name, seconds, first, peak) -> dict:
    sizes = SIZES[name]
    ours = seconds[train_steps.OURS]
    rows = {}
    for step, times in seconds.items():
        tokens = sizes.batch * sizes.length
        whole = step == train_steps.ALL_LOGITS
        flops = train_steps.matmul_flops(sizes, sizes.length if whole else None)
        sample = measure.summary(times)
        rows[step] = {
            "seconds": sample,
            "first_step_seconds": first[step],
            "tokens_per_second": tokens / sample["median"],
            "to_ours": measure.summary([a / b for a, b in zip(times, ours)]),
            "share_of_peak": flops / sample["median"] / peak,
        }
    found = {"sizes": sizes._asdict(), "matmul_peak": peak, "steps": rows}
    alone = seconds[train_steps.GRADIENT]
    shares = [1 - a / b for a, b in zip(alone, ours)]
    found["share_of_the_update"] = measure.summary(shares)
    peers = [step for step in train_steps.PEERS if step in rows]
    best = min(peers, key=lambda step: rows[step]["seconds"]["median"])
    return {**found, "best_peer": best}


def render(result: dict) -> str:
    """The table of a result in Markdown: a step a row, a model two columns."""
    models = result["models"]
    head, rows = ["step"], {}
    for name, found in models.items():
        s = found["sizes"]
        head.append(f"BERT {name}, {s['batch']} x {s['length']}: ms")
        head.append("ours = 1")
        for step, row in found["steps"].items():
            label = f"**{step}**" if step.startswith("tf_lamb") else step
            cells = rows.setdefault(step, [label])
            cells.append(_spread(row["seconds"], 1e3, ".0f"))
            cells.append(_spread(row["to_ours"], 1, ".2f"))
    parts = [measure.table(head, list(rows.values()))]
    for name, found in models.items():
        ours = found["steps"][train_steps.OURS]
        alone = found["steps"][train_steps.GRADIENT]
        share = found["share_of_the_update"]
        parts.append(
            f"- {name}: {ours['tokens_per_second']:,.0f} tokens/s, "
            f"{100 * ours['share_of_peak']:.0f}% of the peak. The update, with "
            "what Keras does around a step, is, in percent of it, "
            f"{_spread(share, 100, '.0f')}; without it "
            f"{100 * alone['share_of_peak']:.0f}% of the peak are reached. The "
            f"best peer is {found['best_peer']}."
        )
    at = result["provenance"]
    parts.append(
        f"{at['date']}, {at['cores']} cores of {at['cpu']}, float32, "
        f"`{at['command']}`. Medians (quartiles). Of the peak: of the fastest "
        "float32 product of 1,024 x 1,024 matrices in the same run; matrix "
        "products alone are counted."
    )
    return "\n\n".join(parts)


def _spread(sample: dict, unit: float, form: str) -> str:
    """Median and quartiles."""
    names = "median", "lower_quartile", "upper_quartile"
    middle, low, high = (format(unit * sample[name], form) for name in names)
    return f"{middle} ({low}-{high})"


def main(words=None) -> None:
    """Measures, prints tables, writes JSON."""
    parser = measure.parser(MODULE, __doc__, "tiny at a small batch, 2 rounds")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="at least 5")
    parser.add_argument(
        "--models",
        nargs="+",
        choices=[name for name in SIZES if name != "quick"],
        default=["tiny", "mini", "base"],
        help="which sizes; default: all",
    )
    parser.add_argument("--worker", help=workers.HIDDEN)
    parser.add_argument("--model", choices=SIZES, help=workers.HIDDEN)
    arguments = parser.parse_args(words)
    if arguments.worker:
        serve(arguments.worker, arguments.model)
        return
    if arguments.rounds < 2:
        parser.error(f"--rounds {arguments.rounds}: expected a number >= 2")
    names = ["quick"] if arguments.quick else arguments.models
    rounds = 2 if arguments.quick else arguments.rounds
    result = {"provenance": measure.provenance(seed=train_steps.SEED)}
    result["models"] = {}
    for name in names:
        result["models"][name] = race(name, rounds)
        if arguments.output:
            measure.write_json(Path(arguments.output), result)
    print(render(result))
    print(json.dumps({n: m["best_peer"] for n, m in result["models"].items()}))


if __name__ == "__main__":
    sys.exit(main())
