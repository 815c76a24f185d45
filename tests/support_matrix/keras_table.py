"""Behaviours that users of a Keras expect of every optimizer, by front end.

The names are those of what the generic optimizer tests of Keras 3 check; the
tests are our own (`test_keras_*.py`, marked by `behaviour`). This is the one
place that says what holds where, and `docs/strategies.md` has a copy:

    python -m tests.support_matrix.keras_table
"""

from __future__ import annotations

from typing import NamedTuple

from tests.support_matrix.table import FRONT_ENDS

# The front ends that are optimizers of a Keras.
COLUMNS = [name for name in FRONT_ENDS if name != "tf.compat.v1"]
KERAS_2 = ("tf_keras", "tf.keras 2.15")
KERAS_3 = tuple(name for name in COLUMNS if name not in KERAS_2)
TENSORFLOW = ("Keras 3, TensorFlow", *KERAS_2)


class Missing(NamedTuple):
    """The Keras itself has no such thing: there is nothing to test."""

    reason: str


class Fault(NamedTuple):
    """It does not hold yet: its test has to fail, until the fault is mended."""

    reason: str


_ONLY_3 = Missing("only Keras 3 has it")
_ONLY_2 = Missing("only Keras 2 has it")
_ONLY_TF = Missing("TensorFlow's own")


def _outside(columns, cell):
    return {name: cell for name in COLUMNS if name not in columns}


def _in(columns, cell):
    return {name: cell for name in COLUMNS if name in columns}


_NO_SPARSE = _in(
    ("Keras 3, torch",), Missing("Keras 3 takes no sparse gradients on torch")
)
# behaviour -> {front end: Missing or Fault}; it holds in the others.
BEHAVIOURS = {
    # test_keras_steps.py
    "each call counts in `iterations`": {},
    "a gradient that is None leaves its variable, with a warning": {},
    "no gradient at all raises": {},
    "a variable that it was not built with raises": {},
    "some of its variables can be updated alone": {},
    "as many gradients as variables, or it raises": _outside(KERAS_3, _ONLY_3),
    "variables of TensorFlow beside those of Keras": _outside(
        ("Keras 3, TensorFlow",), _ONLY_TF
    ),
    "`build` of an empty list": {},
    "constraints": {},
    "`overwrite_with_gradient`": _outside(KERAS_3, _ONLY_3),
    "`overwrite_with_gradient` and accumulation": _outside(KERAS_3, _ONLY_3),
    "decay excluded by name and by variable": {},
    "one clipping argument at most": _in(
        KERAS_2,
        Missing(
            "Keras 2 takes `clipvalue` beside a norm, and does not use it then"
        ),
    ),
    "`clipnorm`, `clipvalue`, `global_clipnorm`": {},
    "EMA: begins at the first update, overwrites": {},
    "EMA: `fit` ends at the averages": {},
    "accumulation: a mean, a count of updates": {},
    "accumulation: decay acts once an update": {},
    "float16, bfloat16 and float64 variables": {},
    "`fit`, compiled and eager": {},
    "`fit` and `evaluate` of a model without weights": {},
    # test_keras_rates.py
    "a rate that is assigned": {},
    "a rate that is a schedule, and stays it": {},
    "a rate that is a function": {},
    "a schedule in place of a number": {},
    "`LearningRateScheduler`, `ReduceLROnPlateau`": {},
    # test_keras_saving.py
    "config: from it and to it": {},
    "`serialize`, `deserialize`, `get`": {},
    "a name that is given is kept": {},
    "names that are not given are unique": _in(
        KERAS_2, Missing("Keras 2 gives every optimizer its class' name")
    ),
    "state of another one: `set_weights`": {},
    "`save_own_variables`, `load_own_variables`": {},
    "`.keras` file": {},
    "`.h5` file: loads and predicts": {},
    "`.h5` file: resumes": {},
    "`tf.train.Checkpoint`": _outside(TENSORFLOW, _ONLY_TF),
    "`pickle`, `deepcopy`": {},
    "`clone_model`, compiled from its config": {},
    # test_keras_scaling.py
    "`loss_scale_factor`": {},
    "`LossScaleOptimizer`: a finite step": {},
    "`LossScaleOptimizer`: an infinite one lowers the scale": {},
    "`LossScaleOptimizer`: finite ones raise it": {},
    "`LossScaleOptimizer`: config": {},
    "mixed float16 wraps it in `compile`": {},
    "`SwapEMAWeights`": _outside(KERAS_3, _ONLY_3),
    "`MultiOptimizer`: steps, config": _outside(KERAS_3, _ONLY_3),
    "`MultiOptimizer`: two of ours, `get_state_tree`": _outside(
        KERAS_3, _ONLY_3
    ),
    # test_keras_gradients.py
    "sparse gradients: repeated rows, clipping": _NO_SPARSE,
    "sparse gradients and accumulation": _NO_SPARSE,
    "an embedding in `fit`": {},
    "`stateless_apply`": _outside(KERAS_3, _ONLY_3),
    "`minimize`": _outside(KERAS_2, _ONLY_2),
    "MirroredStrategy: steps, EMA, accumulation": _outside(
        TENSORFLOW, _ONLY_TF
    ),
}


def cell(behaviour, front_end):
    """True, a `Missing` or a `Fault`."""
    return BEHAVIOURS[behaviour].get(front_end, True)


def render():
    """The table in Markdown, with its reasons below."""
    reasons = []

    def text(found):
        if found is True:
            return "yes"
        if found.reason not in reasons:
            reasons.append(found.reason)
        word = "no " if isinstance(found, Fault) else ""
        return f"{word}({reasons.index(found.reason) + 1})"

    lines = [
        "| behaviour | " + " | ".join(COLUMNS) + " |",
        "|---|" + "---|" * len(COLUMNS),
    ]
    for behaviour in BEHAVIOURS:
        cells = [text(cell(behaviour, name)) for name in COLUMNS]
        lines.append(f"| {behaviour} | {' | '.join(cells)} |")
    notes = [f"{i}. {reason}." for i, reason in enumerate(reasons, 1)]
    return "\n".join([*lines, *([""] if notes else []), *notes])


if __name__ == "__main__":
    print(render())
