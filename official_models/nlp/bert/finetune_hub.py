"""Fine-tunes a TF Hub BERT encoder on SST-2 by LAMB, with tf_keras.

    python -m official_models.nlp.bert.finetune_hub --data_dir SST-2

needs a folder with train, dev and test-labeled TSVs; the encoder (MiniLM, 6
layers) is fetched once. With its defaults (8,192 sentences, one epoch) it
reached 85.3% of the labelled test split on two cores on 2026-11-24; how long
that took was not recorded. HUB.md has more. An interrupted run is resumed.
"""

import hashlib
import json

import numpy as np
import tensorflow as tf
from absl import flags

from official_models.common import errors, files, script
from official_models.common import flags as run_flags
from official_models.common.errors import InputError
from official_models.nlp.bert import hub_classifier, hub_report
from official_models.nlp.datasets import sst2

FLAGS = flags.FLAGS


def define_flags() -> None:
    """Defines this script's flags."""
    run_flags.define_flags(
        output_dir="runs/hub", log_every=8, save_every=50, eval_every=None
    )
    hub_classifier.define_flags()
    for module in (run_flags, hub_classifier):
        flags.adopt_module_key_flags(module)  # for --help
    integer = flags.DEFINE_integer
    flags.DEFINE_string("data_dir", None, "Folder of SST-2's TSV files.")
    integer("global_batch_size", 64, "Sentences an update.", 1)
    integer("epochs", 1, "Passes over the training set.", 1)
    integer("max_examples", 8192, "Sentences of the training set at most.", 1)
    integer("max_length", 32, "Tokens a sentence.", 8)
    flags.DEFINE_bool("test", True, "Also report the labelled test split.")
    run_flags.without_effect("data_dir", "test")  # `facts` has a digest
    flags.mark_flag_as_required("data_dir")


def training_order(count: int) -> list[int]:
    """Numbers of the sentences of all epochs, in the order of the run.

    Args:
        count: sentences of the training set.

    Raises:
        InputError: they do not fill a batch.
    """
    chosen = sst2.order(count, 1, FLAGS.seed)[: FLAGS.max_examples]
    indices = sst2.order(len(chosen), FLAGS.epochs, FLAGS.seed)
    if len(indices) < FLAGS.global_batch_size:
        raise InputError(
            f"--global_batch_size {FLAGS.global_batch_size}: more than the "
            f"{len(indices)} training sentences; take a smaller batch"
        )
    return [chosen[i] for i in indices]


def main(_) -> None:
    """Trains, or resumes training, then shows what was reached."""
    if files.is_remote(FLAGS.output_dir):
        raise InputError(
            f"--output_dir {FLAGS.output_dir}: this script writes its module "
            "and its model here; name a local folder"
        )
    training = script.Training(tf.distribute.get_strategy())
    # All of them, so that what is wrong shows at once.
    names = ["dev"] + ["test"] * FLAGS.test + ["train"]
    texts = {name: sst2.read_split(FLAGS.data_dir, name) for name in names}
    sentences, labels = texts["train"]
    order = training_order(len(labels))
    digest = hashlib.sha256(json.dumps(texts["train"]).encode()).hexdigest()
    folder = training.open_folder({"train_sha256": digest})
    module = hub_classifier.module_folder(folder)
    texts["train"] = [sentences[i] for i in order], [labels[i] for i in order]
    vocabulary = module / "assets" / "vocab.txt"
    splits = {
        name: (sst2.encode(sentences, vocabulary, FLAGS.max_length), labels)
        for name, (sentences, labels) in texts.items()
    }

    def batches(name, **options):
        inputs, labels = splits[name]
        targets = np.array(labels, "float32")[:, np.newaxis]
        rows = tf.data.Dataset.from_tensor_slices((inputs, targets))
        return rows.batch(FLAGS.global_batch_size, **options)

    train = batches("train", drop_remainder=True)
    total = int(train.cardinality())
    steps_per_epoch = -(-total // FLAGS.epochs)
    model = hub_classifier.make_model(module, total)
    run = training.start(
        model,
        total_steps=total,
        unit="sentences",
        units_per_step=FLAGS.global_batch_size,
        metric_names=("loss", "accuracy"),
        description=f"SST-2: {len(order):,} sentences in {total:,} batches",
        steps_per_epoch=steps_per_epoch,
    )
    run.fit(
        lambda first, last: train.skip(first).take(last - first),
        validation_data=batches("dev"),
        validate_every=FLAGS.eval_every or steps_per_epoch,
    )
    del splits["train"]
    figures = hub_report.measure(model, run, splits, FLAGS.global_batch_size)
    training.finish(hub_report, figures, "SST-2")


if __name__ == "__main__":
    define_flags()
    errors.run(main)
