"""From an encoded photograph to a square of pixels, for training and testing.

Both decode no more of a JPEG than they keep. S is the side of the square.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

# Of the pixels of ImageNet's training images, red, green, blue, 0 to 255.
MEAN = 255 * np.array([0.485, 0.456, 0.406], np.float32)
DEVIATION = 255 * np.array([0.229, 0.224, 0.225], np.float32)

RESIZE_METHODS = ("bicubic", "bilinear")
CENTRAL_FRACTION = 0.875

_AREA = (0.08, 1.0)
_RATIO = (3 / 4, 4 / 3)
_ATTEMPTS = 10


def training_image(
    encoded: tf.Tensor, seed: tf.Tensor, size: int, method: str
) -> tf.Tensor:
    """A random part of a picture, mirrored half of the time.

    The part has 8 to 100 % of the area and a width of 3/4 to 4/3 of its
    height. Where ten draws find none, it is the central crop.

    Args:
        encoded: A JPEG, scalar string.
        seed: int64 [2]; the picture is a function of its bytes and of this.
        size: S.
        method: Of resizing, one of `RESIZE_METHODS`.

    Returns:
        float32 [S, S, 3], 0 to 255, where bicubic may overshoot.

    Raises:
        tf.errors.InvalidArgumentError: It cannot be decoded.

    References:
        Szegedy et al., Going deeper with convolutions, 2015, section 6.
    """
    shape = tf.io.extract_jpeg_shape(encoded)
    seeds = tf.random.split(seed, 2)
    begin, extent, _ = tf.image.stateless_sample_distorted_bounding_box(
        shape,
        tf.zeros((1, 0, 4)),
        seed=seeds[0],
        min_object_covered=0.0,
        aspect_ratio_range=_RATIO,
        area_range=_AREA,
        max_attempts=_ATTEMPTS,
        use_image_if_no_bounding_boxes=True,
    )
    # It gives the whole picture when it finds no crop.
    failed = tf.reduce_all(tf.equal(extent[:2], shape[:2]))
    window = tf.where(
        failed, central_window(shape), tf.concat([begin[:2], extent[:2]], 0)
    )
    pixels = _decoded(encoded, window)
    mirrored = tf.random.stateless_uniform((), seeds[1]) < 0.5
    # Before resizing: bytes are fewer than floats.
    pixels = tf.cond(
        mirrored, lambda: tf.reverse(pixels, [1]), lambda: tf.identity(pixels)
    )
    return _resized(pixels, size, method)


def evaluation_image(
    encoded: tf.Tensor, size: int, method: str, fraction: float
) -> tf.Tensor:
    """The central square of a picture.

    Args:
        encoded: A JPEG, scalar string.
        size: S.
        method: Of resizing, one of `RESIZE_METHODS`.
        fraction: Of the shorter side, in (0, 1].

    Returns:
        float32 [S, S, 3], 0 to 255, where bicubic may overshoot.

    Raises:
        tf.errors.InvalidArgumentError: It cannot be decoded.
    """
    window = central_window(tf.io.extract_jpeg_shape(encoded), fraction)
    pixels = _decoded(encoded, window)
    return _resized(pixels, size, method)


def whole_image(encoded: tf.Tensor) -> tf.Tensor:
    """A whole picture: uint8 [height, width, 3].

    Args:
        encoded: A JPEG, scalar string.

    Raises:
        tf.errors.InvalidArgumentError: It cannot be decoded.
    """
    shape = tf.io.extract_jpeg_shape(encoded)
    return _decoded(encoded, tf.concat([[0, 0], shape[:2]], 0))


def central_window(
    shape: tf.Tensor, fraction: float = CENTRAL_FRACTION
) -> tf.Tensor:
    """The central square of a picture: (y, x, height, width), int32 [4].

    Args:
        shape: (height, width, ...), int32.
        fraction: Of the shorter side.
    """
    shorter = tf.cast(tf.reduce_min(shape[:2]), tf.float32)
    side = tf.maximum(tf.cast(fraction * shorter, tf.int32), 1)
    corner = (shape[:2] - side + 1) // 2
    return tf.concat([corner, tf.stack([side, side])], 0)


def normalised(images: tf.Tensor) -> tf.Tensor:
    """Images [..., S, S, 3], 0 to 255, by ImageNet's mean and deviation."""
    shape = images.shape
    # Whole rows as one axis: broadcasting over three channels is slow.
    rows = tf.reshape(images, (*shape[:-2], shape[-2] * shape[-1]))
    mean, deviation = (np.tile(a, shape[-2]) for a in (MEAN, DEVIATION))
    return tf.reshape((rows - mean) * (1 / deviation), shape)


def _decoded(encoded: tf.Tensor, window: tf.Tensor) -> tf.Tensor:
    # The accurate transform is what Pillow uses; the fast one is no faster.
    return tf.io.decode_and_crop_jpeg(
        encoded, window, channels=3, dct_method="INTEGER_ACCURATE"
    )


def _resized(pixels: tf.Tensor, size: int, method: str) -> tf.Tensor:
    # Not smoothed: that takes twice as long as all the rest, and published
    # accuracies are without.
    image = tf.image.resize(pixels, (size, size), method, antialias=False)
    return tf.ensure_shape(image, (size, size, 3))
