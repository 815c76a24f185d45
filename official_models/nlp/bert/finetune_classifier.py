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

import shutil
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
from absl import flags, logging

import tf_lamb
from official_models.common import (
    errors,
    files,
    optimizers,
    report,
    run_folder,
    script,
)
from official_models.common import flags as run_flags
from official_models.common.errors import InputError
from official_models.nlp.bert import classifier_prediction as prediction
from official_models.nlp.bert import classifier_report as figures
from official_models.nlp.bert import classifier_source
from official_models.nlp.bert import classifier_training as training
from official_models.nlp.checkpoint import models, opening
from official_models.nlp.checkpoint.source import Loaded, Source, load
from official_models.nlp.datasets import glue

FLAGS = flags.FLAGS
RESULT = "result.json"


def define_flags() -> None:
    """Defines this script's flags."""
    run_flags.define_flags(output_dir="runs/classifier", jit_compile=False)
    optimizers.define_flags(
        learning_rate=1e-3,
        warmup_ratio=0.1,
        weight_decay=0.01,
        exclusions=("LayerNorm", "bias"),
        global_clipnorm=1.0,
    )
    classifier_source.define_flags()
    for module in (run_flags, optimizers, classifier_source):
        flags.adopt_module_key_flags(module)  # for --help
    integer = flags.DEFINE_integer
    integer("global_batch_size", 32, "Examples an update.", 1)
    integer("eval_batch_size", 64, "Examples at once where none is trained.", 1)
    integer("epochs", 3, "Passes over the training data, at most.", 1)
    integer(
        "patience",
        0,
        "Epochs without a better score on the validation split before a seed's "
        "training ends; 0: all epochs are trained.",
        0,
    )
    integer("seeds", 1, "Runs, with the seeds from --seed on.", 1)
    flags.DEFINE_float("dropout", 0.1, "Dropout rate before the classifier.")
    flags.DEFINE_float(
        "layer_decay",
        1.0,
        "Factor of the learning rate from each layer to the one below (LAMB, "
        "LARS); 1: the same rate for all.",
    )
    flags.DEFINE_string(
        "predict",
        None,
        "Trains nothing: prints the labels, with probabilities, of the texts "
        "in this file, or of the standard input if it is -, by the model in "
        "--output_dir. A text a line; the two texts of a pair have a tab "
        "between them.",
    )
    run_flags.without_effect("eval_batch_size", "seeds", "predict")


def check_flags() -> None:
    """Refuses flags that are missing or contradict each other.

    Raises:
        InputError: names the flag.
    """
    if files.is_remote(FLAGS.output_dir):
        raise InputError(
            f"--output_dir {FLAGS.output_dir}: this script writes its models "
            "here; name a local folder"
        )
    if FLAGS.predict:
        return
    for name in ("task_name", "data_dir", "init_checkpoint"):
        if not FLAGS[name].value:
            raise InputError(f"--{name} is missing: training needs it")
    glue.task_of(FLAGS.task_name)
    script.check_dtype()
    if FLAGS.layer_decay != 1 and FLAGS.optimizer not in ("lamb", "lars"):
        raise InputError(
            f"--layer_decay: for --optimizer lamb or lars, not "
            f"{FLAGS.optimizer}"
        )


def fitting_of(number: int) -> training.Fitting:
    """How the flags say that `number` examples are trained.

    Raises:
        InputError: they are no whole batch, or the batch has not as many equal
            parts as there are micro-batches.
    """
    batch, parts = FLAGS.global_batch_size, FLAGS.gradient_accumulation_steps
    if batch % parts:
        raise InputError(
            f"--gradient_accumulation_steps {parts}: expected a divisor of "
            f"--global_batch_size {batch}"
        )
    if number < batch:
        raise InputError(
            f"--global_batch_size {batch}: {number} training examples; "
            "expected no more than these"
        )
    return training.Fitting(
        epochs=FLAGS.epochs,
        patience=FLAGS.patience,
        steps_per_epoch=number // batch,
        batch_size=batch // parts,
        batches_per_step=parts,
        eval_batch_size=FLAGS.eval_batch_size,
    )


