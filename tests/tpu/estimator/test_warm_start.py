"""First weights from published checkpoints, and what is refused."""

import numpy as np
import pytest
import tensorflow as tf

from tests.official_models.scripts import refusal
from tests.tpu.estimator import bert_job
from tpu import warm_start

tf1 = tf.compat.v1
KERNEL = "bert/encoder/layer_1/output/dense/kernel"


def _start(path, **options):
    """The values that a model of the published names begins with."""
    with tf.Graph().as_default(), tf1.Session() as session:
        variables = [
            tf1.get_variable(name, shape, initializer=tf1.zeros_initializer())
            for name, shape in bert_job.shapes().items()
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
        ({KERNEL: (3, 4)}, [KERNEL, "[3, 4]", "[32, 16]"]),
        ({"cls/other": (2,)}, ["has unknown 'cls/other'"]),
        (
            {"bert/encoder/transformer/group_0/inner_group_0/x": (2,)},
            ["ALBERT"],
        ),
    ],
    ids=["missing", "shape", "unknown", "albert"],
)
def test_refusals(tmp_path, changes, parts):
    path = tmp_path / "bert_model.ckpt"
    bert_job.write_checkpoint(path, changes)
    refusal(lambda: _start(path), "--init_checkpoint", path, *parts)


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
