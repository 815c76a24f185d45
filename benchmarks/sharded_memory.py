"""Memory a device of weights and state, by how they are split over a mesh.

    python -m benchmarks.sharded_memory \
        --output benchmarks/results/sharded_memory.json

BERT with LAMB on eight devices of JAX's CPU, each way of splitting in a process
of its own. `weights` and `state` are the bytes of the arrays that the fullest
device holds (`tf_lamb.sharding.bytes_per_device`); `arguments` and
`temporaries` are what the compiler plans for a device in the train step of
`fit`. The compiler is that of the CPU: on TPU and GPU the temporaries are
others, the rest is the same. Takes minutes on two cores and 4 GiB; --quick
seconds, of BERT-tiny.
"""

import json
import os

import numpy as np

from benchmarks import measure

MODULE = "benchmarks.sharded_memory"
MIB = 1 << 20
DEVICES = 8
# name: mesh (None: DataParallel), state split too
WAYS = {
    "DataParallel": (None, False),
    "DataParallel, shard_state": (None, True),
    "ModelParallel 2x4": ([2, 4], False),
    "ModelParallel 2x4, shard_state": ([2, 4], True),
    "ModelParallel 1x8": ([1, 8], False),
}
B, T, P = 32, 64, 10  # batch, tokens, predictions


def _set_up():
    """JAX with as many devices; before it is imported."""
    os.environ.setdefault("KERAS_BACKEND", "jax")
    os.environ.setdefault(
        "XLA_FLAGS", f"--xla_force_host_platform_device_count={DEVICES}"
    )


def _distribution(mesh):
    import keras

    from official_models.common import model_parallel
    from official_models.nlp.bert.layouts import LAYOUTS

    devices = keras.distribution.list_devices("cpu")
    if mesh is None:
        return keras.distribution.DataParallel(devices=devices)
    mesh = keras.distribution.DeviceMesh(mesh, ("batch", "model"), devices)
    layout_map = model_parallel.layout_map(mesh, LAYOUTS)
    return keras.distribution.ModelParallel(layout_map=layout_map)


def _model(size, shard_state):
    import tf_lamb
    from official_models.nlp.bert.config import BertConfig
    from official_models.nlp.bert.model import bert_pretrainer
    from official_models.nlp.bert.pretraining import losses
    from tf_lamb import sharding

    model = bert_pretrainer(BertConfig.of_size(size), seed=1)
    optimizer = tf_lamb.LAMB(
        1e-3, weight_decay=0.01, exclude_from_weight_decay=["LayerNorm", "bias"]
    )
    if shard_state:
        sharding.shard_state(optimizer)
    optimizer.build(model.trainable_variables)
    model.compile(optimizer, losses.pretraining_losses())
    return model


def _batch():
    tokens = ("input_ids", "input_mask", "segment_ids")
    x = {name: np.ones((B, T), "int32") for name in tokens}
    x["masked_lm_positions"] = np.ones((B, P), "int32")
    y = {"masked_lm": np.ones((B, P), "int32"), "next_sentence": np.ones(B)}
    weight = {
        "masked_lm": np.ones((B, P), "float32"),
        "next_sentence": np.ones(B, "float32"),
    }
    return x, y, weight


def _compiled_step(model):
    """The train step of `fit`, as the compiler has it."""
    import jax
    import keras

    distribution = keras.distribution.distribution()
    batch = jax.tree.map(
        lambda x: jax.device_put(
            x, distribution.get_data_layout(x.shape).backend_layout
        ),
        _batch(),
    )
    model._symbolic_build(data_batch=batch)  # of losses and metrics
    state = tuple(
        [v.value for v in variables]
        for variables in (
            model.trainable_variables,
            model.non_trainable_variables,
            model.optimizer.variables,
            model.metrics_variables,
        )
    )
    placed = jax.tree.map(lambda x: x.sharding, state)
    step = jax.jit(
        model.train_step, donate_argnums=0, out_shardings=(None, placed)
    )
    return step.lower(state, batch).compile()


def run_job(job):
    """Measures one way of splitting in this process; bytes a device."""
    _set_up()
    from tf_lamb import sharding

    with _distribution(job["mesh"]).scope():
        model = _model(job["size"], job["shard_state"])
        memory = _compiled_step(model).memory_analysis()
    return {
        "parameters": model.count_params(),
        "weights": sharding.bytes_per_device(model.variables),
        "state": sharding.bytes_per_device(model.optimizer.variables),
        "arguments": memory.argument_size_in_bytes,
        "temporaries": memory.temp_size_in_bytes,
    }


def measure_all(size):
    """Each way, one after the other."""
    rows = []
    for name, (mesh, shard_state) in WAYS.items():
        job = dict(mesh=mesh, shard_state=shard_state, size=size)
        rows.append({"name": name, **measure.fresh(MODULE, job)})
        print(f"{name}: {rows[-1]}", flush=True)
    return {
        "model": f"bert-{size}",
        "devices": DEVICES,
        "batch": {"sequences": B, "tokens": T},
        "rows": rows,
    }


def markdown(found):
    """A table of what was measured, in MiB."""
    keys = ("weights", "state", "arguments", "temporaries")
    return measure.table(
        ["MiB a device", *keys],
        [
            [row["name"], *(f"{row[key] / MIB:.1f}" for key in keys)]
            for row in found["rows"]
        ],
    )


def main(argv=None):
    parser = measure.parser(MODULE, __doc__, "BERT-tiny")
    args = parser.parse_args(argv)
    if args.job:
        print(json.dumps(run_job(args.job)))
        return
    _set_up()  # for the processes that measure
    found = measure_all("tiny" if args.quick else "small")
    if args.output:
        value = dict(provenance=measure.provenance(seed=1), **found)
        measure.write_json(args.output, value)
    print(markdown(found))


if __name__ == "__main__":
    main()
