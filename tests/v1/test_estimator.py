"""compat.v1's Estimator, up to TensorFlow 2.15: resumed, initialised."""

import numpy as np
import pytest
import tensorflow as tf

from tf_lamb import v1

tf1 = tf.compat.v1
if not hasattr(tf, "estimator"):
    pytest.skip("Estimator ends with TensorFlow 2.15", allow_module_level=True)

X = np.random.default_rng(0).normal(size=(8, 3)).astype("float32")
KERNEL = "bert/encoder/layer_0/output/dense/kernel"
BIAS = "bert/encoder/layer_0/output/dense/bias"


def _input_fn():
    return tf.data.Dataset.from_tensors((X, X[:, :1])).repeat()


def _estimator(model_fn, folder):
    config = tf.estimator.RunConfig(tf_random_seed=0)
    return tf.estimator.Estimator(model_fn, str(folder), config)


def _loss(features, labels, kernel, bias):
    return tf.reduce_mean(
        tf.square(tf.matmul(features, kernel) + bias - labels)
    )


def test_resumes(tmp_path):
    def model_fn(features, labels, mode):
        w = tf1.get_variable("w", initializer=np.ones((3, 1), "float32"))
        loss = _loss(features, labels, w, 0.0)
        optimizer = v1.LAMBOptimizer(0.05, weight_decay=0.1)
        operation = optimizer.minimize(loss, tf1.train.get_global_step())
        return tf.estimator.EstimatorSpec(mode, loss=loss, train_op=operation)

    def train(folder, *stops):
        for stop in stops:
            estimator = _estimator(model_fn, tmp_path / folder)
            estimator.train(_input_fn, max_steps=stop)
            assert estimator.evaluate(_input_fn, steps=1)["global_step"] == stop
        return {n: estimator.get_variable_value(n) for n in ("w", "w/adam_v")}

    halves, whole = train("halves", 10, 20), train("whole", 20)
    for name, value in whole.items():
        np.testing.assert_array_equal(halves[name], value)


def _bert_adamw(state, steps):
    """google-research/bert's AdamWeightDecayOptimizer, in float64 NumPy."""
    state = {n: [x.astype("float64") for x in xs] for n, xs in state.items()}
    for _ in range(steps):
        errors = X @ state[KERNEL][0] + state[BIAS][0] - X[:, :1]
        grads = {
            KERNEL: 2 * X.T @ errors / len(X),
            BIAS: 2 * errors.mean(0),
        }
        for name, g in grads.items():
            param, m, v = state[name]
            m = 0.9 * m + 0.1 * g
            v = 0.999 * v + 0.001 * g * g
            update = m / (np.sqrt(v) + 1e-6)
            if name == KERNEL:
                update = update + 0.01 * param
            state[name] = param - 0.05 * update, m, v
    return state


def _write_published(path):
    """A checkpoint with the names of BERT's own training code."""
    rng = np.random.default_rng(1)
    state = {}
    for name, shape in ((KERNEL, (3, 1)), (BIAS, (1,))):
        param, m = rng.normal(size=(2, *shape)).astype("float32")
        state[name] = param, 0.1 * m, np.square(m)
    with tf.Graph().as_default(), tf1.Session() as session:
        for name, values in state.items():
            for suffix, value in zip(("", "/adam_m", "/adam_v"), values):
                tf1.get_variable(name + suffix, initializer=value)
        session.run(tf1.global_variables_initializer())
        tf1.train.Saver().save(session, path)
    return state


def test_init_from_a_published_checkpoint_with_its_moments(tmp_path):
    """Weights and moments of BERT's AdamW are restored under the same names."""
    path = str(tmp_path / "bert_model.ckpt")
    state = _write_published(path)

    def model_fn(features, labels, mode):
        kernel = tf1.get_variable(KERNEL, (3, 1))
        bias = tf1.get_variable(BIAS, (1,))
        loss = _loss(features, labels, kernel, bias)
        optimizer = v1.LAMBOptimizer(
            0.05,
            weight_decay=0.01,
            bias_correction=False,
            exclude_from_weight_decay=["bias"],
            exclude_from_layer_adaptation=[""],
        )
        operation = optimizer.minimize(loss, tf1.train.get_global_step())
        tf1.train.init_from_checkpoint(path, optimizer.checkpoint_names())
        return tf.estimator.EstimatorSpec(mode, loss=loss, train_op=operation)

    estimator = _estimator(model_fn, tmp_path / "run")
    estimator.train(_input_fn, max_steps=5)
    for name, values in _bert_adamw(state, 5).items():
        for suffix, value in zip(("", "/adam_m", "/adam_v"), values):
            got = estimator.get_variable_value(name + suffix)
            np.testing.assert_allclose(got, value, rtol=0, atol=1e-6)
            before = dict(zip(("", "/adam_m", "/adam_v"), state[name]))[suffix]
            assert np.abs(got - before).max() > 1e-3
