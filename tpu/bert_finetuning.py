r"""Fine-tunes BERT on a Cloud TPU by TPUEstimator: GLUE, and SQuAD.

    python -m tpu.bert_finetuning --task_name mrpc --do_train --do_eval \
        --data_dir MRPC --vocab_file vocab.txt \
        --bert_config_file bert_config.json \
        --init_checkpoint bert_model.ckpt --output_dir runs/mrpc
    python -m tpu.bert_finetuning --task_name squad --do_train --do_predict \
        --train_file train-v1.1.json --predict_file dev-v1.1.json ...

The flags are those of google-research/bert's `run_classifier.py` and
`run_squad.py`, and `--optimizer` (`adamw` is theirs). Without `--use_tpu` it
runs on this machine. README.md beside this file has each flag, and what was run
where.
"""

import dataclasses
import os
from collections.abc import Iterator

import tensorflow as tf
from absl import flags, logging

from official_models.common.errors import InputError, run
from official_models.nlp.bert.config import BertConfig, read_config
from official_models.nlp.bert.finetuning import feature_records
from official_models.nlp.bert.finetuning.questions import Options
from official_models.nlp.bert.finetuning.tasks.classification import (
    Classification,
)
from official_models.nlp.bert.finetuning.tasks.question_answering import (
    QuestionAnswering,
)
from official_models.nlp.datasets import glue
from official_models.nlp.text import wordpiece
from tpu import finetuning_metrics, job, job_flags, training, warm_start

tf1 = tf.compat.v1
FLAGS = flags.FLAGS
TOKENS = "input_ids", "input_mask", "segment_ids"


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
    string, integer, boolean = (
        flags.DEFINE_string,
        flags.DEFINE_integer,
        flags.DEFINE_boolean,
    )
    string("task_name", None, "A task of GLUE, or squad.", required=True)
    string("data_dir", None, "Folder of the task's TSV files (GLUE).")
    string(
        "vocab_file",
        None,
        "Vocabulary of the model, a WordPiece a line.",
        required=True,
    )
    string(
        "bert_config_file", None, "The model's bert_config.json.", required=True
    )
    string(
        "init_checkpoint",
        None,
        "Checkpoint of a BERT, whose weights are the first.",
    )
    boolean(
        "do_lower_case",
        None,
        "Lower-case the text, as an uncased vocabulary needs it. Default: what "
        "the vocabulary says by its tokens.",
    )
    integer(
        "max_seq_length",
        None,
        "Tokens of a sequence; 128, for squad 384, if absent.",
        5,
    )
    boolean("do_train", False, "Train.")
    boolean("do_eval", False, "Evaluate on the dev set, or on --predict_file.")
    boolean("do_predict", False, "Predict the test set, or --predict_file.")
    integer("predict_batch_size", 8, "Examples of a batch, over all cores.", 1)
    flags.DEFINE_float("num_train_epochs", 3.0, "Passes over the data.", 0.0)
    flags.DEFINE_float(
        "warmup_proportion", 0.1, "Share of all updates that warm up.", 0.0, 1.0
    )
    flags.DEFINE_float(
        "dropout", 0.1, "Dropout rate before the classifier.", 0.0, 0.99
    )
    _define_squad_flags()


def _define_squad_flags() -> None:
    string, integer = flags.DEFINE_string, flags.DEFINE_integer
    string("train_file", None, "JSON file of SQuAD to train on.")
    string("predict_file", None, "JSON file of SQuAD to answer.")
    integer("doc_stride", 128, "Tokens between two windows' beginnings.", 1)
    integer("max_query_length", 64, "Longest question, in tokens.", 1)
    integer("n_best_size", 20, "Answers that are listed of a question.", 1)
    integer("max_answer_length", 30, "Longest answer, in tokens.", 1)
    flags.DEFINE_boolean(
        "version_2_with_negative",
        False,
        "Some questions have no answer, as in SQuAD 2.0.",
    )
    flags.DEFINE_float(
        "null_score_diff_threshold",
        0.0,
        "No answer where the null score is so much better than the best.",
    )


