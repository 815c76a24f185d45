"""The layers of ResNets: batch norm, residual blocks, stages.

Axes: B batch, H height, W width, C channels.

References:
    He et al. 2015 (arXiv:1512.03385)
    Ioffe, Szegedy 2015 (arXiv:1502.03167)
"""

import dataclasses
import zlib

import keras
from keras import initializers, layers

from official_models.common import ops

register = keras.saving.register_keras_serializable(package="tf_lamb_models")


@dataclasses.dataclass(frozen=True)
class LayerConfig:
    """What all layers of one ResNet share.

    Args:
        momentum: of the batch norms' running statistics, in [0, 1).
        epsilon: added to the batch norms' variance, more than 0.
        l2: the loss gets l2 / 2 times the sum of squares of the convolutions'
            and the last layer's kernels, whose gradient is l2 times the
            kernel; 0 for an optimizer that decays weights itself.
        zero_gamma: start residual blocks as identities: the last gamma of each
            is 0.
        synchronized: batch norms take their statistics over all replicas of a
            `tf.distribute` strategy, not over each one's own part of a batch.

    Raises:
        ValueError: a value is out of range.
    """

    momentum: float = 0.9
    epsilon: float = 1e-5
    l2: float = 0.0
    zero_gamma: bool = True
    synchronized: bool = False

    def __post_init__(self):
        for name, valid, expected in (
            ("momentum", 0 <= self.momentum < 1, "0 <= momentum < 1"),
            ("epsilon", self.epsilon > 0, "more than 0"),
            ("l2", self.l2 >= 0, "0 or more"),
        ):
            if not valid:
                raise ValueError(
                    f"{name}: got {getattr(self, name)!r}, expected {expected}"
                )


def regularizer(l2: float):
    """l2 / 2 times the sum of squares, or None for 0."""
    return keras.regularizers.L2(l2 / 2) if l2 else None


def maps_of(channels: int) -> tuple:
    """The shape of feature maps [B, H, W, C] of which only C is known."""
    return (None, None, None, channels)


def seed_of(seed: int, name: str) -> int:
    """A seed of its own for `name`, whatever else was seeded before."""
    return zlib.crc32(f"{seed}/{name}".encode()) >> 1


class ResNetLayer(layers.Layer):
    """A layer that knows the network's configuration and its own seed."""

    def __init__(self, config: LayerConfig, seed: int = 0, **kwargs):
        super().__init__(**kwargs)
        self.config = config
        self.seed = seed

    def child(self, cls, *args, name: str, **kwargs):
        """Makes a layer inside this one."""
        seed = seed_of(self.seed, name)
        kwargs.setdefault("dtype", self.compute_policy)
        return cls(*args, self.config, seed, name=name, **kwargs)

    @property
    def compute_policy(self) -> str:
        """The dtype policy, by the name that any Keras makes one of."""
        if self.compute_dtype == self.variable_dtype:
            return self.compute_dtype
        return f"mixed_{self.compute_dtype}"

    def add_conv(self, name: str, filters: int, kernel_size: int, stride: int):
        """Makes a convolution without bias inside this one."""
        return Conv(
            filters,
            kernel_size,
            stride,
            l2=self.config.l2,
            seed=seed_of(self.seed, name),
            name=name,
            dtype=self.compute_policy,
        )

    def add_norm(self, name: str, *, zero_gamma: bool = False):
        """Makes a batch norm inside this one."""
        return self.child(
            BatchNorm,
            name=name,
            zero_gamma=zero_gamma,
            # float32 in mixed precision.
            dtype=self.variable_dtype,
        )

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "config": dataclasses.asdict(self.config),
            "seed": self.seed,
        }

    @classmethod
    def from_config(cls, config):
        return super().from_config(
            {**config, "config": LayerConfig(**config["config"])}
        )


class Conv(layers.Conv2D):
    """A convolution without bias, padded alike on all sides.

    It gives ceil(size / stride) for an odd kernel. "same" in its place pads
    the end only where a stride of 2 meets an even size, and so disagrees with
    published weights.

    A new kernel is normal with variance 2 / (kernel_size^2 filters): He
    initialisation by the fan out, as PyTorch's and MLPerf's ResNets have it.
    """

    def __init__(self, filters, kernel_size, stride, *, l2, seed, **kwargs):
        self.margin = (kernel_size - 1) // 2 if stride > 1 else 0
        super().__init__(
            filters,
            kernel_size,
            stride,
            padding="valid" if stride > 1 else "same",
            use_bias=False,
            kernel_initializer=initializers.VarianceScaling(
                2.0, "fan_out", "untruncated_normal", seed=seed
            ),
            kernel_regularizer=regularizer(l2),
            **kwargs,
        )

    def call(self, x):
        if self.margin:
            both = (self.margin, self.margin)
            x = ops.pad(x, ((0, 0), both, both, (0, 0)))
        return super().call(x)


