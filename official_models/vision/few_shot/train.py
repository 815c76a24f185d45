r"""Few-shot classification with the large-margin term, by LAMB or others.

    python -m official_models.vision.few_shot.train
    python -m official_models.vision.few_shot.train --margin_weight 0 \
        --output_dir runs/few-shot-plain
    python -m official_models.vision.few_shot.train --data omniglot \
        --data_dir omniglot --ways 20 --shots 5 --output_dir runs/omniglot

Without flags: a prototypical network on letters of many scripts, which are
drawn from a font that matplotlib brings along, 5 ways and 1 shot; training,
validation and test scripts are disjoint. README.md beside this file has what
was measured. Each seed is trained to its end and then evaluated on the same 600
episodes of new classes; the same command goes on with the seeds that are not
there yet.
"""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import keras
from absl import flags, logging

from official_models.common import (
    backend,
    errors,
    files,
    optimizers,
    report,
    run_folder,
)
from official_models.common import flags as run_flags
from official_models.common.errors import InputError
from official_models.vision.few_shot import (
    evaluation,
    glyphs,
    losses,
    model,
    omniglot,
)
from official_models.vision.few_shot.images import Episodes, Splits

FLAGS = flags.FLAGS
RESULT = "result.json"
_GLYPHS_PER_CLASS = 20
_TEST_SEED, _VALIDATION_SEED = 2**31, 2**31 + 1


def define_flags() -> None:
    """Defines this script's flags."""
    run_flags.define_flags(output_dir="runs/few-shot", jit_compile=False)
    optimizers.define_flags(
        learning_rate=0.01,
        warmup_ratio=0.1,
        weight_decay=0.0,
        exclusions=("biases_and_norms",),
        global_clipnorm=0.0,
    )
    for module in (run_flags, optimizers):
        flags.adopt_module_key_flags(module)  # for --help
    integer = flags.DEFINE_integer
    flags.DEFINE_enum("model", "prototypical", model.MODELS, "The network.")
    flags.DEFINE_enum(
        "data", "glyphs", ["glyphs", "omniglot"], "Where the images are from."
    )
    flags.DEFINE_string(
        "data_dir", None, f"Folder with {' and '.join(omniglot.FILES)}."
    )
    integer("ways", 5, "Classes of an episode.", 2)
    integer("shots", 1, "Support images of a class.", 1)
    integer("queries", 5, "Query images of a class, in training and test.", 1)
    integer("image_size", 28, "Pixels of an image's side.", 16)
    integer("filters", 64, "Filters of each convolution.", 1)
    integer("steps", 400, "Updates.", 1)
    integer("episodes", 4, "Episodes an update.", 1)
    flags.DEFINE_float(
        "margin_weight", 1.0, "Factor of the large-margin term; 0: without."
    )
    flags.DEFINE_float("margin", 0.5, "Margin between squared distances.")
    flags.DEFINE_enum(
        "margin_unit",
        "distance",
        losses.MARGIN_UNITS,
        "Unit of --margin: squared distances as they are, or in units of their "
        "mean between classes, in each episode.",
    )
    flags.DEFINE_float(
        "temperature",
        1.0,
        "The prototypical network's logits are squared distances by this.",
    )
    integer("eval_episodes", 600, "Episodes of the evaluation.", 2)
    integer("log_every", 50, "Updates between two lines on the screen.", 1)
    integer("seeds", 1, "Runs, with the seeds from --seed on.", 1)
    run_flags.without_effect("log_every", "seeds", "data_dir")


def load_data() -> Splits:
    """The images of the flags.

    Raises:
        InputError: They cannot be read, or are too few for an episode.
    """
    if FLAGS.data == "omniglot":
        if not FLAGS.data_dir:
            raise InputError(
                "--data_dir is missing: --data omniglot needs the folder of "
                + " and ".join(omniglot.FILES)
            )
        found = omniglot.load(FLAGS.data_dir, FLAGS.image_size)
    elif FLAGS.data_dir:
        raise InputError("--data_dir: for --data omniglot; glyphs need none")
    else:
        found = glyphs.load(FLAGS.image_size, _GLYPHS_PER_CLASS, seed=0)
    for name in ("train", "validation", "test"):
        part = getattr(found, name)
        part.check(FLAGS.ways, FLAGS.shots + FLAGS.queries, name)
    return found


def make_model(seed: int) -> keras.Model:
    """The compiled network of the flags.

    Raises:
        InputError: A flag is out of range.
    """
    keras.utils.set_random_seed(seed)
    names = ("ways", "shots", "queries", "image_size", "filters", "temperature")
    if FLAGS.model == "graph" and FLAGS.temperature != 1:
        raise InputError("--temperature: for --model prototypical, not graph")
    with run_flags.naming_the_flag():
        config = model.FewShotConfig(**{n: FLAGS[n].value for n in names})
        made = model.make(FLAGS.model, config, seed=seed, dtype=FLAGS.dtype)
        optimizer = optimizers.from_flags(FLAGS.steps)
        optimizers.build(optimizer, made.trainable_variables)
        try:
            loss = losses.EpisodeLoss(
                FLAGS.margin_weight, FLAGS.margin, FLAGS.margin_unit
            )
        except ValueError as error:
            text = str(error)
            name = "margin_" if text.startswith("weight") else ""
            raise InputError(f"--{name}{text}") from error
    made.compile(
        optimizers.scaled(optimizer),
        loss,
        metrics=[losses.EpisodeAccuracy()],
        jit_compile=backend.compiles_step(),
    )
    return made


