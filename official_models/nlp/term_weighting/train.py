r"""Learning to weight: term weights of a network against given ones.

    python -m official_models.nlp.term_weighting.train --data reuters \
        --data_dir reuters21578.tar.xz
    python -m official_models.nlp.term_weighting.train --data newsgroups \
        --data_dir 20newsgroups_bydate.tar.xz --optimizers lamb,adam \
        --batch_sizes 100,-1 --hours 3 --output_dir runs/newsgroups

For each category of a corpus documents are weighted by each of --weightings,
and the vectors are judged by classifiers of scikit-learn on the test documents.
Each category and weighting is a file: the same command does those that are
missing. README.md beside this file has what was measured.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
from absl import flags, logging

from official_models.common import (
    errors,
    files,
    processes,
    report,
    run_folder,
)
from official_models.common import flags as run_flags
from official_models.common.errors import InputError
from official_models.common.store import Store, complete
from official_models.nlp.term_weighting import (
    classifiers,
    corpora,
    learning,
    reuters,
    statistics,
    study,
)

FLAGS = flags.FLAGS
LOADERS = {
    "reuters": reuters.load,
    "newsgroups": corpora.load_newsgroups,
    "ohsumed": corpora.load_ohsumed,
}


def define_flags() -> None:
    """Defines this script's flags."""
    run_flags.define_flags(output_dir="runs/term-weighting")
    flags.adopt_module_key_flags(run_flags)  # for --help
    several, integer = flags.DEFINE_list, flags.DEFINE_integer
    flags.DEFINE_enum("data", "reuters", list(LOADERS), "The corpus.")
    flags.DEFINE_string(
        "data_dir", None, "Folder or tar archive of the corpus."
    )
    several(
        "categories",
        ["all"],
        "Names of categories; all: those with a training document; both: of "
        "these the ones with a test document, too.",
    )
    several(
        "weightings",
        [*study.weighting.BASELINES, "local_identity"],
        f"Which to compare, of {', '.join(study.WEIGHTINGS)}.",
    )
    several(
        "classifiers",
        ["svm"],
        f"What judges the vectors, of {', '.join(classifiers.NAMES)}.",
    )
    several(
        "optimizers",
        ["lamb", "adam"],
        f"What trains the networks, of {', '.join(learning.OPTIMIZERS)}.",
    )
    several("batch_sizes", ["100"], "Documents of an update; -1: all.")
    flags.DEFINE_float(
        "learning_rate",
        None,
        "Rate of the optimizers; default: one of its own for each.",
    )
    integer("max_steps", 100_000, "Updates of a network, at most.", 1)
    integer("validate_every", 100, "Updates between two validations.", 1)
    integer("patience", 20, "Validations without a better F1, at most.", 1)
    integer("hidden", 1000, "Units of the local network.", 1)
    flags.DEFINE_enum(
        "pretrain",
        "none",
        ["none", *statistics.TARGETS],
        "What a network learns first.",
    )
    flags.DEFINE_boolean("learn_tf", False, "Whether tf is learned, too.")
    flags.DEFINE_float("share", 0.1, "Share of the terms that are kept.")
    integer("seeds", 1, "Runs of each cell, from --seed on.", 1)
    integer(
        "workers",
        processes.cores(),
        "Processes, which share the cores; a category is done by one.",
        1,
    )
    flags.DEFINE_float(
        "hours",
        None,
        "Hours of this start: no category begins after them. Default: no "
        "limit.",
    )
    # What they select is in the names of the files.
    run_flags.without_effect(
        *("data_dir", "categories", "weightings", "optimizers"),
        *("batch_sizes", "seed", "seeds", "workers", "hours"),
    )


def load() -> corpora.Corpus:
    """The corpus of the flags.

    Raises:
        InputError: It cannot be read.
    """
    if not FLAGS.data_dir:
        raise InputError(
            f"--data_dir is missing: --data {FLAGS.data} needs the folder or "
            "the archive of the corpus"
        )
    return LOADERS[FLAGS.data](FLAGS.data_dir)


def words(name: str, known: tuple[str, ...]) -> list[str]:
    """The words of a flag that is a list.

    Raises:
        InputError: One is not known; or there is none.
    """
    for word in FLAGS[name].value or [""]:
        if word not in known:
            near = ", ".join(known[:20])
            raise InputError(f"--{name} {word}: expected some of {near}")
    return list(FLAGS[name].value)


def batch_sizes() -> list[int]:
    """--batch_sizes as numbers.

    Raises:
        InputError: One is none.
    """
    found = []
    for text in FLAGS.batch_sizes or [""]:
        if not text.lstrip("-").isdecimal() or not (
            int(text) == -1 or 0 < int(text) < 2**31
        ):
            raise InputError(
                f"--batch_sizes {text}: expected numbers of documents, or -1 "
                "for all, with commas between them"
            )
        found.append(int(text))
    return found


def categories_of(corpus: corpora.Corpus) -> list[str]:
    """The categories of the flags.

    Raises:
        InputError: One has no training document.
    """
    if FLAGS.categories == ["all"]:
        return list(corpus.categories)
    if FLAGS.categories == ["both"]:
        return list(corpus.in_both())
    for name in FLAGS.categories or [""]:
        if name not in corpus.categories:
            raise InputError(
                f"--categories {name}: no training document of {corpus.name} "
                f"has it; expected all, both or some of "
                f"{', '.join(corpus.categories[:20])}"
            )
    twice = [c for c in FLAGS.categories if FLAGS.categories.count(c) > 1]
    if twice:
        raise InputError(
            f"--categories: {twice[0]} is given twice; expected each once"
        )
    return list(FLAGS.categories)


