"""Which kind of checkpoint a path is, and that one opened."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import keras

from official_models.common import files, run_folder, weights
from official_models.common.errors import InputError, require
from official_models.nlp.albert import config as albert_config
from official_models.nlp.bert.config import BertConfig
from official_models.nlp.checkpoint import folder as hf_folder
from official_models.nlp.checkpoint import models, tokenizer
from official_models.nlp.checkpoint.source import Source

EXPECTED = (
    "the folder of a training run, a .keras file, the prefix of a TensorFlow "
    "checkpoint, or a folder with config.json and model.safetensors"
)
KERAS = "model.keras"
# Names of a classifier's labels, beside any checkpoint but Hugging Face's.
LABELS = "labels.json"
# Beside a TensorFlow checkpoint, and in the folders of our runs.
CONFIGS = ("bert_config.json", "albert_config.json")


def open_source(
    path: str | os.PathLike,
    *,
    config_file: str | None = None,
    vocab_file: str | None = None,
    lowercase: bool | None = None,
    flag: str = "",
) -> Source:
    """Opens a checkpoint of BERT or ALBERT, of whatever kind.

    Args:
        path: A folder of Hugging Face's; a `.keras` file, or a folder with
            `model.keras`; the folder of a training run; the prefix or folder
            of a TensorFlow checkpoint, on `gs://` too.
        config_file: The model's `bert_config.json` or `albert_config.json`,
            for a TensorFlow checkpoint that has none beside it.
        vocab_file: A WordPiece vocabulary in place of the one beside it.
        lowercase: Whether the vocabulary is uncased; None for what is known.
        flag: Begins messages, such as "--init_checkpoint".

    Returns:
        The checkpoint. No array is read yet, but for a `.keras` file.

    Raises:
        InputError: There is none, or it is damaged or of another kind; its
            vocabulary is of another size than its model.
    """
    where = f"{flag} {path}".strip()
    place = Path(path)
    folder = place if place.is_dir() else place.parent
    remote = files.is_remote(path)
    if not remote and (folder / run_folder.RECORD).is_file():
        lowercase = _run_lowercase(folder) if lowercase is None else lowercase
    found = tokenizer.find(folder, vocab_file, lowercase)
    source = _open(path, where, config_file, found)
    if source.config is not None:
        tokenizer.check_size(found, source.config.vocab_size, where)
    return source


def _open(path, where: str, config_file, found) -> Source:
    place = Path(path)
    if not files.is_remote(path):
        if place.suffix == ".keras":
            return _open_keras(place, where, found)
        if place.is_dir() and (place / KERAS).is_file():
            return _open_keras(place / KERAS, where, found)
        if place.is_dir() and (place / run_folder.RECORD).is_file():
            return _open_run(place, where, found)
        if place.is_dir() and hf_folder.is_folder(place):
            return _open_hugging_face(place, where, found)
        if not place.parent.is_dir():
            raise InputError(f"{where}: not there; expected {EXPECTED}")
    return _open_tensorflow(os.fspath(path), where, config_file, found)


def _run_lowercase(folder: Path) -> bool | None:
    record = files.read_json(folder / run_folder.RECORD)
    value = record.get("lowercase") if isinstance(record, dict) else None
    return value if isinstance(value, bool) else None


def _open_hugging_face(folder: Path, where: str, found) -> Source:
    config, dropout = hf_folder.read_config(folder)
    arrays = hf_folder.Arrays(folder, models.naming_of(config))
    return Source(
        where,
        config,
        arrays.shapes,
        arrays.name_of,
        arrays.shape_of,
        arrays.read,
        found,
        arrays.files,
        dropout,
        arrays.ignored,
        hf_folder.read_labels(folder),
    )


def _open_keras(path: Path, where: str, found) -> Source:
    model = weights.read_keras(path, where)
    try:
        config = models.config_of(model)
    except (ValueError, AttributeError) as error:
        raise InputError(
            f"{where}: {model.name} is no BERT and no ALBERT of ours; "
            f"expected {EXPECTED}"
        ) from error
    variables = weights.by_path(model)
    dropout = 0.1
    if models.head_of(variables.__contains__) == "classifier":
        dropout = model.get_layer("classifier").rate
    return Source(
        where,
        config,
        variables,
        lambda path: path,
        lambda path: tuple(variables[path].shape),
        lambda path: keras.ops.convert_to_numpy(variables[path]),
        found,
        [str(path)],
        dropout,
        labels=_labels_beside(path.parent),
        uniform_heads=models.encoder_of(model).uniform_heads,
    )


def _open_run(folder: Path, where: str, found) -> Source:
    """The last checkpoint of a run that has not come to its end."""
    require("tensorflow", where)
    from official_models.nlp.checkpoint import tensorflow

    config = _config_beside(folder)
    prefix = tensorflow.prefix_of(str(folder / "checkpoints"))
    if config is None or prefix is None:
        lacking = CONFIGS[0] if config is None else "checkpoint"
        raise InputError(
            f"{where}: a run without {KERAS} and without {lacking}; expected "
            "the folder of a run of official_models.nlp.bert.pretrain that "
            "has saved once"
        )
    arrays = tensorflow.Arrays(prefix, where)
    # They are numbered in the order of the model's variables.
    model = models.make(config, "pretrainer")
    keys = {
        v.path: f"variables/{i}{tensorflow.VALUE}"
        for i, v in enumerate(model.variables)
        if v.path in weights.by_path(model)
    }
    names = {n: arrays.shapes[n] for n in keys.values() if n in arrays.shapes}
    by_key: Callable = lambda path: keys.get(path, path)  # noqa: E731
    return Source(
        where,
        config,
        names,
        by_key,
        lambda path: tuple(arrays.shapes[by_key(path)]),
        lambda path: arrays.read(by_key(path)),
        found,
        arrays.files,
    )


def _config_beside(folder: Path) -> BertConfig | None:
    for name in CONFIGS:
        if (folder / name).is_file():
            return albert_config.read_either(folder / name)
    return None


def write_labels(folder: Path, labels: Sequence[str]) -> None:
    """Writes the names of a classifier's labels beside a checkpoint."""
    files.write_json(folder / LABELS, list(labels), ensure_ascii=False)


