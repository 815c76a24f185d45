"""What reads people's files: each with a whole input and what reads it.

A reader's function raises `outcomes.Silent` where what it was given cannot be
what it was read as: a format with check sums must give the whole input's values
or refuse, and texts, labels and sizes must be of their kind.
"""

from __future__ import annotations

import functools
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from official_models.common import (
    checkpoint_list,
    run_folder,
    weights,
)
from official_models.common.checkpoints import Checkpoints
from official_models.common.errors import InputError
from official_models.nlp.albert import config as albert_config
from official_models.nlp.bert import config as bert_config
from official_models.nlp.bert.pretraining import records
from official_models.nlp.checkpoint.opening import open_source
from official_models.nlp.head_analysis import patterns
from official_models.vision.datasets.cifar10 import jpeg_npz
from official_models.vision.datasets.imagenet import shards
from tests.official_models.nlp.bert.pretraining import small_examples
from tests.official_models.nlp.checkpoint import folders
from tests.official_models.vision.datasets.cifar10 import tiny_cifar10
from tests.official_models.vision.datasets.imagenet import small_imagenet
from tests.robustness import damage, texts
from tf_lamb.callbacks import read_table

Damage = Callable[[bytes, random.Random], bytes]


class Reader(NamedTuple):
    """A kind of input.

    Attributes:
        make: writes whole files into an empty folder.
        damaged: the one that is damaged.
        read: reads the folder.
        damages: what may happen to it.
        refusals: what `read` refuses an input by.
    """

    make: Callable[[Path], Any]
    damaged: str
    read: Callable[[Path], Any]
    damages: tuple[Damage, ...] = (damage.of_bytes,)
    # The package's own readers raise the first.
    refusals: tuple[type, ...] = (ValueError, InputError)


JSON = (damage.of_json, damage.of_json, damage.of_bytes)


def _make_records(folder):
    small_examples.write(folder / "r")


def _read_records(folder):
    found = records.find_records([folder / "r"])
    count = records.check_records(found, **small_examples.SIZES)
    texts.expect(count == 50, f"{count} examples")


def _make_run(folder):
    run_folder.record_run(folder, {"rate": 0.1, "names": ["a"], "size": None})


def _read_run(folder):
    run_folder.open_run(
        str(folder), {"rate": 0.1, "names": ["a"], "size": None}, writes=False
    )


def _make_checkpoints(folder):
    value = tf.Variable(0.0)
    saved = tf.train.CheckpointManager(
        tf.train.Checkpoint(value=value), str(folder), None
    )
    for step in (3, 6):
        value.assign(step)
        saved.save(step)


def _read_checkpoints(folder):
    # Whatever the list says, the last one is whole.
    checkpoint_list.mend(folder)
    texts.expect([*checkpoint_list.saved_steps(folder)][-1:] == [6], "steps")
    last = tf.train.latest_checkpoint(folder)
    texts.expect(last is not None and last.endswith("ckpt-6"), f"latest {last}")


TABLE = "step,a,b\n10,0.5,1\n20,0.25,1\n"


def _read_table(folder):
    for points in read_table(folder / "t.csv").values():
        texts.expect(all(isinstance(s, int) for s, _ in points), "a step")


def _make_cifar(names, content):
    return lambda folder: tiny_cifar10.write_files(folder, names, content)


BINARY = [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]
PYTHON = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]


def _read_cifar(folder):
    for split in tiny_cifar10.load(folder):
        texts.expect(split.images.dtype == np.uint8, "images")
        texts.expect(
            ((0 <= split.labels) & (split.labels < 10)).all(), "labels"
        )


def _make_archive(folder):
    image = tf.io.encode_jpeg(np.full((8, 8, 3), 100, np.uint8)).numpy()
    arrays = {"classes": np.array(["a", "b"])}
    for split in ("train", "test"):
        arrays[f"{split}_jpeg"] = np.frombuffer(image * 3, np.uint8)
        arrays[f"{split}_offset"] = len(image) * np.arange(4)
        arrays[f"{split}_label"] = np.array([0, 1, 0])
    np.savez(folder / "c.npz", **arrays)


