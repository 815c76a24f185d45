"""A fine-tuning script around its task: flags, seeds, resuming, report."""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
from absl import flags

import tf_lamb
from official_models.common import (
    backend,
    files,
    optimizers,
    report,
    run_folder,
)
from official_models.common import flags as run_flags
from official_models.common.errors import InputError
from official_models.nlp.bert.finetuning.fit import checkpoint
from official_models.nlp.bert.finetuning.fit import report as figures
from official_models.nlp.bert.finetuning.fit.training import (
    Fitting,
    Scores,
    Task,
)
from official_models.nlp.checkpoint import initial, models, opening
from official_models.nlp.checkpoint.source import Loaded, Source, load
from official_models.nlp.transformer import heads

FLAGS = flags.FLAGS
RESULT, REPORT = "result.json", "report.json"


def define_flags(
    *, output_dir: str, epochs: int, max_seq_length: int, predict: str
) -> None:
    """Defines what fine-tuning scripts share, with a script's own defaults.

    Args:
        output_dir: Folder of the run.
        epochs: Passes over the data.
        max_seq_length: T.
        predict: Help of --predict.
    """
    run_flags.define_flags(output_dir=output_dir, jit_compile=False)
    optimizers.define_flags(
        learning_rate=5e-4,
        warmup_ratio=0.1,
        weight_decay=0.01,
        exclusions=("LayerNorm", "bias"),
        global_clipnorm=1.0,
    )
    checkpoint.define_flags(max_seq_length)
    for module in (run_flags, optimizers, checkpoint):
        flags.adopt_module_key_flags(module)  # for --help
    integer = flags.DEFINE_integer
    integer("global_batch_size", 32, "Rows an update.", 1)
    integer("eval_batch_size", 64, "Rows at once where none is trained.", 1)
    integer("epochs", epochs, "Passes over the training data, at most.", 1)
    integer(
        "patience",
        0,
        "Epochs without a better score on the validation split before a seed's "
        "training ends; 0: all epochs are trained.",
        0,
    )
    flags.DEFINE_boolean(
        "length_buckets",
        True,
        "Put rows of about the same length into a batch and cut it to the "
        "longest, which saves most of the time that padding takes; false: "
        "every batch has --max_seq_length columns, and rows in random order.",
    )
    integer("seeds", 1, "Runs, with the seeds from --seed on.", 1)
    flags.DEFINE_float(
        "layer_decay",
        1.0,
        "Factor of the learning rate from each layer to the one below (LAMB, "
        "LARS); 1: the same rate for all.",
    )
    flags.DEFINE_list(
        "learning_rate_multipliers",
        [],
        "REGEX=FACTOR, each regex on variable paths: factors of the learning "
        "rate, such as word_embeddings=0.1; the first that matches counts "
        "(LAMB, LARS).",
    )
    flags.DEFINE_list(
        "frozen",
        [],
        "Regexes on variable paths, each of which has to match one: these "
        "variables keep their values, such as word_embeddings.",
    )
    flags.DEFINE_list(
        "heads_off",
        [],
        "LAYER.HEAD, or LAYER for all its heads, from 0: attention of these is "
        "1 / L over L real tokens, in training and after it. The saved model "
        "stays so.",
    )
    flags.DEFINE_string("predict", None, predict)
    run_flags.without_effect("eval_batch_size", "seeds", "predict")
    run_flags.was_before("length_buckets", False)


def check_flags(*needed: str, of_answers: Collection[str] = ()) -> None:
    """Refuses flags that are missing or contradict each other.

    Args:
        needed: Names of flags without which nothing is trained.
        of_answers: Those that --predict reads too.

    Raises:
        InputError: It names the flag.
    """
    run_folder.need_local(FLAGS.output_dir)
    if FLAGS.predict:
        _refuse_other_values(of_answers)
        return
    for name in (*needed, "init_checkpoint"):
        if not FLAGS[name].value:
            raise InputError(f"--{name} is missing: training needs it")
    backend.check_dtype()
    for name in ("layer_decay", "learning_rate_multipliers"):
        flag = FLAGS[name]
        layered = FLAGS.optimizer in ("lamb", "lars")
        if flag.value != flag.default and not layered:
            raise InputError(
                f"--{name}: for --optimizer lamb or lars, not {FLAGS.optimizer}"
            )


