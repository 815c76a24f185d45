"""The flags that choose sentences of SST-2, and batches for a Hub encoder."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import tensorflow as tf
from absl import flags

from official_models.common.errors import InputError
from official_models.common.flags import without_effect
from official_models.nlp.datasets import sst2

FLAGS = flags.FLAGS


def define_flags() -> None:
    """Defines the flags."""
    flags.DEFINE_string("data_dir", None, "Folder of SST-2's TSV files.")
    flags.DEFINE_integer("global_batch_size", 64, "Sentences an update.", 1)
    flags.DEFINE_integer("epochs", 1, "Passes over the training set.", 1)
    flags.DEFINE_integer(
        "max_examples", 8192, "Sentences of the training set at most.", 1
    )
    flags.DEFINE_integer("max_length", 32, "Tokens a sentence.", 8)
    flags.DEFINE_bool("test", True, "Also report the labelled test split.")
    without_effect("data_dir", "test")  # `Sentences.facts` has a digest
    flags.mark_flag_as_required("data_dir")


class Sentences:
    """The splits of the flags; of training, all epochs in the run's order.

    Attributes:
        facts: a digest of the training set.
        total_steps: whole batches of all epochs.

    Raises:
        InputError: a file is missing or damaged, or no batch is full.
    """

    def __init__(self):
        # All of them, so that what is wrong shows at once.
        names = ["dev"] + ["test"] * FLAGS.test + ["train"]
        self._texts = {
            name: sst2.read_split(FLAGS.data_dir, name) for name in names
        }
        sentences, labels = self._texts["train"]
        content = json.dumps([sentences, labels]).encode()
        self.facts = {"train_sha256": hashlib.sha256(content).hexdigest()}
        order = _training_order(len(labels))
        self.total_steps = len(order) // FLAGS.global_batch_size
        self._texts["train"] = (
            [sentences[i] for i in order],
            [labels[i] for i in order],
        )

    def encoded(self, name: str, module: Path) -> tuple[dict, list[int]]:
        """Inputs [N, T] and labels of a split, by the module's vocabulary."""
        sentences, labels = self._texts[name]
        vocabulary = module / "assets" / "vocab.txt"
        return sst2.encode(sentences, vocabulary, FLAGS.max_length), labels

    def held_out(self, module: Path) -> dict[str, tuple[dict, list[int]]]:
        """{split: `encoded`} of all but the training set."""
        names = [name for name in self._texts if name != "train"]
        return {name: self.encoded(name, module) for name in names}

    def batches(self, name: str, module: Path) -> tf.data.Dataset:
        """Batches of a split, those of training whole: (inputs, label)."""
        inputs, labels = self.encoded(name, module)
        targets = np.array(labels, "float32")[:, np.newaxis]
        rows = tf.data.Dataset.from_tensor_slices((inputs, targets))
        whole = name == "train"
        return rows.batch(FLAGS.global_batch_size, drop_remainder=whole)


def _training_order(count: int) -> list[int]:
    """Numbers of the sentences of all epochs, `max_examples` in each."""
    chosen = sst2.order(count, 1, FLAGS.seed)[: FLAGS.max_examples]
    indices = sst2.order(len(chosen), FLAGS.epochs, FLAGS.seed)
    if len(indices) < FLAGS.global_batch_size:
        raise InputError(
            f"--global_batch_size {FLAGS.global_batch_size}: more than the "
            f"{len(indices)} training sentences; take a smaller batch"
        )
    return [chosen[i] for i in indices]
