"""What BERT's job would send to a TPU: built, checked and compiled by XLA."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from absl import flags
from absl.testing import flagsaver

from official_models.nlp.bert import config as bert_config
from official_models.nlp.bert.pretraining import records
from tests.official_models.scripts import flags_of
from tests.tpu.estimator import bert_job, tpu_graph
from tpu import bert_pretraining

tf1 = tf.compat.v1


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bert")
    bert_job.write_inputs(folder)
    return folder


@pytest.fixture
def job(folder):
    """Sets the job's flags; gives its `model_fn`, of one layer."""

    def make(config, *arguments):
        given = bert_job.command(folder, "tpu", "--use_tpu", *arguments)[3:]
        flags.FLAGS(["job", "--num_train_steps=20", *given])
        config = bert_config.read_config(str(folder / config))
        return bert_pretraining.make_model_fn(
            dataclasses.replace(config, num_layers=1)
        )

    with flags_of(bert_pretraining), flagsaver.flagsaver():
        flags.FLAGS.unparse_flags()
        yield make


def _batch(folder, size):
    dataset = records.read_records(
        [folder / "records"],
        batch_size=size,
        max_seq_length=bert_job.T,
        max_predictions=bert_job.P,
        vocab_size=bert_job.V,
        first_step=0,
        last_step=1,
        seed=0,
    )
    batch = next(iter(dataset.map(bert_pretraining._features_and_labels)))
    return tf.nest.map_structure(lambda t: t.numpy(), batch)


def _names(graph):
    variables = graph.get_collection("trainable_variables")
    return {v.name.removesuffix(":0") for v in variables}


@pytest.mark.parametrize("optimizer", ["lamb", "lars", "adamw", "momentum"])
def test_eight_cores(folder, job, optimizer):
    arguments = [f"--optimizer={optimizer}", "--precision=bfloat16"]
    if optimizer == "momentum":
        arguments += ["--weight_decay=0"]
    model_fn = job("config.json", *arguments)
    graph = tpu_graph.sharded(model_fn, *_batch(folder, 16))
    kinds = [node.op for node in tpu_graph.operations(graph)]
    assert tpu_graph.unfit(graph) == []
    assert _names(graph) == set(bert_job.shapes(1))
    # The host gives first values, before the TPU's program runs.
    first = tpu_graph.initial_values(graph)
    assert len(first) > len(bert_job.shapes(1))
    for operation in first:
        assert "_tpu_replicate" not in operation.node_def.attr
    # One sum over cores for each gradient.
    assert kinds.count("CrossReplicaSum") == len(bert_job.shapes(1))
    assert kinds.count("ResourceGather") or kinds.count("GatherV2")


def test_evaluation_on_eight_cores(folder, job):
    model_fn = job("config.json")
    batch = _batch(folder, 16)
    graph = tpu_graph.sharded(model_fn, *batch, train=False)
    assert tpu_graph.unfit(graph) == []
    assert "ArgMax" in {node.op for node in tpu_graph.operations(graph)}


@pytest.mark.parametrize(
    "fault, expected",
    [
        (lambda x: tf.strings.length(tf.as_string(x)), "AsString: no XLA"),
        (lambda x: tf.size(tf.where(x > 1)), "Where: dynamic shape"),
        (lambda x: tf.cast(tf.cast(x, tf.float64), tf.int32), "float64"),
        (lambda x: x + tf1.placeholder(tf.int32, ()), "Placeholder"),
        (tf.function(lambda x: tf.strings.length(tf.as_string(x))), "AsString"),
    ],
    ids=["string", "dynamic", "float64", "placeholder", "inside_a_function"],
)
def test_an_unfit_operation_is_found(fault, expected):
    def model_fn(features, labels, mode, params):
        x = features["x"]
        loss = tf.reduce_sum(tf.cast(fault(x), tf.float32))
        return tf1.estimator.tpu.TPUEstimatorSpec(
            mode, loss=loss, train_op=tf.no_op(), host_call=(print, [loss])
        )

    x = np.ones((16,), np.int32)
    faults = tpu_graph.unfit(tpu_graph.sharded(model_fn, {"x": x}, {}))
    assert any(expected in fault for fault in faults), faults


def test_a_compiled_core_trains_as_this_machine_does(folder, job):
    """Eight cores with equal parts make the update of one with that part."""
    features, labels = _batch(folder, 4)
    # Each core's gradient alone is an eighth, and would be clipped otherwise.
    model_fn = job("no_dropout.json", "--global_clipnorm=0.1")
    losses, variables = tpu_graph.compiled(model_fn, features, labels, 6)
    flags.FLAGS.use_tpu = False
    with tf.Graph().as_default(), tf1.Session() as session:
        tf1.train.create_global_step()
        batch = tf.nest.map_structure(tf.constant, (features, labels))
        loss, *_ = tpu_graph._update(model_fn, *batch)
        session.run(tf1.global_variables_initializer())
        expected = [session.run(loss) for _ in range(6)]
        here = session.run({v.name[:-2]: v for v in tf1.trainable_variables()})
    np.testing.assert_allclose(losses, [expected] * 2, rtol=1e-5)
    assert expected[0] - expected[-1] > 0.1
    assert here.keys() == variables.keys()
    for name, value in here.items():
        np.testing.assert_allclose(variables[name], value, atol=1e-5)


def test_dropout_draws_a_mask_of_its_own_in_each_step(folder, job):
    """Compiled by XLA, on one batch, at a rate of nearly 0."""
    features, labels = _batch(folder, 4)
    # The plainest optimizer is the soonest compiled.
    plain = ["--optimizer=momentum", "--weight_decay=0"]
    model_fn = job("config.json", "--learning_rate=1e-9", *plain)
    (losses, again), _ = tpu_graph.compiled(model_fn, features, labels, 3)
    assert len(set(map(float, losses))) == 3
    np.testing.assert_array_equal(losses, again)
