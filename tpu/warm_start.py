"""Starts a job from the weights of a published checkpoint."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import tensorflow as tf

from official_models.common import weights
from official_models.common.errors import InputError
from official_models.nlp.checkpoint.tensorflow import read_shapes

tf1 = tf.compat.v1
ALBERT = "/inner_group_"  # in names of what only an ALBERT has


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
    shapes = read_shapes(checkpoint, f"--init_checkpoint {checkpoint}")
    ours = {_name(v): v for v in variables}
    holds, expected = (any(ALBERT in n for n in x) for x in (shapes, ours))
    if holds != expected:
        raise InputError(
            f"--init_checkpoint {checkpoint}: holds {'an' if holds else 'no'} "
            f"ALBERT, this model is {'one' if expected else 'none'}; give the "
            "configuration of this checkpoint, or another checkpoint"
        )
    problem = weights.differences(
        {name: v.shape.as_list() for name, v in ours.items()},
        shapes,
        new=new,
        unused=unused,
    )
    if problem:
        raise InputError(
            f"--init_checkpoint {checkpoint}: {problem}; give the "
            "configuration of this checkpoint, or another checkpoint"
        )
    return {name: ours[name] for name in ours.keys() & shapes.keys()}


def check_own(checkpoint: str, variables: Sequence[tf.Variable]) -> None:
    """Holds the checkpoint of a run that is resumed against its model.

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
    problem = weights.differences(
        {_name(v): v.shape.as_list() for v in variables},
        shapes,
        unused=[""],  # such as what the optimizer of another run kept
    )
    if problem:
        raise InputError(
            f"{checkpoint}: is of another model or optimizer: it {problem}; "
            "give the flags it was trained with, or name another folder"
        )


def scaffold_fn(
    checkpoint: str | None,
    variables: Sequence[tf.Variable],
    *,
    new: Sequence[str] = (),
    unused: Sequence[str] = (),
) -> Callable | None:
    """Initial values from a checkpoint, for a `TPUEstimatorSpec`.

    A checkpoint in the run's own folder takes precedence over these values. The
    arguments are those of `assignment`.

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


def _name(variable: tf.Variable) -> str:
    """Its name in a checkpoint."""
    return re.sub(r":\d+$", "", variable.name)
