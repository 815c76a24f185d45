"""TensorFlow 1 optimizers: variables of equal names have their own entries."""

import numpy as np
import pytest
import tensorflow as tf

from tf_lamb import v1


def _twins():
    """Outside of graphs, names of variables may be equal."""
    return [tf.Variable(tf.fill((n,), 2.0), name="same/w") for n in (4, 9)]


def _one_step(optimizer, variables):
    grads = [tf.ones_like(v) for v in variables]
    optimizer.apply_gradients(zip(grads, variables))


@pytest.mark.parametrize("compiled", [False, True])
def test_equal_names_have_entries_of_their_own(compiled):
    optimizer = v1.LAMBOptimizer(0.1, weight_decay=0.5)
    one, other = _twins()
    ratios = []

    def step():
        _one_step(optimizer, [one, other])
        ratios.append(list(optimizer.trust_ratios))
        return optimizer.trust_ratios

    found = (tf.function(step) if compiled else step)()
    keys = ["same/w", "same/w#2"]
    assert ratios[-1] == keys
    # |x| = 2 sqrt(n), |u| = (1 + 0.5 * 2) sqrt(n)
    np.testing.assert_allclose([found[key] for key in keys], 1, rtol=1e-5)
    assert list(optimizer.treatments) == keys
    rows = [line.split() for line in optimizer.describe().splitlines()[1:]]
    assert [row[:2] for row in rows] == [["same/w", "4"], ["same/w#2", "9"]]


def test_a_later_call_with_the_second_one_only():
    """Which of the two it is tells the variable, not its place in a call."""
    optimizer = v1.LAMBOptimizer(0.1)
    one, other = _twins()
    _one_step(optimizer, [one, other])
    _one_step(optimizer, [other])
    assert list(optimizer.trust_ratios) == ["same/w#2"]
    assert list(optimizer.treatments) == ["same/w", "same/w#2"]


def test_equal_names_on_two_replicas(mirrored):
    with mirrored.scope():
        optimizer = v1.LARSOptimizer(0.1)
        variables = _twins()
    names = []

    def replica():
        _one_step(optimizer, variables)
        names.append(list(optimizer.trust_ratios))

    for _ in range(2):
        tf.function(lambda: mirrored.run(replica))()
    assert names[-1] == ["same/w", "same/w#2"]
    assert list(optimizer.treatments) == names[-1]


def test_names_in_a_checkpoint_have_to_differ():
    optimizer = v1.LAMBOptimizer(0.1)
    variables = _twins()
    with pytest.raises(ValueError, match="checkpoint_names: .*'same/w'.*two"):
        optimizer.checkpoint_names(variables)
