"""Population and weight normalization, and the decay of gamma."""

import keras
import numpy as np
import pytest
from keras import ops

import tf_lamb
from official_models.vision.batch_norm import data, gamma_decay, layers, model
from official_models.vision.datasets.images import LabelledImages
from tests.official_models.scripts import refusal


def images(rows, seed=0, size=8):
    rng = np.random.default_rng(seed)
    return rng.normal(1, 2, (rows, size, size, 1)).astype("float32")


def built(norm="batch", **changes):
    return model.make(
        model.SmallConfig(norm, image_size=8, filters=3, **changes), seed=1
    )


def loss_and_gradients(made, x, labels, rows):
    """Of the first rows, by TensorFlow."""
    import tensorflow as tf

    with tf.GradientTape() as tape:
        logits = made(x, training=True)[:rows]
        loss = ops.mean(
            keras.losses.sparse_categorical_crossentropy(
                labels, logits, from_logits=True
            )
        )
    found = tape.gradient(loss, made.trainable_variables)
    names = [v.path for v in made.trainable_variables]
    return loss, {n: np.asarray(g) for n, g in zip(names, found)}


def test_without_a_population_it_is_batch_normalization():
    x = images(6)
    ours = layers.PopulationNormalization()
    keras_layer = keras.layers.BatchNormalization(epsilon=1e-5)
    np.testing.assert_allclose(
        ours(x, training=True), keras_layer(x, training=True), atol=1e-5
    )
    np.testing.assert_allclose(ours.mean, x.mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(ours.variance, x.var((0, 1, 2)), rtol=1e-5)
    # Outside training: by the statistics that were stored.
    np.testing.assert_allclose(ours(x), ours(x, training=True), atol=1e-6)


def test_the_population_alone_makes_the_statistics():
    x = images(10)
    layer = layers.PopulationNormalization(population=6)
    found = np.asarray(layer(x, training=True))
    below = x[4:]
    expected = (x - below.mean()) / np.sqrt(below.var() + 1e-5)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_with_all_data_as_the_batch_it_is_full_batch_normalization():
    x, labels = images(6), np.arange(6) % 10
    bn, pn = built(), built("population", population=6)
    one = loss_and_gradients(bn, x, labels, 6)
    other = loss_and_gradients(pn, np.concatenate([x, x]), labels, 6)
    assert float(one[0]) == pytest.approx(float(other[0]), rel=1e-5)
    for name, gradient in one[1].items():
        np.testing.assert_allclose(gradient, other[1][name], atol=1e-5)


def test_gradients_are_orthogonal_to_normalized_weights():
    """Not so if the statistics were held fixed."""
    import tensorflow as tf

    x, labels = images(9), np.arange(3)
    pn = built("population", population=6)
    _, found = loss_and_gradients(pn, x, labels, 3)
    cosines = {}
    for name in ("convolution_1", "convolution_2"):
        w = np.asarray(pn.get_layer(name).kernel)
        g = found[f"{name}/kernel"]
        cosines[name] = (w * g).sum() / np.sqrt((w**2).sum() * (g**2).sum())
    assert max(map(abs, cosines.values())) < 1e-3

    with tf.GradientTape() as tape:
        logits = pn(x[:3], training=False)  # statistics of the last pass
        loss = ops.mean(
            keras.losses.sparse_categorical_crossentropy(
                labels, logits, from_logits=True
            )
        )
    w = pn.get_layer("convolution_2").kernel
    g = np.asarray(tape.gradient(loss, w.value))
    w = np.asarray(w)
    assert abs((w * g).sum()) > 0.02 * np.sqrt((w**2).sum() * (g**2).sum())


def test_measured_statistics_are_those_of_the_whole_population():
    pn = built("population", population=2)
    x = images(7)
    layers.measure_population(pn, x)
    layer = pn.get_layer("norm_1")
    before = np.asarray(pn.get_layer("convolution_1")(x))
    np.testing.assert_allclose(layer.mean, before.mean((0, 1, 2)), atol=1e-5)
    assert layer.population == 2


def test_weight_normalization_has_the_scale_gamma():
    layer = layers.WeightNormalizedConv2D(4, strides=2, seed=0)
    x = images(2)
    found = layer(x)
    assert found.shape == layer.compute_output_shape(x.shape) == (2, 4, 4, 4)
    layer.kernel.assign(layer.kernel * 5)
    np.testing.assert_allclose(layer(x), found, atol=1e-5)
    layer.gamma.assign([2.0] * 4)
    np.testing.assert_allclose(layer(x), 2 * np.asarray(found), atol=1e-5)


def test_saved_and_loaded(tmp_path):
    made = built("population", population=3)
    term = gamma_decay.compensate(made, batch_size=8, reference_batch_size=2)
    layers.measure_population(made, images(5))
    made.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    x = images(4, 1)
    np.testing.assert_array_equal(made(x), loaded(x))
    assert loaded.get_layer("norm_1").population == 3
    again = loaded.get_layer("norm_1").gamma.regularizer
    assert again.get_config() == term.get_config()
    weight = built("weight")
    weight.save(tmp_path / "weight.keras")
    np.testing.assert_array_equal(
        keras.saving.load_model(tmp_path / "weight.keras")(x), weight(x)
    )


def test_arguments_out_of_range():
    with pytest.raises(ValueError, match="population.*-1"):
        layers.PopulationNormalization(population=-1)
    with pytest.raises(ValueError, match="norm.*'layer'"):
        model.SmallConfig("layer")
    with pytest.raises(ValueError, match="filters.*0"):
        layers.WeightNormalizedConv2D(0)


def batch_norm_model(regularizer=None):
    return keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(3),
            keras.layers.BatchNormalization(gamma_regularizer=regularizer),
            keras.layers.Dense(1),
        ]
    )