def _read_archive(folder):
    train, test, classes = jpeg_npz.read_archive(
        folder / "c.npz", image_shape=(8, 8, 3)
    )
    # The archive has a CRC-32 of every array.
    texts.expect(classes == ("a", "b"), "classes")
    for images, labels in (train, test):
        texts.expect(images.shape == (3, 8, 8, 3), "images")
        texts.expect([*labels] == [0, 1, 0], "labels")


def _read_hugging_face(folder):
    source = open_source(str(folder / "hf"), flag="--checkpoint")
    texts.check_config(source.config)


def _network():
    """A small model; its weights are what they are in any process."""
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((3,))
    for units in (4, 2):
        x = keras.layers.Dense(units, name=f"dense_of_{units}")(x)
    return keras.Model(inputs, x, name="network")


def _make_keras(folder):
    _network().save(folder / "m.keras")


@functools.cache
def _target():
    return _network()


def _read_keras(folder):
    model = _target()
    for variable in model.variables:
        variable.assign(np.full(variable.shape, np.nan))
    weights.load_keras(model, folder / "m.keras")
    # A zip archive has a CRC-32 of every member.
    for mine, whole_ in zip(model.variables, _network().variables):
        texts.expect(np.array_equal(mine, whole_), mine.path)


@functools.cache
def _compiled():
    model = _network()
    model.compile("sgd")
    return model


def _make_run_checkpoints(folder):
    saved = Checkpoints(_compiled(), folder)
    for step in (3, 6):
        for variable in _compiled().trainable_variables:
            variable.assign(np.full(variable.shape, step))
        saved.save(step)


def _read_run_checkpoints(folder):
    for variable in _compiled().trainable_variables:
        variable.assign(np.full(variable.shape, np.nan))
    step = Checkpoints(_compiled(), folder).restore()
    texts.expect(step == 6, f"step {step}")
    for variable in _compiled().trainable_variables:
        texts.expect(np.all(np.array(variable) == 6), variable.path)


def _make_imagenet(folder):
    small_imagenet.write(folder / "i", 4, 2, (2, 1), ["a", "b", "c", "d"])


def _read_imagenet(folder):
    found = shards.open_shards(folder / "i")
    counts = {n: int(s.counts.sum()) for n, s in found.splits.items()}
    texts.expect(counts == {"train": 4, "validation": 2}, str(counts))


def _make_patterns(folder):
    shutil.copyfile(patterns.WEIGHTS, folder / "p.npz")


@functools.cache
def _patterns():
    return patterns.load_classifier().get_weights()


def _read_patterns(folder):
    found = patterns.load_classifier(folder / "p.npz").get_weights()
    # A zip archive has a CRC-32 of every member.
    for mine, whole_ in zip(found, _patterns()):
        texts.expect(np.array_equal(mine, whole_), "weights")