def make_model(
    task: glue.Task, source: Source, total_steps: int, seed: int
) -> tuple[keras.Model, Loaded]:
    """The compiled model of the flags; what its encoder has of the checkpoint.

    Raises:
        InputError: a flag's value is out of range, or the checkpoint is
            damaged.
    """
    keras.utils.set_random_seed(seed)
    with run_flags.naming_the_flag():
        model = models.make(
            source.config,
            "classifier",
            num_labels=len(task.labels) or 1,
            dropout=FLAGS.dropout,
            seed=seed,
            dtype=FLAGS.dtype,
        )
        optimizer = optimizers.from_flags(total_steps, groups=_groups(model))
        optimizers.build(optimizer, model.trainable_variables)
    loaded = load(source, model)
    # Without XLA, JAX runs op by op; torch has no such compiler.
    jit_compile = {"jax": True, "torch": False}
    model.compile(
        optimizers.scaled(optimizer),
        training.loss_of(task),
        jit_compile=jit_compile.get(keras.backend.backend(), FLAGS.jit_compile),
    )
    return model, loaded


def _groups(model: keras.Model) -> list[tf_lamb.Group]:
    if FLAGS.layer_decay == 1:
        return []
    try:
        return tf_lamb.layer_decay(model, FLAGS.layer_decay)
    except ValueError as error:
        raise InputError(f"--layer_decay: {error}") from error


def train_seed(
    task: glue.Task,
    source: Source,
    splits: dict[str, training.Encoded],
    seed: int,
    folder: Path,
) -> dict[str, Any]:
    """Trains one seed, or finds that it was; gives its result.

    Args:
        task: of the flags.
        source: the checkpoint.
        splits: the data.
        seed: of this training.
        folder: of its model.keras and result.json.
    """
    if (folder / RESULT).is_file():
        return files.read_json(folder / RESULT, "remove it to train again")
    fitting = fitting_of(len(splits["train"].labels))
    total_steps = fitting.steps_per_epoch * fitting.epochs
    model, _ = make_model(task, source, total_steps, seed)

    def show(row):
        print(
            f"seed {seed}, epoch {row['epoch']}: loss {row['loss']:.4f}, "
            f"{_in_words(row['scores'])}, "
            f"{row['examples_per_second']:.1f} examples/s",
            flush=True,
        )

    result = fitting.fit(model, task, splits, seed, show)
    folder.mkdir(exist_ok=True)
    with files.replacing(folder / opening.KERAS) as temporary:
        model.save(temporary)
    files.write_json(folder / RESULT, result)
    return result


def _in_words(scores: training.Scores) -> str:
    return ", ".join(
        f"{split} {name} {value:.4f}"
        for split, row in scores.items()
        for name, value in row.items()
    )


def finish(folder: Path, task: glue.Task, results: list[dict]) -> None:
    """Writes report.json, gives the folder the best model, prints the table."""
    found = figures.summary(task, results)
    best = folder / f"seed_{found['best_seed']}" / opening.KERAS
    with files.replacing(folder / opening.KERAS) as temporary:
        shutil.copyfile(best, temporary)
    files.write_json(
        folder / "report.json",
        {
            **report.environment(),
            "backend": keras.backend.backend(),
            "flags": run_flags.values(),
            **found,
            "seeds": results,
        },
    )
    print(figures.table(results, found))
    print(
        f"\n{folder}: model.keras of seed {found['best_seed']}, the best by "
        f"{found['compared_by']}; report.json."
    )


def main(_) -> None:
    """Trains what is not trained yet, and reports; or predicts."""
    logging.set_verbosity(logging.WARNING)
    check_flags()
    if FLAGS.predict:
        folder = Path(FLAGS.output_dir)
        print(prediction.predict(folder, FLAGS.predict, FLAGS.eval_batch_size))
        return
    if keras.backend.backend() == "tensorflow" and not FLAGS.jit_compile:
        # Keras refuses to compile under this switch.
        tf.config.experimental.enable_op_determinism()
    task, source = (
        glue.task_of(FLAGS.task_name),
        classifier_source.open_checkpoint(),
    )
    splits = classifier_source.read_data(task, source)
    fitting_of(len(splits["train"].labels))
    facts = classifier_source.facts(source, splits)
    identity = {**run_flags.identity(), **facts}
    folder = run_folder.open_run(FLAGS.output_dir, identity)
    if not (folder / run_folder.RECORD).exists():
        # Before anything is written: it refuses what does not fit.
        print(make_model(task, source, 1, FLAGS.seed)[1])
    run_folder.record_run(folder, identity)
    classifier_source.describe(folder, source)
    sizes = (f"{name} {len(s.labels):,}" for name, s in splits.items())
    print(f"{task.folder}: {', '.join(sizes)} examples.")
    results = [
        train_seed(task, source, splits, seed, folder / f"seed_{seed}")
        for seed in range(FLAGS.seed, FLAGS.seed + FLAGS.seeds)
    ]
    finish(folder, task, results)


if __name__ == "__main__":
    define_flags()
    errors.run(main)