@register
class BatchNorm(ResNetLayer):
    """y = gamma (x - mean) / sqrt(var + epsilon) + beta, for each channel.

    Mean and variance are the batch's in training, else running means, kept as
    r <- momentum r + (1 - momentum) (batch's). The variance is the biased one
    in both. All of it is computed in the variable dtype, float32 in mixed
    precision.

    On TensorFlow one operation does it where it can; in its place
    var = mean((x - mean)^2) is written out because `tf.nn.moments`, and with it
    `keras.layers.BatchNormalization` on TensorFlow, stops the gradient of the
    mean: first derivatives come out right and second derivatives wrong.

    Under `tf.distribute` each replica normalises its own part of the batch,
    unless `synchronized`.
    """

    def __init__(self, *args, zero_gamma: bool = False, **kwargs):
        # Its own inputs must come uncast: it casts them, and its result back.
        super().__init__(*args, autocast=False, **kwargs)
        self.zero_gamma = zero_gamma

    def build(self, input_shape):
        size = input_shape[-1]
        self.gamma, self.beta = (
            self.add_weight(name=name, shape=(size,), initializer=initializer)
            for name, initializer in (
                ("gamma", "zeros" if self.zero_gamma else "ones"),
                ("beta", "zeros"),
            )
        )
        self.moving_mean = ops.add_statistic(self, "moving_mean", size, "zeros")
        self.moving_variance = ops.add_statistic(
            self, "moving_variance", size, "ones"
        )

    def _average(self, x):
        mean = ops.mean(x, axis=(0, 1, 2))  # [C]
        return ops.replica_mean(mean) if self.config.synchronized else mean

    def _update(self, variable, value):
        # Read as a difference, it is one read less than of the two products.
        step = (value - variable) * (1 - self.config.momentum)
        ops.assign_statistic(self, variable, variable + step)

    def call(self, x, training=False):
        if training and not self.config.synchronized:
            fused = ops.fused_batch_norm(
                x, self.gamma, self.beta, self.config.epsilon
            )
            if fused is not None:
                y, mean, variance = fused
                self._update(self.moving_mean, mean)
                self._update(self.moving_variance, variance)
                return y
        dtype = x.dtype
        x = ops.cast(x, self.variable_dtype)
        if training:
            mean = self._average(x)
            x = x - mean
            variance = self._average(x * x)
            self._update(self.moving_mean, mean)
            self._update(self.moving_variance, variance)
        else:
            x = x - self.moving_mean
            variance = self.moving_variance
        scale = ops.rsqrt(variance + self.config.epsilon) * self.gamma
        return ops.cast(x * scale + self.beta, dtype)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self) -> dict:
        return {**super().get_config(), "zero_gamma": self.zero_gamma}


