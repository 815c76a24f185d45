"""Fine-tunes a TF Hub BERT encoder on SST-2 by `tf_lamb.LAMB`, with tf_keras.

    python -m official_models.nlp.bert.finetune_hub --data_dir SST-2

A folder with train, dev and test-labeled TSVs is needed; the encoder (MiniLM, 6
layers) is fetched once. An interrupted run goes on where it was. What it
reached, and how long it took: HUB.md, with the date.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

os.environ["TF_USE_LEGACY_KERAS"] = "1"  # hub.KerasLayer knows no other
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from absl import flags  # noqa: E402

from official_models.common import (  # noqa: E402
    environment,
    errors,
    readers,
)
from official_models.common.errors import InputError  # noqa: E402
from official_models.nlp.bert.finetuning import features  # noqa: E402
from official_models.nlp.datasets import glue  # noqa: E402
from official_models.nlp.text import wordpiece  # noqa: E402

FLAGS = flags.FLAGS
EXCLUDED = ["LayerNorm", "bias"]


def define_flags() -> None:
    string, integer = flags.DEFINE_string, flags.DEFINE_integer
    string("data_dir", None, "Folder of SST-2's TSV files.")
    string("output_dir", "runs/hub", "Checkpoints, table, plot, report, model.")
    string("hub_module", None, "A module that hub.py wrote; default: MiniLM.")
    flags.DEFINE_enum("optimizer", "lamb", ["lamb", "adamw"], "Optimizer.")
    flags.DEFINE_float("learning_rate", 1e-3, "Peak rate.", lower_bound=0)
    flags.DEFINE_float("weight_decay", 0.01, "Weight decay.", lower_bound=0)
    flags.DEFINE_bool("freeze_encoder", False, "Train the head alone.")
    integer("batch_size", 64, "Sentences a step.", lower_bound=1)
    integer("epochs", 1, "Passes over the training set.", lower_bound=1)
    integer("max_examples", 8192, "Of the training set.", lower_bound=1)
    integer("max_length", 32, "Tokens a sentence.", lower_bound=8)
    integer("seed", 1, "Of order, head and subset.")
    flags.DEFINE_bool("test", True, "Also report the labelled test split.")
    flags.mark_flag_as_required("data_dir")


def module_folder(output: Path) -> str:
    """`--hub_module`, or MiniLM, exported by a process with Keras 3."""
    if FLAGS.hub_module:
        if not (Path(FLAGS.hub_module) / "saved_model.pb").exists():
            raise InputError(
                f"--hub_module {FLAGS.hub_module}: no saved_model.pb there; "
                "make one by python -m official_models.nlp.bert.hub"
            )
        return FLAGS.hub_module
    folder = output / "module"
    if not (folder / "saved_model.pb").exists():
        command = [sys.executable, "-m", "official_models.nlp.bert.hub"]
        command += ["--output_dir", str(folder)]
        keras_3 = {**os.environ, "TF_USE_LEGACY_KERAS": "0"}
        result = subprocess.run(
            command, env=keras_3, capture_output=True, text=True
        )
        if result.returncode:
            raise InputError(result.stderr.strip().split("\n")[-1])
    return str(folder)


def make_model(folder: str, total_steps: int):
    """Encoder, mean of its token vectors, one logit; compiled."""
    import tensorflow_hub as hub
    import tf_keras as keras

    import tf_lamb

    keras.utils.set_random_seed(FLAGS.seed)
    inputs = {
        name: keras.Input((None,), dtype="int32", name=name)
        for name in ("input_word_ids", "input_mask", "input_type_ids")
    }
    trainable = not FLAGS.freeze_encoder
    encoder = hub.KerasLayer(folder, trainable=trainable, name="encoder")
    # The dropouts are the encoder's, whose random state is checkpointed.
    logit = keras.layers.Dense(1, name="classifier")(encoder(inputs)["default"])
    model = keras.Model(inputs, logit)
    rate = tf_lamb.WarmupPolynomial(
        FLAGS.learning_rate, total_steps, total_steps // 10
    )
    excluded = EXCLUDED if trainable else ["bias"]
    if FLAGS.optimizer == "lamb":
        optimizer = tf_lamb.LAMB(
            rate,
            weight_decay=FLAGS.weight_decay,
            exclude_from_weight_decay=excluded,
            global_clipnorm=1.0,
        )
    else:
        optimizer = keras.optimizers.AdamW(
            rate, FLAGS.weight_decay, global_clipnorm=1.0
        )
        optimizer.exclude_from_weight_decay(var_names=excluded)
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    accuracy = keras.metrics.BinaryAccuracy("accuracy", threshold=0.0)
    model.compile(optimizer, loss, [accuracy])
    return model


def training_data():
    """Batches of all epochs in their order, and how many there are."""
    import numpy as np
    import tensorflow as tf

    order = readers.shuffled_epochs
    examples = _read("train")
    chosen = order(len(examples), 1, FLAGS.seed)[: FLAGS.max_examples]
    indices = order(len(chosen), FLAGS.epochs, FLAGS.seed)
    examples = [examples[chosen[i]] for i in indices]
    total = len(indices) // FLAGS.batch_size
    if not total:
        raise InputError(
            f"--batch_size {FLAGS.batch_size}: more than the {len(indices)} "
            "training sentences; take a smaller batch"
        )
    x = _inputs(examples)
    y = np.array([e.label for e in examples], "float32")[:, None]
    rows = tf.data.Dataset.from_tensor_slices((x, y))
    return rows.batch(FLAGS.batch_size, drop_remainder=True), total


def _read(split: str) -> list[glue.Example]:
    """SST-2's sentences with their labels, 0 negative and 1 positive."""
    return glue.read_split(FLAGS.data_dir, glue.TASKS["sst-2"], split)[0]


