r"""Fine-tunes BERT or ALBERT on a task of GLUE by Keras' `fit`.

    python -m official_models.nlp.bert.finetune_classifier --task_name mrpc \
        --data_dir MRPC --init_checkpoint uncased_L-12_H-768_A-12 --seeds 5 \
        --output_dir runs/mrpc
    echo 'A first text.<TAB>A second one.' | \
        python -m official_models.nlp.bert.finetune_classifier \
        --output_dir runs/mrpc --predict -

All tasks: CoLA, SST-2, MRPC, QQP, MNLI, QNLI, RTE, WNLI, and STS-B, which is a
regression. `--init_checkpoint` takes every checkpoint that
`official_models.nlp.checkpoint` reads, such as a folder of Hugging Face's or a
pretraining run. Each seed is trained until its last epoch, or until
`--patience` epochs brought no better score, and keeps the weights of its best
epoch on the validation split. The output folder has model.keras (the best
seed's), its tokenizer, report.json, and a folder for each seed. The same
command finishes an interrupted run: it begins at the first seed that was not
complete. README.md beside this file has more.
"""

from pathlib import Path

from absl import flags, logging

from official_models.common import backend, errors
from official_models.common import flags as run_flags
from official_models.nlp.bert.finetuning.fit import checkpoint, runs
from official_models.nlp.bert.finetuning.fit.classification import (
    Classification,
    predict,
)
from official_models.nlp.datasets import glue

FLAGS = flags.FLAGS


def define_flags() -> None:
    """Defines this script's flags."""
    runs.define_flags(
        output_dir="runs/classifier",
        epochs=3,
        max_seq_length=128,
        predict="Trains nothing: prints the labels, with probabilities, of the "
        "texts in this file, or of the standard input if it is -, by the model "
        "in --output_dir. A text a line; the two texts of a pair have a tab "
        "between them.",
    )
    flags.adopt_module_key_flags(runs)  # for --help
    string = flags.DEFINE_string
    string("task_name", None, f"One of {', '.join(glue.TASKS)}.")
    string("data_dir", None, "Folder of the task's TSV files.")
    flags.DEFINE_float("dropout", 0.1, "Dropout rate before the classifier.")
    # The encoded data are in the run's facts.
    run_flags.without_effect("data_dir")


def main(_) -> None:
    """Trains what is not trained yet, and reports; or predicts."""
    logging.set_verbosity(logging.WARNING)
    runs.check_flags("task_name", "data_dir")
    if FLAGS.predict:
        folder = Path(FLAGS.output_dir)
        print(predict(folder, FLAGS.predict, FLAGS.eval_batch_size))
        return
    backend.repeat_exactly()
    task = glue.task_of(FLAGS.task_name)
    source = checkpoint.without_classifier(checkpoint.open_flagged())
    tokenizer = source.tokenizer.load(source.where)
    data = Classification(
        task, FLAGS.data_dir, tokenizer, FLAGS.max_seq_length, FLAGS.dropout
    )
    runs.train(data, source)


if __name__ == "__main__":
    define_flags()
    errors.run(main)
