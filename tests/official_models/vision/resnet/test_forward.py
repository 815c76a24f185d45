"""The networks against plain NumPy, under every Keras there is.

It needs nothing that Keras 2 or the JAX backend lacks.
"""

import zlib

import numpy as np
import pytest

from official_models.vision.resnet import model as resnet


def randomise(model) -> dict[str, np.ndarray]:
    """Gives each variable values of its path, the same under every Keras."""
    values = {}
    for variable in model.variables:
        path = getattr(variable, "path", variable.name).split(":")[0]
        rng = np.random.default_rng(zlib.crc32(path.encode()))
        value = rng.normal(size=tuple(variable.shape))
        if path.endswith(("gamma", "moving_variance")):
            value = np.exp(0.2 * value)
        elif path.endswith("kernel"):
            value = value / np.sqrt(value[..., 0].size)
        variable.assign(value.astype("float32"))
        values[path] = value.astype("float32").astype("float64")
    return values


def conv(x, kernel, stride=1):
    """Cross-correlation with zeros around, [B, H, W, C]; one loop a tap."""
    size = len(kernel)
    margin = (size - 1) // 2
    x = np.pad(x, ((0, 0), (margin, margin), (margin, margin), (0, 0)))
    rows, columns = (
        -(-(n - size + 1) // stride) for n in (x.shape[1], x.shape[2])
    )
    y = 0
    for i in range(size):
        for j in range(size):
            part = x[:, i::stride, j::stride][:, :rows, :columns]
            y = y + part @ kernel[i, j]
    return y


def norm(x, v, path):
    mean, variance = v[f"{path}/moving_mean"], v[f"{path}/moving_variance"]
    x = (x - mean) / np.sqrt(variance + 1e-5)
    return x * v[f"{path}/gamma"] + v[f"{path}/beta"]


def relu(x):
    return np.maximum(x, 0)


def pool(x):
    """Max of 2 x 2."""
    b, h, w, c = x.shape
    return x.reshape(b, h // 2, 2, w // 2, 2, c).max((2, 4))


def cifar_forward(v, x, shortcut):
    """ResNet-8: three blocks of two 3x3 convolutions."""
    x = relu(norm(conv(x, v["stem/conv/kernel"]), v, "stem/batch_norm"))
    for stage in (1, 2, 3):
        block, stride = f"stage_{stage}/block_0", 1 if stage == 1 else 2
        y = conv(x, v[f"{block}/conv_1/kernel"], stride)
        y = relu(norm(y, v, f"{block}/batch_norm_1"))
        y = norm(
            conv(y, v[f"{block}/conv_2/kernel"]), v, f"{block}/batch_norm_2"
        )
        if stride == 2 and shortcut == "B":
            x = conv(x, v[f"{block}/shortcut_conv/kernel"], 2)
            x = norm(x, v, f"{block}/shortcut_batch_norm")
        elif stride == 2:
            x = x[:, ::2, ::2]
            x = np.concatenate([x, np.zeros_like(x)], -1)
        x = relu(x + y)
    return x.mean((1, 2)) @ v["dense/kernel"] + v["dense/bias"]


def nine_layer_forward(v, x):
    x = relu(norm(conv(x, v["prep/conv/kernel"]), v, "prep/batch_norm"))
    for name in ("layer_1", "layer_2", "layer_3"):
        x = norm(conv(x, v[f"{name}/conv/kernel"]), v, f"{name}/batch_norm")
        x = pool(relu(x))
        if name == "layer_2":
            continue
        y = x
        for i in (1, 2):
            y = conv(y, v[f"{name}/block/conv_{i}/kernel"])
            y = relu(norm(y, v, f"{name}/block/batch_norm_{i}"))
        x = x + y
    return x.max((1, 2)) @ v["dense/kernel"] * 0.125


@pytest.mark.parametrize("shortcut", ["A", "B"])
@pytest.mark.parametrize("size", [8, 9])
def test_cifar_network_against_numpy(shortcut, size):
    model = resnet.build(
        "resnet8_cifar",
        image_size=size,
        channels=1,
        num_classes=5,
        width=4,
        shortcut=shortcut,
    )
    values = randomise(model)
    x = np.random.default_rng(0).normal(size=(3, size, size, 1))
    expected = cifar_forward(values, x, shortcut)
    actual = np.asarray(model(x.astype("float32")))
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


def test_nine_layers_against_numpy():
    model = resnet.build("davidnet", image_size=8, num_classes=5, width=4)
    values = randomise(model)
    x = np.random.default_rng(0).normal(size=(3, 8, 8, 3))
    actual = np.asarray(model(x.astype("float32")))
    expected = nine_layer_forward(values, x)
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


def test_training_moves_the_statistics():
    """By a tenth of the way to those of the batch; logits are the batch's."""
    model = resnet.build(
        "resnet8_cifar", image_size=8, channels=1, num_classes=5, width=4
    )
    x = np.random.default_rng(0).normal(size=(6, 8, 8, 1)).astype("float32")
    before = randomise(model)
    model(x, training=True)
    after = {
        getattr(v, "path", v.name).split(":")[0]: np.asarray(v)
        for v in model.variables
    }
    seen = conv(x.astype("float64"), before["stem/conv/kernel"])
    for name, batch in (
        ("moving_mean", seen.mean((0, 1, 2))),
        ("moving_variance", seen.var((0, 1, 2))),
    ):
        path = f"stem/batch_norm/{name}"
        expected = 0.9 * before[path] + 0.1 * batch
        np.testing.assert_allclose(after[path], expected, rtol=1e-5, atol=1e-6)
    unmoved = [p for p in before if "moving" not in p]
    for path in unmoved:
        np.testing.assert_array_equal(after[path], before[path])


def test_every_norm_is_excluded_by_name():
    model = resnet.build("resnet8_cifar", image_size=8, num_classes=2)
    paths = [
        getattr(v, "path", v.name).split(":")[0]
        for v in model.trainable_variables
    ]
    named = {p for p in paths if "batch_norm" in p or "bias" in p}
    assert named == {p for p in paths if p.endswith(("gamma", "beta", "bias"))}
    assert "stage_1/block_0/batch_norm_1/gamma" in named
    assert "stage_1/block_0/conv_1/kernel" in paths
