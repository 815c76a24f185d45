"""Strategies of flags, and how they share batches."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from absl import flags

from official_models.common import strategies
from tests.official_models.scripts import refusal

FLAGS = flags.FLAGS
ALONE = tf.distribute.get_strategy()


@pytest.fixture(autouse=True)
def defined_flags():
    before = {*FLAGS}
    strategies.define_flags()
    flags.DEFINE_boolean("jit_compile", False, "As run flags define it.")
    FLAGS.unparse_flags()
    FLAGS(["test"])
    yield
    for name in {*FLAGS} - before:
        delattr(FLAGS, name)


def parse(*arguments):
    FLAGS.unparse_flags()
    FLAGS(["test", *arguments])


def test_the_default_is_this_process_alone():
    strategy = strategies.from_flags()
    assert strategies.is_alone(strategy) and strategies.is_chief(strategy)
    assert strategies.can_stop(strategy)
    assert tuple(strategies.reader_of(strategy)) == (0, 1)


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--devices=CPU:0"], ["--devices: for --strategy mirrored, not none"]),
        (["--tpu=x", "--strategy=mirrored"], ["--tpu: for --strategy tpu"]),
        (["--process_id=1"], ["--process_id: for --strategy data_parallel"]),
        (["--strategy=data_parallel"], ["start with KERAS_BACKEND=jax"]),
        (["--strategy=mirrored", "--devices=CPU:0,CPU:0"], ["--devices CPU"]),
    ],
)
def test_refused(arguments, parts):
    parse(*arguments)
    refusal(strategies.from_flags, *parts)


@pytest.mark.parametrize(
    "config", ["", "{", "[]", "null", json.dumps({"cluster": {}})]
)
def test_a_cluster_needs_its_description(monkeypatch, config):
    monkeypatch.setenv("TF_CONFIG", config)
    parse("--strategy=multi_worker")
    refusal(strategies.from_flags, "--strategy multi_worker: TF_CONFIG")


def test_xla_compiles_the_step_of_one_device_only():
    parse("--jit_compile", "--steps_per_execution=4")
    arguments = {"jit_compile": True, "steps_per_execution": 4}
    assert strategies.compile_arguments() == arguments
    parse("--nojit_compile")
    assert not strategies.compile_arguments()["jit_compile"]
    parse("--jit_compile", "--strategy=mirrored")
    assert not strategies.compile_arguments()["jit_compile"]


def test_batches_that_replicas_cannot_share(mirrored):
    strategies.check_batch(mirrored, "batch", 4)
    refusal(
        lambda: strategies.check_batch(mirrored, "batch", 5),
        "--batch 5: expected a multiple of the 2 replicas",
    )
    assert strategies.round_up(mirrored, 5) == 6
    assert strategies.round_up(ALONE, 5) == 5


def _numbers(first, last, reader=(0, 1)):
    """Batch k of four: 4k to 4k + 3; a reader has its part."""
    index, count = reader
    rows = np.arange(4 * first, 4 * last).reshape(-1, count, 4 // count)
    return tf.data.Dataset.from_tensor_slices(rows[:, index])


def test_one_device_gets_the_dataset_itself():
    make = strategies.distribute_steps(ALONE, 4, _numbers)
    assert [batch.tolist() for batch in make(1, 3).as_numpy_iterator()] == [
        *([4, 5, 6, 7], [8, 9, 10, 11])
    ]


def test_two_replicas_share_each_batch(mirrored):
    make = strategies.distribute_steps(mirrored, 4, _numbers)
    seen = [
        [part.numpy().tolist() for part in batch.values] for batch in make(0, 2)
    ]
    assert seen == [[[0, 1], [2, 3]], [[4, 5], [6, 7]]]


def test_rows_of_whole_batches(mirrored):
    batches = tf.data.Dataset.range(8).batch(4, drop_remainder=True)
    shared = strategies.distribute_rows(mirrored, batches)
    seen = [[part.numpy().tolist() for part in b.values] for b in shared]
    assert seen == [[[0, 1], [2, 3]], [[4, 5], [6, 7]]]
    assert strategies.distribute_rows(ALONE, batches) is batches


def test_the_model_file_is_whole(tmp_path):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    strategies.save(ALONE, model, tmp_path / "model.keras")
    assert [path.name for path in tmp_path.iterdir()] == ["model.keras"]
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for a, b in zip(model.variables, loaded.variables, strict=True):
        np.testing.assert_array_equal(a, b)
