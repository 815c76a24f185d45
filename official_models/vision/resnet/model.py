"""ResNets for ImageNet, for CIFAR and digits, and a nine-layer one.

Axes: B batch, H height, W width, C channels.

Every batch norm's variables have `batch_norm` in their path, such as
`stage_1/block_0/batch_norm_1/gamma`, and the only bias is `dense/bias`, so that
("batch_norm", "bias") excludes from weight decay and layer adaptation what
LARS and LAMB exclude.

References:
    He et al. 2015 (arXiv:1512.03385)
    Goyal et al. 2017 (arXiv:1706.02677), section 5.1: the last gamma is 0
    D. Page 2018, "How to train your ResNet"
        (https://github.com/davidcpage/cifar10-fast): the nine-layer network
"""

import dataclasses

import keras
from keras import initializers, layers

from official_models.common import ops
from official_models.common.layer import functional, seed_of
from official_models.vision.resnet.blocks import ConvNorm, PooledStage, Stage
from official_models.vision.resnet.layers import (
    Patches,
    ResNetConfig,
    register,
    regularizer,
)

__all__ = [
    "NETWORKS",
    "SmoothedCrossEntropy",
    "build",
    "cross_entropy",
    "metrics",
]


@dataclasses.dataclass(frozen=True)
class Network:
    """One network: its kind, and how many residual blocks each stage has.

    Args:
        kind: "imagenet" (7x7 stem of stride 2, max pool, four stages),
            "cifar" (3x3 stem, three stages) or "davidnet".
        blocks: of each stage.
        bottleneck: blocks of 1x1, 3x3, 1x1 in place of 3x3, 3x3.
    """

    kind: str
    blocks: tuple[int, ...] = ()
    bottleneck: bool = False


NETWORKS = {
    "resnet18": Network("imagenet", (2, 2, 2, 2)),
    "resnet34": Network("imagenet", (3, 4, 6, 3)),
    "resnet50": Network("imagenet", (3, 4, 6, 3), bottleneck=True),
    "resnet101": Network("imagenet", (3, 4, 23, 3), bottleneck=True),
    "resnet152": Network("imagenet", (3, 8, 36, 3), bottleneck=True),
    # Depth 6 n + 2.
    **{
        f"resnet{6 * n + 2}_cifar": Network("cifar", (n, n, n))
        for n in (1, 2, 3, 5, 7, 9, 18)
    },
    "davidnet": Network("davidnet"),
}


def build(
    name: str,
    *,
    image_size: int | tuple[int, int] | None,
    channels: int = 3,
    num_classes: int,
    width: int | None = None,
    version: str = "v1.5",
    shortcut: str | None = None,
    patch: int = 1,
    norm_momentum: float = 0.9,
    norm_epsilon: float = 1e-5,
    l2: float = 0.0,
    zero_gamma: bool = True,
    synchronized: bool = False,
    seed: int = 0,
    dtype=None,
) -> keras.Model:
    """A network from images to logits.

    Args:
        name: one of `NETWORKS`.
        image_size: side, or height and width, in pixels; None for any.
        channels: C of the images, 1 or more.
        num_classes: K, 1 or more.
        width: channels of the first stage, doubled from stage to stage; None
            for the published 64, or 16 of the CIFAR networks.
        version: where a bottleneck strides: "v1.5", its 3x3, or "v1", its
            first 1x1, as in He et al. and `keras.applications.ResNet50`.
        shortcut: "A" or "B" of He et al., section 4.1; None is A for CIFAR
            (their section 4.2) and B for ImageNet.
        patch: side of the squares of pixels that become one pixel of
            patch^2 C channels before the first convolution, 1 or more; it
            divides the image's size.
        norm_momentum: of the batch norms' running statistics, in [0, 1).
        norm_epsilon: added to the batch norms' variance.
        l2: L2 penalty in the loss, 0 for an optimizer that decays weights
            (`ResNetConfig`).
        zero_gamma: start residual blocks as identities (not in "davidnet",
            whose blocks end in a relu).
        synchronized: batch statistics over all replicas (`BatchNorm`).
        seed: fixes the initial weights.
        dtype: Keras dtype policy; None is the global one.

    Returns:
        A model from images [B, H, W, C] to logits [B, K], float32 also in
        mixed precision.

    Raises:
        ValueError: a value is out of range; the message begins with its name.
    """
    config = ResNetConfig(
        norm_momentum, norm_epsilon, l2, zero_gamma, synchronized
    )
    size = _check_size(name, image_size)
    shared = {"config": config, "dtype": dtype}
    _one_of("network", name, NETWORKS)
    _one_of("version", version, ("v1.5", "v1"))
    _one_of("shortcut", shortcut, (None, "A", "B"))
    for what, value in (
        ("channels", channels),
        ("num_classes", num_classes),
        ("width", 1 if width is None else width),
        ("patch", patch),
    ):
        if value < 1:
            raise ValueError(f"{what}: got {value}, expected 1 or more")

    if any(n % patch if n else patch > 1 for n in size):
        raise ValueError(
            f"patch: got {patch}, expected a divisor of the image's size {size}"
        )

    def part(cls, name, *args):
        return cls(*args, name=name, seed=seed_of(f"{seed}/{name}"), **shared)

    network = NETWORKS[name]
    x = images = keras.Input((*size, channels), name="images")
    if patch > 1:
        x = Patches(patch, name="patches", dtype=dtype)(x)
    if network.kind == "davidnet":
        x = _nine_layers(part, width or 64, x)
    else:
        x = _residual(part, network, width, version, shortcut, x)
    logits = _head(network, x, num_classes, seed, l2)
    return functional(images, logits, name=name, dtype_policy=dtype)


