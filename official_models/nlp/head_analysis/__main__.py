r"""What the heads of a model do, how fine-tuning changed it, what they are for.

    python -m official_models.nlp.head_analysis --model runs/rte/seed_1 \
        --model runs/rte/seed_2 --raw_model ENCODER --data RTE/dev.tsv \
        --output_dir runs/heads

Each `--model` is one seed of one fine-tuning. Its folder is one of
`official_models.nlp.bert.finetune_classifier`, whose task.json says the task,
or any that `official_models.nlp.checkpoint` reads, with --task_name and
--max_seq_length; of a model without classifier only the maps are read. The
output folder has heads.json (README.md beside this file has its parts). The
same command finishes an analysis that was interrupted, from the head on that
was not complete.
"""

import logging as python_logging
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags, logging

from official_models.common import errors, files, report, run_folder
from official_models.common import flags as run_flags
from official_models.common.errors import InputError
from official_models.nlp.checkpoint import initial, opening
from official_models.nlp.head_analysis import (
    attention_to,
    change,
    choice,
    inputs,
    patterns,
    relations,
    result,
    stages,
)
from official_models.nlp.head_analysis import report as pictures

FLAGS = flags.FLAGS
# Fewer seeds cannot differ by more than chance (2 / 2^5 is 6%).
_SEEDS = 5


def define_flags() -> None:
    """Defines this script's flags."""
    string, integer = flags.DEFINE_string, flags.DEFINE_integer
    flags.DEFINE_multi_string(
        "model", None, f"It is {opening.EXPECTED}. Once for each seed."
    )
    string("raw_model", None, "The same model before its fine-tuning.")
    string("data", None, "A labelled TSV file in GLUE's form.")
    string("output_dir", "runs/heads", "Folder of the results; resumed.")
    string(
        "task_name",
        None,
        "A task of GLUE. Default: what the model's folder says.",
    )
    integer(
        "max_seq_length",
        None,
        "Tokens of a sequence. Default: what the model's folder says.",
        5,
    )
    string("token_classes", None, 'A JSON file {"class": ["word", ...]}.')
    string("relations", None, "A JSON file of linked words; see README.md.")
    integer("batch_size", 32, "Examples at once.", 1)
    integer("max_examples", None, "Examples, at most. Default: all.", 2)
    integer("seed", 1, "Seed of the two splits.", 0)
    flags.DEFINE_boolean(
        "paper_compat", False, "Compare maps with their padding."
    )
    run_flags.without_effect("output_dir", "data", "batch_size")
    run_flags.without_effect("token_classes", "relations")


def main(_) -> None:
    """Analyses the models of the flags."""
    logging.set_verbosity(logging.WARNING)
    # Each length of a batch is traced, of which TensorFlow warns.
    python_logging.getLogger("tensorflow").setLevel(python_logging.ERROR)
    for name in ("model", "data"):
        if not FLAGS[name].value:
            raise InputError(f"--{name} is missing: the analysis needs it")
    run_folder.need_local(FLAGS.output_dir)
    errors.require("scipy", "the sign test")
    opened = inputs.open_all(FLAGS.model, FLAGS.raw_model)
    models = opened[: len(FLAGS.model)]
    raw = opened[-1] if FLAGS.raw_model else None
    task, length = inputs.task_of(
        models[0], FLAGS.task_name, FLAGS.max_seq_length
    )
    for one in models:
        inputs.check_labels(one, task)
    classifiers = [one.is_classifier for one in models]
    if any(classifiers) and not all(classifiers):
        raise InputError(
            f"--model {models[classifiers.index(False)].folder}: no "
            "classifier, which the others have; expected seeds of one training"
        )
    tokenizer = models[0].source.tokenizer.load(models[0].source.where)
    data = inputs.read_data(
        FLAGS.data,
        task,
        tokenizer,
        length,
        most=FLAGS.max_examples,
        seed=FLAGS.seed,
    )
    asked = _asked(tokenizer, length, data)
    identity = {
        **run_flags.identity(),
        "task": task.folder,
        "length": length,
        "data_sha256": data.digest,
        "patterns_sha256": patterns.digest(),
        "models": [initial.facts(one.source) for one in opened],
        "asked": [
            files.read_json(path) if path else None
            for path in (FLAGS.token_classes, FLAGS.relations)
        ],
    }
    folder = run_folder.open_run(FLAGS.output_dir, identity)
    run_folder.record_run(folder, identity)
    found = {
        "format": result.FORMAT,
        "measured": report.environment(),
        "task": task.folder,
        "max_seq_length": length,
        "data": {
            "file": data.file,
            "sha256": data.digest,
            "examples": data.encoded.number,
            "choose": int(data.chosen.sum()),
            "report": int((~data.chosen).sum()),
        },
        "models": [one.folder for one in models],
        "raw_model": FLAGS.raw_model,
        **_of_maps(folder, models, raw, data, asked),
        "switching_off": _switching_off(folder, models, data),
    }
    files.write_json(folder / result.NAME, result.check(found), indent=1)
    page = pictures.write_report(found, folder)
    print(f"\n{folder / result.NAME} is complete; {page} shows it.")


