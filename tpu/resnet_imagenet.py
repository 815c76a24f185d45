r"""Trains a ResNet on ImageNet on a Cloud TPU by TPUEstimator (TF 2.15).

    python -m tpu.resnet_imagenet --use_tpu --tpu my-tpu --enable_lars \
        --data_dir gs://b/imagenet --model_dir gs://b/run \
        --train_batch_size 8192 --train_steps 14040 --precision bfloat16

Flags have the names of tensorflow/tpu's `resnet_main.py`. The records are
those of `python -m official_models.vision.datasets.imagenet.convert` or of the
published TPU format. Without `--use_tpu` it runs on this machine.
"""

import functools

import tensorflow as tf
from absl import flags, logging

from official_models.common.errors import InputError, run
from official_models.vision.datasets.imagenet import batches
from official_models.vision.resnet import model as resnet
from official_models.vision.resnet import recipes
from tpu import job, job_flags, training

tf1 = tf.compat.v1
FLAGS = flags.FLAGS
DEPTHS = (18, 34, 50, 101, 152)
# Goyal et al. 2017 (arXiv:1706.02677): 0.1 for 256 images, linear in the batch.
BASE_BATCH_SIZE = 256
SGD = {"base_learning_rate": 0.1, "warmup_epochs": 5.0}


def define_flags() -> None:
    """Defines this script's flags."""
    job_flags.define_flags(
        folder="model_dir",
        train_batch_size=1024,
        eval_batch_size=1024,
        learning_rate=None,
        weight_decay=None,
        exclusions=("batch_norm", "bias"),
        global_clipnorm=0.0,
    )
    flags.adopt_module_key_flags(job_flags)  # for --help
    flags.DEFINE_alias("num_cores", "num_tpu_cores")
    flags.DEFINE_string(
        "data_dir", None, "Folder of train-* and validation-*.", required=True
    )
    modes = ["train_and_eval", "train", "eval"]
    flags.DEFINE_enum("mode", modes[0], modes, "What to do.")
    flags.DEFINE_boolean("enable_lars", False, "The same as --optimizer lars.")
    flags.DEFINE_integer("train_steps", 112590, "Updates in all.", 1)
    flags.DEFINE_integer(
        "steps_per_eval", 5000, "Updates between evaluations.", 1
    )
    flags.DEFINE_float(
        "base_learning_rate",
        None,
        f"Peak rate at {BASE_BATCH_SIZE} images an update, linear in them; in "
        "place of --learning_rate.",
        0.0,
    )
    flags.DEFINE_float(
        "warmup_epochs",
        None,
        "Epochs that warm up; the --optimizer's own number if absent.",
        0.0,
    )
    for split in ("train", "eval"):
        flags.DEFINE_integer(
            f"num_{split}_images",
            None,
            "Images that --data_dir has to hold.",
            1,
        )
    _define_model_flags()


def _define_model_flags() -> None:
    flags.DEFINE_enum(
        "resnet_depth", "50", [str(n) for n in DEPTHS], "Layers of the network."
    )
    flags.DEFINE_integer(
        "width", None, "Channels of the network's first stage.", 1
    )
    flags.DEFINE_integer("image_size", 224, "Side of the images.", 1)
    flags.DEFINE_integer(
        "num_label_classes",
        None,
        "Number of logits; that of the records' classes if absent.",
        1,
    )
    flags.DEFINE_float(
        "label_smoothing",
        None,
        "Share of the target that all labels get alike, in [0, 1).",
        0.0,
    )
    flags.DEFINE_enum(
        "resize", "bilinear", ["bilinear", "bicubic"], "How images are resized."
    )
    flags.DEFINE_integer("shuffle_buffer", 10_000, "Records to draw from.", 1)
    flags.DEFINE_integer(
        "label_offset",
        0,
        "Added to the records' labels, which then are 1 to the number of "
        "classes; 1 for shards whose labels begin at 0.",
    )


