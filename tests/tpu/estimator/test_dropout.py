"""Dropout whose masks are a function of a key."""

import numpy as np
import tensorflow as tf

from official_models.common.ops import keras2

tf1 = tf.compat.v1


def _masks(key, uses=3):
    """Of one layer that is applied several times in a graph."""
    with tf.Graph().as_default(), tf1.Session() as session:
        keras2.seed_dropout(tf.constant(key, tf.int32))
        layer = keras2.Dropout(0.5, seed=2**31 - 1)
        ones = tf.ones((64,))
        return session.run([layer(ones, training=True) for _ in range(uses)])


def test_a_shared_layer_draws_other_masks_in_each_use():
    one, two, three = _masks(7)
    assert (one != two).any() and (two != three).any() and (one != three).any()
    np.testing.assert_array_equal(_masks(7), [one, two, three])
    assert (_masks(8)[0] != one).any()
