"""No variables, variables without elements, sparse gradients, float8 scales."""

import keras
import numpy as np
import pytest

import tf_lamb
from tests.keras3 import problems

BACKEND = keras.config.backend()


def _model(layers, optimizer):
    model = keras.Sequential([keras.Input((3,)), *layers], name="net")
    # Keras cannot load "mse" from an .h5 file.
    model.compile(optimizer, keras.losses.MeanSquaredError())
    return model


@pytest.mark.parametrize("patterns", [None, ["bias"]])
def test_an_empty_list_is_no_error_and_builds_nothing(patterns):
    optimizer = tf_lamb.LAMB(0.1, exclude_from_weight_decay=patterns)
    optimizer.build([])
    optimizer.apply([], [])
    optimizer.apply_gradients([])
    assert not optimizer.built
    assert optimizer.trust_ratios == optimizer.treatments == {}
    bias = keras.Variable(np.ones(3, "float32"), name="bias")
    optimizer.build([bias])
    assert optimizer.built and list(optimizer.treatments) == ["bias"]
    optimizer.apply([keras.ops.ones(3)], [bias])
    assert int(optimizer.iterations) == 1


@pytest.mark.parametrize("patterns", [None, ["bias"]])
@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.filterwarnings("ignore:The model does not have any trainable")
def test_a_model_with_nothing_to_train(patterns, scaled):
    optimizer = tf_lamb.LAMB(0.1, exclude_from_weight_decay=patterns)
    if scaled:
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    frozen = keras.layers.Dense(1, name="frozen", trainable=False)
    model = _model([frozen], optimizer)
    before = model.get_weights()
    data = np.ones((8, 3)), np.ones((8, 1))
    history = model.fit(*data, epochs=2, verbose=0).history["loss"]
    assert history[0] == history[1] == model.evaluate(*data, verbose=0)
    for a, b in zip(model.get_weights(), before):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("compiled", [True, False])
def test_h5_with_exclusions_is_loaded(tmp_path, compiled):
    """Keras builds the optimizer before the model has variables."""
    optimizer = tf_lamb.LAMB(0.1, exclude_from_weight_decay=["bias"])
    model = _model([keras.layers.Dense(1, name="out")], optimizer)
    data = np.ones((8, 3)), np.ones((8, 1))
    model.fit(*data, verbose=0)
    path = tmp_path / "model.h5"
    model.save(path)
    loaded = keras.models.load_model(path, compile=compiled)
    np.testing.assert_array_equal(
        model.predict(data[0], verbose=0), loaded.predict(data[0], verbose=0)
    )
    if compiled:
        loaded.fit(*data, verbose=0)
        treatments = loaded.optimizer.treatments
        assert [t.decay for t in treatments.values()] == [True, False]


@pytest.mark.parametrize("name", ["LAMB", "LARS"])
@pytest.mark.parametrize("norm", ["l2", "l1", "linf"])
@pytest.mark.parametrize("shape", [(0,), (0, 3), (2, 0)])
def test_a_variable_without_elements(name, norm, shape):
    rng = np.random.default_rng(0)
    values = {"empty": np.zeros(shape), "kernel": rng.normal(size=(3, 2))}
    values = {n: x.astype("float32") for n, x in values.items()}
    optimizer = getattr(tf_lamb, name)(0.1, norm=norm, weight_decay=0.1)
    alone = getattr(tf_lamb, name)(0.1, norm=norm, weight_decay=0.1)
    variables = problems.make_variables(values)
    kernel = problems.make_variables({"kernel": values["kernel"]})
    for _ in range(2):
        problems.apply(optimizer, variables, values)
        problems.apply(alone, kernel, values)
    assert optimizer.trust_ratios["empty"] == 1
    problems.assert_equal(kernel, variables[1:])


def _sparse(rows, indices, values):
    """A gradient of `rows` rows, of which some are given, one of them twice."""
    if BACKEND == "tensorflow":
        import tensorflow as tf

        return tf.IndexedSlices(values, indices, (rows, values.shape[1]))
    if BACKEND == "jax":
        from jax.experimental import sparse

        return sparse.BCOO((values, indices[:, None]), shape=(rows, 2))
    import torch

    return torch.sparse_coo_tensor(
        torch.tensor(indices)[None], torch.tensor(values), (rows, 2)
    )


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"gradient_accumulation_steps": 2},
        {"loss_scale_factor": 4.0},
        {"global_clipnorm": 0.1},
    ],
    ids=str,
)
@pytest.mark.parametrize("name", ["LAMB", "LARS"])
def test_sparse_gradients_are_the_dense_ones(name, arguments):
    indices = np.array([1, 3, 1])
    values = np.array([[1, 2], [3, 4], [0.5, 0.25]], "float32")
    dense = np.zeros((5, 2), "float32")
    np.add.at(dense, indices, values)
    table = np.random.default_rng(0).normal(size=(5, 2)).astype("float32")
    results = []
    for grad in (_sparse(5, indices, values), keras.ops.array(dense)):
        optimizer = getattr(tf_lamb, name)(0.1, **arguments)
        variable = keras.Variable(table, name="table")
        for _ in range(4):
            optimizer.apply([grad], [variable])
        results.append(keras.ops.convert_to_numpy(variable))
    assert np.abs(results[0] - table).max() > 1e-4
    np.testing.assert_allclose(*results, atol=1e-7)


