"""compat.v1 optimizers: sessions, wrappers, replicas, and what is refused."""

import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from tf_lamb import v1

tf1 = tf.compat.v1


def _linear_graph(make):
    """A linear model's training operation under `make(global_step)`."""
    x = np.random.default_rng(0).normal(size=(8, 3)).astype("float32")
    w = tf1.get_variable(
        "w", initializer=np.ones((3, 1), "float32"), use_resource=True
    )
    b = tf1.get_variable("b", initializer=[0.5], use_resource=True)
    loss = tf.reduce_mean(tf.square(tf.matmul(tf.constant(x), w) + b - 2))
    step = tf1.train.get_or_create_global_step()
    return make().minimize(loss, step), [w, b, step]


def test_monitored_session_goes_on_from_its_checkpoint(tmp_path):
    def train(folder, last):
        with tf.Graph().as_default():
            operation, _ = _linear_graph(lambda: v1.LAMBOptimizer(0.05))
            hooks = [tf1.train.StopAtStepHook(last_step=last)]
            with tf1.train.MonitoredTrainingSession(
                checkpoint_dir=folder, hooks=hooks, save_checkpoint_steps=5
            ) as session:
                while not session.should_stop():
                    session.run(operation)
        saved = tf.train.load_checkpoint(folder)
        return [
            saved.get_tensor(n) for n in ("w", "b", "b/adam_v", "global_step")
        ]

    assert train(str(tmp_path / "a"), 10)[-1] == 10
    resumed = train(str(tmp_path / "a"), 20)
    whole = train(str(tmp_path / "b"), 20)
    for a, b in zip(resumed, whole):
        np.testing.assert_array_equal(a, b)


def _train_in_session(make, steps=5):
    with tf.Graph().as_default(), tf1.Session() as session:
        operation, read = _linear_graph(make)
        session.run(tf1.global_variables_initializer())
        for _ in range(steps):
            session.run(operation)
        return session.run(read)


def test_inside_cross_shard_optimizer(monkeypatch):
    """The call is that of a TPU job; the sum over shards has no CPU kernel."""
    from tensorflow.python.tpu.ops import tpu_ops

    monkeypatch.setattr(tpu_ops, "cross_replica_sum", lambda x, *_, **__: x)
    plain = _train_in_session(lambda: v1.LAMBOptimizer(0.05))
    wrapped = _train_in_session(
        lambda: tf1.tpu.CrossShardOptimizer(v1.LAMBOptimizer(0.05))
    )
    for a, b in zip(plain, wrapped):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("scale", ["dynamic", 128.0])
def test_inside_a_loss_scaler(scale):
    plain = _train_in_session(lambda: v1.LAMBOptimizer(0.05))
    wrapped = _train_in_session(
        lambda: tf1.mixed_precision.MixedPrecisionLossScaleOptimizer(
            v1.LAMBOptimizer(0.05), scale
        )
    )
    assert wrapped[-1] == plain[-1] == 5
    for a, b in zip(plain, wrapped):
        np.testing.assert_allclose(a, b, rtol=1e-6)


@pytest.mark.parametrize("kind", [v1.LAMBOptimizer, v1.LARSOptimizer])
def test_two_models_on_two_replicas_equal_one_device(kind):
    x = np.random.default_rng(0).normal(size=(8, 3)).astype("float32")

    def train(strategy):
        with strategy.scope():
            models = [
                [tf.Variable(c * tf.ones((3, 1))), tf.Variable([0.5])]
                for c in (1.0, 2.0)
            ]
            optimizers = [kind(0.05, weight_decay=0.1) for _ in models]
            step = tf.Variable(
                0,
                dtype=tf.int64,
                trainable=False,
                aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
            )

        def replica(x, model, optimizer):
            w, b = model
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(tf.square(tf.matmul(x, w) + b - 2)) / 8
            grads = tape.gradient(loss, model)
            optimizer.apply_gradients(zip(grads, model), step)

        for model, optimizer in zip(models, optimizers):
            run = tf.function(
                lambda x, m=model, o=optimizer: strategy.run(
                    replica, args=(x, m, o)
                )
            )
            rows = tf.data.Dataset.from_tensor_slices(x).batch(8).repeat(5)
            for batch in strategy.experimental_distribute_dataset(rows):
                run(batch)
        assert step.numpy() == 10
        return [v.numpy() for model in models for v in model]

    mirrored = tf.distribute.MirroredStrategy(
        ["CPU:0", "CPU:1"],
        cross_device_ops=tf.distribute.HierarchicalCopyAllReduce(),
    )
    one = train(tf.distribute.get_strategy())
    for a, b in zip(train(mirrored), one):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)
    assert np.abs(one[0] - one[2]).max() > 0.1


