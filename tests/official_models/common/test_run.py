"""A run of a small model: rows, checkpoints, what a resumed one does."""

import csv
import os
import signal

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import tf_lamb
from official_models.common.checkpoint_list import saved_steps
from official_models.common.errors import InputError
from official_models.common.run import Run, _steps_per_row
from tf_lamb import keras2

RNG = np.random.default_rng(0)
X = RNG.normal(size=(64, 3)).astype("float32")
Y = (X @ [[1.0], [2.0], [3.0]]).astype("float32")


def batches(first, last):
    """Batch k has rows 4k to 4k + 3."""
    rows = slice(4 * first, 4 * last)
    return tf.data.Dataset.from_tensor_slices((X[rows], Y[rows])).batch(4)


def small(library=keras):
    library.utils.set_random_seed(0)
    model = library.Sequential([library.Input((3,)), library.layers.Dense(1)])
    front_end = tf_lamb if library is keras else keras2
    model.compile(front_end.LAMB(0.1), "mse", metrics=["mae"])
    return model


def start(folder, model=None, **options):
    folder.mkdir(exist_ok=True)
    options = {"total_steps": 8, "log_every": 2, "save_every": 4} | options
    return Run(
        model or small(), folder, metric_names=("mae",), unit="rows", **options
    )


def table(folder, name="metrics.csv"):
    with open(folder / name, newline="") as file:
        return list(csv.DictReader(file))


both = pytest.mark.parametrize(
    "library", [keras, tf_keras], ids=["keras3", "tf_keras"]
)


@both
def test_rows_and_checkpoints(library, tmp_path):
    run = start(tmp_path / "run", small(library), units_per_step=4)
    assert run.first_step == 0
    run.fit(batches, validation_data=batches(0, 2), validate_every=4)
    rows = table(run.folder)
    assert [row["step"] for row in rows] == ["2", "4", "6", "8"]
    assert [bool(row["val_mae"]) for row in rows] == [0, 1, 0, 1]
    assert all(float(row["rows_per_second"]) > 0 for row in rows)
    assert run.speed() > 0
    ratios = table(run.folder, "trust_ratio.csv")
    assert [row["step"] for row in ratios] == ["2", "4", "6", "8"]
    saved = {path.stem for path in (run.folder / "checkpoints").glob("*.index")}
    assert saved == {"ckpt-4", "ckpt-8"}


def _scaled(library):
    """The same around which Keras puts a loss scaler."""
    library.mixed_precision.set_global_policy("mixed_float16")
    try:
        model = small(library)
    finally:
        library.mixed_precision.set_global_policy("float32")
    assert type(model.optimizer).__name__.startswith("LossScaleOptimizer")
    return model


@both
def test_trust_ratios_under_a_loss_scaler(library, tmp_path):
    run = start(tmp_path / "run", _scaled(library))
    run.fit(batches)
    rows = table(run.folder, "trust_ratio.csv")
    assert [row["step"] for row in rows] == ["2", "4", "6", "8"]
    ratios = tf_lamb.find_optimizer(run.model).trust_ratios
    assert len(ratios) == 2
    for path, ratio in ratios.items():
        assert float(rows[-1][path]) == pytest.approx(ratio)


@both
def test_a_resumed_run_ends_with_the_same_weights(library, tmp_path):
    whole = start(tmp_path / "whole", small(library))
    whole.fit(batches)
    for path in (whole.folder / "checkpoints").glob("ckpt-8.*"):
        path.unlink()
    resumed = start(tmp_path / "whole", small(library))
    assert resumed.first_step == 4
    before = [np.array(v) for v in whole.model.variables]
    resumed.fit(batches)
    for a, b in zip(before, resumed.model.variables, strict=True):
        np.testing.assert_array_equal(a, b)
    assert int(resumed.model.optimizer.iterations) == 8


def test_a_finished_run_is_left_alone(tmp_path):
    start(tmp_path / "run").fit(batches)
    before = (tmp_path / "run/metrics.csv").read_bytes()
    again = start(tmp_path / "run")
    assert again.first_step == 8
    again.fit(lambda *_: pytest.fail("no data needed"))
    assert (tmp_path / "run/metrics.csv").read_bytes() == before


@both
def test_a_run_that_has_diverged_is_ended(library, tmp_path):
    model = small(library)
    model.compile(library.optimizers.SGD(1e30), "mse")  # no skipped steps
    run = start(tmp_path / "run", model, total_steps=16, save_every=2)
    with pytest.raises(InputError) as refused:
        run.fit(batches)
    message = str(refused.value)
    assert "diverged" in message and "for 3 rows" in message
    rows = table(run.folder)
    lost = [not np.isfinite(float(row["loss"])) for row in rows]
    assert lost[-3:] == [True] * 3 and len(rows) < 8
    # What was saved is older than the rows that were lost.
    assert max(saved_steps(run.folder / "checkpoints"), default=0) <= int(
        rows[-4]["step"] if len(rows) > 3 else 0
    )


