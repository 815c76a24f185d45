"""Second derivatives and spectra, against finite differences and dense ones."""

import keras
import numpy as np
import pytest

from official_models.nlp.bert import model as bert
from official_models.nlp.bert.config import BertConfig
from official_models.nlp.bert.pretraining import losses
from tf_lamb.diagnostics import lanczos, spectrum
from tf_lamb.diagnostics.curvature import Curvature

ON_TENSORFLOW = keras.backend.backend() == "tensorflow"
# JAX has float64 only where the whole process has it.
DTYPE = "float64" if ON_TENSORFLOW else "float32"
TOLERANCE = 1e-6 if ON_TENSORFLOW else 2e-3


@pytest.fixture(autouse=True)
def _precision():
    """Keras' losses cast to `floatx`, whatever a model's dtype is."""
    before = keras.config.floatx()
    keras.config.set_floatx(DTYPE)
    keras.utils.set_random_seed(0)
    yield
    keras.config.set_floatx(before)


def small(*middle):
    layers = [
        keras.Input((4,), dtype=DTYPE),
        keras.layers.Dense(5, activation="tanh", dtype=DTYPE),
        *middle,
        keras.layers.Dense(3, dtype=DTYPE),
    ]
    network = keras.Sequential(layers)
    network.compile(
        "sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    random = np.random.default_rng(1)
    x = random.normal(size=(24, 4)).astype(DTYPE)
    return network, (x, random.integers(0, 3, 24).astype("int32"), None)


def dense(product, size):
    return np.stack([product(row) for row in np.eye(size)])


def difference(curvature, vector, width):
    """`H v` by central differences of the gradient."""
    variables = curvature.model.trainable_variables
    before = [keras.ops.convert_to_numpy(v) for v in variables]
    found = []
    for sign in (1, -1):
        start = 0
        for variable, value in zip(variables, before):
            part = vector[start : start + value.size].reshape(value.shape)
            variable.assign(value + sign * width * part)
            start += value.size
        found.append(curvature.gradient())
    for variable, value in zip(variables, before):
        variable.assign(value)
    return (found[0] - found[1]) / (2 * width)


def test_hessian_is_the_dense_one():
    """Symmetric, and every column a difference of gradients."""
    at = Curvature(*small(), batch_size=12)
    hessian = dense(at.hessian_vector, at.size)
    by_differences = dense(
        lambda v: difference(at, v, 1e-5 if ON_TENSORFLOW else 1e-2), at.size
    )
    np.testing.assert_allclose(hessian, hessian.T, atol=TOLERANCE)
    np.testing.assert_allclose(hessian, by_differences, atol=TOLERANCE)


def test_spectrum_of_the_dense_matrix():
    at = Curvature(*small(), batch_size=12)
    for matrix in spectrum.MATRICES:
        whole = dense(getattr(at, f"{matrix}_vector"), at.size)
        values = np.linalg.eigvalsh((whole + whole.T) / 2)
        found = spectrum.measure(at, matrix, steps=at.size, vectors=2)
        assert found.lambda_max == pytest.approx(values[-1], abs=TOLERANCE)
        assert found.lambda_min == pytest.approx(values[0], abs=TOLERANCE)
    assert values[0] > -TOLERANCE  # Gauss-Newton has no negative ones


def test_gauss_newton_of_a_linear_model_is_the_hessian():
    network = keras.Sequential(
        [keras.Input((4,), dtype=DTYPE), keras.layers.Dense(3, dtype=DTYPE)]
    )
    network.compile(
        "sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    at = Curvature(network, small()[1], batch_size=12)
    vector = np.random.default_rng(0).normal(size=at.size)
    np.testing.assert_allclose(
        at.gauss_newton_vector(vector),
        at.hessian_vector(vector),
        atol=TOLERANCE,
    )


@pytest.mark.skipif(
    not ON_TENSORFLOW,
    reason="JAX 0.10 loses count of the arguments of BERT's compiled gradient",
)
def test_second_derivatives_through_bert():
    """Embeddings, attention, our LayerNorm, GELU, gathers, both losses."""
    config = BertConfig(
        vocab_size=11,
        hidden_size=8,
        num_layers=1,
        num_heads=2,
        intermediate_size=8,
        max_position_embeddings=6,
        hidden_dropout=0.0,
        attention_dropout=0.0,
        initializer_range=0.3,
    )
    network = bert.bert_pretrainer(config, seed=0, dtype=DTYPE)
    network.compile("sgd", losses.pretraining_losses())
    random = np.random.default_rng(0)

    def ids(most, *shape):
        return random.integers(0, most, shape).astype("int32")

    x = dict(
        input_ids=ids(11, 4, 6),
        input_mask=np.ones((4, 6), "int32"),
        segment_ids=ids(2, 4, 6),
        masked_lm_positions=ids(6, 4, 2),
    )
    y = dict(masked_lm=ids(11, 4, 2), next_sentence=ids(2, 4))
    at = Curvature(network, (x, y, None), batch_size=4)
    vector = random.normal(size=at.size)
    exact = at.hessian_vector(vector)
    near = difference(at, vector, 1e-5 if ON_TENSORFLOW else 1e-3)
    error = np.linalg.norm(exact - near) / np.linalg.norm(exact)
    assert error < (1e-6 if ON_TENSORFLOW else 0.02)


@pytest.mark.parametrize(
    "layer",
    [
        keras.layers.LayerNormalization(name="norm", dtype=DTYPE),
        keras.layers.GroupNormalization(1, name="norm", dtype=DTYPE),
    ],
)
def test_a_layer_whose_derivative_is_wrong_is_refused(layer, monkeypatch):
    network, data = small(layer)
    if ON_TENSORFLOW:
        with pytest.raises(ValueError, match="'norm'.*keras.ops.var"):
            Curvature(network, data, batch_size=12)
    # Why it is refused, and right elsewhere.
    monkeypatch.setattr("tf_lamb.diagnostics.curvature.WRONG_ON_TENSORFLOW", ())
    at = Curvature(network, data, batch_size=12)
    vector = np.random.default_rng(0).normal(size=at.size)
    near = difference(at, vector, 1e-5 if ON_TENSORFLOW else 1e-3)
    error = np.linalg.norm(at.hessian_vector(vector) - near)
    error /= np.linalg.norm(near)
    assert error > 0.01 if ON_TENSORFLOW else error < 0.01


def test_lanczos_and_moments_of_a_known_matrix():
    linalg = pytest.importorskip("scipy.sparse.linalg")
    random = np.random.default_rng(0)
    root = random.normal(size=(20, 20))
    matrix = root + root.T
    runs = [
        lanczos.run(lambda v: matrix @ v, 20, 20, np.random.default_rng(i))
        for i in range(100)
    ]
    operator = linalg.LinearOperator(matrix.shape, lambda v: matrix @ v)
    largest = linalg.eigsh(operator, 1, which="LA", return_eigenvectors=False)
    assert runs[0].values[-1] == pytest.approx(largest[0], rel=1e-10)
    for power in (1, 2):
        found = lanczos.moment(runs, power)
        exact = np.trace(np.linalg.matrix_power(matrix, power))
        assert abs(found.value - exact) < 4 * found.standard_error
    nodes, weights = lanczos.quadrature(runs)
    assert weights.sum() == pytest.approx(1)
    grid, heights = lanczos.density(runs[:2])
    assert np.trapezoid(heights, grid) == pytest.approx(1, abs=1e-3)


def test_a_residual_bounds_the_error():
    random = np.random.default_rng(0)
    root = random.normal(size=(60, 60))
    matrix = root + root.T
    values = np.linalg.eigvalsh(matrix)
    for steps in (2, 5, 9):
        found = lanczos.run(lambda v: matrix @ v, 60, steps, random)
        for value, residual in zip(found.values, found.residuals):
            assert abs(values - value).min() <= residual + 1e-10


def test_the_basis_in_a_file_gives_the_same(monkeypatch, tmp_path):
    diagonal = np.arange(1.0, 31)
    arguments = (lambda v: diagonal * v), 30, 12
    inside = lanczos.run(*arguments, np.random.default_rng(0))
    monkeypatch.setattr(lanczos, "IN_MEMORY", 0)
    outside = lanczos.run(
        *arguments, np.random.default_rng(0), folder=str(tmp_path)
    )
    np.testing.assert_array_equal(inside.values, outside.values)
    assert not list(tmp_path.iterdir())


def test_rate_warning():
    line = spectrum.rate_warning(keras.optimizers.SGD(0.5), 5.0)
    assert "2.5" in line and "0.4" in line
    assert spectrum.rate_warning(keras.optimizers.SGD(0.3), 5.0) is None
    momentum = keras.optimizers.SGD(0.5, momentum=0.9)
    assert spectrum.rate_warning(momentum, 5.0) is None
    assert spectrum.rate_warning(keras.optimizers.Adam(9.0), 5.0) is None


@pytest.mark.parametrize("nesterov", [False, True])
def test_the_limit_of_the_rate_is_where_momentum_diverges(nesterov):
    """On `2.5 w^2`, whose curvature is 5, a little below and above it."""
    factor = 1 + 2 * 0.9 if nesterov else 1.0
    for share, unstable in ((0.97, False), (1.03, True)):
        rate = share * 2 * 1.9 / factor / 5
        w, velocity = 1.0, 0.0
        for _ in range(400):  # as Keras' SGD does it
            velocity = 0.9 * velocity - rate * 5 * w
            w += 0.9 * velocity - rate * 5 * w if nesterov else velocity
        assert (abs(w) > 1) == unstable
        optimizer = keras.optimizers.SGD(rate, 0.9, nesterov)
        scaler = keras.optimizers.LossScaleOptimizer(optimizer)
        for one in (optimizer, scaler):
            assert bool(spectrum.rate_warning(one, 5.0)) == unstable


def test_losses_that_layers_add_are_in_the_loss_and_its_derivatives():
    layer = keras.layers.Dense(
        3, activity_regularizer=keras.regularizers.L2(0.3), dtype=DTYPE
    )
    network, data = small(layer)
    at = Curvature(network, data, batch_size=12)
    true = network.evaluate(*data[:2], batch_size=12, verbose=0)
    assert at.loss() == pytest.approx(true, rel=1e-5)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_the_bound_knows_in_what_the_model_computes(policy):
    before = keras.config.dtype_policy()
    found, weights = [], None
    for name in (DTYPE, policy):
        keras.config.set_dtype_policy(name)
        layers = [
            keras.Input((4,)),
            keras.layers.Dense(5, activation="tanh"),
            keras.layers.Dense(3, dtype=name),
        ]
        network = keras.Sequential(layers)
        weights = weights or network.get_weights()
        network.set_weights(weights)
        network.compile("sgd", small()[0].loss)
        at = Curvature(network, small()[1], batch_size=12)
        found.append(spectrum.measure(at, steps=at.size, vectors=1))
    keras.config.set_dtype_policy(before)
    exact, coarse = found
    apart = abs(coarse.lambda_max - exact.lambda_max)
    assert 1e-6 < apart < coarse.lambda_max_residual < 0.03 * exact.lambda_max


def test_sample_weights_are_not_passed_over_by_a_loss_of_ones_own():
    network, (x, y, _) = small()
    data = x, y, np.ones(24)
    with pytest.raises(ValueError, match="sample weights"):
        Curvature(network, data, network.loss, batch_size=12)
    Curvature(network, data, batch_size=12)
