"""What is trained in the studies: digits, CIFAR-10, masked tokens."""

import keras
import numpy as np
import tensorflow as tf

from benchmarks.batch_scaling import studies
from benchmarks.batch_scaling.grid import SPLIT_SEED, Cell
from official_models.common import errors
from official_models.vision.datasets import batches, digits
from official_models.vision.datasets.cifar10 import load
from official_models.vision.resnet import model

# Share of the training images that judges rates while they are chosen.
VALIDATION = 0.1


def _split(images):
    """(training, validation) out of the training images, the same always."""
    order = np.random.default_rng(SPLIT_SEED).permutation(len(images.labels))
    held = round(VALIDATION * len(order))
    return tuple(
        images._replace(images=images.images[rows], labels=images.labels[rows])
        for rows in (order[held:], order[:held])
    )


class ImageTask:
    """Classification of images; the score is the accuracy, in percent."""

    jit_compile = False
    part = 128
    trains_on_all = False  # a tenth of the images is held out to choose rates
    augmentation = {"padding": 4, "flip": True}

    def __init__(self, name: str, epochs, train, test):
        self.study = studies.study(name, epochs)
        self.decay = studies.DECAY[name]
        self.exclusions = studies.EXCLUSIONS[name]
        self.whole = train, test
        self.tuning = _split(train)
        self.statistics = batches.channel_statistics(train.images)

    def _sets(self, cell):
        return self.tuning if cell.validates else self.whole

    def batches(self, cell, epochs):
        train, _ = self._sets(cell)
        source = batches.TrainingBatches(
            train, cell.batch, cell.seed, **self.augmentation
        )
        return _Epochs(source, epochs)

    def _logits(self, network, images, training):
        return network(self.statistics.normalise(images), training=training)

    def loss(self, network, part):
        images, labels = part
        return tf.reduce_mean(
            tf.nn.sparse_softmax_cross_entropy_with_logits(
                labels=labels, logits=self._logits(network, images, True)
            )
        )

    def score(self, network, cell: Cell) -> float:
        _, test = self._sets(cell)

        @tf.function(autograph=False)
        def right(images, labels):
            logits = self._logits(network, images, False)
            top = tf.argmax(logits, -1, tf.int32)
            return tf.reduce_sum(tf.cast(top == labels, tf.int32))

        n = len(test.labels)
        found = 0
        for k in range(0, n, 1000):
            rows = slice(k, min(k + 1000, n))
            found += int(right(test.images[rows], test.labels[rows]))
        return 100 * found / n


class Mnist(ImageTask):
    """4,096 digits, a multilayer perceptron 784-256-256-10, 30 epochs."""

    part = 1 << 30
    jit_compile = True

    def __init__(self, data_dir, epochs):
        super().__init__("mnist", epochs, *digits.load_mnist())

    augmentation = {"padding": 0, "flip": False}

    def model(self, seed):
        init = keras.initializers.HeNormal
        layers = [
            keras.layers.Dense(
                n, kernel_initializer=init(seed=1000 * seed + i), name=name
            )
            for i, (n, name) in enumerate(
                ((256, "hidden_1"), (256, "hidden_2"), (10, "logits"))
            )
        ]
        inputs = x = keras.Input(self.whole[0].images.shape[1:])
        x = keras.layers.Flatten()(x)
        for layer in layers[:-1]:
            x = keras.layers.ReLU()(layer(x))
        return keras.Model(inputs, layers[-1](x))


class Cifar10(ImageTask):
    """CIFAR-10, crops and flips, ResNet-8 on 2 x 2 patches, 16 epochs."""

    def __init__(self, data_dir, epochs):
        sets = load.load_cifar10(data_dir)
        super().__init__("cifar10", epochs, *sets)

    def model(self, seed):
        return model.build(
            "resnet8_cifar",
            image_size=32,
            channels=3,
            num_classes=10,
            seed=seed,
            patch=2,
            dtype="mixed_bfloat16",
        )


class _Epochs:
    """The batches of so many epochs."""

    def __init__(self, source, epochs):
        self.source = source
        self.total = round(epochs * source.steps_per_epoch)

    def __len__(self):
        return self.total

    def __getitem__(self, step):
        return self.source[step]


def make(name: str, data_dir: str, epochs: float | None = None):
    """The task of a name.

    Args:
        name: one of `studies.STUDIES`.
        data_dir: where its data are; "" where it can do without.
        epochs: of a run, in place of the study's.
    """
    if name == "mnist":
        return Mnist(data_dir, epochs)
    if name == "cifar10":
        return Cifar10(data_dir, epochs)
    if name == "masked_lm":
        from benchmarks.batch_scaling.masked_lm import MaskedLM

        return MaskedLM(data_dir, epochs)
    expected = ", ".join(studies.STUDIES)
    raise errors.InputError(f"task {name!r}: expected one of {expected}")
