"""Times dropout on TensorFlow: the models' layer and Keras', in turns.

    python -m benchmarks.dropout --output benchmarks/results/dropout.json

Each is applied to a million numbers, alone in a compiled function: by XLA, and
by TensorFlow's own kernels. Both draw the same masks outside XLA. Takes half a
minute.
"""

import sys
import time

from benchmarks import measure

MODULE = "benchmarks.dropout"
NUMBERS, RATE, ROUNDS = 1_000_000, 0.1, 15


def _compiled(layer, numbers, by_xla):
    """The layer in training, as a function of one shape that has run once."""
    import tensorflow as tf

    @tf.function(jit_compile=by_xla)
    def apply(x):
        return tf.reduce_sum(layer(x, training=True))

    x = tf.ones((numbers,))
    apply(x)
    return lambda: apply(x).numpy()


def run(quick: bool) -> dict:
    """Times all; returns what the JSON has."""
    import keras

    from official_models.common import ops

    numbers, rounds = (1000, 3) if quick else (NUMBERS, ROUNDS)
    layers = {"tf_lamb's models": ops.Dropout, "Keras": keras.layers.Dropout}
    made = {
        (name, by_xla): _compiled(layer(RATE, seed=1), numbers, by_xla)
        for by_xla in (True, False)
        for name, layer in layers.items()
    }
    times = {key: [] for key in made}
    for _ in range(rounds):
        for key, apply in made.items():
            began = time.perf_counter()
            apply()
            times[key].append(1e3 * (time.perf_counter() - began))
    return {
        "provenance": measure.provenance(seed=1),
        "numbers": numbers,
        "rows": [
            {"layer": name, "xla": by_xla, "ms": measure.summary(values)}
            for (name, by_xla), values in times.items()
        ],
    }


def render(result: dict) -> str:
    """The table of a result in Markdown."""
    rows = []
    for row in result["rows"]:
        ms = row["ms"]
        quartiles = f"{ms['lower_quartile']:.1f}-{ms['upper_quartile']:.1f}"
        compiler = "XLA" if row["xla"] else "TensorFlow's kernels"
        rows.append(
            [f"{row['layer']}, {compiler}", f"{ms['median']:.1f} ({quartiles})"]
        )
    head = f"dropout of {result['numbers']:,} numbers"
    return measure.table([head, "ms (quartiles)"], rows)


def main(arguments=None) -> int:
    """Times, prints a table, writes JSON."""
    parser = measure.parser(MODULE, __doc__, quick="1,000 numbers, 3 rounds")
    return measure.measured(parser, run, render, arguments)


if __name__ == "__main__":
    sys.exit(main())
