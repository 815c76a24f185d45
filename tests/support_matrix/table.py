"""Front ends x strategies x features: what works, and why the rest does not.

The one place that says what is supported. `test_table.py` runs every cell that
is True, the end of a test run prints what it found, and `docs/strategies.md`
has a copy:

    python -m tests.support_matrix.table
"""

import math

from tests.support_matrix.features import FEATURES

# name -> module of tf_lamb
FRONT_ENDS = {
    "Keras 3, TensorFlow": "keras3",
    "tf_keras": "keras2",
    "tf.keras 2.15": "keras2",
    "tf.compat.v1": "v1",
    "Keras 3, JAX": "keras3",
    "Keras 3, torch": "keras3",
}
TENSORFLOW = ("Keras 3, TensorFlow", "tf_keras", "tf.keras 2.15")
# name -> replicas
STRATEGIES = {
    "OneDevice": 1,
    "Mirrored, 2": 2,
    "Mirrored, 4": 4,
    "MultiWorkerMirrored, 2 processes": 2,
    "ParameterServer, 2 + 2 processes": 1,
    "no strategy": 1,
    "DataParallel, 8": 8,
    "ModelParallel, 2 x 4": 2,
    "ModelParallel, 2 x 4, shard_state": 2,
}
ON_JAX = tuple(list(STRATEGIES)[5:])
CLUSTERS = {
    "MultiWorkerMirrored, 2 processes": {"worker": 2},
    "ParameterServer, 2 + 2 processes": {"chief": 1, "worker": 2, "ps": 2},
}
ROWS = [
    *(
        (front_end, strategy)
        for front_end in TENSORFLOW
        for strategy in list(STRATEGIES)[:5]
    ),
    *(("tf.compat.v1", strategy) for strategy in list(STRATEGIES)[:5]),
    *(("Keras 3, JAX", strategy) for strategy in ON_JAX),
    ("Keras 3, torch", "no strategy"),
]

_ASYNCHRONOUS = (
    "`fit` under a parameter server works, but is asynchronous and so equals "
    "no other run"
)
_NO_COORDINATOR = (
    "Keras 3's `fit` takes no coordinator's datasets; the custom loop does"
)
_NO_MIXED_PS = "tf_keras refuses mixed float16 under a parameter server itself"


_V1_LOOP = "compat.v1 has no `fit`; Estimator and sessions are in tests/v1"
_V1_CALLER = (
    "compat.v1 leaves clipping, accumulation and averaging to the caller"
)
_V1_SCALER = "compat.v1's loss scalers work in graphs: tests/v1"


def _cell(front_end, strategy, feature):
    """True, or why not."""
    if front_end == "tf.compat.v1":
        if feature == "fit":
            return _V1_LOOP
        if feature in ("global clip", "accumulation", "EMA overwrite"):
            return _V1_CALLER
        if feature.startswith("float16"):
            return _V1_SCALER
    if strategy.startswith("ParameterServer"):
        if feature == "fit":
            keras_3 = front_end.startswith("Keras 3")
            return _NO_COORDINATOR if keras_3 else _ASYNCHRONOUS
        if feature.startswith("float16") and front_end.startswith("tf"):
            return _NO_MIXED_PS
    return True


CELLS = {
    (front_end, strategy, feature): _cell(front_end, strategy, feature)
    for front_end, strategy in ROWS
    for feature in FEATURES
}

_HALF = (
    "to 1e-3: XLA chooses where the sum over devices is rounded to half "
    "precision"
)
_ZERO = (
    "JAX's gradient of a variable without use is zero, not missing: weight "
    "decay moves it"
)
_V1_SLOTS = (
    "the slots are made first, in the strategy's scope, by "
    "`optimizer._create_slots(variables)`; v1 in several processes is tested "
    "on TensorFlow 2.15"
)
# Cells with a note: (largest difference allowed, note).
NOTES = {
    **{
        ("Keras 3, JAX", strategy, feature): (1e-3, _HALF)
        for strategy in ON_JAX[1:]
        for feature in FEATURES
        if FEATURES[feature].policy != "float32"
    },
    **{
        ("Keras 3, JAX", strategy, "no gradient"): (1e-6, _ZERO)
        for strategy in ON_JAX
    },
    **{
        ("tf.compat.v1", "ParameterServer, 2 + 2 processes", feature): (
            1e-6,
            _V1_SLOTS,
        )
        for feature in FEATURES
    },
}

# Rows whose cells are trained by `fit` and by a loop of one's own as well.
BOTH_LOOPS = ("Mirrored, 2", "DataParallel, 8")
# What a test run found: {cell: {loop: largest difference of a weight}}.
MEASURED = {}


def loops(front_end, strategy, feature):
    """The loops by which a cell is trained."""
    if (
        FEATURES[feature].own_loop
        or front_end == "tf.compat.v1"
        or strategy.startswith("ParameterServer")
    ):
        return ["custom loop"]
    if strategy in BOTH_LOOPS and feature != "fit":
        return ["fit", "custom loop"]
    return ["fit"]


def begin(key, loop):
    """A cell counts as failed until its difference is known."""
    MEASURED.setdefault(key, {})[loop] = math.inf


def summary():
    """Lines for the end of a test run: the rows that were run, measured."""
    rows = [row for row in ROWS if any(k[:2] == row for k in MEASURED)]
    if not rows:
        return []

    def mark(key):
        if key not in MEASURED:
            return "not run"
        worst = max(MEASURED[key].values())
        return f"{worst:.0e}" if math.isfinite(worst) else "failed"

    return render(rows, mark).split("\n")


def render(rows=None, mark=None):
    """The table in Markdown, with its reasons below.

    Args:
      rows: some of ROWS.
      mark: function of a cell's key; its text in place of "yes".
    """
    reasons = []
    lines = [
        "| front end | strategy | " + " | ".join(FEATURES) + " |",
        "|---|---|" + "---|" * len(FEATURES),
    ]
    for front_end, strategy in rows or ROWS:
        cells = []
        for feature in FEATURES:
            key = front_end, strategy, feature
            reason, text = CELLS[key], ""
            if reason is True:
                text = mark(key) if mark else "yes"
                reason = NOTES.get(key, (0, None))[1]
            if reason:
                if reason not in reasons:
                    reasons.append(reason)
                text = f"{text} ({reasons.index(reason) + 1})".strip()
            cells.append(text)
        lines.append(f"| {front_end} | {strategy} | {' | '.join(cells)} |")
    notes = [f"{i}. {reason}." for i, reason in enumerate(reasons, 1)]
    return "\n".join([*lines, *([""] if notes else []), *notes])


if __name__ == "__main__":
    print(render())