def check_flags() -> None:
    """Refuses flags that contradict each other.

    Raises:
        InputError: names the flag.
    """
    job_flags.check_flags(
        "train_batch_size", "eval_batch_size", "predict_batch_size"
    )
    if not (
        FLAGS.do_train or FLAGS.do_eval or FLAGS.do_predict or FLAGS.export_dir
    ):
        raise InputError(
            "nothing to do: expected --do_train, --do_eval, --do_predict or "
            "--export_dir"
        )
    if FLAGS.task_name.lower() == "squad":
        needed = {
            "train_file": FLAGS.do_train,
            "predict_file": FLAGS.do_eval or FLAGS.do_predict,
        }
    else:
        glue.task_of(FLAGS.task_name, "squad")
        needed = {
            "data_dir": FLAGS.do_train or FLAGS.do_eval or FLAGS.do_predict
        }
    for name, is_needed in needed.items():
        if is_needed and not FLAGS[name].value:
            raise InputError(
                f"--{name} is missing: --task_name {FLAGS.task_name} reads it"
            )


def make_model_fn(task, config: BertConfig, total_steps: int):
    """A `model_fn` of BERT with the task's head, by the flags."""
    warmup_steps = int(total_steps * FLAGS.warmup_proportion)

    def model_fn(features, labels, mode, params):
        del labels, params
        is_training = mode == tf1.estimator.ModeKeys.TRAIN
        if is_training:
            training.seed_dropout(features["input_ids"])
        bert, head = task.layers(
            config, seed=FLAGS.seed, dtype=training.dtype_policy()
        )
        tokens = {name: features[name] for name in TOKENS}
        outputs = bert(**tokens, training=is_training)
        logits = task.logits(outputs, head, is_training)
        spec = tf1.estimator.tpu.TPUEstimatorSpec
        if mode == tf1.estimator.ModeKeys.PREDICT:
            return spec(mode, predictions=task.predictions(logits, features))
        losses = task.losses(logits, features)
        if mode == tf1.estimator.ModeKeys.EVAL:
            metrics = finetuning_metrics.eval_metrics(
                task, logits, features, losses
            )
            loss = tf.reduce_mean(losses)
            return spec(mode, loss=loss, eval_metrics=metrics)
        return training.train_spec(
            tf.reduce_mean(losses),
            FLAGS.output_dir,
            total_steps=total_steps,
            warmup_steps=warmup_steps,
            scaffold_fn=warm_start.scaffold_fn(
                FLAGS.init_checkpoint,
                tf1.trainable_variables(),
                new=task.new,
                unused=(r"^cls/", r"^output_(weights|bias)$"),
            ),
        )

    return model_fn


def make_input_fn(task, path: str, num_examples: int | None = None):
    """Batches of a file of records, for a TPUEstimator.

    Args:
        task: a `Classification` or `QuestionAnswering`.
        path: of `feature_records.write_features`.
        num_examples: of it, for training, which begins at the batch after
            those of the last checkpoint; None for all records once, in order.
    """
    lengths = dict.fromkeys(TOKENS, task.max_seq_length) | task.lengths

    def input_fn(params):
        training_only = {}
        if num_examples:
            training_only = {
                "num_examples": num_examples,
                "seed": FLAGS.seed,
                "first_batch": job.first_step(FLAGS.output_dir),
            }
        return feature_records.read_features(
            path,
            lengths,
            batch_size=params["batch_size"],
            reader=job.host_of(params),
            **training_only,
        )

    return input_fn


