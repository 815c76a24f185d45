"""What the monitor and the noise scale cost, and a run that they watched.

    python -m benchmarks.monitoring --output benchmarks/results/monitoring.json

A small convolutional network learns digits with LAMB, and both callbacks watch
it: the JSON has the noise scale over the run, beside it are a plot and a heat
map. At the end it holds the callback's estimate, at weights that stay, against
per-example gradients. Then a training step and a record of each callback are
timed in turns; a record's share of 100 steps is what `every=100` costs.
Takes two minutes on two cores; --quick ten seconds.
"""

import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks import measure

MODULE = "benchmarks.monitoring"
SEED = 0
BATCH, SMALL, BIG, PROBE = 256, 16, 256, 64
STEPS, EVERY, ROUNDS = 400, 10, 61


def _digits(quick: bool):
    from official_models.vision.datasets import digits

    train, _ = digits.load_mnist()
    count = 512 if quick else len(train.labels)
    images = train.images[:count].astype("float32") / 255
    return images, train.labels[:count]


def _model(quick: bool):
    import keras

    import tf_lamb

    keras.utils.set_random_seed(SEED)
    width = 4 if quick else 32
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(width, 3, strides=2, activation="relu", name="conv1"),
            layers.Conv2D(
                2 * width, 3, strides=2, activation="relu", name="conv2"
            ),
            layers.Conv2D(2 * width, 3, activation="relu", name="conv3"),
            layers.Flatten(),
            layers.Dense(4 * width, activation="relu", name="dense"),
            layers.Dense(10, name="logits"),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = tf_lamb.LAMB(
        2e-3, weight_decay=0.01, exclude_from_weight_decay=["bias"]
    )
    model.compile(optimizer, loss, metrics=["accuracy"])
    return model


def watch(model, data, folder: Path, quick: bool) -> dict:
    """Trains, watched by both; returns the noise scale over the steps."""
    import tf_lamb
    from tf_lamb.callbacks import read_table

    epochs = 2 if quick else round(STEPS * BATCH / len(data[0]))
    monitor = tf_lamb.TrainingMonitor(
        folder, data, 1 if quick else EVERY, batch_size=PROBE, png=True
    )
    noise = tf_lamb.GradientNoiseScale(
        data,
        SMALL,
        BIG,
        1 if quick else EVERY,
        decay=0.8,
        groups={"convolutions": "conv", "dense layers": "dense|logits"},
        csv_path=folder / "noise_scale.csv",
    )
    history = model.fit(
        *data,
        batch_size=BATCH,
        epochs=epochs,
        verbose=0,
        callbacks=[monitor, noise],
    )
    return {
        "epochs": epochs,
        "loss": history.history["loss"][-1],
        "accuracy": history.history["accuracy"][-1],
        "noise_scale": {
            name: [
                [step, value if np.isfinite(value) else None]
                for step, value in points
            ]
            for name, points in read_table(folder / "noise_scale.csv").items()
            if name.split("/")[-1] in ("value", "lower", "upper")
        },
    }


def check(model, data, quick: bool) -> dict:
    """The callback's estimate beside that of per-example gradients."""
    import tf_lamb
    from tf_lamb.diagnostics import noise_scale, probe

    records = 5 if quick else 60
    noise = tf_lamb.GradientNoiseScale(data, SMALL, BIG, 1)
    for _ in range(records):
        noise.record(model)
    count = 64 if quick else 2048
    rows = np.random.default_rng(SEED + 1).permutation(len(data[0]))[:count]
    each, mean = probe.Probe(model).piece_norms(
        (data[0][rows], data[1][rows], None), 1
    )
    direct = noise_scale.estimate(
        [each.sum(1).mean()], [mean.sum()], 1, len(each)
    )
    return {
        "records": records,
        "estimate": noise.result.value,
        "interval": [noise.result.lower, noise.result.upper],
        "examples": count,
        "direct": direct.value,
        "ratio": noise.result.value / direct.value,
    }