def test_scales_of_float8_neither_decay_nor_adapt():
    """Their gradient is their new value."""
    kernel, scale = problems.make_variables(
        {"kernel": np.ones((2, 2), "float32"), "scale": np.ones(1, "float32")}
    )
    scale.overwrite_with_gradient = True
    optimizer = tf_lamb.LAMB(0.1, weight_decay=0.1)
    optimizer.build([kernel, scale])
    assert optimizer.treatments["scale"] == ("scale", False, False, None)
    assert optimizer.treatments["kernel"] == ("kernel", True, True, None)
    assert optimizer.describe().splitlines()[2].split() == [
        *("scale", "1", "no", "no")
    ]
    optimizer.apply([keras.ops.ones((2, 2)), keras.ops.ones(1) * 7])
    assert keras.ops.convert_to_numpy(scale)[0] == 7


@pytest.mark.parametrize("per", ["filter", "layer", 1])
@pytest.mark.parametrize("shape", [(0, 3), (2, 0)])
def test_ratios_of_parts_of_a_variable_without_elements(per, shape):
    groups = [tf_lamb.Group("", trust_ratio_per=per)]
    optimizer = tf_lamb.LAMB(0.1, groups=groups)
    values = {
        "empty": np.zeros(shape, "float32"),
        "kernel": np.ones((2, 2), "float32"),
    }
    variables = problems.make_variables(values)
    problems.apply(optimizer, variables, values)
    kernel = keras.ops.convert_to_numpy(variables[1])
    np.testing.assert_allclose(kernel, 0.9, rtol=1e-5)


@pytest.mark.parametrize("accumulated", [None, 2])
def test_gradients_that_are_not_those_of_the_variables(accumulated):
    """What fits by broadcasting, or as a flat array, is refused too."""
    values = {"kernel": np.ones((2, 2), "float32"), "bias": np.ones(2)}
    variables = problems.make_variables(values)
    optimizer = tf_lamb.LAMB(0.1, gradient_accumulation_steps=accumulated)
    optimizer.build(variables)
    ones = keras.ops.ones
    for shape in ((2,), (), (1, 2), (4,), (2, 2, 1), (3, 2)):
        text = r"gradient of shape \(2, 2\) for variable 'kernel', got one of"
        for given in (variables, None):
            with pytest.raises(ValueError, match=text):
                optimizer.apply([ones(shape), ones(2)], given)
    text = "expected a real gradient for variable 'bias', got complex64"
    with pytest.raises(ValueError, match=text):
        optimizer.apply([ones((2, 2)), ones(2, dtype="complex64")], variables)
    for grads in ([ones((2, 2))], [ones((2, 2)), ones(2), ones(2)]):
        with pytest.raises(ValueError, match=f"2 variables, got {len(grads)}"):
            optimizer.apply(grads, variables)
    for variable in variables:
        np.testing.assert_array_equal(variable, 1)


def test_a_variable_with_two_gradients_is_updated_twice():
    """As Keras' own optimizers do it."""
    grads = [np.ones((2, 2), "float32"), np.full((2, 2), -3, "float32")]
    (kernel,) = problems.make_variables({"kernel": np.ones((2, 2), "float32")})
    (theirs,) = problems.make_variables({"kernel": np.ones((2, 2), "float32")})
    optimizer, keras_own = tf_lamb.LAMB(0.1), keras.optimizers.Lamb(0.1)
    for of, variable in ((optimizer, kernel), (keras_own, theirs)):
        of.build([variable])
        tensors = [keras.ops.array(g) for g in grads]
        of.apply(tensors, [variable, variable])
    problems.assert_equal([kernel], [theirs])


def test_gradients_may_be_of_numpy():
    grad = np.array([[1, 2], [3, -4]], "float32")
    results = []
    for given in (grad, grad.tolist(), keras.ops.array(grad)):
        (kernel,) = problems.make_variables({"kernel": np.ones((2, 2))})
        tf_lamb.LAMB(0.1).apply([given], [kernel])
        results.append(keras.ops.convert_to_numpy(kernel))
    for result in results[:2]:
        np.testing.assert_array_equal(result, results[2])


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow",
    reason="shapes are always known outside TensorFlow",
)
@pytest.mark.parametrize("shape", [(None, 2), None], ids=["length", "rank"])
def test_a_gradient_whose_shape_is_not_known(shape):
    import tensorflow as tf

    (kernel,) = problems.make_variables({"kernel": np.ones((2, 2), "float32")})
    optimizer = tf_lamb.LAMB(0.1)
    optimizer.build([kernel])
    step = tf.function(
        lambda grad: optimizer.apply([grad]),
        input_signature=[tf.TensorSpec(shape)],
        autograph=False,
    )
    step(tf.ones((2, 2)))
    np.testing.assert_allclose(kernel.numpy(), 0.9, rtol=1e-5)
    # It would fit, by broadcasting.
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"\[1,2\]"):
        step(tf.ones((1, 2)))
    np.testing.assert_allclose(kernel.numpy(), 0.9, rtol=1e-5)