def _refuse_other_values(of_answers: Collection[str]) -> None:
    """Refuses what --predict would pass over: values other than the run's."""
    path = Path(FLAGS.output_dir) / REPORT
    report = files.read_json(path) if path.is_file() else {}
    trained = report.get("flags") if isinstance(report, dict) else None
    for name in run_flags.defined():
        flag = FLAGS[name]
        if (
            not flag.present
            or name in of_answers
            or name not in (trained or {})
        ):
            continue
        counts = run_flags.has_effect(name) or name == "vocab_file"
        if counts and flag.value != trained[name]:
            raise InputError(
                f"--{name} {flag.value}: the model in {FLAGS.output_dir} was "
                f"trained with {trained[name]}, and --predict takes it as it "
                "is; leave the flag out"
            )


def fitting_of(task: Task) -> Fitting:
    """How the flags say that a task's rows are trained.

    Raises:
        InputError: They are no whole batch, or the batch has not as many equal
            parts as there are micro-batches.
    """
    batch, parts = FLAGS.global_batch_size, FLAGS.gradient_accumulation_steps
    if batch % parts:
        raise InputError(
            f"--gradient_accumulation_steps {parts}: expected a divisor of "
            f"--global_batch_size {batch}"
        )
    number = task.train.number
    if number < batch:
        raise InputError(
            f"--global_batch_size {batch}: {number} training {task.unit}; "
            "expected no more than these"
        )
    return Fitting(
        epochs=FLAGS.epochs,
        patience=FLAGS.patience,
        steps_per_epoch=number // batch,
        batch_size=batch // parts,
        batches_per_step=parts,
        eval_batch_size=FLAGS.eval_batch_size,
        length_buckets=FLAGS.length_buckets,
    )


def make_model(
    task: Task, source: Source, total_steps: int, seed: int
) -> tuple[keras.Model, Loaded]:
    """The compiled model of the flags; what it has of the checkpoint.

    Raises:
        InputError: A flag's value is out of range, or the checkpoint is
            damaged.
    """
    keras.utils.set_random_seed(seed)
    with run_flags.naming_the_flag():
        model = task.make_model(source.config, seed, FLAGS.dtype)
        _switch_off(model, source)
        _freeze(model.trainable_variables)
        groups = _groups(model)
        optimizer = optimizers.from_flags(total_steps, groups=groups)
        with _naming_the_groups():
            optimizers.build(optimizer, model.trainable_variables)
    loaded = load(source, model)
    model.compile(
        optimizers.scaled(optimizer),
        **task.compile_arguments(),
        jit_compile=backend.compiles_step(),
    )
    return model, loaded


def _switch_off(model: keras.Model, source: Source) -> None:
    """Heads of --heads_off, and those that the checkpoint has off.

    Raises:
        InputError: A place has another form, or there is none such.
    """
    encoder = models.encoder_of(model)
    try:
        places = [heads.place_of(word) for word in FLAGS.heads_off]
        heads.switch_off(encoder, [*places, *source.uniform_heads])
    except ValueError as error:
        raise InputError(f"--heads_off: {error}") from error
    if encoder.uniform_heads:
        names = (f"{layer}.{head}" for layer, head in encoder.uniform_heads)
        print(f"heads without attention: {', '.join(names)}")


@contextlib.contextmanager
def _naming_the_groups() -> Iterator[None]:
    """Names the flags that groups are made of in what is said of groups."""
    try:
        yield
    except InputError as error:
        begin, _, rest = str(error).partition("groups: ")
        if begin not in ("", "--"):
            raise
        raise InputError(
            f"--learning_rate_multipliers or --layer_decay: {rest}"
        ) from error


def _freeze(variables: Sequence[Any]) -> None:
    """Makes variables that --frozen matches untrainable.

    Raises:
        InputError: A pattern matches none, or all are matched.
    """
    frozen: set[str] = set()
    for pattern in FLAGS.frozen:
        try:
            found = {v.path for v in variables if re.search(pattern, v.path)}
        except re.error as error:
            raise InputError(
                f"--frozen {pattern}: {error}; expected a regex"
            ) from error
        if not found:
            raise InputError(
                f"--frozen {pattern}: matches none of {len(variables)} "
                f"variables, such as {variables[0].path}; it is searched in "
                "the full path and minds the case"
            )
        frozen |= found
    if len(frozen) == len(variables):
        raise InputError(
            f"--frozen {','.join(FLAGS.frozen)}: matches all {len(variables)} "
            "variables, so that nothing would be trained; name fewer"
        )
    for variable in variables:
        variable.trainable = variable.path not in frozen