def test_reference_variables_are_refused_with_the_remedy():
    with tf.Graph().as_default():
        w = tf1.get_variable("w", initializer=[1.0], use_resource=False)
        if hasattr(w, "handle"):
            pytest.skip("this TensorFlow makes resource variables only")
        with pytest.raises(ValueError, match="enable_resource_variables"):
            v1.LAMBOptimizer(0.1).apply_gradients([(tf.constant([1.0]), w)])


def test_unmatched_pattern_empty_list_and_describe():
    with tf.Graph().as_default():
        with pytest.raises(ValueError, match="'LayerNorm' matches none of 2"):
            _linear_graph(
                lambda: v1.LAMBOptimizer(
                    0.1, exclude_from_weight_decay=["LayerNorm"]
                )
            )
    with tf.Graph().as_default():
        optimizer = v1.LAMBOptimizer(
            0.1,
            exclude_from_weight_decay=["^b$"],
            exclude_from_layer_adaptation=[],
        )
        with pytest.raises(ValueError, match="knows no variables yet"):
            optimizer.describe()
        _linear_graph(lambda: optimizer)
        assert optimizer.treatments["b"] == ("b", False, True, None)
        assert "w" in optimizer.describe()


def test_no_gradient_at_all_and_bad_arguments():
    with pytest.raises(ValueError, match="No gradients provided"):
        v1.LAMBOptimizer(0.1).apply_gradients([(None, tf.Variable(1.0))])
    with pytest.raises(ValueError, match="learning_rate: expected"):
        v1.LAMBOptimizer(-1.0)
    with pytest.raises(ValueError, match="not defined for form='you2020'"):
        v1.LARSOptimizer(form="you2020", nesterov=True)


@pytest.mark.parametrize("dtype", ["int32", "complex64"])
def test_variables_that_are_not_floating_are_refused_by_name(dtype):
    weight = tf.Variable(tf.ones(3), name="weight")
    other = tf.Variable(tf.cast([1, 1, 1], dtype), name="other")
    for optimizer in (v1.LAMBOptimizer(0.1), v1.LARSOptimizer(0.1)):
        with pytest.raises(ValueError, match=f"variable 'other' is {dtype};"):
            optimizer.apply_gradients(
                [(tf.ones(3), weight), (tf.ones_like(other), other)]
            )
        # One without a gradient is left alone: a counter, for instance.
        optimizer.apply_gradients([(tf.ones(3), weight), (None, other)])


def test_import_brings_in_no_keras_that_tensorflow_does_not():
    code = (
        "import sys, tensorflow\n"
        "before = set(sys.modules)\n"
        "import tf_lamb.v1\n"
        "new = set(sys.modules) - before\n"
        "assert not [m for m in new if 'keras' in m], new\n"
        "assert 'tf_lamb.v1' in new\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_only_keras_has_is_refused():
    with pytest.raises(ValueError, match="LAMBOptimizer: .* got clipnorm too"):
        v1.LAMBOptimizer(0.1, clipnorm=1.0)


def test_describe_before_the_first_update():
    optimizer = v1.LAMBOptimizer(exclude_from_weight_decay="biases_and_norms")
    optimizer.build([tf.Variable(tf.ones((2, 2)), name="k")])
    optimizer.build([tf.Variable([1.0], name="b")])
    assert optimizer.treatments == {
        "k": ("k", True, True, None),
        "b": ("b", False, False, None),
    }
    assert "b         1      no     no" in optimizer.describe()
