"""`TrustRatioLogger` in every Keras: around scalers, over fits, resumed."""

import numpy as np
import pytest

from tests.callbacks import kerases
from tests.callbacks.kerases import (
    BATCHES,
    KERASES,
    PATHS,
    POLICIES,
    WITH_MULTI_OPTIMIZER,
    WITH_TENSORBOARD,
    fit,
    kernels_and_biases,
    make_model,
)
from tf_lamb import find_optimizer
from tf_lamb.callbacks import StepTable, TrustRatioLogger, read_table


def _steps(path):
    table = read_table(path)
    steps = [[step for step, _ in points] for points in table.values()]
    assert all(column == steps[0] for column in steps)
    return steps[0]


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", KERASES)
def test_it_logs_each_variable(name, policy, tmp_path):
    front = kerases.front_end(name)
    model = make_model(front, policy)
    logger = TrustRatioLogger(tmp_path / "ratios.csv", every=2)
    fit(model, [logger], epochs=2)
    table = read_table(tmp_path / "ratios.csv")
    assert list(table) == PATHS
    assert _steps(tmp_path / "ratios.csv") == [2, 4, 6, 8]
    last = {path: points[-1][1] for path, points in table.items()}
    assert last == pytest.approx(find_optimizer(model).trust_ratios)
    assert last["hidden/kernel"] != 1


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", KERASES)
def test_it_counts_updates_under_accumulation(name, policy, tmp_path):
    front = kerases.front_end(name)
    optimizer = front.LAMB(0.05, gradient_accumulation_steps=2)
    model = make_model(front, policy, optimizer)
    logger = TrustRatioLogger(tmp_path / "ratios.csv", every=1, first_step=10)
    fit(model, [logger], epochs=2)
    assert _steps(tmp_path / "ratios.csv") == [11, 12, 13, 14]


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", WITH_TENSORBOARD)
def test_a_second_fit_goes_on_in_the_same_files(name, policy, tmp_path):
    import tensorflow as tf

    model = make_model(kerases.front_end(name), policy)
    folder = tmp_path / "new" / "folder"
    logger = TrustRatioLogger(
        folder / "ratios.csv", folder / "logs" / "run", every=2
    )
    for _ in range(3):
        fit(model, [logger])
    assert _steps(folder / "ratios.csv") == [2, 4, 6, 8, 10, 12]
    tags = {
        (event.step, value.tag)
        for file in (folder / "logs" / "run").iterdir()
        for event in tf.compat.v1.train.summary_iterator(str(file))
        for value in event.summary.value
    }
    assert tags == {
        (step, f"trust_ratio/{path}")
        for step in range(2, 13, 2)
        for path in PATHS
    }


@pytest.mark.parametrize("every", [0, -1, 2.5, "often", None, float("nan")])
@pytest.mark.parametrize("argument", ["every", "first_step"])
def test_arguments_that_make_no_sense(argument, every, tmp_path):
    if (argument, every) == ("first_step", 0):
        return  # the default
    with pytest.raises(ValueError, match=f"{argument}: expected a whole numb"):
        TrustRatioLogger(tmp_path / "ratios.csv", **{argument: every})


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", KERASES)
def test_other_optimizers_are_refused_in_one_line(name, policy, tmp_path):
    front = kerases.front_end(name)
    model = make_model(front, policy, front.keras.optimizers.SGD(0.1))
    with pytest.raises(ValueError, match="no LAMB or LARS of tf_lamb in .*SGD"):
        fit(model, [TrustRatioLogger(tmp_path / "ratios.csv")])


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", WITH_MULTI_OPTIMIZER)
def test_all_of_ours_in_a_multi_optimizer(name, policy, tmp_path):
    optimizer, lamb, lars = kernels_and_biases(kerases.front_end(name))
    model = make_model(kerases.front_end(name), policy, optimizer)
    fit(model, [TrustRatioLogger(tmp_path / "ratios.csv", every=2)])
    table = read_table(tmp_path / "ratios.csv")
    assert list(table) == PATHS[::2] + PATHS[1::2]
    last = {path: points[-1][1] for path, points in table.items()}
    assert last == pytest.approx({**lamb.trust_ratios, **lars.trust_ratios})


@pytest.mark.parametrize("name", WITH_MULTI_OPTIMIZER)
def test_several_that_accumulate_differently(name, tmp_path):
    front = kerases.front_end(name)
    lars = front.LARS(0.05, gradient_accumulation_steps=2)
    optimizer, *_ = kernels_and_biases(front, biases=lars)
    model = make_model(front, optimizer=optimizer)
    fit(model, [TrustRatioLogger(tmp_path / "ratios.csv", every=1)])
    assert _steps(tmp_path / "ratios.csv") == [1, 2]


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", KERASES)
def test_a_run_of_fewer_steps_has_its_last_one(name, policy, tmp_path):
    path = tmp_path / "new" / "ratios.csv"
    model = make_model(kerases.front_end(name), policy)
    fit(model, [TrustRatioLogger(path)])
    assert _steps(path) == [BATCHES]
    last = {key: points[-1][1] for key, points in read_table(path).items()}
    assert last == pytest.approx(find_optimizer(model).trust_ratios)
    assert last["hidden/kernel"] != 1
    # A row more than every ten is that of a whole run only.
    fit(model, [TrustRatioLogger(path, first_step=BATCHES)])
    assert _steps(path) == [BATCHES]