def make_task(config: BertConfig):
    """The task of the flags, with its tokenizer.

    Raises:
        InputError: a flag does not fit the model.
    """
    is_squad = FLAGS.task_name.lower() == "squad"
    length = FLAGS.max_seq_length or (384 if is_squad else 128)
    if length > config.max_position_embeddings:
        raise InputError(
            f"--max_seq_length {length}: {FLAGS.bert_config_file} has "
            f"{config.max_position_embeddings} positions; expected no more"
        )
    try:
        tokenizer = wordpiece.load_tokenizer(
            FLAGS.vocab_file, FLAGS.do_lower_case
        )
    except InputError as error:
        raise InputError(f"--vocab_file {error}") from error
    if tokenizer.get_vocab_size() > config.vocab_size:
        raise InputError(
            f"--vocab_file {FLAGS.vocab_file}: {tokenizer.get_vocab_size()} "
            f"tokens, {FLAGS.bert_config_file} has {config.vocab_size}; "
            "expected the model's own vocabulary"
        )
    if is_squad:
        names = [field.name for field in dataclasses.fields(Options)]
        options = Options(**{name: FLAGS[name].value for name in names})
        return QuestionAnswering(tokenizer, length, options)
    return Classification(
        glue.task_of(FLAGS.task_name),
        tokenizer,
        length,
        data_dir=FLAGS.data_dir,
        dropout=FLAGS.dropout,
    )


class EstimatorRunner:
    """The `tasks.runner.Runner` of a job: its last checkpoint, its folder.

    Args:
        estimator: Of `job.estimator`.
        task: Whose records are read.
    """

    def __init__(self, estimator, task):
        self._estimator, self._task = estimator, task
        self.folder = FLAGS.output_dir
        self.eval_batch_size = FLAGS.eval_batch_size
        self.predict_batch_size = FLAGS.predict_batch_size

    def step(self) -> int:
        """Of the last checkpoint."""
        return job.first_step(self.folder)

    def evaluate(self, path: str, batches: int) -> dict[str, float]:
        """The task's metrics, and `global_step`."""
        input_fn = make_input_fn(self._task, path)
        metrics = job.evaluate(self._estimator, input_fn, batches)
        # Estimator's own mean counts the padding of the last batch.
        del metrics["loss"]
        return metrics

    def predict(self, path: str) -> Iterator[dict]:
        """The task's predictions, by record."""
        return job.predict(self._estimator, make_input_fn(self._task, path))


def prepare_training(task) -> tuple[object, int]:
    """The input function of training, and the number of updates.

    Raises:
        InputError: not one update comes of the data.
    """
    job.make_folder(FLAGS.output_dir)
    path = os.path.join(FLAGS.output_dir, "train.tf_record")
    number = task.write_train_records(path)
    steps = int(number / FLAGS.train_batch_size * FLAGS.num_train_epochs)
    if not steps:
        raise InputError(
            f"--num_train_epochs {FLAGS.num_train_epochs}: of {number} "
            f"examples not one batch of {FLAGS.train_batch_size}; expected a "
            "smaller --train_batch_size or more epochs"
        )
    print(f"{number} training examples, {steps} updates.")
    return make_input_fn(task, path, number), steps


def export(estimator, max_seq_length: int) -> str:
    """Writes the SavedModel: ids, mask and segments to predictions."""
    spec = tf.TensorSpec((None, max_seq_length), tf.int32)
    return job.export(estimator, dict.fromkeys(TOKENS, spec), FLAGS.export_dir)


def main(_) -> None:
    """Trains, evaluates, predicts and exports, as the flags say."""
    logging.set_verbosity(logging.INFO)
    check_flags()
    config = read_config(FLAGS.bert_config_file)
    task = make_task(config)
    train_fn, steps = None, 1
    if FLAGS.do_train:
        train_fn, steps = prepare_training(task)
    estimator = job.estimator(
        make_model_fn(task, config, steps),
        FLAGS.output_dir,
        predict_batch_size=FLAGS.predict_batch_size,
    )
    if train_fn:
        job.train(estimator, train_fn, steps)

    runner = EstimatorRunner(estimator, task)
    if FLAGS.do_eval:
        for split, metrics in task.evaluate(runner).items():
            for name, value in metrics.items():
                print(f"{split}: {name} = {value:g}")
    if FLAGS.do_predict:
        task.predict(runner)
    if FLAGS.export_dir:
        print(export(estimator, task.max_seq_length))


if __name__ == "__main__":
    define_flags()
    run(main)
