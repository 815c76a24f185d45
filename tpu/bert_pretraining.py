r"""Pretrains BERT or ALBERT on a Cloud TPU by TPUEstimator (TensorFlow 2.15).

    python -m tpu.bert_pretraining --do_train --do_eval --use_tpu \
        --tpu_name my-tpu --bert_config_file gs://b/bert_config.json \
        --input_file 'gs://b/records/*' --output_dir gs://b/run

The flags are those of google-research/bert's `run_pretraining.py`, and
`--optimizer`. The records are those of its `create_pretraining_data.py` or of
`python -m official_models.nlp.bert.pretraining.records`; ALBERT's are those of
google-research/albert, whose label says whether segments are swapped. Without
`--use_tpu` it runs on this machine. README.md beside this file has each flag,
and what was run where.
"""

import tensorflow as tf
from absl import flags, logging

from official_models.common import records as record_files
from official_models.common.errors import InputError, run
from official_models.nlp.albert import model as albert
from official_models.nlp.albert.config import AlbertConfig, read_either
from official_models.nlp.bert import model as bert
from official_models.nlp.bert.config import BertConfig
from official_models.nlp.bert.pretraining import records
from tpu import job, job_flags, pretraining_losses, training, warm_start

tf1 = tf.compat.v1
FLAGS = flags.FLAGS
TOKENS = "input_ids", "input_mask", "segment_ids"
POSITIONS = "masked_lm_positions"


def define_flags() -> None:
    """Defines this script's flags."""
    job_flags.define_flags(
        folder="output_dir",
        train_batch_size=32,
        eval_batch_size=8,
        learning_rate=5e-5,
        weight_decay=0.01,
        exclusions=("LayerNorm", "bias"),
        global_clipnorm=1.0,
    )
    flags.adopt_module_key_flags(job_flags)  # for --help
    flags.DEFINE_string(
        "bert_config_file",
        None,
        "The model's bert_config.json or albert_config.json.",
        required=True,
    )
    flags.DEFINE_alias("albert_config_file", "bert_config_file")
    flags.DEFINE_list(
        "input_file", None, "Files, globs or folders of records.", required=True
    )
    flags.DEFINE_list(
        "eval_input_file",
        None,
        "Records to evaluate on; --input_file if absent.",
    )
    flags.DEFINE_string(
        "init_checkpoint", None, "Checkpoint whose weights are the first."
    )
    flags.DEFINE_integer("max_seq_length", 128, "Tokens of a record.", 1)
    flags.DEFINE_integer(
        "max_predictions_per_seq", 20, "Masked tokens of a record.", 1
    )
    flags.DEFINE_boolean("do_train", False, "Train.")
    flags.DEFINE_boolean("do_eval", False, "Evaluate.")
    flags.DEFINE_integer("num_train_steps", 100000, "Updates in all.", 1)
    flags.DEFINE_integer(
        "num_warmup_steps",
        None,
        "Updates that warm up. Default: a tenth of --num_train_steps.",
        0,
    )
    flags.DEFINE_integer("max_eval_steps", 100, "Batches of an evaluation.", 1)
    flags.DEFINE_integer(
        "eval_every", 0, "Updates between evaluations; 0 is one at the end.", 0
    )
    flags.DEFINE_boolean(
        "check_records", True, "Read all records once, to name a bad one."
    )


def make_model_fn(config: BertConfig):
    """A `model_fn` of this BERT, or ALBERT, by the flags."""
    is_albert = isinstance(config, AlbertConfig)
    make_layers = (albert if is_albert else bert).pretrainer_layers

    def model_fn(features, labels, mode, params):
        del params
        is_training = mode == tf1.estimator.ModeKeys.TRAIN
        if is_training:
            training.seed_dropout(features["input_ids"])
        encoder, heads = make_layers(
            config, seed=FLAGS.seed, dtype=training.dtype_policy()
        )
        tokens = {name: features[name] for name in TOKENS}
        logits = heads(
            *encoder(**tokens, training=is_training),
            features[POSITIONS],
            training=is_training,
        )
        if mode == tf1.estimator.ModeKeys.PREDICT:
            return tf1.estimator.tpu.TPUEstimatorSpec(mode, predictions=logits)
        scaffold_fn = warm_start.scaffold_fn(
            FLAGS.init_checkpoint, tf1.trainable_variables()
        )
        values = pretraining_losses.losses(logits, labels)
        means = pretraining_losses.means(values, labels)
        loss = tf.add_n(list(means.values()))
        if mode == tf1.estimator.ModeKeys.EVAL:
            return tf1.estimator.tpu.TPUEstimatorSpec(
                mode,
                loss=loss,
                eval_metrics=pretraining_losses.eval_metrics(
                    logits, labels, values
                ),
                scaffold_fn=scaffold_fn,
            )
        return training.train_spec(
            loss,
            FLAGS.output_dir,
            total_steps=FLAGS.num_train_steps,
            warmup_steps=warmup_steps(),
            scaffold_fn=scaffold_fn,
            metrics=means,
        )

    return model_fn


