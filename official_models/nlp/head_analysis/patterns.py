"""The class of an attention map: vertical, diagonal, both, block or none.

A small convolutional network says it, 8 convolutions with ReLU as in the
paper. Its weights, `patterns.npz` beside this file, are from generated maps
alone (`generated.py`, `train_patterns.py`); README.md says what it reaches on
real maps with labels.

Axes: K maps, T tokens.

References:
    Kovaleva et al. 2019 (arXiv:1908.08593), section 4.1
"""

from __future__ import annotations

import functools
import hashlib
import os
from pathlib import Path

import keras
import numpy as np

from official_models.common import files
from official_models.common.errors import InputError, first_line
from official_models.nlp.head_analysis.generated import CLASSES

WEIGHTS = Path(__file__).with_name("patterns.npz")
SIZE = 32
FILTERS = (16, 16, 24, 24, 32, 32, 48, 48)
MIN_TOKENS = 4
_BATCH = 256


def digest() -> str:
    """SHA-256 of the weights of this repository.

    Raises:
        InputError: There are none.
    """
    try:
        return hashlib.sha256(WEIGHTS.read_bytes()).hexdigest()
    except OSError as error:
        raise InputError(
            f"{WEIGHTS}: cannot be read ({first_line(error)}); the maps are "
            "classified by it: install the package again, or train it by "
            "head_analysis.train_patterns"
        ) from error


def prepare(maps: np.ndarray) -> np.ndarray:
    """Maps of one length as the network reads them: two channels of one size.

    X = sqrt(A / max A), so that weak lines show and the length does not
    matter; the first channel is X resized by area, X' = W X W^T with rows of
    W that sum to 1, the second has the largest X that a cell of the new grid
    touches, which keeps a line of one token visible in a long map.

    Args:
        maps: [K, T, T], not negative.

    Returns:
        float32 [K, `SIZE`, `SIZE`, 2].
    """
    x = np.asarray(maps, "float32")
    x = np.sqrt(x / np.maximum(x.max((1, 2), keepdims=True), 1e-9))
    tokens = x.shape[-1]
    # Overlaps of a cell of the new grid with each token, in tokens.
    edges = np.linspace(0, tokens, SIZE + 1)
    low, high = edges[:-1, None], edges[1:, None]
    token = np.arange(tokens)
    overlap = np.minimum(high, token + 1) - np.maximum(low, token)
    overlap = np.maximum(overlap, 0)  # [SIZE, T]
    weights = (overlap / overlap.sum(1, keepdims=True)).astype("float32")
    area = weights @ x @ weights.T
    touched = overlap > 1e-6
    largest = np.stack([x[:, row].max(1) for row in touched], 1)
    largest = np.stack([largest[..., row].max(-1) for row in touched], 2)
    return np.stack([area, largest], -1)


def network(seed: int = 0) -> keras.Model:
    """The classifier without training: logits [K, 5] of `prepare`d maps.

    Its initial values are the same on every backend (He et al. 2015).

    Args:
        seed: Of the initial values.
    """
    layers = keras.layers
    inputs = x = keras.Input((SIZE, SIZE, 2))
    for i, filters in enumerate(FILTERS):
        x = layers.Conv2D(
            filters, 3, padding="same", activation="relu", name=f"conv_{i}"
        )(x)
        if i % 2 and i + 1 < len(FILTERS):
            x = layers.MaxPooling2D(2)(x)
    x = layers.GlobalAveragePooling2D()(x)
    logits = layers.Dense(len(CLASSES), name="logits", dtype="float32")(x)
    model = keras.Model(inputs, logits)
    rng = np.random.default_rng(seed)
    for variable in model.weights:
        shape = tuple(variable.shape)
        if len(shape) > 1:
            deviation = np.sqrt(2 / np.prod(shape[:-1]))
            variable.assign(rng.normal(0, deviation, shape))
    return model


def names(model: keras.Model) -> list[str]:
    """Names of a network's arrays in a file, in the order of its weights."""
    return [
        f"{layer.name}/{what}"
        for layer in model.layers
        for what, _ in zip(("kernel", "bias"), layer.weights)
    ]


def save(model: keras.Model, path: str | os.PathLike) -> None:
    """Writes a network's arrays, as float16, to a file in the form of .npz."""
    arrays = {
        name: np.asarray(value, "float16")
        for name, value in zip(names(model), model.get_weights())
    }
    with files.replacing(path) as temporary:
        # By its name, NumPy would give it another ending.
        with open(temporary, "wb") as file:
            np.savez_compressed(file, **arrays)


def load_classifier(path: str | os.PathLike | None = None) -> keras.Model:
    """The trained network: logits [K, 5] of `prepare`d maps.

    Args:
        path: A file of `save`; None for the weights of this repository.

    Raises:
        InputError: It cannot be read, or is of another network.
    """
    path = WEIGHTS if path is None else Path(path)
    model = network()
    expected = dict(zip(names(model), (w.shape for w in model.weights)))
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except Exception as error:  # zipfile's, zlib's and numpy's own
        raise InputError(
            f"{path}: cannot be read ({first_line(error)}); expected a file "
            "that head_analysis.train_patterns wrote"
        ) from error
    for name, shape in expected.items():
        if name not in arrays or arrays[name].shape != tuple(shape):
            got = arrays[name].shape if name in arrays else "no array"
            raise InputError(
                f"{path}: {name}: got {got}, expected {tuple(shape)}; train "
                "it again by head_analysis.train_patterns"
            )
    model.set_weights([arrays[name].astype("float32") for name in expected])
    return model


@functools.cache
def _classifier() -> keras.Model:
    return load_classifier()


def classify(maps: np.ndarray, model: keras.Model | None = None) -> np.ndarray:
    """Probabilities of the classes of maps of one length.

    Args:
        maps: [K, T, T], T of 4 or more, rows (queries) that sum to 1. Padding
            has to be cropped: its columns would be taken for a part of the
            picture.
        model: Of `load_classifier`; None for the weights of this repository.

    Returns:
        float32 [K, 5], in the order of `CLASSES`.

    Raises:
        InputError: The shape is another, or rows do not sum to 1.
    """
    maps = np.asarray(maps, "float32")
    shape = maps.shape
    if len(shape) != 3 or shape[1] != shape[2] or shape[1] < MIN_TOKENS:
        raise InputError(
            f"maps: got shape {shape}, expected [K, T, T] with T of "
            f"{MIN_TOKENS} or more"
        )
    if not len(maps):
        return np.zeros((0, len(CLASSES)), "float32")
    # float16 of mixed precision is off by 1e-3 in a sum.
    off = np.abs(maps.sum(-1) - 1).max()
    if not off < 0.02 or maps.min() < 0:
        raise InputError(
            f"maps: a row's sum is off 1 by {off:.3g}, or a weight is "
            "negative; expected attention probabilities without padding"
        )
    model = _classifier() if model is None else model
    logits = np.concatenate(
        [
            np.asarray(model.predict_on_batch(prepare(maps[i : i + _BATCH])))
            for i in range(0, len(maps), _BATCH)
        ]
    )
    weights = np.exp(logits - logits.max(1, keepdims=True))
    return weights / weights.sum(1, keepdims=True)
