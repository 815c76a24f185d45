r"""Fine-tunes BERT or ALBERT on SQuAD 1.1 or 2.0 by Keras' `fit`.

    python -m official_models.nlp.bert.finetune_squad --data_dir squad \
        --init_checkpoint uncased_L-12_H-768_A-12 --output_dir runs/squad
    printf 'Who lives in Oslo?\tAnna lives in Oslo, Bob in Rome.\n' | \
        python -m official_models.nlp.bert.finetune_squad \
        --output_dir runs/squad --predict -

`--data_dir` has the files under their published names; `--train_file` and
`--dev_file` name others. `--version_2` is for SQuAD 2.0, where a question may
have no answer. `--init_checkpoint` takes every checkpoint that
`official_models.nlp.checkpoint` reads. After each epoch the dev file is
answered; each seed keeps the weights of the epoch with the best F1. The output
folder has model.keras (the best seed's), its tokenizer, its answers to the dev
file (predictions.json, nbest_predictions.json, null_odds.json of SQuAD 2.0),
report.json, and a folder for each seed. The same command finishes an
interrupted run: it begins at the first seed that was not complete. README.md
beside this file has more.
"""

import os
from pathlib import Path

from absl import flags, logging

from official_models.common import backend, errors, files
from official_models.common import flags as run_flags
from official_models.common.errors import InputError
from official_models.nlp.bert.finetuning.fit import checkpoint, runs
from official_models.nlp.bert.finetuning.fit.question_answering import (
    QuestionAnswering,
    predict,
)
from official_models.nlp.bert.finetuning.questions import Options

FLAGS = flags.FLAGS
# Flag -> field of `Options`, of what only the choice of answers depends on.
CHOICE = {
    "n_best_size": "n_best_size",
    "max_answer_length": "max_answer_length",
    "null_score_threshold": "null_score_diff_threshold",
}


def define_flags() -> None:
    """Defines this script's flags."""
    runs.define_flags(
        output_dir="runs/squad",
        epochs=2,
        max_seq_length=384,
        predict="Trains nothing: prints the answers to the questions in this "
        "file, or in the standard input if it is -, by the model in "
        "--output_dir, a line of JSON for each. SQuAD's JSON, or a question a "
        "line with a tab between it and its paragraph.",
    )
    flags.adopt_module_key_flags(runs)  # for --help
    string, integer = flags.DEFINE_string, flags.DEFINE_integer
    string(
        "data_dir",
        None,
        "Folder of train-v1.1.json and dev-v1.1.json, or with --version_2 of "
        "train-v2.0.json and dev-v2.0.json.",
    )
    string("train_file", None, "SQuAD's JSON to train on.")
    string("dev_file", None, "SQuAD's JSON to answer after each epoch.")
    flags.DEFINE_boolean(
        "version_2", False, "Some questions have no answer, as in SQuAD 2.0."
    )
    integer("doc_stride", 128, "Tokens between two windows' beginnings.", 1)
    integer("max_query_length", 64, "Longest question, in tokens.", 1)
    integer("n_best_size", 20, "Answers that are listed of a question.", 1)
    integer("max_answer_length", 30, "Longest answer, in tokens.", 1)
    flags.DEFINE_float(
        "null_score_threshold",
        0.0,
        "No answer where the null score is so much better than the best.",
    )
    # The encoded data are in the run's facts.
    run_flags.without_effect("data_dir", "train_file", "dev_file")


def find_file(split: str) -> str:
    """The file of a split that the flags mean.

    Args:
        split: "train" or "dev".

    Raises:
        InputError: They name none, or it is not there.
    """
    flag = f"{split}_file"
    version = "2.0" if FLAGS.version_2 else "1.1"
    path = FLAGS[flag].value
    if not path and not FLAGS.data_dir:
        raise InputError(
            f"--{flag} and --data_dir are missing: training needs one of them"
        )
    if path and files.exists(path):
        return path
    if path:
        raise InputError(
            f"--{flag} {path}: no such file; expected SQuAD's JSON"
        )
    path = os.path.join(FLAGS.data_dir, f"{split}-v{version}.json")
    if not files.exists(path):
        raise InputError(
            f"--data_dir {FLAGS.data_dir}: no {os.path.basename(path)}; "
            f"expected SQuAD {version}, or --{flag}"
        )
    return path


def main(_) -> None:
    """Trains what is not trained yet, and reports; or answers questions."""
    logging.set_verbosity(logging.WARNING)
    runs.check_flags(of_answers=CHOICE)
    if FLAGS.predict:
        given = {
            field: FLAGS[flag].value
            for flag, field in CHOICE.items()
            if FLAGS[flag].present
        }
        folder = Path(FLAGS.output_dir)
        print(predict(folder, FLAGS.predict, FLAGS.eval_batch_size, given))
        return
    options = Options(
        train_file=find_file("train"),
        predict_file=find_file("dev"),
        doc_stride=FLAGS.doc_stride,
        max_query_length=FLAGS.max_query_length,
        version_2_with_negative=FLAGS.version_2,
        **{field: FLAGS[flag].value for flag, field in CHOICE.items()},
    )
    backend.repeat_exactly()
    source = checkpoint.open_flagged()
    tokenizer = source.tokenizer.load(source.where)
    task = QuestionAnswering(options, tokenizer, FLAGS.max_seq_length)
    runs.train(task, source)


if __name__ == "__main__":
    define_flags()
    errors.run(main)