def warmup_steps() -> int:
    """Of the flags."""
    if FLAGS.num_warmup_steps is None:
        return FLAGS.num_train_steps // 10
    return FLAGS.num_warmup_steps


def make_input_fn(paths: list[str], config: BertConfig, *, train: bool):
    """Batches of records, for a TPUEstimator.

    Each host reads files of its own. Training begins at the batch after those
    of the last checkpoint; its order is a function of files and seed.

    Args:
        paths: files, globs or folders.
        config: for the range of token ids.
        train: shuffled without end, or in order.

    Raises:
        InputError: a file is not there, or damaged.
    """
    sizes = {
        "max_seq_length": FLAGS.max_seq_length,
        "max_predictions": FLAGS.max_predictions_per_seq,
        "vocab_size": config.vocab_size,
    }
    counts = {
        path: records.check_records([path], **sizes)
        if FLAGS.check_records
        else record_files.count(path)
        for path in records.find_records(paths)
    }

    def input_fn(params):
        index, files = job.files_of_host(params, list(counts))
        first = job.first_step(FLAGS.output_dir) if train else 0
        dataset = records.read_records(
            files,
            batch_size=params["batch_size"],
            first_step=first,
            last_step=first + (1 << 31 if train else FLAGS.max_eval_steps),
            seed=(FLAGS.seed + index) % 2**32,
            shuffle=train,
            examples=sum(counts[path] for path in files),
            **sizes,
        )
        return dataset.map(_features_and_labels)

    return input_fn


def _features_and_labels(x, y, sample_weight):
    return x, {**y, "masked_lm_weights": sample_weight["masked_lm"]}


def export(estimator) -> str:
    """Writes the SavedModel: ids and positions to the heads' logits."""
    lengths = dict.fromkeys(TOKENS, FLAGS.max_seq_length)
    lengths[POSITIONS] = FLAGS.max_predictions_per_seq
    return job.export(
        estimator,
        {
            name: tf.TensorSpec((None, length), tf.int32)
            for name, length in lengths.items()
        },
        FLAGS.export_dir,
    )


def main(_) -> None:
    """Trains, evaluates and exports, as far as the flags say so."""
    logging.set_verbosity(logging.INFO)
    job_flags.check_flags("train_batch_size", "eval_batch_size")
    if not (FLAGS.do_train or FLAGS.do_eval or FLAGS.export_dir):
        raise InputError(
            "nothing to do: expected --do_train, --do_eval or --export_dir"
        )
    config = read_either(FLAGS.bert_config_file)
    if FLAGS.max_seq_length > config.max_position_embeddings:
        raise InputError(
            f"--max_seq_length {FLAGS.max_seq_length}: {FLAGS.bert_config_file}"
            f" has {config.max_position_embeddings} positions; expected no more"
        )
    train_fn = eval_fn = None
    if FLAGS.do_train:
        train_fn = make_input_fn(FLAGS.input_file, config, train=True)
    if FLAGS.do_eval:
        paths = FLAGS.eval_input_file or FLAGS.input_file
        eval_fn = make_input_fn(paths, config, train=False)
    estimator = job.estimator(make_model_fn(config), FLAGS.output_dir)
    metrics = job.train_and_evaluate(
        estimator,
        train_fn,
        eval_fn,
        total_steps=FLAGS.num_train_steps,
        eval_steps=FLAGS.max_eval_steps,
        steps_between=FLAGS.eval_every or FLAGS.num_train_steps,
    )
    for name, value in metrics.items():
        print(f"{name} = {value:g}")
    if FLAGS.export_dir:
        print(export(estimator))


if __name__ == "__main__":
    define_flags()
    run(main)
