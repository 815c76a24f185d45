"""What switching off every head and layer costs: the sweep against passes.

    nice -n 10 python -m benchmarks.head_sweep --output \\
        official_models/nlp/head_analysis/results/sweep.json

A classifier of MiniLM's sizes (6 layers, 12 heads, H 384) with random weights
reads random texts of 8 to 64 tokens. 79 models are wanted: with one head off,
with one layer off, with nothing off. Compared are

- `sweep`: `disable.Sweep`, all of it, its tracing included;
- `passes`: a whole pass for each, one compiled function for all, of the same
  batches without most padding; the median of some passes, after the first
  one, which compiles, times 79;
- `padded`: the same where every batch has 64 columns.

`saved` is how many times as long the passes take. Processor seconds of all
threads; wall time is beside them, which other programs lengthen. --quick: two
layers of two heads.
"""

import json
import time

import numpy as np

from benchmarks import measure
from tf_lamb.diagnostics import command_line

MODULE = "benchmarks.head_sweep"
SIZES = {
    "vocab_size": 1000,
    "hidden_size": 384,
    "num_layers": 6,
    "num_heads": 12,
    "intermediate_size": 1536,
    "max_position_embeddings": 64,
    "initializer_range": 0.05,
}
QUICK = {"num_layers": 2, "num_heads": 2, "hidden_size": 32}
TOKENS, BATCH = 64, 32


def _inputs(number, seed):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(8, TOKENS + 1, number)
    mask = (np.arange(TOKENS) < lengths[:, None]).astype("int32")
    ids = rng.integers(5, SIZES["vocab_size"], mask.shape, "int32") * mask
    return {"input_ids": ids, "input_mask": mask, "segment_ids": 0 * mask}


def _whole(model):
    """The model, and `off` [B, L N]: 1 for a head that is off."""
    import keras

    from official_models.nlp.checkpoint import models
    from official_models.nlp.head_analysis.maps import functional
    from official_models.nlp.transformer.layers import attention_bias

    encoder = models.encoder_of(model)
    heads = encoder.config.num_heads

    class Whole(keras.layers.Layer):
        def call(self, input_ids, input_mask, segment_ids, off):
            bias = attention_bias(input_mask, encoder.compute_dtype)
            x = encoder.embedded(input_ids, segment_ids)
            for i, layer in enumerate(encoder.applied):
                x = layer(x, bias, off[0, i * heads : (i + 1) * heads])
            return model.get_layer("classifier")(encoder.pooled(x))

    names = "input_ids", "input_mask", "segment_ids"
    inputs = {
        name: keras.Input((None,), dtype="int32", name=name) for name in names
    }
    columns = heads * len(encoder.applied)
    inputs["off"] = keras.Input((columns,), dtype="int32", name="off")
    return functional(Whole(), inputs), columns


def _timed(call):
    wall, processor = time.perf_counter(), time.process_time()
    result = call()
    processor = time.process_time() - processor
    return result, processor, time.perf_counter() - wall


def _sweep(model, batches):
    """{(layer, head) or (layer,): logits}, and the logits of nothing off."""
    from official_models.nlp.head_analysis import disable

    sweep, found = disable.Sweep(model, batches), {}
    layers, heads = sweep.sizes
    found[()] = sweep.logits()
    for layer in range(layers):
        for head in range(heads):
            found[layer, head] = sweep.logits([head])
        found[layer,] = sweep.logits(range(heads))
        if layer + 1 < layers:
            sweep.next_layer()
    return found


def run_job(job):
    """Times the sweep and both kinds of passes in this process."""
    from official_models.nlp.bert.config import BertConfig
    from official_models.nlp.checkpoint import models
    from official_models.nlp.head_analysis import maps

    config = BertConfig(**job["sizes"])
    model = models.make(config, "classifier", seed=job["seed"])
    inputs = _inputs(job["examples"], job["seed"])
    batches = maps.batches_of(inputs, BATCH)
    logits, processor, wall = _timed(lambda: _sweep(model, batches))
    result = {"models": len(logits), "sweep": processor, "sweep_wall": wall}
    whole, columns = _whole(model)
    for name, trim in (("passes", True), ("padded", False)):
        batches = maps.batches_of(inputs, BATCH, trim=trim)
        order = np.concatenate([b.rows for b in batches]).argsort()

        def one_pass(head, batches=batches, order=order):
            off = np.zeros((BATCH, columns), "int32")
            off[:, head] = 1
            found = [
                whole.predict_on_batch({**b.inputs, "off": off[: len(b.rows)]})
                for b in batches
            ]
            return np.concatenate(found)[order]

        times, walls, error = [], [], 0.0
        for repeat in range(job["passes"] + 1):
            head = repeat * columns // (job["passes"] + 1)
            found, processor, wall = _timed(lambda h=head: one_pass(h))
            place = divmod(head, job["sizes"]["num_heads"])
            error = max(error, float(abs(found - logits[place]).max()))
            if repeat:
                times.append(processor)
                walls.append(wall)
        result[name] = measure.summary(times)["median"] * len(logits)
        result[f"{name}_wall"] = measure.summary(walls)["median"] * len(logits)
        result[f"{name}_error"] = error
    return result


def measure_all(quick, repeats, seed, examples):
    """Processes of their own, one after the other."""
    sizes = {**SIZES, **(QUICK if quick else {})}
    job = {"sizes": sizes, "seed": seed}
    job |= {"examples": 16 if quick else examples, "passes": 2 if quick else 5}
    found = []
    for i in range(repeats):
        found.append(measure.fresh(MODULE, job))
        print(f"{i + 1}/{repeats}: {found[-1]}", flush=True)
    keys = [key for key in found[0] if not key.endswith("error")]
    rows = {key: measure.summary([r[key] for r in found]) for key in keys}
    for name in ("passes", "padded"):
        for end in ("", "_wall"):
            rows[f"saved_{name}{end}"] = measure.summary(
                [r[name + end] / r["sweep" + end] for r in found]
            )
    error = max(r[f"{n}_error"] for r in found for n in ("passes", "padded"))
    return {**job, "batch": BATCH, "largest_difference": error, "rows": rows}


def markdown(found):
    """A table of what was measured."""
    rows = found["rows"]
    return measure.table(
        ["way", "processor s", "wall s", "times the sweep"],
        [
            [
                name,
                f"{rows[name]['median']:.1f}",
                f"{rows[f'{name}_wall']['median']:.1f}",
                "1"
                if name == "sweep"
                else f"{rows[f'saved_{name}']['median']:.2f}",
            ]
            for name in ("sweep", "passes", "padded")
        ],
    )


def main(argv=None):
    parser = measure.parser(MODULE, __doc__, "two layers of two heads")
    parser.add_argument(
        "--repeats", type=command_line.count, help="default 3, 1 if --quick"
    )
    parser.add_argument("--examples", type=command_line.count, default=128)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    if args.job:
        print(json.dumps(run_job(args.job)))
        return
    repeats = args.repeats or (1 if args.quick else 3)
    found = measure_all(args.quick, repeats, args.seed, args.examples)
    if args.output:
        value = dict(provenance=measure.provenance(seed=args.seed), **found)
        measure.write_json(args.output, value)
    print(markdown(found))


if __name__ == "__main__":
    main()
