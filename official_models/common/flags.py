"""The flags of every train script, and which flags decide a run's weights.

A flag decides the weights unless the module that defines it says otherwise by
`without_effect`: one that is forgotten there makes a folder refuse a run that
it could have resumed, never resume one with other settings in silence.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

from absl import flags

from official_models.common import importing
from official_models.common.errors import InputError, refuse

FLAGS = flags.FLAGS
_PACKAGE = __name__.partition(".")[0]


def define_flags(
    *,
    output_dir: str,
    log_every: int | None = None,
    save_every: int | None = None,
    eval_every: int | None = None,
    jit_compile: bool | None = None,
) -> None:
    """Defines the flags of every run, with a script's own defaults.

    Args:
        output_dir: folder of the run.
        log_every: steps a row of metrics.csv; None for a script without
            checkpoints, which has no --save_every and --eval_every either.
        save_every: steps between checkpoints; None for an epoch's.
        eval_every: steps between evaluations; None for an epoch's.
        jit_compile: whether XLA compiles the step; None for a script without
            this flag and --dtype.
    """
    if line := importing.keras_is_too_old():
        refuse(line)
    flags.DEFINE_string(
        "output_dir",
        output_dir,
        "Folder of the run, gs:// too. A run that is there is resumed.",
    )
    flags.DEFINE_integer(
        "seed",
        1,
        "Seed of weights, order, masks, augmentation, dropout.",
        lower_bound=0,
        upper_bound=2**32 - 1,
    )
    without_effect("output_dir")
    if log_every is not None:
        _define_intervals(log_every, save_every, eval_every)
    if jit_compile is None:
        return
    flags.DEFINE_string(
        "dtype", "float32", "Keras dtype policy, such as mixed_bfloat16."
    )
    flags.DEFINE_boolean("jit_compile", jit_compile, "Compile the step by XLA.")


def _define_intervals(
    log_every: int, save_every: int | None, eval_every: int | None
) -> None:
    flags.DEFINE_integer("log_every", log_every, "Steps a row of metrics.", 1)
    for name, steps, what in (
        ("save_every", save_every, "checkpoints"),
        ("eval_every", eval_every, "evaluations"),
    ):
        epoch = "" if steps else " Default: an epoch's."
        flags.DEFINE_integer(name, steps, f"Steps between {what}.{epoch}", 1)
    without_effect("log_every", "save_every", "eval_every")


def without_effect(*names: str) -> None:
    """Says of defined flags that no value of theirs changes the weights.

    A flag that says where data are is one of them, if the run's facts (see
    `script.Training.open_folder`) hold a digest of the data.

    Args:
        names: the flags.
    """
    for name in names:
        FLAGS[name].without_effect = True


def was_before(name: str, value: Any) -> None:
    """Says what runs did before a defined flag was there, if not its default.

    Args:
        name: the flag.
        value: with which the script does what it did then.
    """
    FLAGS[name].was_before = value


def values_before() -> dict[str, Any]:
    """{name: what runs did before the flag was there}, of all that count."""
    return {
        name: getattr(FLAGS[name], "was_before", FLAGS[name].default)
        for name in defined()
        if has_effect(name)
    }


def has_effect(name: str) -> bool:
    """Whether a flag may change the weights: unless `without_effect`."""
    return not getattr(FLAGS[name], "without_effect", False)


def defined() -> list[str]:
    """The flags of this program; those of libraries, such as absl's, are not.

    They are the flags that modules of this package have defined, and the file
    that Python was started with.
    """
    return sorted(
        flag.name
        for module, found in FLAGS.flags_by_module_dict().items()
        if module == sys.argv[0] or module.partition(".")[0] == _PACKAGE
        for flag in found
    )


def values() -> dict[str, Any]:
    """{name: value} of all flags of this program."""
    return {name: FLAGS[name].value for name in defined()}


def identity() -> dict[str, Any]:
    """{name: value} of the flags that decide the weights."""
    return {name: FLAGS[name].value for name in defined() if has_effect(name)}


@contextlib.contextmanager
def naming_the_flag() -> Iterator[None]:
    """Turns a ValueError that begins with an argument into one of its flag.

    Our models and optimizers begin their messages with the argument's name,
    which is the flag's name too.

    Raises:
        InputError: with that message.
    """
    try:
        yield
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"--{error}") from error