def _groups(model: keras.Model) -> list[tf_lamb.Group]:
    groups = list(map(_multiplied, FLAGS.learning_rate_multipliers))
    if FLAGS.layer_decay == 1:
        return groups
    try:
        return groups + tf_lamb.layer_decay(model, FLAGS.layer_decay)
    except ValueError as error:
        raise InputError(f"--layer_decay: {error}") from error


def _multiplied(word: str) -> tf_lamb.Group:
    """The group of REGEX=FACTOR.

    Raises:
        InputError: It has another form, or the factor is out of range.
    """
    pattern, _, factor = word.rpartition("=")
    try:
        re.compile(pattern)
        multiplier = float(factor)
        if not pattern:
            raise ValueError("no regex")
        return tf_lamb.Group(pattern, learning_rate_multiplier=multiplier)
    except (ValueError, re.error) as error:
        raise InputError(
            f"--learning_rate_multipliers {word}: {error}; expected "
            "REGEX=FACTOR, such as word_embeddings=0.1"
        ) from error


def train(task: Task, source: Source) -> None:
    """Trains the seeds that are not trained yet, and reports all.

    Args:
        task: Of the flags.
        source: The checkpoint of the flags.

    Raises:
        InputError: A flag is out of range, or the folder holds another run.
    """
    fitting = fitting_of(task)
    facts = {**initial.facts(source), "data_sha256": task.digest()}
    identity = {**run_flags.identity(), **facts}
    folder = run_folder.open_run(FLAGS.output_dir, identity)
    if not (folder / run_folder.RECORD).exists():
        # Before anything is written: it refuses what does not fit.
        print(make_model(task, source, fitting.updates, FLAGS.seed)[1])
    run_folder.record_run(folder, identity)
    checkpoint.describe(folder, source, task.record, task.labels)
    print(task, flush=True)
    results = [
        _train_seed(task, source, fitting, seed, folder / f"seed_{seed}")
        for seed in range(FLAGS.seed, FLAGS.seed + FLAGS.seeds)
    ]
    _finish(folder, task, results)


def _train_seed(
    task: Task, source: Source, fitting: Fitting, seed: int, folder: Path
) -> dict[str, Any]:
    """Trains one seed, or finds that it was; gives its result."""
    if (folder / RESULT).is_file():
        return files.read_json(folder / RESULT, "remove it to train again")
    model, _ = make_model(task, source, fitting.updates, seed)

    def show(row: Mapping[str, Any]) -> None:
        print(
            f"seed {seed}, epoch {row['epoch']}: loss {row['loss']:.4f}, "
            f"{_in_words(row['scores'])}, "
            f"{row[f'{task.unit}_per_second']:.1f} {task.unit}/s",
            flush=True,
        )

    result, predicted = fitting.fit(model, task, seed, show)
    folder.mkdir(exist_ok=True)
    with files.replacing(folder / opening.KERAS) as temporary:
        model.save(temporary)
    for name, content in predicted.items():
        files.write_json(folder / name, content, ensure_ascii=False)
    files.write_json(folder / RESULT, result)
    return result


def _in_words(scores: Scores) -> str:
    return ", ".join(
        f"{split} {name} {value:.4f}"
        for split, row in scores.items()
        for name, value in row.items()
    )


def _finish(folder: Path, task: Task, results: list[dict]) -> None:
    """Writes report.json, gives the folder the best seed's, prints a table."""
    found = figures.summary(task.compared_by, results)
    best = folder / f"seed_{found['best_seed']}"
    hidden = (RESULT, files.TEMPORARY)
    names = [p.name for p in best.iterdir() if not p.name.startswith(hidden)]
    for name in names:
        with files.replacing(folder / name) as temporary:
            shutil.copyfile(best / name, temporary)
    files.write_json(
        folder / REPORT,
        {
            **report.environment(),
            "backend": keras.backend.backend(),
            "flags": run_flags.values(),
            "data": task.figures,
            **found,
            "seeds": results,
        },
    )
    print(figures.table(results, found))
    print(
        f"\n{folder}: {', '.join(sorted(names))} of seed "
        f"{found['best_seed']}, the best by {found['compared_by']}; "
        "report.json."
    )
