"""Every cell of the table ends at the weights of the run on one device."""

import functools
from pathlib import Path

import numpy as np
import pytest

from tests.processes import Cluster
from tests.support_matrix import table
from tests.support_matrix.environment import available, keras_and_module
from tests.support_matrix.features import FEATURES, inner
from tests.support_matrix.reference_run import reference_run


def _here(front_end, strategy):
    """Whether this environment is where a row is tested."""
    if front_end == "tf.compat.v1" and strategy in table.CLUSTERS:
        # Its home; the newest TensorFlow would double half a minute.
        return "tf.keras 2.15" in available()
    return front_end in available()


def _cells(*strategies):
    return [
        pytest.param(*key, loop, id="-".join([*key, loop]))
        for key, works in table.CELLS.items()
        if works is True and key[1] in strategies and _here(*key[:2])
        for loop in table.loops(*key)
    ]


def test_the_site_has_the_table():
    page = Path(__file__).parents[2] / "docs" / "strategies.md"
    assert table.render() in page.read_text(encoding="utf-8"), (
        f"{page}: copy the output of python -m tests.support_matrix.table"
    )


def _distance(a, b):
    # Not `max`, which drops a NaN that does not come first.
    return np.max([np.abs(x - y).max() for x, y in zip(a, b)])


# Largest difference from the run in float64.
_FROM_REFERENCE = {
    "float32": 3e-6,
    "mixed_float16": 1e-3,
    "mixed_bfloat16": 5e-3,
}


def _compare(key, loop, got, expected, initial):
    assert len(got) == len(expected) == len(initial)
    assert all(np.isfinite(w).all() for w in got)
    assert _distance(expected, initial) > 1e-3, "the run has to train"
    distance = _distance(got, expected)
    assert distance <= table.NOTES.get(key, (1e-6, None))[0]
    feature = FEATURES[key[2]]
    missing = 0.0 if key[0] == "Keras 3, JAX" else None
    reference = reference_run(feature, initial, missing)
    assert _distance(got, reference) <= _FROM_REFERENCE[feature.policy]
    table.MEASURED[key][loop] = float(distance)


def test_a_nan_in_the_last_weight_is_a_difference():
    good = [np.zeros(2), np.zeros(2)]
    assert np.isnan(_distance([good[0], good[1] + np.nan], good))


def test_the_summary_says_failed(monkeypatch):
    """Also if only one of a cell's loops failed."""
    key = "Keras 3, TensorFlow", "Mirrored, 2", "global clip"
    monkeypatch.setattr(table, "MEASURED", {key: {"fit": 0.0}})
    table.begin(key, "custom loop")
    row = table.summary()[2]
    assert row.count("failed") == 1
    assert row.count("not run") == len(FEATURES) - 1


@functools.lru_cache(maxsize=None)
def _expected(front_end, feature_name, replicas):
    from tests.support_matrix import training

    keras, module = keras_and_module(front_end)
    feature = FEATURES[feature_name]
    if feature.policy == "float32":
        assert replicas == 1
    model, optimizer = training.expected(keras, module.LAMB, feature, replicas)
    initial = training.make_model(keras, feature).get_weights()
    skipped = _skipped(optimizer)
    return model.get_weights(), initial, skipped


def _skipped(optimizer):
    skipped = inner(optimizer).skipped_steps
    return int(skipped.numpy() if hasattr(skipped, "numpy") else skipped)


def _skips(feature):
    """The bad row comes once an epoch."""
    return 2 if FEATURES[feature].bad_row is not None else 0


def _expected_for(key):
    front_end, strategy, feature_name = key
    mixed = FEATURES[feature_name].policy != "float32"
    replicas = table.STRATEGIES[strategy] if mixed else 1
    return _expected(front_end, feature_name, replicas)


@functools.lru_cache(maxsize=None)
def _strategy(name):
    import tensorflow as tf

    n = table.STRATEGIES[name]
    if name == "OneDevice":
        return tf.distribute.OneDeviceStrategy("CPU:0")
    return tf.distribute.MirroredStrategy(
        [f"CPU:{i}" for i in range(n)],
        cross_device_ops=tf.distribute.HierarchicalCopyAllReduce(),
    )


