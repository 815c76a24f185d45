"""Words that an update moves on a TPU, counted by the compiler; needs no TPU.

libtpu compiles for TPUs that are not there. Of each optimizer's update of a
model's variables (Keras 3 on JAX: `stateless_apply`; jitted, weights and state
donated, on one device) this says, a parameter where it says so:

    words      "bytes accessed" of XLA's cost analysis / 4
    HBM words  words read from and written to HBM, of the optimized program
    cycles     sum of the compiler's `estimated_cycles`
    temp MB    temporary memory
    fusions    compiled loops
    compile s  seconds to compile

On v3 the two counts of words agree. Later TPUs keep arrays in on-chip memory
between two loops, and "bytes accessed" counts the on-chip traffic too.

    make bench-tpu
    make bench-tpu ARGS="--quick --topology v5e:2x2"

Nothing runs on a TPU here: cycles are the compiler's estimate, not a time.
"""

import argparse
import importlib.metadata
import math
import os
import platform
import re
import sys
import time
from datetime import date
from pathlib import Path

import tpu.plan  # noqa: F401  before JAX: it sets JAX up

# isort: split
import jax
import jax.numpy as jnp
import keras
import optax
from jax.experimental import topologies

import tf_lamb
from benchmarks import shapes
from official_models.common import files
from tpu.plan.hlo import hbm_bytes

TOPOLOGIES = ("v3:2x2", "v4:2x2x1", "v5e:2x2", "v6e:2x2")
# 59,109,180 parameters in 46 variables: two layers of BERT-large.
MODEL = dict(layers=2, width=1024, vocab=30522, ff=4096)
QUICK_MODEL = dict(layers=1, width=512, vocab=4096, ff=2048)
OUTPUT = Path(__file__).parent / "results" / "tpu_words.json"
COLUMNS = ("words", "hbm_words", "cycles", "temp_mb", "fusions", "compile_s")


class Missing(Exception):
    """No libtpu, or a topology that it does not know."""


def device(topology):
    """The first device of a TPU that need not be there.

    Args:
      topology: such as "v3:2x2".

    Raises:
      Missing: libtpu is not installed, or does not know the topology.
    """
    try:
        described = topologies.get_topology_desc(
            platform="tpu", topology_name=topology
        )
    except Exception as error:  # XLA's, of several classes
        first = (str(error) or type(error).__name__).splitlines()[0]
        raise Missing(
            f"topology {topology!r}: {first}; expected libtpu (`make "
            f".venv-plan`) and a topology such as {', '.join(TOPOLOGIES)}."
        ) from None
    return described.devices[0]


def _adamw(variables):
    """AdamW as short as it gets: reads x, g, m, v, writes x, m, v."""
    state = (jax.ShapeDtypeStruct((), "float32"), variables, variables)

    def apply(params, state, grads):
        step, ms, vs = state
        step = step + 1
        first, second = 1 / (1 - 0.9**step), 1 / (1 - 0.999**step)
        ms = [0.9 * m + 0.1 * g for m, g in zip(ms, grads)]
        vs = [0.999 * v + 0.001 * g * g for v, g in zip(vs, grads)]
        params = [
            x - 1e-3 * (m * first / (jnp.sqrt(v * second) + 1e-6) + 0.01 * x)
            for x, m, v in zip(params, ms, vs)
        ]
        return params, (step, ms, vs)

    return apply, state


def _optax(make):
    def build(variables):
        optimizer = make()

        def apply(params, state, grads):
            updates, state = optimizer.update(grads, state, params)
            return optax.apply_updates(params, updates), state

        return apply, jax.eval_shape(optimizer.init, variables)

    return build


def _keras(make):
    def build(variables):
        optimizer = make()
        optimizer.build(
            [
                keras.Variable("zeros", shape=v.shape, dtype=v.dtype)
                for v in variables
            ]
        )
        state = [
            jax.ShapeDtypeStruct(v.shape, v.dtype) for v in optimizer.variables
        ]

        def apply(params, state, grads):
            return optimizer.stateless_apply(state, grads, params)

        return apply, state

    return build


def _lamb(**kwargs):
    return _keras(lambda: tf_lamb.LAMB(1e-3, weight_decay=0.01, **kwargs))


def _lars(**kwargs):
    return _keras(lambda: tf_lamb.LARS(1e-3, weight_decay=0.01, **kwargs))