def _inputs(examples: list[glue.Example]) -> dict:
    """The module's inputs, int32 [N, T] each."""
    import numpy as np

    tokenizer = wordpiece.load_tokenizer(_vocab())
    rows = features.encode(examples, tokenizer, FLAGS.max_length)
    names = {
        "input_word_ids": "input_ids",
        "input_mask": "input_mask",
        "input_type_ids": "segment_ids",
    }
    return {
        name: np.array([row[ours] for row in rows], "int32")
        for name, ours in names.items()
    }


def _vocab() -> Path:
    folder = Path(FLAGS.hub_module or Path(FLAGS.output_dir) / "module")
    path = folder / "assets" / "vocab.txt"
    if not path.exists():
        raise InputError(f"{folder}: no assets/vocab.txt in the module")
    return path


def main(_) -> None:
    output = Path(FLAGS.output_dir)
    _same_run(output)
    _read("dev")  # what is wrong shows at once
    folder = module_folder(output)
    batches, total = training_data()

    import numpy as np
    import tf_keras as keras

    from tf_lamb import multi_worker

    model = make_model(folder, total)
    steps = multi_worker.Checkpoint(output / "checkpoints", every=50)
    done = steps.restore(model)
    table = keras.callbacks.CSVLogger(str(output / "metrics.csv"), append=True)
    if done < total:
        model.fit(batches.skip(done), callbacks=[steps, table])
    report = environment.describe()
    report.update(flags=_flag_values(), steps=total)
    for split in ["dev"] + ["test"] * FLAGS.test:
        examples = _read(split)
        x = _inputs(examples)
        logits = model.predict(x, FLAGS.batch_size, verbose=0)[:, 0]
        hits = (logits > 0) == np.array([e.label for e in examples])
        report[f"{split}_accuracy"] = float(np.mean(hits))
        report[f"{split}_examples"] = len(examples)
    model.save(output / "model")
    again = keras.models.load_model(output / "model", compile=False)
    same = again.predict(x, FLAGS.batch_size, verbose=0)[:, 0]
    report["reloaded_difference"] = float(np.abs(same - logits).max())
    if FLAGS.optimizer == "lamb":
        report["trust_ratios"] = model.optimizer.trust_ratios
        _plot(output / "trust_ratios.png", report["trust_ratios"])
    _write(output / "report.json", json.dumps(report, indent=1) + "\n")
    shown = {n: x for n, x in report.items() if n.startswith(("dev", "test"))}
    print(json.dumps(shown), f"-> {output / 'report.json'}")


def _flag_values() -> dict:
    module = FLAGS.find_module_defining_flag("data_dir")
    return {f.name: f.value for f in FLAGS.flags_by_module_dict()[module]}


def _same_run(output: Path) -> None:
    """A folder belongs to one set of flags."""
    record, values = output / "flags.json", _flag_values()
    if record.exists():
        before = json.loads(record.read_text())
        for name, value in values.items():
            if name not in ("output_dir", "test") and before[name] != value:
                raise InputError(
                    f"--{name} {value}: the run in {output} has "
                    f"{before[name]}; name another --output_dir"
                )
    output.mkdir(parents=True, exist_ok=True)
    _write(record, json.dumps(values, indent=1))


def _write(path: Path, text: str) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text)
    os.replace(temporary, path)


def _plot(path: Path, ratios: dict) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    adapted = {n: r for n, r in ratios.items() if r != 1.0}
    figure, axes = plt.subplots(
        figsize=(8, 1 + 0.16 * len(adapted)), layout="constrained"
    )
    axes.barh([n.replace("bert/", "") for n in adapted], adapted.values())
    axes.invert_yaxis()
    axes.tick_params(axis="y", labelsize=6)
    axes.set(xlabel="trust ratio of the last step", xscale="log")
    figure.savefig(path, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    define_flags()
    errors.run(main)