def _asked(tokenizer, length: int, data: inputs.Data) -> stages.Asked:
    words = attention_to.Words(tokenizer)
    classes, probes = attention_to.usual_classes(tokenizer), []
    if FLAGS.token_classes:
        given = attention_to.read_classes(FLAGS.token_classes, words)
        attention_to.check_found(
            FLAGS.token_classes, given, words, data.encoded.inputs
        )
        classes += given
    if FLAGS.relations:
        probes = relations.read_relations(FLAGS.relations, tokenizer, length)
    return stages.Asked(
        classes, words, probes, FLAGS.batch_size, FLAGS.paper_compat
    )


def _of_maps(folder: Path, models, raw, data, asked) -> dict[str, Any]:
    """The parts of heads.json that the maps give."""
    found = []
    for i, one in enumerate(models):
        path = folder / f"maps_{i}.json"
        if not path.is_file():
            print(f"{one.folder}: its maps", flush=True)
            files.write_json(
                path, stages.read_maps(one, raw, data, asked), indent=None
            )
        found.append(files.read_json(path, "remove it: it is made again"))
    numbers = {n: x[1] for n, x in found[0]["attention_to"].items()}
    mean_maps = found[0]["mean_maps"]
    return {
        "layers": len(mean_maps),
        "heads": len(mean_maps[0]),
        "mean_maps": mean_maps,
        "patterns": _patterns([x["patterns"] for x in found]),
        "change": _change(found) if raw else None,
        "attention_to": {
            name: {
                **choice.spread([x["attention_to"][name][0] for x in found]),
                "examples": number,
            }
            for name, number in numbers.items()
        },
        "relations": [
            _relation(one, [x["relations"][i] for x in found])
            for i, one in enumerate(asked.probes)
        ]
        or None,
    }


def _patterns(found: list) -> dict[str, Any] | None:
    """The mean over models; None where the classifier has no weights."""
    if found[0] is None:
        return None
    values = np.mean([probabilities for probabilities, _ in found], axis=0)
    return {
        "classes": list(patterns.CLASSES),
        "probabilities": values.tolist(),
        "maps": found[0][1],
    }


def _change(found: list[dict]) -> dict[str, Any]:
    values = np.array([x["change"] for x in found])
    return {
        "padding": change.PADDING[FLAGS.paper_compat],
        **choice.spread(values),
        "by_layer": choice.spread(values.mean(-1)),
        "models": values.tolist(),
    }


def _relation(one: relations.Relation, scores: list) -> dict[str, Any]:
    spread = choice.spread(scores)
    return {
        "name": one.name,
        "examples": len(one.links),
        **spread,
        **relations.named(np.array(spread["mean"])),
    }


def _switching_off(folder: Path, models, data) -> dict[str, Any] | None:
    if not models[0].is_classifier:
        print(f"{models[0].folder}: no classifier, so that no head is off.")
        return None
    switched = [
        stages.switch_all(
            one, data, FLAGS.batch_size, folder / f"off_{i}.json", one.folder
        )
        for i, one in enumerate(models)
    ]
    found = stages.figures_of(switched, data.chosen)
    for name, chosen in found["chosen"].items():
        both = chosen["common"]
        print(
            f"{name} {both['place']}, chosen by "
            f"{both['choose_change']['mean']:+.4f}: "
            f"{both['report_change']['mean']:+.4f} on the other split; "
            f"{both['better']} seeds better, {both['worse']} worse, "
            f"p = {both['p']:.3f}"
        )
    if len(models) < _SEEDS:
        print(
            f"{len(models)} of the {_SEEDS} seeds that a comparison needs: "
            "chance is not ruled out."
        )
    return found


if __name__ == "__main__":
    define_flags()
    errors.run(main)
