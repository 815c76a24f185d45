"""First weights from published checkpoints, and what is refused."""

import numpy as np
import pytest
import tensorflow as tf

from tests.official_models.scripts import refusal
from tests.tpu.estimator import bert_job
from tf_lamb import v1
from tpu import training, warm_start

tf1 = tf.compat.v1
KERNEL = "bert/encoder/layer_1/output/dense/kernel"


def _start(path, *, shapes=None, **options):
    """The values that a model of the published names begins with."""
    with tf.Graph().as_default(), tf1.Session() as session:
        variables = [
            tf1.get_variable(name, shape, initializer=tf1.zeros_initializer())
            for name, shape in (shapes or bert_job.shapes()).items()
        ]
        warm_start.scaffold_fn(str(path), variables, **options)()
        session.run(tf1.global_variables_initializer())
        return {v.name[:-2]: session.run(v) for v in variables}


@pytest.mark.parametrize("moments", [False, True])
def test_published_names(tmp_path, moments):
    path = tmp_path / "bert_model.ckpt"
    weights = bert_job.write_checkpoint(path, moments=moments)
    for name, value in _start(path).items():
        np.testing.assert_array_equal(value, weights[name])


@pytest.mark.parametrize(
    "changes, parts",
    [
        ({KERNEL: None}, ["lacks", KERNEL]),
        ({KERNEL: (3, 4)}, [KERNEL, "(3, 4)", "(32, 16)"]),
        ({"cls/other": (2,)}, ["has unknown 'cls/other'"]),
        (
            {"bert/encoder/transformer/group_0/inner_group_0/x": (2,)},
            ["holds an ALBERT, this model is none"],
        ),
    ],
    ids=["missing", "shape", "unknown", "albert"],
)
def test_refusals(tmp_path, changes, parts):
    path = tmp_path / "bert_model.ckpt"
    bert_job.write_checkpoint(path, changes)
    refusal(lambda: _start(path), "--init_checkpoint", path, *parts)


@pytest.mark.parametrize("moments", [False, True])
def test_albert_s_published_names(tmp_path, moments):
    path = tmp_path / "model.ckpt-best"
    shapes = bert_job.albert_shapes()
    weights = bert_job.write_checkpoint(path, moments=moments, of=shapes)
    values = _start(path, shapes=shapes)
    assert values.keys() == shapes.keys()
    for name, value in values.items():
        np.testing.assert_array_equal(value, weights[name])


def test_a_bert_s_checkpoint_for_an_albert(tmp_path):
    path = tmp_path / "bert_model.ckpt"
    bert_job.write_checkpoint(path)
    shapes = bert_job.albert_shapes()
    part = "holds no ALBERT, this model is one"
    refusal(lambda: _start(path, shapes=shapes), path, part)


def test_a_file_that_is_no_checkpoint(tmp_path):
    path = tmp_path / "none.ckpt"
    refusal(lambda: _start(path), path, "cannot be read", "prefix")
    (tmp_path / "none.ckpt.index").write_bytes(b"no checkpoint")
    refusal(lambda: _start(path), path, "cannot be read")


def test_new_heads_and_unused_ones(tmp_path):
    path = tmp_path / "bert_model.ckpt"
    weights = bert_job.write_checkpoint(
        path, {"bert/pooler/dense/bias": None, "cls/other": (2,)}
    )
    values = _start(path, new=["^bert/pooler"], unused=["^cls/other$"])
    assert not values.pop("bert/pooler/dense/bias").any()
    for name, value in values.items():
        np.testing.assert_array_equal(value, weights[name])


def test_no_checkpoint_given():
    assert warm_start.scaffold_fn(None, []) is None


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda: v1.LAMBOptimizer(0.1),
        lambda: v1.LARSOptimizer(0.1),
        lambda: tf1.train.MomentumOptimizer(0.1, 0.9),
        lambda: tf1.train.AdamOptimizer(0.1),
    ],
    ids=["lamb", "lars", "momentum", "adam"],
)
def test_a_job_s_own_checkpoint_without_its_optimizer(tmp_path, optimizer):
    """Phase two begins from phase one's weights, whatever trained them."""
    path = str(tmp_path / "model.ckpt")
    with tf.Graph().as_default(), tf1.Session() as session:
        w = tf1.get_variable("dense/kernel", initializer=[1.0, 2.0])
        b = tf1.get_variable("dense/bias", initializer=[3.0])
        step = tf1.train.create_global_step()
        wrapped = training.ClippedOptimizer(optimizer(), 1.0)
        operation = wrapped.minimize(tf.reduce_sum(w) * b[0], step)
        session.run(tf1.global_variables_initializer())
        session.run(operation)
        tf1.train.Saver().save(session, path)
        expected = session.run([w, b])
    assert len(tf.train.list_variables(path)) > 3
    with tf.Graph().as_default(), tf1.Session() as session:
        w = tf1.get_variable("dense/kernel", (2,))
        b = tf1.get_variable("dense/bias", (1,))
        warm_start.scaffold_fn(path, [w, b])()
        session.run(tf1.global_variables_initializer())
        for actual, value in zip(session.run([w, b]), expected):
            np.testing.assert_array_equal(actual, value)
