r"""Batch normalization's hidden decay of gamma: the study, and its question.

    python -m official_models.vision.batch_norm.train
    python -m official_models.vision.batch_norm.train --experiments gap,teacher
    python -m official_models.vision.batch_norm.train --data cifar10 \
        --data_dir cifar10_jpeg.npz --train_images 4096 \
        --output_dir runs/batch-norm-cifar10 --hours 8

Four experiments: `gap` (what a batch's statistics add to the loss, against the
closed form), `teacher` (linear students of a linear teacher), `network` (a
small network by SGD with BN, PN, PN and the decay, WN), `compensation` (does
the decay of a small batch restore its loss at a large one, with LAMB and LARS).
README.md beside this file has what was measured. Each training is a file: the
same command does those that are missing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
from absl import flags, logging

from official_models.common import (
    backend,
    errors,
    files,
    report,
    run_folder,
)
from official_models.common import flags as run_flags
from official_models.common.errors import InputError
from official_models.common.store import Store, complete
from official_models.vision.batch_norm import (
    cells,
    data,
    experiments,
    pictures,
)

FLAGS = flags.FLAGS
DATA = "data.json"
EXPERIMENTS = ("gap", "teacher", "network", "compensation")


def define_flags() -> None:
    """Defines this script's flags."""
    run_flags.define_flags(output_dir="runs/batch-norm", jit_compile=False)
    flags.adopt_module_key_flags(run_flags)  # for --help
    integer, several = flags.DEFINE_integer, flags.DEFINE_list
    several(
        "experiments",
        list(EXPERIMENTS),
        f"Which to do, of {', '.join(EXPERIMENTS)}.",
    )
    flags.DEFINE_enum("data", "digits", data.SETS, "Where images are from.")
    flags.DEFINE_string("data_dir", None, "File or folder of CIFAR-10.")
    integer("train_images", 512, "Images to train on; the population.", 16)
    integer("filters", 8, "Filters of the first convolution.", 1)
    several("batch_sizes", ["8", "16", "64"], "Batches of the network.")
    integer("updates", 200, "Updates of a training of the network.", 1)
    several(
        "optimizers",
        ["lamb", "lars"],
        f"Optimizers of the compensation, of {', '.join(cells.OPTIMIZERS)}.",
    )
    integer("reference_batch_size", 16, "The compensation's small batch.", 2)
    integer("large_batch_size", 256, "The compensation's large batch.", 2)
    integer("epochs", 20, "Epochs of a training of the compensation.", 1)
    several(
        "zetas",
        ["0.0375", "0.375", "3.75"],
        "Strengths of the decay at a batch of one, from which one is chosen.",
    )
    integer("seeds", 5, "Trainings of each setting, from --seed on.", 1)
    flags.DEFINE_float(
        "hours",
        None,
        "Hours of this start: no training begins after them. Default: no "
        "limit.",
    )
    # What they select is in the names of the files.
    run_flags.without_effect(
        *("experiments", "data_dir", "filters", "batch_sizes", "updates"),
        *("optimizers", "reference_batch_size", "large_batch_size", "epochs"),
        *("zetas", "seeds", "hours", "seed"),
    )


def numbers(name: str, kind: type, smallest: float) -> list[Any]:
    """The numbers of a flag that is a list.

    Args:
        name: Of the flag.
        kind: int or float.
        smallest: That is taken.

    Raises:
        InputError: One is none, or too small; or there is none.
    """
    found = []
    for text in FLAGS[name].value:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not smallest <= value < 2**31:
            raise InputError(
                f"--{name} {text}: expected numbers, each at least {smallest}, "
                "with commas between them"
            )
        found.append(value)
    if not found:
        raise InputError(f"--{name}: expected at least one number")
    return found


def chosen(name: str, known: tuple[str, ...]) -> list[str]:
    """The words of a flag that is a list.

    Raises:
        InputError: One is not known; or there is none.
    """
    for word in FLAGS[name].value or [""]:
        if word not in known:
            raise InputError(
                f"--{name} {word}: expected some of {', '.join(known)}"
            )
    return list(FLAGS[name].value)