def test_the_strength_by_hand():
    assert gamma_decay.strength(0.5, 32, 8) == pytest.approx(
        0.5 * (1 / 8 - 1 / 32)
    )
    assert gamma_decay.strength(0.5, 8, 8) == 0
    with pytest.raises(ValueError, match="reference_batch_size.*at most"):
        gamma_decay.strength(0.5, 8, 16)
    with pytest.raises(ValueError, match="zeta"):
        gamma_decay.strength(-1.0, 16, 8)
    # What a rectifier-like unit with Gaussian inputs has.
    from official_models.vision.batch_norm import theory

    assert theory.zeta(1, 0.0) == pytest.approx(gamma_decay.GAUSSIAN_ZETA)


def test_compensation_is_added_to_the_loss_beside_what_gamma_has():
    made = batch_norm_model(keras.regularizers.L2(0.1))
    gamma_decay.compensate(
        made, zeta=0.5, batch_size=32, reference_batch_size=8
    )
    made.layers[1].gamma.assign([1.0, 2.0, 3.0])
    factor = 0.1 + 0.5 * (1 / 8 - 1 / 32)
    (penalty,) = made.losses
    assert float(penalty) == pytest.approx(factor * 14)
    with pytest.raises(ValueError, match="BatchNormalization.* none"):
        gamma_decay.compensate(
            keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]),
            batch_size=8,
            reference_batch_size=4,
        )


@pytest.mark.parametrize("optimizer", [tf_lamb.LARS, tf_lamb.LAMB])
def test_an_optimizer_that_excludes_gamma_decays_it_all_the_same(optimizer):
    import tensorflow as tf

    def gamma_after(zeta):
        keras.utils.set_random_seed(0)
        made = batch_norm_model()
        gamma_decay.compensate(
            made, zeta, batch_size=32, reference_batch_size=8
        )
        made.compile(
            optimizer(
                0.1,
                weight_decay=0.1,
                exclude_from_weight_decay="biases_and_norms",
            ),
            "mse",
            jit_compile=False,
        )
        x = np.random.default_rng(0).normal(size=(32, 4))
        made.fit(x, x[:, :1], batch_size=32, epochs=2, verbose=0)
        return np.asarray(made.layers[1].gamma)

    tf.config.run_functions_eagerly(True)  # tracing takes longer
    try:
        assert (np.abs(gamma_after(20.0)) < np.abs(gamma_after(0.0))).all()
    finally:
        tf.config.run_functions_eagerly(False)


def test_the_decoupled_decay_by_hand():
    made = batch_norm_model()
    made.compile(keras.optimizers.SGD(0.0), "mse", jit_compile=False)
    schedule = tf_lamb.WarmupPolynomial(0.5, 4, 0, 0.0)

    class Rate(keras.callbacks.Callback):
        """The optimizer's own rate is 0: gamma moves by the decay alone."""

        def on_train_begin(self, logs=None):
            self.model.optimizer.learning_rate = 0.0

    decay = gamma_decay.DecoupledGammaDecay(
        1.0, batch_size=32, reference_batch_size=8
    )
    rates = iter([float(schedule(step)) for step in range(5)])
    decay._rate_now = lambda: next(rates)
    x = np.ones((8, 4), "float32")
    made.fit(x, x[:, :1], batch_size=2, verbose=0, callbacks=[Rate(), decay])
    expected = np.prod(
        [1 - 2 * float(schedule(s)) * (1 / 8 - 1 / 32) for s in range(4)]
    )
    np.testing.assert_allclose(made.layers[1].gamma, [expected] * 3, rtol=1e-5)


