"""What ALBERT's ways of sharing cost: parameters, time and memory of a step.

    nice -n 5 python -m benchmarks.albert_sharing --output \\
        official_models/nlp/albert/results/sharing.json

Each way trains in a process of its own, by LAMB and Keras' `train_on_batch`, in
turn; so a way meets every state of the machine. Of a process:

- `step`: processor seconds of a step, all threads, median of those after the
  first, which compiles. Wall time is beside it; other programs lengthen it.
- `peak`: how far the peak of the resident memory of all steps is above what was
  resident before the model was made, in bytes.

Linux only. Takes three minutes on two cores; --quick a minute.
"""

import json
import time

from benchmarks import measure
from benchmarks.memory import MIB, _status
from official_models.nlp.albert.config import SHARING, AlbertConfig, sharing
from tf_lamb.diagnostics import command_line

MODULE = "benchmarks.albert_sharing"
SIZES = {
    "vocab_size": 8192,
    "embedding_size": 128,
    "hidden_size": 256,
    "num_layers": 6,
    "num_heads": 4,
    "intermediate_size": 1024,
    "max_position_embeddings": 64,
    "hidden_dropout": 0.0,
    "attention_dropout": 0.0,
}
BATCH, TOKENS, PREDICTIONS = 16, 64, 10


def _batch(vocab_size, seed):
    import numpy as np

    rng = np.random.default_rng(seed)

    def draw(high, *shape):
        return rng.integers(0, high, shape, "int32")

    x = {
        "input_ids": draw(vocab_size, BATCH, TOKENS),
        "input_mask": np.ones((BATCH, TOKENS), "int32"),
        "segment_ids": draw(2, BATCH, TOKENS),
        "masked_lm_positions": draw(TOKENS, BATCH, PREDICTIONS),
    }
    y = {
        "masked_lm": draw(vocab_size, BATCH, PREDICTIONS),
        "sentence_order": draw(2, BATCH),
    }
    return x, y


def run_job(job):
    """Trains some steps in this process."""
    import tf_lamb
    from official_models.nlp.albert.model import albert_pretrainer
    from official_models.nlp.bert.pretraining import losses

    x, y = _batch(job["sizes"]["vocab_size"], job["seed"])
    before = _status("VmRSS")
    shared = sharing(job["mode"], job["sizes"]["num_layers"])
    config = AlbertConfig(**job["sizes"], **shared)
    model = albert_pretrainer(config, seed=job["seed"])
    model.compile(
        tf_lamb.LAMB(0.001, weight_decay=0.01),
        losses.pretraining_losses("sentence_order"),
    )
    model.train_on_batch(x, y)
    steps, walls = [], []
    for _ in range(job["steps"]):
        wall, processor = time.perf_counter(), time.process_time()
        model.train_on_batch(x, y)
        steps.append(time.process_time() - processor)
        walls.append(time.perf_counter() - wall)
    return {
        "parameters": model.count_params(),
        "variables": len(model.trainable_variables),
        "step": measure.summary(steps)["median"],
        "wall": measure.summary(walls)["median"],
        "peak": _status("VmHWM") - before,
    }


def measure_all(quick, repeats, seed):
    """Each way `repeats` times, in turn."""
    sizes = {**SIZES, "num_layers": 3} if quick else SIZES
    found = {mode: [] for mode in SHARING}
    for i in range(repeats):
        for mode in SHARING:
            job = {"mode": mode, "sizes": sizes, "seed": seed}
            result = measure.fresh(MODULE, {**job, "steps": 3 if quick else 12})
            found[mode].append(result)
            print(f"{i + 1}/{repeats} {mode}: {result}", flush=True)
    return {
        "sizes": sizes,
        "batch": [BATCH, TOKENS, PREDICTIONS],
        "rows": [
            {
                "mode": mode,
                "parameters": found[mode][0]["parameters"],
                "variables": found[mode][0]["variables"],
                **{
                    key: measure.summary([r[key] for r in found[mode]])
                    for key in ("step", "wall", "peak")
                },
            }
            for mode in SHARING
        ],
    }


def markdown(found):
    """A table of what was measured."""
    return measure.table(
        ["shared", "parameters", "variables", "s a step", "wall", "peak MiB"],
        [
            [
                row["mode"],
                f"{row['parameters']:,}",
                str(row["variables"]),
                f"{row['step']['median']:.2f}",
                f"{row['wall']['median']:.2f}",
                f"{row['peak']['median'] / MIB:.0f}",
            ]
            for row in found["rows"]
        ],
    )


def main(argv=None):
    parser = measure.parser(MODULE, __doc__, "three layers, once each")
    parser.add_argument(
        "--repeats", type=command_line.count, help="default 3, 1 if --quick"
    )
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    if args.job:
        print(json.dumps(run_job(args.job)))
        return
    repeats = args.repeats or (1 if args.quick else 3)
    found = measure_all(args.quick, repeats, args.seed)
    if args.output:
        value = dict(provenance=measure.provenance(seed=args.seed), **found)
        measure.write_json(args.output, value)
    print(markdown(found))


if __name__ == "__main__":
    main()