def choose_optimizer() -> None:
    """Sets the optimizer and those of its flags that were not given.

    LAMB goes by the untuned rule, LARS by MLPerf's figures where they reach,
    momentum by Goyal et al.: `official_models.vision.resnet.recipes`.

    Raises:
        InputError: flags contradict each other.
    """
    if FLAGS.enable_lars:
        if FLAGS["optimizer"].present and FLAGS.optimizer != "lars":
            raise InputError(
                f"--optimizer {FLAGS.optimizer}: --enable_lars says lars; "
                "leave one out"
            )
        FLAGS.optimizer = "lars"
    batch, momentum = FLAGS.train_batch_size, FLAGS.optimizer == "momentum"
    smallest, largest = recipes.MLPERF_BATCHES
    mlperf = FLAGS.optimizer == "lars" and smallest <= batch <= largest
    chosen = recipes.choose(
        "mlperf-lars" if mlperf else "untuned",
        "imagenet",
        optimizer="sgd" if momentum else FLAGS.optimizer,
        global_batch_size=batch,
    )
    scale = batch / BASE_BATCH_SIZE
    if momentum:
        chosen["learning_rate"] = SGD["base_learning_rate"] * scale
        chosen["warmup_epochs"] = SGD["warmup_epochs"]
        chosen["weight_decay"] = chosen["l2"]
    if FLAGS.base_learning_rate is not None:
        if FLAGS["learning_rate"].present:
            raise InputError(
                f"--base_learning_rate {FLAGS.base_learning_rate:g}: expected "
                "it or --learning_rate, not both"
            )
        chosen["learning_rate"] = FLAGS.base_learning_rate * scale
    for name in (
        *("learning_rate", "warmup_epochs", "power", "end_learning_rate"),
        *("weight_decay", "label_smoothing"),
    ):
        FLAGS.set_default(name, chosen[name])


def take_l2() -> float:
    """Momentum's --weight_decay, an L2 penalty of the loss; 0 of others.

    The flag is 0 afterwards: what the loss has, the optimizer may not have.
    """
    if FLAGS.optimizer != "momentum":
        return 0.0
    l2, FLAGS.weight_decay = FLAGS.weight_decay, 0.0
    return l2