NO_SKIP = dict(skip_nonfinite=False)
BFLOAT16 = dict(moment_dtype="bfloat16")
# {name: (what gives the update and its state, words of its floor or None)}
ROWS = {
    "AdamW, by hand": (_adamw, 7),
    "keras AdamW": (
        _keras(lambda: keras.optimizers.AdamW(1e-3, weight_decay=0.01)),
        7,
    ),
    "tf_lamb.LAMB, no skip": (_lamb(**NO_SKIP), 10),
    "tf_lamb.LAMB": (_lamb(), 11),
    "tf_lamb.LAMB, global_clipnorm=1": (_lamb(global_clipnorm=1.0), 11),
    "tf_lamb.LAMB, bfloat16, no skip": (_lamb(**NO_SKIP, **BFLOAT16), 7),
    "tf_lamb.LAMB, bfloat16": (_lamb(**BFLOAT16), 8),
    "keras Lamb": (_keras(lambda: keras.optimizers.Lamb(1e-3)), 10),
    "optax.lamb": (
        _optax(lambda: optax.lamb(1e-3, weight_decay=0.01)),
        10,
    ),
    "keras SGD, momentum": (
        _keras(lambda: keras.optimizers.SGD(1e-3, momentum=0.9)),
        5,
    ),
    "tf_lamb.LARS, no skip": (_lars(**NO_SKIP), 7),
    "tf_lamb.LARS": (_lars(), 7),
    "tf_lamb.LARS, model_garden": (_lars(form="model_garden"), 8),
    "tf_lamb.LARS, bfloat16, no skip": (_lars(**NO_SKIP, **BFLOAT16), 6),
    "optax.lars": (_optax(lambda: optax.lars(1e-3, weight_decay=0.01)), 7),
}


def count(row, variables, where):
    """Compiles a row for a device; returns {column: value}.

    Args:
      row: a value of `ROWS`.
      variables: `jax.ShapeDtypeStruct`s.
      where: a device, of `device`.
    """
    build, floor = row
    apply, state = build(variables)
    sharding = jax.sharding.SingleDeviceSharding(where)
    # Donated arrays are paired with results of their shape in order: weights
    # and state have to come in the order in which they are returned.
    arguments = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
        (variables, state, variables),
    )
    start = time.perf_counter()
    compiled = jax.jit(apply, donate_argnums=(0, 1)).lower(*arguments).compile()
    seconds = time.perf_counter() - start
    hlo = compiled.as_text()
    cycles = re.findall(r'"estimated_cycles":"(\d+)"', hlo)
    parameters = sum(math.prod(v.shape) for v in variables)
    accessed = compiled.cost_analysis()["bytes accessed"]
    return {
        "floor": floor,
        "words": accessed / 4 / parameters,
        "hbm_words": hbm_bytes(hlo) / 4 / parameters,
        "cycles": sum(map(int, cycles)),
        "cycles_a_parameter": sum(map(int, cycles)) / parameters,
        "temp_mb": compiled.memory_analysis().temp_size_in_bytes / 1e6,
        "fusions": hlo.count(" fusion("),
        "compile_s": seconds,
    }


def structs(model):
    """Float32 variables of a list of (name, shape), without memory."""
    return [jax.ShapeDtypeStruct(shape, "float32") for _, shape in model]


def _markdown(results):
    """One table a topology."""
    lines = []
    for topology, rows in results.items():
        lines += [
            f"\n`{topology}`\n",
            "| optimizer | floor | words | HBM words | cycles, M | cycles a "
            "parameter | temp MB | fusions | compile s |",
            "|---|" + "---:|" * 8,
        ]
        lines += [
            f"| {name} | {x['floor']} | {x['words']:.2f} | "
            f"{x['hbm_words']:.2f} | {x['cycles'] / 1e6:.3f} | "
            f"{x['cycles_a_parameter']:.4f} | {x['temp_mb']:.1f} | "
            f"{x['fusions']} | {x['compile_s']:.1f} |"
            for name, x in rows.items()
        ]
    return "\n".join(lines)


def _write(path, model, parameters, results):
    """JSON, under a temporary name and renamed."""
    packages = ("jax", "jaxlib", "libtpu", "keras", "optax")
    report = {
        "date": date.today().isoformat(),
        "command": "python -m benchmarks.tpu_words " + " ".join(sys.argv[1:]),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores; no TPU",
        "versions": {
            "python": platform.python_version(),
            "tf_lamb": tf_lamb.__version__,
            **{name: importlib.metadata.version(name) for name in packages},
        },
        "model": model,
        "parameters": parameters,
        "results": results,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_json(path, report, indent=1)


def main(argv=None):
    """Returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--topology",
        action="append",
        help=f"may be repeated; default: {', '.join(TOPOLOGIES)}",
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="a model of 7 million parameters in place of 59",
    )
    parser.add_argument(
        "--output",
        type=Path,
        help=f"JSON file; default: {OUTPUT.name} in benchmarks/results/,\n"
        "or none with --quick",
    )
    flags = parser.parse_args(argv)
    model = QUICK_MODEL if flags.quick else MODEL
    variables = structs(shapes.bert(**model))
    parameters = shapes.count(shapes.bert(**model))
    results = {}
    try:
        devices = {t: device(t) for t in flags.topology or TOPOLOGIES}
    except Missing as error:
        print(f"tpu_words: {error}", file=sys.stderr)
        return 2
    for topology, where in devices.items():
        results[topology] = {}
        for i, (name, row) in enumerate(ROWS.items()):
            print(
                f"{topology} {i + 1}/{len(ROWS)} {name}",
                file=sys.stderr,
                flush=True,
            )
            results[topology][name] = count(row, variables, where)
    output = flags.output or (None if flags.quick else OUTPUT)
    if output:
        _write(output, model, parameters, results)
    print(f"{parameters:,} parameters in {len(variables)} variables")
    print(_markdown(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
