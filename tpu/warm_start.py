"""Starts a job from the weights of a published checkpoint."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import tensorflow as tf

from official_models.common.errors import InputError

tf1 = tf.compat.v1
# What a checkpoint holds beside the weights.
STATE = (
    r"/(adam_m|adam_v|AdamWeightDecayOptimizer(_\d+)?|LAMBOptimizer(_\d+)?"
    r"|LARSOptimizer(_\d+)?|Momentum|Adam(_\d+)?)$",
    r"^(global_step|updates|skipped_steps|beta[12]_power)$",
)
ALBERT = "/inner_group_"  # in names of what only an ALBERT has
_SHOWN = 4


def read_shapes(checkpoint: str) -> dict[str, list[int]]:
    """{name: shape} of a checkpoint's weights, without optimizer state.

    Raises:
        InputError: it cannot be read.
    """
    try:
        found = dict(tf.train.list_variables(checkpoint))
    except (tf.errors.OpError, ValueError) as error:
        raise InputError(
            f"--init_checkpoint {checkpoint}: cannot be read "
            f"({str(error).splitlines()[0]}); expected the prefix of a "
            "checkpoint, such as bert_model.ckpt, or its folder"
        ) from error
    return {
        name: shape
        for name, shape in found.items()
        if not any(re.search(pattern, name) for pattern in STATE)
    }


def assignment(
    checkpoint: str,
    variables: Sequence[tf.Variable],
    *,
    new: Sequence[str] = (),
    unused: Sequence[str] = (),
) -> dict[str, tf.Variable]:
    """{name in the checkpoint: variable} for `init_from_checkpoint`.

    The names of BERT's and ALBERT's published checkpoints are those of our
    variables.

    Args:
        checkpoint: prefix, or folder, of a TensorFlow checkpoint, with or
            without optimizer state.
        variables: the model's.
        new: regexes of variables that the checkpoint need not have, and that
            keep their initial values then.
        unused: regexes of names in the checkpoint that the model need not
            have.

    Raises:
        InputError: it lacks a variable, has an unknown one or one of another
            shape; the message names them.
    """
    shapes = read_shapes(checkpoint)
    ours = {re.sub(r":\d+$", "", v.name): v for v in variables}
    holds, expected = (any(ALBERT in n for n in x) for x in (shapes, ours))
    if holds != expected:
        raise InputError(
            f"--init_checkpoint {checkpoint}: holds {'an' if holds else 'no'} "
            f"ALBERT, this model is {'one' if expected else 'none'}; give the "
            "configuration of this checkpoint, or another checkpoint"
        )
    problems = []
    for what, names, allowed in (
        ("lacks", ours.keys() - shapes.keys(), new),
        ("has unknown", shapes.keys() - ours.keys(), unused),
    ):
        names = {
            name
            for name in names
            if not any(re.search(pattern, name) for pattern in allowed)
        }
        if names:
            problems.append(f"{what} {_list(names)}")
    common = ours.keys() & shapes.keys()
    for name in sorted(common):
        expected = list(ours[name].shape)
        if shapes[name] != expected:
            problems.append(
                f"has {name!r} of shape {shapes[name]}, expected {expected}"
            )
    if not problems:
        return {name: ours[name] for name in common}
    more = len(problems) - _SHOWN
    tail = f"; and {more} more" if more > 0 else ""
    raise InputError(
        f"--init_checkpoint {checkpoint}: {'; '.join(problems[:_SHOWN])}{tail}"
        "; give the configuration of this checkpoint, or another checkpoint"
    )


def check_own(checkpoint: str, variables: Sequence[tf.Variable]) -> None:
    """Holds the checkpoint of a run that goes on against its model.

    Raises:
        InputError: it lacks a variable, or has one of another shape.
    """
    try:
        shapes = dict(tf.train.list_variables(checkpoint))
    except (tf.errors.OpError, ValueError) as error:
        raise InputError(
            f"{checkpoint}: damaged ({str(error).splitlines()[0]}); name "
            "another folder"
        ) from error
    for variable in variables:
        name, expected = re.sub(r":\d+$", "", variable.name), variable.shape
        if name not in shapes or shapes[name] != list(expected):
            found = shapes.get(name, "nothing")
            raise InputError(
                f"{checkpoint}: another model's or optimizer's: {name}: "
                f"expected shape {list(expected)}, found {found}; give the "
                "flags it was trained with, or name another folder"
            )


def scaffold_fn(
    checkpoint: str | None,
    variables: Sequence[tf.Variable],
    *,
    new: Sequence[str] = (),
    unused: Sequence[str] = (),
) -> Callable | None:
    """Initial values from a checkpoint, for a `TPUEstimatorSpec`.

    A checkpoint in the run's own folder goes before it: these are initial
    values only. The arguments are those of `assignment`.

    Raises:
        InputError: as in `assignment`.
    """
    if not checkpoint:
        return None
    names = assignment(checkpoint, variables, new=new, unused=unused)

    def scaffold():
        tf1.train.init_from_checkpoint(checkpoint, names)
        return tf1.train.Scaffold()

    return scaffold


def _list(names) -> str:
    names = sorted(names)
    shown = ", ".join(map(repr, names[:_SHOWN]))
    more = len(names) - _SHOWN
    return f"{shown} and {more} more" if more > 0 else shown
