"""The flags that choose sentences of SST-2, and batches for a Hub encoder."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import tensorflow as tf
from absl import flags

from official_models.common import readers
from official_models.common.errors import InputError
from official_models.common.flags import without_effect
from official_models.nlp.bert.finetuning import features
from official_models.nlp.datasets import glue
from official_models.nlp.text import wordpiece

FLAGS = flags.FLAGS
# What the module calls the features.
_INPUTS = {
    "input_word_ids": "input_ids",
    "input_mask": "input_mask",
    "input_type_ids": "segment_ids",
}


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
        self._splits = {name: _read(name) for name in names}
        train = self._splits["train"]
        content = json.dumps([[e.texts[0], e.label] for e in train])
        digest = hashlib.sha256(content.encode()).hexdigest()
        self.facts = {"train_sha256": digest}
        order = _training_order(len(train))
        self.total_steps = len(order) // FLAGS.global_batch_size
        self._splits["train"] = [train[i] for i in order]

    def encoded(
        self, name: str, module: Path
    ) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Inputs int32 [N, T] and labels of a split, by the module's words."""
        examples = self._splits[name]
        vocabulary = module / "assets" / "vocab.txt"
        tokenizer = wordpiece.load_tokenizer(vocabulary)
        rows = features.encode(examples, tokenizer, FLAGS.max_length)
        inputs = {
            theirs: np.array([row[ours] for row in rows], "int32")
            for theirs, ours in _INPUTS.items()
        }
        return inputs, np.array([example.label for example in examples])

    def held_out(self, module: Path) -> dict[str, tuple[dict, np.ndarray]]:
        """{split: `encoded`} of all but the training set."""
        names = [name for name in self._splits if name != "train"]
        return {name: self.encoded(name, module) for name in names}

    def batches(self, name: str, module: Path) -> tf.data.Dataset:
        """Batches of a split, those of training whole: (inputs, label)."""
        inputs, labels = self.encoded(name, module)
        targets = labels.astype("float32")[:, np.newaxis]
        rows = tf.data.Dataset.from_tensor_slices((inputs, targets))
        whole = name == "train"
        return rows.batch(FLAGS.global_batch_size, drop_remainder=whole)


def _read(split: str) -> list[glue.Example]:
    """SST-2's sentences with their labels, 0 negative and 1 positive."""
    return glue.read_split(FLAGS.data_dir, glue.TASKS["sst-2"], split)[0]


def _training_order(count: int) -> list[int]:
    """Numbers of the sentences of all epochs, `max_examples` in each."""
    chosen = readers.shuffled_epochs(count, 1, FLAGS.seed)[: FLAGS.max_examples]
    indices = readers.shuffled_epochs(len(chosen), FLAGS.epochs, FLAGS.seed)
    if len(indices) < FLAGS.global_batch_size:
        raise InputError(
            f"--global_batch_size {FLAGS.global_batch_size}: more than the "
            f"{len(indices)} training sentences; take a smaller batch"
        )
    return [chosen[i] for i in indices]