@register
class Patches(layers.Layer):
    """Squares of pixels as one pixel: [B, H, W, C] to [B, H/n, W/n, n^2 C].

    The network behind it sees n^2 times fewer pixels, and costs as many times
    less.

    Args:
        size: n, a divisor of H and W.
    """

    def __init__(self, size: int, **kwargs):
        super().__init__(**kwargs)
        self.size = size

    def call(self, x):
        n = self.size
        height, width, channels = x.shape[1:]
        rows, columns = height // n, width // n
        x = ops.reshape(x, (-1, rows, n, columns, n, channels))
        x = ops.transpose(x, (0, 1, 3, 2, 4, 5))
        return ops.reshape(x, (-1, rows, columns, n * n * channels))

    def compute_output_shape(self, input_shape):
        batch, height, width, channels = input_shape
        n = self.size
        return (batch, height // n, width // n, n * n * channels)

    def get_config(self) -> dict:
        return {**super().get_config(), "size": self.size}


@register
class ConvNorm(ResNetLayer):
    """y = relu(norm(conv(x)))."""

    def __init__(
        self, filters: int, kernel_size: int, stride: int, *args, **kw
    ):
        super().__init__(*args, **kw)
        self.form = (filters, kernel_size, stride)
        self.conv = self.add_conv("conv", *self.form)
        self.norm = self.add_norm("batch_norm")

    def build(self, input_shape):
        ops.build_child(self.conv, maps_of(input_shape[-1]))
        ops.build_child(self.norm, maps_of(self.form[0]))

    def call(self, x, training=False):
        return ops.relu(self.norm(self.conv(x), training=training))

    def get_config(self) -> dict:
        filters, kernel_size, stride = self.form
        return {
            **super().get_config(),
            "filters": filters,
            "kernel_size": kernel_size,
            "stride": stride,
        }


@register
class ResidualBlock(ResNetLayer):
    """y = relu(shortcut(x) + norm(conv(... relu(norm(conv(x)))))).

    Args:
        convs: (filters, kernel_size, stride) of each convolution.
        shortcut: where the shape changes: "A", every stride-th pixel and zeros
            for the new channels, or "B", a 1x1 convolution and its norm.
        relu_first: y = x + relu(...) in place of relu(x + ...), as in the
            nine-layer network; the last gamma then starts from 1, because a
            relu of zeros has no gradient.
    """

    def __init__(self, convs, shortcut: str, *args, relu_first=False, **kwargs):
        super().__init__(*args, **kwargs)
        self.forms = tuple(tuple(form) for form in convs)
        self.shortcut = shortcut
        self.relu_first = relu_first
        self.filters = self.forms[-1][0]
        self.stride = 1
        for *_, stride in self.forms:
            self.stride *= stride
        self.convs = [
            self.add_conv(f"conv_{i}", *form)
            for i, form in enumerate(self.forms, 1)
        ]
        zero = self.config.zero_gamma and not relu_first
        self.norms = [
            self.add_norm(
                f"batch_norm_{i}", zero_gamma=zero and i == len(self.forms)
            )
            for i in range(1, len(self.forms) + 1)
        ]
        self.projection = None

    def build(self, input_shape):
        given = shape = maps_of(input_shape[-1])
        for conv, norm in zip(self.convs, self.norms):
            ops.build_child(conv, shape)
            shape = maps_of(conv.filters)
            ops.build_child(norm, shape)
        self.new_channels = self.filters - input_shape[-1]
        changes = self.new_channels or self.stride > 1
        if changes and self.shortcut == "B":
            self.projection = self.add_conv(
                "shortcut_conv", self.filters, 1, self.stride
            )
            self.projection_norm = self.add_norm("shortcut_batch_norm")
            ops.build_child(self.projection, given)
            ops.build_child(self.projection_norm, shape)

    def _shortcut(self, x, training):
        if self.projection is not None:
            x = self.projection(x)
            return self.projection_norm(x, training=training)
        if self.stride > 1:
            # Squares of one pixel: slices with a stride cost TensorFlow's CPU
            # kernels several times as much.
            x = ops.average_pool(x, 1, self.stride)
        if self.new_channels:
            none = (0, 0)
            x = ops.pad(x, (none, none, none, (0, self.new_channels)))
        return x

    def call(self, x, training=False):
        y = x
        for i, (conv, norm) in enumerate(zip(self.convs, self.norms), 1):
            y = norm(conv(y), training=training)
            if self.relu_first or i < len(self.convs):
                y = ops.relu(y)
        y = self._shortcut(x, training) + y
        return y if self.relu_first else ops.relu(y)

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "convs": self.forms,
            "shortcut": self.shortcut,
            "relu_first": self.relu_first,
        }


@register
class Stage(ResNetLayer):
    """Residual blocks one after the other; the first may stride.

    Args:
        blocks: for each, the `convs` of its `ResidualBlock`.
        shortcut: "A" or "B".
    """

    def __init__(self, blocks, shortcut: str, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.forms = tuple(blocks)
        self.shortcut = shortcut
        self.blocks = [
            self.child(ResidualBlock, convs, shortcut, name=f"block_{i}")
            for i, convs in enumerate(blocks)
        ]

    def build(self, input_shape):
        channels = input_shape[-1]
        for block in self.blocks:
            ops.build_child(block, maps_of(channels))
            channels = block.filters

    def call(self, x, training=False):
        for block in self.blocks:
            x = block(x, training=training)
        return x

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "blocks": self.forms,
            "shortcut": self.shortcut,
        }


@register
class PooledStage(ConvNorm):
    """A 3x3 convolution with norm and relu, a max pool of 2, a residual block.

    Args:
        filters: of all its convolutions.
        residual: whether the block is there.
    """

    def __init__(self, filters: int, residual: bool, *args, **kwargs):
        super().__init__(filters, 3, 1, *args, **kwargs)
        self.pool = layers.MaxPooling2D(2, dtype=self.compute_policy)
        self.block = None
        if residual:
            convs = [(filters, 3, 1)] * 2
            self.block = self.child(
                ResidualBlock, convs, "A", relu_first=True, name="block"
            )

    def build(self, input_shape):
        super().build(input_shape)
        if self.block is not None:
            ops.build_child(self.block, maps_of(self.form[0]))

    def call(self, x, training=False):
        x = self.pool(super().call(x, training=training))
        return x if self.block is None else self.block(x, training=training)

    def get_config(self) -> dict:
        config = super().get_config()
        del config["kernel_size"], config["stride"]
        return {**config, "residual": self.block is not None}