@pytest.mark.parametrize(
    "front_end, strategy, feature, loop",
    _cells("OneDevice", "Mirrored, 2", "Mirrored, 4"),
)
def test_strategy_in_one_process(front_end, strategy, feature, loop):
    from tests.support_matrix import training

    key = front_end, strategy, feature
    table.begin(key, loop)
    keras, module = keras_and_module(front_end)
    model, optimizer = training.train(
        keras, module.LAMB, FEATURES[feature], _strategy(strategy), loop
    )
    expected, initial, skipped = _expected_for(key)
    _compare(key, loop, model.get_weights(), expected, initial)
    # A loss scaler that sees the NaN itself does not come as far as a skip.
    if FEATURES[feature].policy == "float32":
        assert _skipped(optimizer) == skipped == _skips(feature)


@pytest.mark.parametrize(
    "front_end, strategy, feature, loop",
    _cells(*table.ON_JAX),
)
def test_jax_and_torch(front_end, strategy, feature, loop):
    from tests.support_matrix import stateless

    key = front_end, strategy, feature
    table.begin(key, loop)
    _, module = keras_and_module(front_end)
    got, skipped = stateless.train(
        module.LAMB, FEATURES[feature], loop, strategy
    )
    expected, initial, skipped_alone = _expected_stateless(feature, loop)
    _compare(key, loop, got, expected, initial)
    if FEATURES[feature].policy == "float32":
        assert skipped == skipped_alone == _skips(feature)


@functools.lru_cache(maxsize=None)
def _expected_stateless(feature, loop):
    from tests.support_matrix import stateless
    from tf_lamb import keras3

    return stateless.expected(keras3.LAMB, FEATURES[feature], loop)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Starts a cluster for a row of the table, once; gives its folder."""
    folders = {}

    def folder_of(front_end, strategy):
        row = front_end, strategy
        if row not in folders:
            folders[row] = tmp_path_factory.mktemp("cluster")
            folder = folders[row]
            jobs = table.CLUSTERS[strategy]
            with Cluster(
                jobs,
                "tests.support_matrix.worker",
                [*row, folder],
                folder / "log.txt",
            ) as cluster:
                # Workers of a coordinator never end by themselves.
                cluster.wait(["chief"] if "chief" in jobs else ["worker"])
        return folders[row]

    return folder_of


@pytest.mark.parametrize(
    "front_end, strategy, feature, loop", _cells(*table.CLUSTERS)
)
def test_strategy_of_several_processes(
    cluster, front_end, strategy, feature, loop
):
    key = front_end, strategy, feature
    table.begin(key, loop)
    folder = cluster(front_end, strategy)
    file = folder / f"{feature}.npz"
    assert file.exists(), (folder / "log.txt").read_text()[-4000:]
    with np.load(file) as weights:
        got = [weights[f"w{i}"] for i in range(len(weights.files))]
    expected, initial, _ = _expected_for(key)
    _compare(key, loop, got, expected, initial)


@pytest.mark.parametrize(
    "front_end", [n for n in available() if n in ("tf_keras", "tf.keras 2.15")]
)
def test_fit_under_a_parameter_server_makes_every_update(cluster, front_end):
    folder = cluster(front_end, "ParameterServer, 2 + 2 processes")
    with np.load(folder / "asynchronous.npz") as result:
        assert result["updates"] == 8
        assert np.isfinite(result["loss"]).all()


@pytest.mark.parametrize(
    "front_end", [n for n in available() if n in table.TENSORFLOW]
)
def test_processes_refuse_under_a_parameter_server_what_they_did(
    cluster, front_end
):
    folder = cluster(front_end, "ParameterServer, 2 + 2 processes")
    refused = (folder / "refused.txt").read_text(encoding="utf-8")
    if front_end == "Keras 3, TensorFlow":
        assert refused.startswith("ValueError: Unrecognized data type"), refused
    else:
        assert "Mixed precision is not supported" in refused