@pytest.mark.parametrize("name", KERASES)
def test_a_run_without_an_update_has_no_table(name, tmp_path):
    front = kerases.front_end(name)
    optimizer = front.LAMB(0.05, gradient_accumulation_steps=BATCHES + 1)
    model = make_model(front, optimizer=optimizer)
    with pytest.warns(UserWarning, match="no weight was updated"):
        fit(model, [TrustRatioLogger(tmp_path / "ratios.csv")])
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("name", KERASES)
def test_a_resumed_run_whose_layers_got_other_numbers(name, tmp_path):
    front = kerases.front_end(name)
    path = tmp_path / "ratios.csv"
    model = make_model(front, names=("dense_4", "dense_5"))
    fit(model, [TrustRatioLogger(path, every=2)])
    before = read_table(path)
    resumed = make_model(front, names=("dense", "dense_1"))
    fit(resumed, [TrustRatioLogger(path, every=2, first_step=2)])
    after = read_table(path)
    assert list(after) == [
        *("dense/kernel", "dense/bias", "dense_1/kernel", "dense_1/bias")
    ]
    assert _steps(path) == [2, 4, 6]
    for old, new in zip(before.values(), after.values(), strict=True):
        assert old[0] == new[0]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", KERASES)
def test_a_resumed_run_of_another_model_keeps_the_old_rows(name, tmp_path):
    front = kerases.front_end(name)
    path = tmp_path / "ratios.csv"
    fit(make_model(front), [TrustRatioLogger(path, every=2)])
    before = path.read_text()
    other = make_model(front, names=("hidden", "other"))
    logger = TrustRatioLogger(path, every=2, first_step=2)
    with pytest.warns(UserWarning, match="other columns.*kept in .*ratios.1"):
        fit(other, [logger])
    assert (tmp_path / "ratios.1.csv").read_text() == before
    assert _steps(path) == [4, 6]


@pytest.mark.parametrize("name", KERASES)
def test_one_logger_for_two_models(name, tmp_path):
    """The second one's columns are its own; no row is lost."""
    front = kerases.front_end(name)
    path = tmp_path / "ratios.csv"
    logger = TrustRatioLogger(path, every=2)
    fit(make_model(front), [logger])
    before = path.read_text()
    with pytest.warns(UserWarning, match="other columns"):
        fit(make_model(front, names=("hidden", "other")), [logger])
    assert (tmp_path / "ratios.1.csv").read_text() == before
    assert "other/kernel" in read_table(path)
    assert _steps(path) == [BATCHES + 2, BATCHES + 4]


def _twins(front):
    """A subclassed model of two layers of one name: equal paths."""

    class Twins(front.keras.Model):
        def __init__(self):
            super().__init__(name="twins")
            self.one = front.keras.layers.Dense(8, "tanh", name="same")
            self.other = front.keras.layers.Dense(1, name="same")

        def call(self, x):
            return self.other(self.one(x))

    front.keras.utils.set_random_seed(0)
    model = Twins()
    model.compile(
        front.LAMB(
            0.05, weight_decay=0.1, exclude_from_weight_decay=["same/bias"]
        ),
        "mse",
    )
    return model


@pytest.mark.parametrize("name", KERASES)
def test_equal_paths_have_entries_and_columns_of_their_own(name, tmp_path):
    model = _twins(kerases.front_end(name))
    fit(model, [TrustRatioLogger(tmp_path / "ratios.csv", every=1)])
    optimizer, variables = model.optimizer, model.trainable_variables
    paths = [getattr(v, "path", v.name).split(":")[0] for v in variables]
    assert len(set(paths)) == 2, "the names should have been equal"
    keys = [*paths[:2], f"{paths[2]}#2", f"{paths[3]}#2"]
    assert list(optimizer.trust_ratios) == keys
    # The pattern is searched in the plain path: it holds for both biases.
    assert [t.decay for t in optimizer.treatments.values()] == [True, False] * 2
    assert list(optimizer.treatments) == keys
    rows = [line.split() for line in optimizer.describe().splitlines()[1:]]
    assert [row[0] for row in rows] == keys
    assert [row[1] for row in rows] == ["5x8", "8", "8x1", "1"]
    table = read_table(tmp_path / "ratios.csv")
    assert list(table) == keys
    last = [points[-1][1] for points in table.values()]
    values = np.asarray(
        optimizer._ops.convert_to_numpy(optimizer._trust_ratios)
    )
    np.testing.assert_allclose(last, values, rtol=1e-6)
    assert last[0] != last[2]


def test_a_table_wants_different_columns(tmp_path):
    with pytest.raises(ValueError, match="columns: 'loss' is there twice"):
        StepTable(tmp_path / "table.csv", ["loss", "loss"])
