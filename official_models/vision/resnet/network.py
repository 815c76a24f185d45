"""The flags of a ResNet beside its recipe's, and the compiled model."""

import keras
from absl import flags

from official_models.common import optimizers, strategies
from official_models.common.errors import InputError
from official_models.common.flags import naming_the_flag
from official_models.vision.resnet import model as resnet

FLAGS = flags.FLAGS
METRICS = ("accuracy", "cross_entropy")
_EXCLUSIONS = ("batch_norm", "bias")


def define_flags() -> None:
    """Defines the flags."""
    flags.DEFINE_enum(
        "version", "v1.5", ["v1.5", "v1"], "Where a bottleneck strides."
    )
    flags.DEFINE_float(
        "norm_momentum", 0.9, "Momentum of batch norms' running statistics."
    )
    flags.DEFINE_float(
        "norm_epsilon", 1e-5, "Added to the variance in batch norms."
    )
    flags.DEFINE_boolean(
        "zero_gamma", True, "Start residual blocks as identities."
    )
    flags.DEFINE_boolean(
        "sync_batch_norm", False, "Batch statistics over all replicas."
    )


def make_model(
    image_shape: tuple[int, int, int],
    num_classes: int,
    total_steps: int,
    steps_per_epoch: float,
) -> keras.Model:
    """The compiled model of the flags.

    Args:
        image_shape: (H, W, C).
        num_classes: of the labels.
        total_steps: updates of the run.
        steps_per_epoch: updates of an epoch.

    Raises:
        InputError: a flag's value is out of range.
    """
    if FLAGS.l2 and FLAGS.weight_decay:
        raise InputError(
            f"--l2 {FLAGS.l2:g}: the optimizer decays weights already; give "
            "--weight_decay 0 or --l2 0"
        )
    with naming_the_flag():
        model = _network(image_shape, num_classes)
        loss = resnet.SmoothedCrossEntropy(FLAGS.label_smoothing)
        paths = " ".join(v.path for v in model.trainable_variables)
        # The nine-layer network has no bias.
        FLAGS.set_default(
            "exclude_from_weight_decay", [n for n in _EXCLUSIONS if n in paths]
        )
        optimizer = optimizers.from_flags(total_steps, steps_per_epoch)
        strategies.shard_state(optimizer)
        optimizers.build(optimizer, model.trainable_variables)
    model.compile(
        optimizer=optimizers.scaled(optimizer),
        loss=loss,
        weighted_metrics=resnet.metrics(),
        **strategies.compile_arguments(),
    )
    return model


def _network(
    image_shape: tuple[int, int, int], num_classes: int
) -> keras.Model:
    height, width, channels = image_shape
    network = resnet.NETWORKS[FLAGS.network]
    if FLAGS.version != "v1.5" and not network.bottleneck:
        raise InputError(
            f"--version {FLAGS.version}: for networks of bottlenecks, such as "
            f"resnet50, not {FLAGS.network}"
        )
    if not FLAGS.zero_gamma and network.kind == "davidnet":
        raise InputError(
            "--nozero_gamma: not for davidnet, in which no gamma starts from 0"
        )
    return resnet.build(
        FLAGS.network,
        image_size=(height, width),
        channels=channels,
        num_classes=num_classes,
        width=FLAGS.width,
        version=FLAGS.version,
        norm_momentum=FLAGS.norm_momentum,
        norm_epsilon=FLAGS.norm_epsilon,
        l2=FLAGS.l2,
        zero_gamma=FLAGS.zero_gamma,
        synchronized=FLAGS.sync_batch_norm,
        seed=FLAGS.seed,
        dtype=FLAGS.dtype,
    )
