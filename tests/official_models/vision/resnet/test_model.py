"""ResNets: sizes, published weights' form, losses, exclusions."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_lamb
from official_models.vision.resnet import layers
from official_models.vision.resnet import model as resnet
from tests.official_models.vision.resnet.test_forward import randomise


def small(name="resnet8_cifar", **changes):
    arguments = {"image_size": 8, "channels": 1, "num_classes": 3, "width": 4}
    return resnet.build(name, **{**arguments, **changes})


def trainable(model) -> int:
    return sum(int(np.prod(v.shape)) for v in model.trainable_variables)


@pytest.mark.parametrize(
    ("name", "count"),
    [  # Those of torchvision, whose running statistics are no parameters.
        ("resnet18", 11_689_512),
        ("resnet34", 21_797_672),
        ("resnet50", 25_557_032),
        ("resnet101", 44_549_160),
        ("resnet152", 60_192_808),
    ],
)
def test_published_counts(name, count, monkeypatch):
    # Drawing 60 million numbers is not what is tested.
    monkeypatch.setattr(
        layers.initializers, "VarianceScaling", lambda *a, **k: "zeros"
    )
    model = resnet.build(name, image_size=None, num_classes=1000)
    assert trainable(model) == count


@pytest.mark.parametrize(("n", "millions"), [(3, 0.27), (5, 0.46), (9, 0.85)])
def test_counts_of_the_cifar_networks(n, millions):
    """He et al., table 6, and the sum of what section 4.2 describes."""
    model = resnet.build(
        f"resnet{6 * n + 2}_cifar", image_size=32, num_classes=10
    )
    assert round(trainable(model) / 1e6, 2) == millions
    kernels = 9 * (3 * 16 + 2 * n * 16**2)
    kernels += 9 * (16 * 32 + (2 * n - 1) * 32**2)
    kernels += 9 * (32 * 64 + (2 * n - 1) * 64**2)
    norms = 2 * (16 + 2 * n * (16 + 32 + 64))
    assert trainable(model) == kernels + norms + 64 * 10 + 10


def test_v1_equals_the_resnet_of_keras_applications():
    """With its weights; the biases that ours lacks go into the means."""
    stock = keras.applications.ResNet50(
        weights=None,
        input_shape=(64, 64, 3),
        classes=7,
        classifier_activation=None,
    )
    ours = resnet.build(
        "resnet50",
        image_size=64,
        num_classes=7,
        version="v1",
        norm_epsilon=1.001e-5,
    )
    values = randomise(stock)
    places = {"stem/conv": "conv1_conv", "stem/batch_norm": "conv1_bn"}
    for stage, blocks in enumerate((3, 4, 6, 3), 1):
        for block in range(blocks):
            here = f"stage_{stage}/block_{block}"
            there = f"conv{stage + 1}_block{block + 1}"
            for i in (1, 2, 3):
                places[f"{here}/conv_{i}"] = f"{there}_{i}_conv"
                places[f"{here}/batch_norm_{i}"] = f"{there}_{i}_bn"
            places[f"{here}/shortcut_conv"] = f"{there}_0_conv"
            places[f"{here}/shortcut_batch_norm"] = f"{there}_0_bn"
    for variable in ours.variables:
        layer, name = variable.path.rsplit("/", 1)
        layer = places.get(layer, "predictions")
        value = values[f"{layer}/{name}"]
        if name == "moving_mean":
            value = value - values[f"{layer[:-2]}conv/bias"]
        variable.assign(value)
    x = np.random.default_rng(0).normal(size=(2, 64, 64, 3)).astype("float32")
    expected = np.asarray(stock(x))
    assert np.abs(expected).max() > 0.1
    # Fifty layers of random weights let logits grow.
    tolerance = 1e-4 * np.abs(expected).max()
    np.testing.assert_allclose(ours(x), expected, rtol=0, atol=tolerance)


def test_zero_gamma_is_the_last_of_each_block():
    zeros = {
        v.path
        for v in small("resnet18", image_size=32).variables
        if v.path.endswith("gamma") and not np.asarray(v).any()
    }
    assert zeros == {
        f"stage_{stage}/block_{block}/batch_norm_2/gamma"
        for stage in (1, 2, 3, 4)
        for block in (0, 1)
    }


def test_gammas_of_the_nine_layers_start_from_one():
    """relu(0) lets no gradient through, and there a relu comes last."""
    gammas = [
        np.asarray(v)
        for v in small("davidnet").variables
        if v.path.endswith("gamma")
    ]
    assert all((gamma == 1).all() for gamma in gammas)


def test_patches_shrink_what_the_stem_sees():
    model = small(image_size=8, patch=2)
    assert model.get_layer("stem").output.shape[1:3] == (4, 4)


def test_shapes_and_strides():
    model = small("resnet50", image_size=(224, 193), channels=3)
    shapes = [model.get_layer(f"stage_{i}").output.shape for i in (1, 2, 3, 4)]
    assert shapes == [
        *((None, 56, 49, 16), (None, 28, 25, 32)),
        *((None, 14, 13, 64), (None, 7, 7, 128)),
    ]
    for version, strides in (("v1", (2, 1, 1)), ("v1.5", (1, 2, 1))):
        model = small("resnet50", image_size=32, version=version)
        stage = model.get_layer("stage_2")
        found = tuple(conv.strides[0] for conv in stage.blocks[0].convs)
        assert found == strides
        assert all(
            conv.strides == (1, 1)
            for block in (stage.blocks[1], model.get_layer("stage_1").blocks[0])
            for conv in block.convs
        )
    assert small("resnet20_cifar", image_size=28).get_layer(
        "stage_3"
    ).output.shape == (None, 7, 7, 16)


@pytest.mark.parametrize("name", ["resnet8_cifar", "resnet18", "davidnet"])
def test_mixed_precision(name):
    model = small(name, dtype="mixed_bfloat16")
    x = np.random.default_rng(0).normal(size=(4, 8, 8, 1)).astype("float32")
    assert {v.dtype for v in model.variables} == {"float32"}
    logits = model(x, training=True)
    assert logits.dtype == tf.float32
    stage = model.layers[2 if name == "davidnet" else -3]
    assert stage.compute_dtype == "bfloat16"
    assert stage.output.dtype == "bfloat16"
    plain = small(name)(x, training=True)
    np.testing.assert_allclose(logits, plain, rtol=0.1, atol=0.02)


def test_seeds():
    a, b, other = small(seed=1), small(seed=1), small(seed=2)
    for u, v, w in zip(a.variables, b.variables, other.variables):
        np.testing.assert_array_equal(u, v)
        if u.path.endswith("kernel"):
            assert not np.array_equal(u, w)
    kernels = [
        np.asarray(block.convs[1].kernel)
        for block in small("resnet14_cifar").get_layer("stage_1").blocks
    ]
    assert not np.array_equal(*kernels)
    wide = small("resnet18", width=64).get_layer("stage_4").blocks[0]
    kernel = np.asarray(wide.convs[0].kernel)  # [3, 3, 256, 512]
    assert kernel.std() == pytest.approx((2 / (9 * 512)) ** 0.5, rel=0.01)


def test_exclusions_cover_gamma_beta_and_bias():
    model = small("resnet18", image_size=32)
    optimizer = tf_lamb.LAMB(
        weight_decay=0.1, exclude_from_weight_decay=["batch_norm", "bias"]
    )
    optimizer.build(model.trainable_variables)
    rows = [line.split() for line in optimizer.describe().splitlines()[1:]]
    assert len(rows) == len(model.trainable_variables)
    for path, _, decay, adapt in rows:
        name = path.rsplit("/", 1)[1]
        assert name in ("gamma", "beta", "bias", "kernel")
        assert (decay, adapt) == (
            ("yes",) * 2 if name == "kernel" else ("no",) * 2
        )


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_loss_equals_the_dense_one_of_keras(smoothing):
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 5, (7, 4)).astype("float32")
    labels = rng.integers(0, 4, 7)
    dense = keras.losses.CategoricalCrossentropy(
        from_logits=True, label_smoothing=smoothing
    )
    expected = dense(np.eye(4, dtype="float32")[labels], logits)
    ours = resnet.SmoothedCrossEntropy(smoothing)
    for shape in ((7,), (7, 1)):
        actual = ours(labels.reshape(shape), logits)
        np.testing.assert_allclose(actual, expected, rtol=1e-6)


def test_l2_is_half_the_sum_of_squares_of_the_kernels():
    model = small("resnet18", l2=0.3)
    kernels = [
        np.asarray(v)
        for v in model.trainable_variables
        if v.path.endswith("kernel")
    ]
    expected = 0.15 * sum(
        (kernel.astype("float64") ** 2).sum() for kernel in kernels
    )
    assert float(sum(model.losses)) == pytest.approx(expected, rel=1e-5)
    assert not small().losses


@pytest.mark.parametrize(
    ("name", "changes"),
    [("resnet18", {"shortcut": "B"}), ("davidnet", {"l2": 0.1})],
)
def test_saved_and_loaded(name, changes, tmp_path):
    model = small(name, dtype="mixed_bfloat16", norm_momentum=0.7, **changes)
    randomise(model)
    model.compile("sgd", resnet.SmoothedCrossEntropy(0.1))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert [v.path for v in loaded.variables] == [
        v.path for v in model.variables
    ]
    x = np.random.default_rng(0).normal(size=(2, 8, 8, 1)).astype("float32")
    np.testing.assert_array_equal(loaded(x), model(x))
    norms = (m.layers[1].norm for m in (model, loaded))
    assert [norm.config.norm_momentum for norm in norms] == [0.7, 0.7]
    assert loaded.loss.label_smoothing == 0.1
    assert len(loaded.losses) == len(model.losses)


def test_training_lowers_the_loss():
    rng = np.random.default_rng(0)
    y = np.arange(24) % 3
    x = rng.normal(size=(3, 8, 8, 1))[y] + 0.1 * rng.normal(size=(24, 8, 8, 1))
    model = small()
    loss = resnet.SmoothedCrossEntropy()
    before = float(loss(y, model(x, training=True)))
    sgd = keras.optimizers.SGD(0.3, momentum=0.9)
    model.compile(sgd, loss, run_eagerly=True)
    for _ in range(12):
        model.train_on_batch(x, y)
    assert before == pytest.approx(np.log(3), rel=0.2)
    assert float(loss(y, model(x, training=True))) < 0.6 * before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "resnet51"}, "network: got 'resnet51', expected one of .*50"),
        ({"version": "v2"}, "version: got 'v2', expected one of v1.5, v1"),
        ({"shortcut": "C"}, "shortcut: got 'C', expected one of None, A, B"),
        ({"width": 0}, "width: got 0, expected 1 or more"),
        ({"channels": 0}, "channels: got 0"),
        ({"num_classes": 0}, "num_classes: got 0"),
        ({"image_size": 0}, "image_size: got 0, expected 1 pixels or more"),
        ({"name": "davidnet", "image_size": (9, 7)}, r"got \(9, 7\), .* 8 pix"),
        (
            {"norm_momentum": 1.0},
            r"norm_momentum: expected a number in \[0, 1\), got 1.0",
        ),
        ({"norm_epsilon": 0.0}, "norm_epsilon: expected a number > 0, got 0.0"),
        ({"l2": -1.0}, "l2: expected a number >= 0, got -1.0"),
        ({"patch": 0}, "patch: got 0, expected 1 or more"),
        ({"patch": 3}, "patch: got 3, expected a divisor of the image's size"),
        ({"patch": 2, "image_size": None}, r"patch: got 2, .* \(None, None\)"),
    ],
)
def test_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        small(**changes)


def test_label_smoothing_refused():
    with pytest.raises(ValueError, match="label_smoothing: got 1.0"):
        resnet.SmoothedCrossEntropy(1.0)