def warmup_steps(num_train_images: int) -> int:
    """Updates of --warmup_epochs; if not given, at most half of all.

    Raises:
        InputError: they are more than there are.
    """
    epochs, total = FLAGS.warmup_epochs, FLAGS.train_steps
    steps = round(epochs * num_train_images / FLAGS.train_batch_size)
    if not FLAGS["warmup_epochs"].present:
        return min(steps, total // 2)
    if steps > total:
        raise InputError(
            f"--warmup_epochs {epochs:g}: {steps} updates, --train_steps are "
            f"{total}; expected no more"
        )
    return steps


def open_images(reader: tuple[int, int] = (0, 1)) -> batches.ImageNetRecords:
    """The images of the flags for one of several hosts.

    Args:
        reader: (index, count) of the host.

    Raises:
        InputError: the records cannot be had, or a flag's value is out of
            range.
    """
    return batches.ImageNetRecords(
        FLAGS.data_dir,
        FLAGS.train_batch_size,
        FLAGS.seed,
        image_size=FLAGS.image_size,
        resize=FLAGS.resize,
        evaluation_batch_size=FLAGS.eval_batch_size,
        reader=reader,
        shuffle_buffer=FLAGS.shuffle_buffer,
        label_offset=FLAGS.label_offset,
    )


def check_images(images: batches.ImageNetRecords) -> None:
    """Holds --num_*_images and --num_label_classes against the records.

    Raises:
        InputError: they are of another set.
    """
    for name, found in (
        ("num_train_images", images.num_train),
        ("num_eval_images", images.num_evaluation),
    ):
        if FLAGS[name].value not in (None, found):
            raise InputError(
                f"--{name} {FLAGS[name].value}: {FLAGS.data_dir} has {found}; "
                "correct it, or leave it out"
            )
    classes = FLAGS.num_label_classes
    if classes is not None and classes < images.num_classes:
        raise InputError(
            f"--num_label_classes {classes}: {FLAGS.data_dir} has "
            f"{images.num_classes} classes; expected no fewer"
        )


def make_input_fn(*, train: bool):
    """Batches ({"images"}, {"labels", "weights"}), for a TPUEstimator.

    Each host has its part of a batch. Training begins at the batch after those
    of the last checkpoint; a batch is a function of records, seed and step.
    An evaluation gives each image once and fills up its last batch with images
    of weight 0.
    """
    opened = functools.cache(open_images)
    bfloat16 = FLAGS.precision == "bfloat16"

    def named(images, labels, weights=None):
        if bfloat16:
            # Half of the bytes on their way to the TPU.
            images = tf.cast(images, tf.bfloat16)
        if weights is None:
            weights = tf.ones_like(labels, tf.float32)
        return {"images": images}, {"labels": labels, "weights": weights}

    def input_fn(params):
        images = opened(job.host_of(params))
        if not train:
            return images.evaluation().map(named)
        first = job.first_step(FLAGS.model_dir)
        return images.train(first, first + (1 << 31)).map(named)

    return input_fn


def eval_metrics(logits: tf.Tensor, labels: dict) -> tuple:
    """Top-1, top-5 and cross-entropy, for a `TPUEstimatorSpec`.

    Args:
        logits: float32 [B, K].
        labels: "labels" int32 [B] and "weights" float32 [B].
    """
    correct, most = labels["labels"], min(5, logits.shape[-1])
    values = {
        "top_1_accuracy": tf.equal(tf.argmax(logits, -1, tf.int32), correct),
        "top_5_accuracy": tf.math.in_top_k(correct, logits, most),
        "cross_entropy": resnet.cross_entropy(correct, logits),
    }
    values = {name: tf.cast(v, tf.float32) for name, v in values.items()}

    def metric_fn(weights, **values):
        return {
            name: tf1.metrics.mean(value, weights)
            for name, value in values.items()
        }

    return metric_fn, {"weights": labels["weights"], **values}


def build_model(num_classes: int, l2: float):
    """The network of the flags.

    Raises:
        InputError: a flag's value is out of range.
    """
    try:
        resnet.check_label_smoothing(FLAGS.label_smoothing)
        # A functional model has a placeholder and a first graph behind it,
        # which are of no use: they stay off the TPU.
        with tf.control_dependencies(None):
            return resnet.build(
                f"resnet{FLAGS.resnet_depth}",
                image_size=FLAGS.image_size,
                num_classes=num_classes,
                width=FLAGS.width,
                l2=l2,
                seed=FLAGS.seed,
                dtype=training.dtype_policy(),
            )
    except ValueError as error:
        raise InputError(f"--{error}") from error


def make_model_fn(num_classes: int, l2: float, warmup: int):
    """A `model_fn` of the flags' ResNet.

    Args:
        num_classes: K.
        l2: L2 penalty in the loss, of all but batch norms and biases.
        warmup: updates in which the rate grows.
    """

    def model_fn(features, labels, mode, params):
        del params
        is_training = mode == tf1.estimator.ModeKeys.TRAIN
        model = build_model(num_classes, l2)
        logits = model(features["images"], training=is_training)
        if mode == tf1.estimator.ModeKeys.PREDICT:
            predictions = {
                "classes": tf.argmax(logits, -1),
                "probabilities": tf.nn.softmax(logits),
                "logits": logits,
            }
            output = tf1.estimator.export.PredictOutput(predictions)
            return tf1.estimator.tpu.TPUEstimatorSpec(
                mode,
                predictions=predictions,
                export_outputs={"classify": output},
            )
        weights = labels["weights"]
        losses = resnet.cross_entropy(
            labels["labels"], logits, FLAGS.label_smoothing
        )
        mean = tf.math.divide_no_nan(
            tf.reduce_sum(weights * losses), tf.reduce_sum(weights)
        )
        loss = tf.add_n([mean, *model.losses])
        if not is_training:
            return tf1.estimator.tpu.TPUEstimatorSpec(
                mode, loss=loss, eval_metrics=eval_metrics(logits, labels)
            )
        return training.train_spec(
            loss,
            FLAGS.model_dir,
            total_steps=FLAGS.train_steps,
            warmup_steps=warmup,
            update_ops=model.updates,
            metrics={"cross_entropy": mean},
        )

    return model_fn


def main(_) -> None:
    """Trains, evaluates and exports, as far as the flags say so."""
    logging.set_verbosity(logging.INFO)
    job_flags.check_flags("train_batch_size", "eval_batch_size")
    choose_optimizer()
    images = open_images()
    check_images(images)
    num_classes = FLAGS.num_label_classes or images.num_classes
    warmup = warmup_steps(images.num_train)
    with tf.Graph().as_default():
        # What is wrong shows before a TPU is asked for.
        build_model(num_classes, 0.0)
    model_fn = make_model_fn(num_classes, take_l2(), warmup)
    estimator = job.estimator(model_fn, FLAGS.model_dir)
    with images.reporting_corrupt():
        metrics = job.train_and_evaluate(
            estimator,
            make_input_fn(train=True) if FLAGS.mode != "eval" else None,
            make_input_fn(train=False) if FLAGS.mode != "train" else None,
            total_steps=FLAGS.train_steps,
            eval_steps=-(-images.num_evaluation // FLAGS.eval_batch_size),
            steps_between=FLAGS.steps_per_eval,
        )
    for name, value in metrics.items():
        print(f"{name} = {value:g}")
    if FLAGS.export_dir:
        shape = (None, *images.image_shape)
        spec = {"images": tf.TensorSpec(shape, tf.float32)}
        print(job.export(estimator, spec, FLAGS.export_dir))


if __name__ == "__main__":
    define_flags()
    run(main)
