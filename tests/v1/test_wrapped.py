"""`find_optimizer` in what wraps a TensorFlow 1 optimizer."""

import types

import pytest
import tensorflow as tf

import tf_lamb
from tf_lamb import v1

tf1 = tf.compat.v1


def _scaled(optimizer):
    return tf1.mixed_precision.MixedPrecisionLossScaleOptimizer(optimizer, 128)


@pytest.mark.parametrize("kind", [v1.LAMBOptimizer, v1.LARSOptimizer])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda optimizer: optimizer,
        _scaled,
        tf1.tpu.CrossShardOptimizer,
        lambda optimizer: tf1.tpu.CrossShardOptimizer(_scaled(optimizer)),
        lambda optimizer: types.SimpleNamespace(optimizer=optimizer),
    ],
    ids=["plain", "loss_scaler", "cross_shard", "both", "other"],
)
def test_it_is_found_inside_of_wrappers(kind, wrap):
    ours = kind(0.1)
    assert tf_lamb.find_optimizer(wrap(ours)) is ours


def test_none_of_ours():
    wrapped = _scaled(tf1.train.AdamOptimizer())
    name = "MixedPrecisionLossScaleOptimizer > AdamOptimizer"
    with pytest.raises(ValueError, match=f"of tf_lamb in {name}; compile"):
        tf_lamb.find_optimizer(wrapped)