def _labels_beside(folder: Path) -> tuple[str, ...]:
    path = folder / LABELS
    if not path.is_file():
        return ()
    remedy = "expected a list of a classifier's labels, or no such file"
    found = files.read_json(path, remedy)
    if not isinstance(found, list) or not all(
        isinstance(label, str) for label in found
    ):
        raise InputError(f"{path}: {remedy}")
    return tuple(found)


def _may_be_checkpoint(path: Path) -> bool:
    """Whether TensorFlow is worth importing for it."""
    return path.is_dir() or any(path.parent.glob("*.index"))


def _open_tensorflow(path: str, where: str, config_file, found) -> Source:
    if not files.is_remote(path) and not _may_be_checkpoint(Path(path)):
        raise InputError(f"{where}: no checkpoint; expected {EXPECTED}")
    require("tensorflow", where)
    from official_models.nlp.checkpoint import tensorflow

    prefix = tensorflow.prefix_of(path)
    if prefix is None:
        raise InputError(f"{where}: no checkpoint; expected {EXPECTED}")
    arrays = tensorflow.Arrays(prefix, where)
    if config_file:
        config = albert_config.read_either(config_file)
    else:
        config = None
        if not files.is_remote(prefix):
            config = _config_beside(Path(prefix).parent)
    if config is not None:
        tensorflow.check_heads(arrays, config, where)
    return Source(
        where,
        config,
        arrays.shapes,
        arrays.name_of,
        arrays.shape_of,
        arrays.read,
        found,
        arrays.files,
        labels=(
            ()
            if files.is_remote(prefix)
            else _labels_beside(Path(prefix).parent)
        ),
    )