def train_seed(data: Splits, seed: int, folder: Path) -> dict[str, Any]:
    """Trains and evaluates one seed, or finds that it was."""
    if (folder / RESULT).is_file():
        return files.read_json(folder / RESULT, "remove it to train again")
    made = make_model(seed)
    shape = FLAGS.ways, FLAGS.shots + FLAGS.queries
    parts = FLAGS.gradient_accumulation_steps
    rows = []
    for first in range(0, FLAGS.steps, FLAGS.log_every):
        count = min(FLAGS.log_every, FLAGS.steps - first)
        batches = Episodes(
            data.train,
            *shape,
            FLAGS.episodes // parts,
            [
                episode_seed(seed, number, parts)
                for number in range(first * parts, (first + count) * parts)
            ],
        )
        history = made.fit(batches, shuffle=False, verbose=0).history
        row = {name: float(values[-1]) for name, values in history.items()}
        rows.append({"step": first + count, **row})
        print(
            f"seed {seed}, step {first + count:,} of {FLAGS.steps:,}: loss "
            f"{row['loss']:.4f}, accuracy {row['accuracy']:.4f}",
            flush=True,
        )
    scores = {
        name: evaluation.evaluate(
            made, part, shape, FLAGS.eval_episodes, eval_seed
        )
        for name, part, eval_seed in (
            ("validation", data.validation, _VALIDATION_SEED),
            ("test", data.test, _TEST_SEED),
        )
    }
    folder.mkdir(exist_ok=True)
    with files.replacing(folder / "model.keras") as temporary:
        made.save(temporary)
    evaluation.plot_embedding(
        made,
        data.test,
        folder / "embedding.png",
        f"{FLAGS.model}, {FLAGS.ways} ways, {FLAGS.shots} shots: new classes",
    )
    result = {
        "seed": seed,
        "scores": {name: found.as_json() for name, found in scores.items()},
        "rows": rows,
    }
    files.write_json(folder / RESULT, result)
    return result


def episode_seed(seed: int, number: int, parts: int) -> tuple[int, ...]:
    """The seed of a batch's episodes, another one for each seed and batch.

    Args:
        seed: Of the training.
        number: Of the batch, from 0; an update has `parts` of them.
        parts: Batches of an update.
    """
    # Numbered within each 50 updates, as README's figures were drawn.
    fifties, place = divmod(number, 50 * parts)
    return 50 * fifties, seed, place


def summary(results: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean and deviation of the seeds, on each split."""
    found = {}
    for split in ("validation", "test"):
        values = [result["scores"][split]["accuracy"] for result in results]
        found[split] = {
            "mean": statistics.fmean(values),
            "deviation": statistics.stdev(values) if len(values) > 1 else None,
        }
    return found


def main(_) -> None:
    """Trains what is not trained yet, evaluates, and reports."""
    logging.set_verbosity(logging.WARNING)
    run_folder.need_local(FLAGS.output_dir)
    backend.check_dtype()
    backend.repeat_exactly()
    if FLAGS.episodes % FLAGS.gradient_accumulation_steps:
        raise InputError(
            f"--gradient_accumulation_steps {FLAGS.gradient_accumulation_steps}"
            f": expected a divisor of --episodes {FLAGS.episodes}"
        )
    data = load_data()
    identity = {
        **run_flags.identity(),
        "data_description": data.description,
        "data_sha256": data.digest(),
    }
    folder = run_folder.open_run(FLAGS.output_dir, identity)
    if not (folder / run_folder.RECORD).exists():
        make_model(FLAGS.seed)  # refuses what does not fit
    run_folder.record_run(folder, identity)
    print(data.description, flush=True)
    results = [
        train_seed(data, seed, folder / f"seed_{seed}")
        for seed in range(FLAGS.seed, FLAGS.seed + FLAGS.seeds)
    ]
    found = summary(results)
    files.write_json(
        folder / "report.json",
        {
            **report.environment(),
            "backend": keras.backend.backend(),
            "flags": run_flags.values(),
            "data": data.description,
            "scores": found,
            "seeds": results,
        },
    )
    for result in results:
        test = result["scores"]["test"]
        print(
            f"seed {result['seed']}: test {test['accuracy']:.4f} ± "
            f"{test['interval_95']:.4f} over {test['episodes']} episodes"
        )
    print(f"{folder}: mean {found['test']['mean']:.4f}; report.json")


if __name__ == "__main__":
    define_flags()
    errors.run(main)