def _head(network, x, num_classes, seed, l2):
    """Pool and linear layer, from feature maps to logits [B, K]."""
    # Float32 costs nothing here, and logits want it.
    dtype = "float64" if "float64" in str(x.dtype) else "float32"
    nine = network.kind == "davidnet"
    seed = seed_of(f"{seed}/dense")
    if nine:
        initializer = initializers.VarianceScaling(
            1 / 3, "fan_in", "uniform", seed=seed
        )
        pool = layers.GlobalMaxPooling2D
    else:
        initializer = initializers.RandomNormal(stddev=0.01, seed=seed)
        pool = layers.GlobalAveragePooling2D
    logits = layers.Dense(
        num_classes,
        use_bias=not nine,
        kernel_initializer=initializer,
        kernel_regularizer=regularizer(l2),
        name="dense",
        dtype=dtype,
    )(pool(name="pool", dtype=dtype)(x))
    if nine:
        logits = layers.Rescaling(0.125, name="scale", dtype=dtype)(logits)
    return logits


def _check_size(name, image_size):
    size = image_size
    if size is None or isinstance(size, int):
        size = (size, size)
    smallest = 8 if name == "davidnet" else 1
    if any(n is not None and n < smallest for n in size):
        raise ValueError(
            f"image_size: got {image_size}, expected {smallest} pixels or more"
        )
    return size


def _one_of(name, value, allowed):
    if value not in allowed:
        raise ValueError(
            f"{name}: got {value!r}, expected one of "
            f"{', '.join(str(item) for item in allowed)}"
        )


def _residual(part, network, width, version, shortcut, x):
    """Stem and stages of He et al., up to the last feature map."""
    imagenet = network.kind == "imagenet"
    width = width or (64 if imagenet else 16)
    if imagenet:
        x = part(ConvNorm, "stem", width, 7, 2)(x)
        # Zeros are no more than any output of the relu.
        x = layers.ZeroPadding2D(1, name="stem_pad")(x)
        x = layers.MaxPooling2D(3, 2, name="stem_pool")(x)
    else:
        x = part(ConvNorm, "stem", width, 3, 1)(x)
    for i, count in enumerate(network.blocks):
        blocks = [
            _convs(
                width * 2**i,
                2 if i and not j else 1,
                network.bottleneck,
                version,
            )
            for j in range(count)
        ]
        kind = shortcut or ("B" if imagenet else "A")
        x = part(Stage, f"stage_{i + 1}", blocks, kind)(x)
    return x


def _convs(filters, stride, bottleneck, version):
    """(filters, kernel size, stride) of each convolution of a block."""
    if not bottleneck:
        return ((filters, 3, stride), (filters, 3, 1))
    first, second = (stride, 1) if version == "v1" else (1, stride)
    return ((filters, 1, first), (filters, 3, second), (4 * filters, 1, 1))


def _nine_layers(part, width, x):
    """The nine-layer network, up to the last feature map."""
    x = part(ConvNorm, "prep", width, 3, 1)(x)
    x = part(PooledStage, "layer_1", 2 * width, True)(x)
    x = part(PooledStage, "layer_2", 4 * width, False)(x)
    return part(PooledStage, "layer_3", 8 * width, True)(x)


@register
def cross_entropy(y_true, y_pred, label_smoothing: float = 0.0):
    """Cross-entropy of softmax(logits) to smoothed labels, for each example.

    The target is 1 - s + s / K at the label and s / K elsewhere.

    Args:
        y_true: labels, whole numbers in [0, K), [B] or [B, 1].
        y_pred: logits [B, K].
        label_smoothing: s in [0, 1).

    Returns:
        [B], in nats, the dtype of the logits.

    References:
        Szegedy et al. 2016 (arXiv:1512.00567), section 7
    """
    log_probability = ops.log_softmax(y_pred, axis=-1)
    num_classes = y_pred.shape[-1]
    target = ops.one_hot(
        ops.reshape(ops.cast(y_true, "int32"), (-1,)),
        num_classes,
        dtype=y_pred.dtype,
    )
    target = target * (1 - label_smoothing) + label_smoothing / num_classes
    return -ops.sum(target * log_probability, axis=-1)


def check_label_smoothing(value: float) -> None:
    """Refuses a share that is not in [0, 1).

    Raises:
        ValueError: names `label_smoothing`.
    """
    if not 0 <= value < 1:
        raise ValueError(
            f"label_smoothing: got {value!r}, expected 0 <= label_smoothing < 1"
        )


@register
class SmoothedCrossEntropy(keras.losses.Loss):
    """`cross_entropy` as a loss: its mean over the batch.

    Args:
        label_smoothing: s in [0, 1).

    Raises:
        ValueError: it is outside.
    """

    def __init__(
        self,
        label_smoothing: float = 0.0,
        name: str = "cross_entropy",
        **kwargs,
    ):
        check_label_smoothing(label_smoothing)
        super().__init__(name=name, **kwargs)
        self.label_smoothing = label_smoothing

    def call(self, y_true, y_pred):
        return cross_entropy(y_true, y_pred, self.label_smoothing)

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "label_smoothing": self.label_smoothing,
        }


def metrics() -> list[keras.metrics.Metric]:
    """Accuracy and cross-entropy (unsmoothed), for `weighted_metrics`."""
    return [
        keras.metrics.SparseCategoricalAccuracy(name="accuracy"),
        keras.metrics.MeanMetricWrapper(cross_entropy, name="cross_entropy"),
    ]