def test_a_row_that_was_cut_is_ended_first(tmp_path):
    """Saved at step 3, in the middle of a row of two."""
    run = start(tmp_path / "run")
    run.save(3)
    resumed = start(tmp_path / "run")
    assert resumed.first_step == 3
    resumed.fit(batches)
    assert [row["step"] for row in table(run.folder)] == ["4", "6", "8"]


def test_sigterm_saves_after_the_step_and_ends_with_0(tmp_path, capsys):
    run = start(tmp_path / "run")

    def preempted(first, last):
        def send(x, y):
            os.kill(os.getpid(), signal.SIGTERM)
            return x, y

        first_ones = batches(first, last)
        return first_ones.map(
            lambda x, y: tf.numpy_function(send, [x, y], [x.dtype, y.dtype])
        ).map(
            lambda x, y: (
                tf.ensure_shape(x, (4, 3)),
                tf.ensure_shape(y, (4, 1)),
            )
        )

    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as ended:
        run.fit(preempted)
    assert ended.value.code == 0 and run.terminated
    assert signal.getsignal(signal.SIGTERM) is handler
    assert "told to stop; saved after step" in capsys.readouterr().out
    assert 0 < start(tmp_path / "run").first_step < 8


def test_data_that_ends_early(tmp_path):
    """Keras would begin it anew."""
    with pytest.raises(InputError, match="data ended after step 4 of 8"):
        start(tmp_path / "run").fit(lambda first, last: batches(0, 4))
    # Of a length that TensorFlow does not know.
    unknown = batches(0, 3).filter(lambda x, y: True)
    with pytest.raises(InputError, match="data ended after step"):
        start(tmp_path / "other").fit(lambda first, last: unknown)


def test_accumulation_counts_updates(tmp_path):
    model = small()
    model.compile(
        tf_lamb.LAMB(0.1, gradient_accumulation_steps=2), "mse", metrics=["mae"]
    )
    run = start(tmp_path / "run", model, total_steps=4, batches_per_step=2)
    run.fit(batches)
    assert [row["step"] for row in table(run.folder)] == ["2", "4"]
    assert [row["step"] for row in table(run.folder, "trust_ratio.csv")] == [
        *("2", "4")
    ]


@pytest.mark.parametrize(
    ("total", "log_every", "parts", "per_execution", "row"),
    [
        (100, 20, 1, 1, 20),
        (100, 30, 1, 1, 25),
        (7, 3, 1, 1, 1),
        (100, 20, 1, 8, 100),  # longer than asked for: one execution is 8
        (100, 20, 2, 8, 20),
        (100, 1, 1, 10, 10),
    ],
)
def test_rows_divide_the_run_and_executions_fill_them(
    total, log_every, parts, per_execution, row
):
    if row > max(log_every, per_execution):
        with pytest.raises(InputError, match="--steps_per_execution 8"):
            _steps_per_row(total, log_every, parts, per_execution)
    else:
        assert _steps_per_row(total, log_every, parts, per_execution) == row


def test_a_phase_has_its_own_steps_and_checkpoints(tmp_path):
    """The second of two phases, from step 4 to 8, in the first one's folder."""
    asked = []

    def second(first, last):
        asked.append((first, last))
        return batches(first, last)

    folder = tmp_path / "run"
    start(folder, end_step=4, save_every=3).fit(batches)
    run = start(folder, begin_step=4, save_every=3)
    # That of step 4 is of another optimizer.
    assert run.first_step == 4
    run.fit(second)
    assert asked == [(0, 4)]
    assert [row["step"] for row in table(folder)] == ["2", "4", "6", "8"]
    assert {*saved_steps(folder / "checkpoints")} == {4, 6, 8}
    for path in (folder / "checkpoints").glob("ckpt-8.*"):
        path.unlink()
    resumed = start(folder, begin_step=4, save_every=3)
    assert resumed.first_step == 6
    resumed.fit(second)
    assert asked[1:] == [(2, 4)]


def test_the_step_is_traced_once(tmp_path):
    traced = []

    class Counting(keras.Model):
        def train_step(self, data):
            traced.append(data)
            return super().train_step(data)

    x = keras.Input((3,))
    model = Counting(x, keras.layers.Dense(1)(x))
    model.compile(tf_lamb.LAMB(0.1), "mse", metrics=["mae"])
    start(tmp_path / "run", model).fit(batches)
    assert len(traced) == 1
