"""What ResNets are built of: configuration, convolution, batch norm, patches.

Axes: B batch, H height, W width, C channels.

References:
    He et al. 2015 (arXiv:1512.03385)
    Ioffe, Szegedy 2015 (arXiv:1502.03167)
"""

import dataclasses
from typing import ClassVar

import keras
from keras import initializers, layers

from official_models.common import ops
from official_models.common.layer import (
    Config,
    ConfiguredLayer,
    registration,
    seed_of,
)
from tf_lamb import check

register = registration("tf_lamb_models.resnet")


@register
@dataclasses.dataclass(frozen=True)
class ResNetConfig(Config):
    """What all layers of one ResNet share.

    Args:
        norm_momentum: of the batch norms' running statistics, in [0, 1).
        norm_epsilon: added to the batch norms' variance, more than 0.
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

    norm_momentum: float = 0.9
    norm_epsilon: float = 1e-5
    l2: float = 0.0
    zero_gamma: bool = True
    synchronized: bool = False

    checks: ClassVar = {
        "norm_momentum": check.decay_rate,
        "norm_epsilon": check.positive,
        "l2": check.non_negative,
        "zero_gamma": check.flag,
        "synchronized": check.flag,
    }


def regularizer(l2: float):
    """l2 / 2 times the sum of squares, or None for 0."""
    return keras.regularizers.L2(l2 / 2) if l2 else None


class ResNetLayer(ConfiguredLayer):
    """A layer of a ResNet, whose `config` is a `ResNetConfig`.

    Each has another seed, because layers are made in `__init__`, where they
    have no path yet.
    """

    def seed_for(self, name: str) -> int:
        """The seed of a layer that this one makes."""
        return seed_of(f"{self.seed}/{name}")

    def child(self, cls: type, *args, name: str, **kwargs):
        """Makes a layer inside this one, by default with a seed of its own."""
        shared = {"name": name, "seed": self.seed_for(name)}
        return super().child(cls, *args, **{**shared, **kwargs})

    def add_conv(self, name: str, filters: int, kernel_size: int, stride: int):
        """Makes a convolution without bias inside this one."""
        return Conv(
            filters,
            kernel_size,
            stride,
            l2=self.config.l2,
            seed=self.seed_for(name),
            name=name,
            dtype=self.dtype_policy,
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

    @property
    def momentum(self) -> float:
        """Of the running means, as Keras' own layer has it."""
        return self.config.norm_momentum

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
        step = (value - variable) * (1 - self.config.norm_momentum)
        ops.assign_statistic(self, variable, variable + step)

    def call(self, x, training=False):
        if training and not self.config.synchronized:
            fused = ops.fused_batch_norm(
                x, self.gamma, self.beta, self.config.norm_epsilon
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
        scale = ops.rsqrt(variance + self.config.norm_epsilon) * self.gamma
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
