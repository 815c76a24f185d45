"""A model with its tokenizer as a folder that others open."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from official_models.common import files, weights
from official_models.common.errors import InputError, first_line, require
from official_models.nlp.bert.config import write_config
from official_models.nlp.checkpoint import folder as hf_folder
from official_models.nlp.checkpoint import models, opening, tokenizer
from official_models.nlp.checkpoint.opening import CONFIGS, KERAS
from official_models.nlp.checkpoint.tokenizer import TokenizerFiles

FORMATS = ("huggingface", "saved_model", "keras", "tensorflow")
CHECKPOINT = "bert_model.ckpt"


def export(
    model: keras.Model,
    output_dir: str | os.PathLike,
    format: str,
    tokenizer_files: TokenizerFiles,
    *,
    leave_out: Collection[str] = (),
    labels: Sequence[str] = (),
) -> list[str]:
    """Writes a BERT or an ALBERT as a folder, whole or not at all.

    Args:
        model: With or without a head.
        output_dir: Where to; must not be there, or be empty.
        format: "huggingface" for `transformers`; "saved_model" for
            `tf.saved_model.load` and TensorFlow Serving; "keras" for
            `keras.saving.load_model` with this package; "tensorflow" for the
            jobs of `tpu/` and Google's code for BERT.
        tokenizer_files: Of its tokenizer; none are written if there are none.
        leave_out: Paths of variables that are not written, such as those that
            no checkpoint had: "huggingface" and "tensorflow" only.
        labels: Names of a classifier's labels, or none: `id2label` of
            "huggingface", labels.json of the others.

    Returns:
        The names of the files and folders.

    Raises:
        InputError: The folder cannot be written, or holds something; the
            vocabulary or the labels are not the model's; a package is missing,
            or Keras' backend cannot write the format.
        ValueError: `format` is none of these.
    """
    if format not in FORMATS:
        raise ValueError(
            f"format: got {format!r}, expected one of {', '.join(FORMATS)}"
        )
    check_output(output_dir)
    if format in ("saved_model", "tensorflow"):
        require("tensorflow", f"--format {format}")
    if format == "saved_model" and keras.config.backend() != "tensorflow":
        raise InputError(
            f"--format saved_model: Keras' backend is {keras.config.backend()}"
            "; set KERAS_BACKEND=tensorflow"
        )
    _check_attention(model, format)
    config = models.config_of(model)
    tokenizer.check_size(tokenizer_files, config.vocab_size, model.name)
    _check_labels(model, labels)
    write = {
        "huggingface": _write_hugging_face,
        "saved_model": _write_saved_model,
        "keras": _write_keras,
        "tensorflow": _write_tensorflow,
    }[format]
    try:
        with files.replacing_folder(output_dir) as fresh:
            write(model, fresh, set(leave_out), labels)
            if labels and format != "huggingface":
                opening.write_labels(fresh, labels)
            tokenizer.write(
                tokenizer_files, fresh, config.max_position_embeddings
            )
            return sorted(path.name for path in fresh.iterdir())
    except OSError as error:
        raise InputError(
            f"--output_dir {output_dir}: {error.strerror or first_line(error)}"
            "; name a folder that can be written"
        ) from error


def _check_attention(model: keras.Model, format: str) -> None:
    heads = models.encoder_of(model).uniform_heads
    if heads and format in ("huggingface", "tensorflow"):
        raise InputError(
            f"--format {format}: {model.name} has heads without attention, "
            f"such as {heads[0]}, which this format cannot say; expected "
            "--format keras or saved_model"
        )


def _check_labels(model: keras.Model, labels: Sequence[str]) -> None:
    if not labels:
        return
    number = 0
    if models.head_of_model(model) == "classifier":
        number = model.get_layer("classifier").num_labels
    if len(set(labels)) != number or len(labels) != number:
        raise InputError(
            f"labels {', '.join(labels)}: {model.name} has {number}; expected "
            "a name of its own for each"
        )


def check_output(output_dir: str | os.PathLike) -> None:
    """Refuses a folder that is there, and a URL.

    Raises:
        InputError: It holds something, or is not local.
    """
    path = Path(output_dir)
    if files.is_remote(output_dir):
        raise InputError(f"--output_dir {output_dir}: name a local folder")
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise InputError(
            f"--output_dir {output_dir}: is there and not empty; name a new "
            "folder"
        )


def _arrays(
    model: keras.Model, leave_out: Collection[str]
) -> dict[str, np.ndarray]:
    return {
        path: keras.ops.convert_to_numpy(variable)
        for path, variable in weights.by_path(model).items()
        if path not in leave_out
    }


def _write_hugging_face(model, folder: Path, leave_out, labels) -> None:
    part = getattr(models.config_of(model), "shared_part", "none")
    if part != "none":
        raise InputError(
            f"--format huggingface: the layers of {model.name} share their "
            f"{part} alone, which transformers' ALBERT cannot; expected "
            "--format keras or tensorflow, or a model that shares all or none"
        )
    more: dict[str, Any] = {}
    if models.head_of_model(model) == "classifier":
        head = model.get_layer("classifier")
        more = {
            "num_labels": head.num_labels,
            "dropout": head.rate,
            "labels": labels,
        }
    arrays = _arrays(model, leave_out)
    hf_folder.write(folder, models.config_of(model), arrays, **more)


def _write_tensorflow(model, folder: Path, leave_out, labels) -> None:
    from official_models.nlp.checkpoint import tensorflow

    tensorflow.write(_arrays(model, leave_out), folder / CHECKPOINT)
    config = models.config_of(model)
    write_config(folder / CONFIGS[models.is_albert(config)], config)


def _write_keras(model, folder: Path, leave_out, labels) -> None:
    model.save(folder / KERAS)
    config = models.config_of(model)
    write_config(folder / CONFIGS[models.is_albert(config)], config)


def _write_saved_model(model, folder: Path, leave_out, labels) -> None:
    model.export(folder, format="tf_saved_model", verbose=False)
