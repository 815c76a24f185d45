"""The blocks of ResNets: convolution with norm, residual blocks, stages.

Axes: B batch, H height, W width, C channels.

References:
    He et al. 2015 (arXiv:1512.03385)
"""

from keras import layers

from official_models.common import ops
from official_models.vision.resnet.layers import ResNetLayer, register


def maps_of(channels: int) -> tuple:
    """The shape of feature maps [B, H, W, C] of which only C is known."""
    return (None, None, None, channels)


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
        self.pool = layers.MaxPooling2D(2, dtype=self.dtype_policy)
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