READERS: dict[str, Reader] = {
    "vocab.txt": Reader(
        texts.writes("vocab.txt", texts.WORDS),
        "vocab.txt",
        texts.read_vocabulary,
    ),
    "plain text": Reader(
        texts.writes("a.txt", texts.PROSE), "a.txt", texts.read_text
    ),
    "JSON lines": Reader(
        texts.writes("a.jsonl", json.dumps({"text": texts.PROSE}) + "\n"),
        "a.jsonl",
        texts.read_json_lines,
    ),
    "sentences": Reader(
        texts.writes("a.sentences", texts.PROSE.replace(". ", ".\n")),
        "a.sentences",
        functools.partial(texts.read_json_lines, name="sentences"),
    ),
    "WikiExtractor": Reader(
        texts.writes(
            "a.wikiextractor", f"<doc id='1'>\n{texts.PROSE}</doc>\n" * 2
        ),
        "a.wikiextractor",
        functools.partial(texts.read_json_lines, name="wikiextractor"),
    ),
    "SentencePiece": Reader(
        texts.make_pieces, "spiece.model", texts.read_pieces
    ),
    "bert_config.json": Reader(
        texts.writes("b.json", texts.BERT),
        "b.json",
        lambda folder: texts.check_config(
            bert_config.read_config(folder / "b.json")
        ),
        JSON,
    ),
    "albert_config.json": Reader(
        texts.writes("b.json", texts.ALBERT),
        "b.json",
        lambda folder: texts.check_config(
            albert_config.read_either(folder / "b.json")
        ),
        JSON,
    ),
    "SQuAD": Reader(
        texts.writes("dev.json", texts.SQUAD),
        "dev.json",
        texts.read_squad,
        JSON,
    ),
    "linked words": Reader(
        texts.writes("l.json", texts.RELATIONS),
        "l.json",
        texts.read_relations,
        JSON,
    ),
    "token classes": Reader(
        texts.writes("c.json", texts.CLASSES),
        "c.json",
        texts.read_classes,
        JSON,
    ),
    "classifier of maps": Reader(_make_patterns, "p.npz", _read_patterns),
    "SGML": Reader(texts.writes("r.sgm", texts.SGML), "r.sgm", texts.read_sgml),
    "GLUE": Reader(
        texts.writes("dev.tsv", texts.SST2), "dev.tsv", texts.read_glue
    ),
    "TFRecord": Reader(
        _make_records, "r/examples-00000-of-00001.tfrecord", _read_records
    ),
    "records manifest": Reader(
        _make_records, "r/examples.json", _read_records, JSON
    ),
    "run.json": Reader(_make_run, "run.json", _read_run, JSON),
    "checkpoint list": Reader(
        _make_checkpoints, "checkpoint", _read_checkpoints
    ),
    "CSV table": Reader(texts.writes("t.csv", TABLE), "t.csv", _read_table),
    "CIFAR binary": Reader(
        _make_cifar(BINARY, tiny_cifar10.binary_file),
        "data_batch_2.bin",
        _read_cifar,
    ),
    "CIFAR pickle": Reader(
        _make_cifar(PYTHON, tiny_cifar10.python2_file),
        "data_batch_2",
        _read_cifar,
    ),
    "JPEG archive": Reader(_make_archive, "c.npz", _read_archive),
    "Hugging Face config": Reader(
        lambda folder: folders.write(folder / "hf"),
        "hf/config.json",
        _read_hugging_face,
        JSON,
    ),
    "safetensors": Reader(
        lambda folder: folders.write(folder / "hf"),
        "hf/model.safetensors",
        _read_hugging_face,
    ),
    "tokenizer.json": Reader(
        texts.make_pipeline, "tokenizer.json", texts.read_pipeline, JSON
    ),
    ".keras": Reader(_make_keras, "m.keras", _read_keras),
    "checkpoint data": Reader(
        _make_run_checkpoints,
        "ckpt-6.data-00000-of-00001",
        _read_run_checkpoints,
    ),
    "checkpoint index": Reader(
        _make_run_checkpoints, "ckpt-6.index", _read_run_checkpoints
    ),
    "ImageNet index": Reader(
        _make_imagenet, "i/counts.json", _read_imagenet, JSON
    ),
    "JSON": Reader(
        texts.writes("a.json", texts.BERT), "a.json", texts.read_json, JSON
    ),
}


@functools.cache
def whole(name: str, root: Path) -> Path:
    """The folder of a reader's whole files, made once."""
    folder = root / f"whole-{sorted(READERS).index(name)}"
    folder.mkdir()
    READERS[name].make(folder)
    return folder


def copy(name: str, root: Path) -> Path:
    """A copy of the whole files."""
    folder = root / "copy"
    shutil.rmtree(folder, ignore_errors=True)
    return Path(shutil.copytree(whole(name, root), folder))


def damaged(name: str, root: Path, rng: random.Random) -> Path:
    """A copy of the whole files in which one is damaged."""
    reader, folder = READERS[name], copy(name, root)
    path = folder / reader.damaged
    path.write_bytes(rng.choice(reader.damages)(path.read_bytes(), rng))
    return folder
