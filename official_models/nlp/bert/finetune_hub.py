"""Fine-tunes a TF Hub BERT encoder on SST-2 by LAMB, with tf_keras.

    python -m official_models.nlp.bert.finetune_hub --data_dir SST-2

needs a folder with train, dev and test-labeled TSVs; the encoder (MiniLM, 6
layers) is fetched once. With its defaults (8,192 sentences, one epoch) it
reached 85.3% of the labelled test split on two cores on 2026-11-24; how long
that took was not recorded. HUB.md has more. An interrupted run is resumed.
"""

import tensorflow as tf
from absl import flags, logging

from official_models.common import errors, run_folder, script
from official_models.common import flags as run_flags
from official_models.nlp.bert import (
    hub_classifier,
    hub_report,
    hub_sentences,
)

FLAGS = flags.FLAGS


def define_flags() -> None:
    """Defines this script's flags."""
    run_flags.define_flags(
        output_dir="runs/hub", log_every=8, save_every=50, eval_every=None
    )
    hub_sentences.define_flags()
    hub_classifier.define_flags()
    for module in (run_flags, hub_sentences, hub_classifier):
        flags.adopt_module_key_flags(module)  # for --help


def main(_) -> None:
    """Trains, or resumes training, then shows what was reached."""
    run_folder.need_local(FLAGS.output_dir)
    logging.set_verbosity(logging.WARNING)
    # No other strategy: `hub.KerasLayer` and tf_keras, on one device.
    training = script.Training(tf.distribute.get_strategy())
    sentences = hub_sentences.Sentences()
    folder = training.open_folder(sentences.facts)
    module = hub_classifier.module_folder(folder)
    train = sentences.batches("train", module)
    model = hub_classifier.make_model(module, sentences.total_steps)
    steps_per_epoch = -(-sentences.total_steps // FLAGS.epochs)
    run = training.start(
        model,
        total_steps=sentences.total_steps,
        unit="sentences",
        units_per_step=FLAGS.global_batch_size,
        metric_names=("loss", "accuracy"),
        description=f"SST-2: {sentences.total_steps:,} batches of sentences",
        steps_per_epoch=steps_per_epoch,
    )
    run.fit(
        lambda first, last: train.skip(first).take(last - first),
        validation_data=sentences.batches("dev", module),
        validate_every=FLAGS.eval_every or steps_per_epoch,
    )
    held_out, size = sentences.held_out(module), FLAGS.global_batch_size
    figures = hub_report.measure(model, run, held_out, size)
    training.finish(hub_report, figures, "SST-2")


if __name__ == "__main__":
    define_flags()
    errors.run(main)