def settings() -> list[tuple[str, str, dict[str, Any]]]:
    """(name of the row, weighting, arguments of the learner) of the flags.

    Raises:
        InputError: A flag is out of range.
    """
    found: list[tuple[str, str, dict[str, Any]]] = []
    for weighting in words("weightings", study.WEIGHTINGS):
        if weighting not in study.LEARNED:
            found.append((weighting, weighting, {}))
            continue
        for optimizer in words("optimizers", tuple(learning.OPTIMIZERS)):
            for size in batch_sizes():
                learner = {
                    "optimizer": optimizer,
                    "batch_size": size,
                    "learning_rate": FLAGS.learning_rate,
                    "max_steps": FLAGS.max_steps,
                    "validate_every": FLAGS.validate_every,
                    "patience": FLAGS.patience,
                    "hidden": FLAGS.hidden,
                    "learn_tf": FLAGS.learn_tf,
                    "pretrain": None
                    if FLAGS.pretrain == "none"
                    else FLAGS.pretrain,
                }
                with run_flags.naming_the_flag():
                    learning.Settings(**learner)
                of_batch = "full" if size == -1 else size
                row = f"{weighting}-{optimizer}-m{of_batch}"
                found.append((row, weighting, learner))
    return found


def compute(store: Store, counts: study.Counts) -> dict[str, Any]:
    """Does every cell: {row: {seed: summary}}."""
    judges = tuple(FLAGS.classifiers)
    table: dict[tuple[str, str], list] = {}
    for row, weighting, learner in settings():
        for seed in range(FLAGS.seed, FLAGS.seed + FLAGS.seeds):
            table[row, str(seed)] = [
                study.Cell(
                    category, weighting, FLAGS.share, judges, seed, learner
                )
                for category in categories_of(counts.corpus)
            ]
    jobs = [(row, cell) for (row, _), each in table.items() for cell in each]
    missing = [job for job in jobs if not store.has(study.file_name(*job))]
    done = len(jobs) - len(missing)
    work = study.Work(counts, store)
    for (row, cell), found in processes.results(
        study.compute, missing, FLAGS.workers, study.begin, (work,)
    ):
        done += 1
        f1 = {
            name: round(study.metrics.Decisions(*one).f1, 4)
            for name, one in found["decisions"].items()
        }
        print(
            f"{done} of {len(jobs)}: {row}, {cell.category}, seed {cell.seed}: "
            f"F1 {f1}, {found['seconds']:.1f} s",
            flush=True,
        )
    found = {}
    for (row, seed), cells in table.items():
        each = [store.read(study.file_name(row, cell)) for cell in cells]
        found.setdefault(row, {})[seed] = study.summary(each)
    return found


def draw(found: dict[str, Any], path: Path) -> None:
    """Macro and micro F1 of each row by the first classifier."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 1.5 + 0.35 * len(found)), layout="constrained")
    axes = figure.subplots()
    judge = FLAGS.classifiers[0]
    for i, key in enumerate(("macro_f1", "micro_f1")):
        values = [
            sum(one[judge][key] for one in seeds.values()) / len(seeds)
            for seeds in found.values()
        ]
        places = [place + 0.4 * i - 0.2 for place in range(len(found))]
        axes.barh(places, values, 0.38, label=key.replace("_f1", " F1"))
    axes.set_yticks(range(len(found)), list(found))
    axes.set(xlabel=f"F1 on test documents ({judge})", xlim=(0, 1))
    axes.invert_yaxis()
    figure.legend(loc="outside upper right", ncols=2, frameon=False)
    files.save_figure(path, figure)


def main(_) -> None:
    """Does what is missing, and reports."""
    logging.set_verbosity(logging.WARNING)
    run_folder.need_local(FLAGS.output_dir)
    settings()
    words("classifiers", classifiers.NAMES)
    if not 0 < FLAGS.share <= 1:
        raise InputError(
            f"--share {FLAGS.share:g}: expected a number above 0, at most 1"
        )
    corpus = load()
    categories_of(corpus)
    identity = {
        **run_flags.identity(),
        "corpus": corpus.description,
        "corpus_sha256": corpus.digest(),
    }
    folder = run_folder.open_run(FLAGS.output_dir, identity)
    store = Store(folder / "cells", FLAGS.hours)
    run_folder.record_run(folder, identity)
    print(corpus.description, flush=True)
    found = complete(lambda: compute(store, study.Counts.of(corpus)), folder)
    if found is None:
        return
    learned = [row for row, name, _ in settings() if name in study.LEARNED]
    tests = {
        judge: study.comparisons(found, learned, judge)
        for judge in FLAGS.classifiers
    }
    files.write_json(
        folder / "report.json",
        {
            **report.environment(),
            "backend": keras.backend.backend(),
            "flags": run_flags.values(),
            "corpus": corpus.description,
            "categories": categories_of(corpus),
            "rows": found,
            "comparisons": tests,
        },
    )
    draw(found, folder / "f1.png")
    for row, seeds in found.items():
        for seed, by_judge in seeds.items():
            for judge, one in by_judge.items():
                print(
                    f"{row}, seed {seed}, {judge}: macro F1 "
                    f"{one['macro_f1']:.4f}, micro F1 {one['micro_f1']:.4f}, "
                    f"{one['zeros']} with F1 = 0"
                )
    for judge, each in tests.items():
        for one in each:
            p = "" if one["p"] is None else f", p {one['p']:.3g}"
            print(
                f"{judge}: {one['row']} less {one['against']}: macro F1 "
                f"{one['macro_f1']:+.4f}; {one['better']} categories better, "
                f"{one['equal']} equal, {one['worse']} worse{p}"
            )
    print(f"{folder}: report.json, f1.png, cells")


if __name__ == "__main__":
    define_flags()
    errors.run(main)