def test_the_decoupled_decay_reads_the_optimizers_rate():
    made = batch_norm_model()
    made.compile(keras.optimizers.SGD(0.25), "mse", jit_compile=False)
    decay = gamma_decay.DecoupledGammaDecay(
        batch_size=8, reference_batch_size=4
    )
    decay.set_model(made)
    decay.on_train_begin()
    decay.on_train_batch_begin(0)
    decay.on_train_batch_end(0)  # no update yet
    np.testing.assert_array_equal(made.layers[1].gamma, [1, 1, 1])
    made.optimizer.iterations.assign(1)
    decay.on_train_batch_end(1)
    expected = 1 - 2 * 0.25 * 0.375 * (1 / 4 - 1 / 8)
    np.testing.assert_allclose(made.layers[1].gamma, [expected] * 3, rtol=1e-6)


def test_the_decoupled_decay_follows_a_rate_that_is_set_by_epoch():
    made = batch_norm_model()
    made.compile(keras.optimizers.SGD(1e-7), "mse", jit_compile=False)
    decay = gamma_decay.DecoupledGammaDecay(
        1e5 / (1 / 4 - 1 / 8), batch_size=8, reference_batch_size=4
    )
    rates = keras.callbacks.LearningRateScheduler(lambda i: 1e-7 * (i + 1))
    x = np.ones((4, 4), "float32")
    made.fit(x, x[:, :1], epochs=2, verbose=0, callbacks=[rates, decay])
    expected = (1 - 2e-2) * (1 - 4e-2)
    np.testing.assert_allclose(made.layers[1].gamma, [expected] * 3, rtol=1e-4)


@pytest.mark.parametrize("frozen", [False, True])
def test_the_decoupled_decay_follows_updates_not_batches(frozen):
    made = batch_norm_model()
    made.layers[1].trainable = not frozen
    # The rate is as good as 0: gamma moves by the decay alone.
    rate = 1e-7
    optimizer = tf_lamb.LARS(rate, gradient_accumulation_steps=4)
    made.compile(optimizer, "mse", jit_compile=False)
    strength = 1e-2 / rate
    decay = gamma_decay.DecoupledGammaDecay(
        strength / (1 / 4 - 1 / 8), batch_size=8, reference_batch_size=4
    )
    x = np.ones((16, 4), "float32")
    made.fit(x, x[:, :1], batch_size=2, verbose=0, callbacks=[decay])
    expected = 1 if frozen else (1 - 2e-2) ** 2  # eight batches, two updates
    np.testing.assert_allclose(made.layers[1].gamma, [expected] * 3, rtol=1e-4)


def test_the_decoupled_decay_refuses_hidden_updates():
    made = batch_norm_model()
    made.compile("sgd", "mse", steps_per_execution=2)
    decay = gamma_decay.DecoupledGammaDecay(
        batch_size=8, reference_batch_size=4
    )
    decay.set_model(made)
    with pytest.raises(ValueError, match="steps_per_execution = 2: expected 1"):
        decay.on_train_begin()


def test_parts_do_not_overlap_and_batches_carry_the_population():
    pixels = np.arange(40, dtype="uint8").reshape(-1, 1, 1, 1)
    names = tuple("ab")
    whole = LabelledImages(pixels, np.arange(40) % 2, names)
    parts = data.split(whole, whole, 8)
    one, other = parts.train.images.ravel(), parts.tuning.images.ravel()
    assert len(one) == len(other) == 8 and not set(one) & set(other)
    refusal(lambda: data.split(whole, whole, 21), "--train_images 21", "40")

    batches = data.Batches(parts.train, 3, 4, seed=1, population=8)
    assert len(batches) == 4
    x, labels, weights = batches[0]
    assert x.shape == (11, 1, 1, 1)
    np.testing.assert_array_equal(x[3:], parts.train.images)
    np.testing.assert_array_equal(weights, [1] * 3 + [0] * 8)
    of_epoch = [batches[i][0][:3].ravel() for i in (0, 1)]
    assert len(set(np.concatenate(of_epoch))) == 6  # without replacement
    again = data.Batches(parts.train, 3, 4, seed=1, population=8)
    np.testing.assert_array_equal(again[3][0], batches[3][0])
    for image, label in zip(x[:3].ravel(), labels[:3]):
        place = list(one).index(image)
        assert parts.train.labels[place] == label