def compute(store: Store, parts: data.Parts | None, folder: Path) -> dict:
    """Does the experiments of the flags: {name: table}, with pictures."""
    names = chosen("experiments", EXPERIMENTS)
    seeds = range(FLAGS.seed, FLAGS.seed + FLAGS.seeds)
    found: dict[str, Any] = {}
    if "gap" in names:
        found["gap"] = experiments.gap(store)
        pictures.draw_gap(found["gap"], folder / "gap.png")
    if "teacher" in names:
        found["teacher"] = experiments.teacher(store, seeds)
        pictures.draw_teacher(found["teacher"], folder / "teacher.png")
    if parts is None:
        return found
    trainer = experiments.Trainer(
        store,
        parts,
        FLAGS.filters,
        seeds,
        numbers("zetas", float, 0.0),
        FLAGS.dtype,
        backend.compiles_step(),
    )
    if "compensation" in names:
        found["compensation"] = [
            experiments.compensation(
                trainer,
                optimizer,
                FLAGS.reference_batch_size,
                FLAGS.large_batch_size,
                FLAGS.epochs,
            )
            for optimizer in chosen("optimizers", cells.OPTIMIZERS)
        ]
        pictures.draw_compensation(
            found["compensation"], folder / "compensation.png"
        )
    if "network" in names:
        found["network"] = experiments.network(
            trainer, numbers("batch_sizes", int, 2), FLAGS.updates
        )
        pictures.draw_network(found["network"], folder / "network.png")
    return found


def check() -> data.Parts | None:
    """Refuses flags that do not fit; the images, if they are needed."""
    names = chosen("experiments", EXPERIMENTS)
    chosen("optimizers", cells.OPTIMIZERS)
    numbers("zetas", float, 0.0)
    sizes = {"batch_sizes": max(numbers("batch_sizes", int, 2))}
    if "network" not in names:
        sizes = {}
    if "compensation" in names:
        sizes["large_batch_size"] = large = FLAGS.large_batch_size
        if large <= FLAGS.reference_batch_size:
            raise InputError(
                f"--large_batch_size {large}: expected more than "
                f"--reference_batch_size {FLAGS.reference_batch_size}"
            )
    if not {"network", "compensation"} & set(names):
        return None
    for name, size in sizes.items():
        if size > FLAGS.train_images:
            raise InputError(
                f"--{name} {size}: expected at most --train_images "
                f"{FLAGS.train_images}"
            )
    return data.load_parts(FLAGS.data, FLAGS.data_dir, FLAGS.train_images)


def hold_data(path: Path, parts: data.Parts) -> None:
    """Writes what identifies the images; later, holds others against it.

    Raises:
        InputError: The trainings in the folder are of other images.
    """
    facts = {"data_sha256": parts.digest()}
    if not path.is_file():
        files.write_json(path, facts)
    elif files.read_json(path, "expected what an earlier start wrote") != facts:
        raise InputError(
            f"{path}: the trainings beside it are of other images than those "
            f"of --data {FLAGS.data}, --data_dir {FLAGS.data_dir}; give these "
            "another --output_dir"
        )


def show(found: dict[str, Any]) -> None:
    """Prints the tables."""
    for row in found.get("gap", ()):
        print(
            f"{row['distribution']}, M = {row['batch_size']}: gap "
            f"{row['gap']:.5f}, zeta gamma^2 {row['zeta']:.5f}"
        )
    for row in found.get("teacher", ()):
        print(
            f"P/N = {row['load']:g}, {row['student']}: error "
            f"{row['error']['mean']:.4f}, gamma {row['gamma']['mean']:.3f}"
        )
    for row in found.get("network", ()):
        print(f"{row['arm']}: {_line(row)}")
    for one in found.get("compensation", ()):
        for name in ("small", "large", "compensated"):
            print(f"{one['optimizer']}, {name}: {_line(one[name])}")
        for name, test in one["tests"].items():
            p = "none" if test["p"] is None else f"{test['p']:.3g}"
            print(f"  {name}: {test['difference']:+.4f}, p {p}")


def _line(row: dict[str, Any]) -> str:
    return (
        f"M = {row['batch_size']}, rate {row['rate']:g}, decay "
        f"{row['decay']:.3g}: loss {row['loss']['mean']:.4f}, accuracy "
        f"{row['accuracy']['mean']:.4f}, gamma {row['gamma']['mean']:.3f}"
    )


def main(_) -> None:
    """Does what is missing, and reports."""
    logging.set_verbosity(logging.WARNING)
    run_folder.need_local(FLAGS.output_dir)
    backend.check_dtype()
    backend.repeat_exactly()
    parts = check()
    identity = run_flags.identity()
    folder = run_folder.open_run(FLAGS.output_dir, identity)
    if parts is not None:
        hold_data(folder / DATA, parts)
    store = Store(folder / "cells", FLAGS.hours)
    run_folder.record_run(folder, identity)
    found = complete(lambda: compute(store, parts, folder), folder)
    if found is None:
        return
    files.write_json(
        folder / "report.json",
        {
            **report.environment(),
            "backend": keras.backend.backend(),
            "flags": run_flags.values(),
            **found,
        },
    )
    show(found)
    print(f"{folder}: report.json, cells, {', '.join(found)} as PNG")


if __name__ == "__main__":
    define_flags()
    errors.run(main)