def cost(model, data, quick: bool) -> dict:
    """Times a step and a record of each callback, in turns."""
    import tf_lamb

    x, y = (a[:BATCH] for a in data)
    folder = tempfile.mkdtemp()
    monitor = tf_lamb.TrainingMonitor(folder, data, 1, batch_size=PROBE)
    noise = tf_lamb.GradientNoiseScale(data, SMALL, BIG, 1)
    actions = {
        "step": lambda: model.train_on_batch(x, y),
        "TrainingMonitor": lambda: monitor.record(model),
        "GradientNoiseScale": lambda: noise.record(model),
    }
    times = {name: [] for name in actions}
    for i in range(3 + (3 if quick else ROUNDS)):
        for name, action in actions.items():
            began = time.perf_counter()
            action()
            if i >= 3:
                times[name].append(time.perf_counter() - began)
    return {
        name: {
            "seconds": measure.summary(found),
            "percent_at_100": measure.summary(
                [a / b for a, b in zip(found, times["step"])]
            ),
        }
        for name, found in times.items()
    }


def run(quick: bool, folder: Path) -> dict:
    """Everything; returns what the JSON has."""
    data, model = _digits(quick), _model(quick)
    return {
        "provenance": measure.provenance(seed=SEED),
        "batch": BATCH,
        "probe_batch": PROBE,
        "small_batch": SMALL,
        "big_batch": BIG,
        "parameters": int(model.count_params()),
        "run": watch(model, data, folder, quick),
        "against_per_example_gradients": check(model, data, quick),
        "cost": cost(model, data, quick),
    }


def render(result: dict) -> str:
    """The tables of a result in Markdown."""
    rows = []
    for name, row in result["cost"].items():
        ms = [
            1e3 * row["seconds"][k]
            for k in ("median", "lower_quartile", "upper_quartile")
        ]
        share = row["percent_at_100"]
        rows.append(
            [
                name,
                "{:.1f} ({:.1f}-{:.1f})".format(*ms),
                "-"
                if name == "step"
                else f"{share['median']:.2f}% ({share['lower_quartile']:.2f}-"
                f"{share['upper_quartile']:.2f})",
            ]
        )
    found = result["against_per_example_gradients"]
    low, high = found["interval"]
    return (
        measure.table(["", "ms (quartiles)", "of the time at every=100"], rows)
        + f"\n\nNoise scale at the end: {found['estimate']:.1f} "
        f"({low:.1f}-{high:.1f}) from {found['records']} records, "
        f"{found['direct']:.1f} from {found['examples']} per-example "
        f"gradients; ratio {found['ratio']:.3f}."
    )


def plot(result: dict, path: Path) -> None:
    """The noise scale over the run, with its intervals."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    curves = result["run"]["noise_scale"]
    for i, name in enumerate(n for n in curves if n.split("/")[-1] == "value"):
        prefix = name[: -len("value")]
        steps, values = zip(*curves[name])
        values, low, high = (
            [1e9 if v is None else v for _, v in curves[prefix + part]]
            for part in ("value", "lower", "upper")
        )
        label = prefix.rstrip("/") or "all variables"
        axes.plot(steps, values, color=f"C{i}", label=label)
        axes.fill_between(steps, low, high, color=f"C{i}", alpha=0.15)
    axes.axhline(result["batch"], color="0.4", linestyle=":", label="batch")
    axes.set(
        xlabel="update",
        ylabel="gradient noise scale, examples",
        yscale="log",
        title="Gradient noise scale of a network that learns digits (95%)",
    )
    axes.set_ylim(10, 1e4)  # intervals without an upper end reach the top
    axes.legend(frameon=False)
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main(arguments=None) -> int:
    parser = measure.parser(MODULE, __doc__, quick="a small network, 4 updates")
    flags = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        result = run(flags.quick, Path(folder))
        print(render(result))
        if flags.output:
            measure.write_json(flags.output, result)
            plot(result, flags.output.with_suffix(".png"))
            picture = flags.output.with_name("gradient_norms.png")
            drawn = Path(folder, "gradient_norm.png").read_bytes()
            picture.write_bytes(drawn)
            print(f"-> {flags.output}, {picture.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
