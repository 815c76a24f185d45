"""From the flags of `pretrain.py` to training and held-out batches.

`PlainText` and `Records` have one interface:

    tokenizer: the vocabulary.
    vocab_size: V.
    max_seq_length: T.
    pair: name of the pair's label, the model's output for it.
    task: "next_sentence" or "sentence_order": what that label says.
    description: what the text is, in a line.
    fill: texts with a [MASK].
    train(first_step, last_step, reader): training batches of these steps.
    held_out: finite batches, masked once and for all.
    unigram: (loss in nats, accuracy) of the training text's token counts on
        the held-out masks.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import tensorflow as tf
from absl import flags
from tokenizers import Tokenizer

from official_models.common import run_folder
from official_models.common.errors import InputError
from official_models.common.readers import ALONE, Reader
from official_models.nlp.bert.pretraining import (
    batches,
    families,
    fill_mask,
    inputs,
    masking,
    packing,
    records,
)
from official_models.nlp.bert.pretraining.inputs import Shape
from official_models.nlp.text import (
    corpus,
    documents,
    formats,
    shakespeare,
    vocabulary,
)

FLAGS = flags.FLAGS
_HELD_OUT_BATCH = 256


def load(
    folder: Path,
    shape: Shape,
    batch_size: int,
    replicas: int = 1,
    tokenizer: Tokenizer | None = None,
) -> PlainText | Records:
    """Reads, tokenizes and packs the text, or opens the records.

    Args:
        folder: of the run; a vocabulary trained here is kept in it.
        shape: of the sequences; says which records, too.
        batch_size: sequences of a training batch, over all replicas.
        replicas: processes or devices that share each batch, of held-out text
            too.
        tokenizer: the vocabulary, if an earlier call has it already.

    Raises:
        InputError: the text, the vocabulary or a record is not usable.
    """
    files = inputs.files_of(shape)
    text: PlainText | Records
    if FLAGS.records:
        text = Records(*files, shape, batch_size, replicas)
    else:
        text = PlainText(*files, folder, shape, batch_size, replicas, tokenizer)
    for line in text.fill:
        # Now, not after the training.
        fill_mask.encode(line, text.tokenizer, shape.max_seq_length)
    return text


class PlainText:
    """Plain text, packed into pairs, its masks drawn anew at each sight.

    Args:
        train_files: a document each.
        held_out_files: the same; none for the last tenth of the first
            training document.
        folder: as for `load`, like all that follow.
        shape: T and P.
        batch_size: B.
        replicas: R.
        tokenizer: that of another shape.

    Raises:
        InputError: as `load`.
    """

    def __init__(
        self,
        train_files: list[Path],
        held_out_files: list[Path],
        folder: Path,
        shape: Shape,
        batch_size: int,
        replicas: int,
        tokenizer: Tokenizer | None = None,
    ):
        train, held_out, found = _read(train_files, held_out_files)
        self.tokenizer = tokenizer or _tokenizer(train, folder)
        self.vocab_size = self.tokenizer.get_vocab_size()
        self.max_seq_length = shape.max_seq_length
        self.pair = families.chosen().pair
        self.task = _task()
        self._max_predictions = shape.max_predictions
        self.fill = FLAGS.fill or self._fitting(_lines_to_fill(held_out))
        self._batch_size = batch_size
        self._train = self._packed(train, FLAGS.dupe_factor)
        packed = self._packed(held_out, 1)
        examples = len(packed.lengths)
        size = _held_out_batch(examples, replicas)
        # Whole batches only: a last one of another size would be compiled
        # again.
        self.held_out = self._batches(packed, size, 0, examples // size, seed=0)
        self.held_out = self.held_out.cache()
        self.unigram = batches.unigram_baseline(
            batches.ordinary_tokens(self._train), self.held_out, self.vocab_size
        )
        words = sum(len(line.split()) for text in train for line in text)
        self.description = (
            f"{found}; {words:,} words in {len(self._train.lengths):,} "
            f"sequences, {examples:,} sequences held out"
            f"{_measured(examples, size)}, {_vocabulary(self.vocab_size)}, "
            f"{packing.unknown_words(self._train, self.tokenizer)}"
            f"{_renamed(self.pair, self.task)}"
        )

    def _fitting(self, lines: list[str]) -> list[str]:
        """Of lines that nobody asked for, those that are short enough."""
        found = []
        for line in lines:
            with contextlib.suppress(InputError):
                fill_mask.encode(line, self.tokenizer, self.max_seq_length)
                found.append(line)
        return found

    def _packed(self, documents: list[list[str]], dupe_factor: int):
        return packing.pack_pairs(
            corpus.tokenize(documents, self.tokenizer),
            self.tokenizer,
            self.max_seq_length,
            short_seq_prob=FLAGS.short_seq_prob,
            dupe_factor=dupe_factor,
            sentence_order=FLAGS.sentence_order,
            seed=FLAGS.seed,
        )

    def _batches(
        self, packed, size: int, first: int, last: int, **arguments
    ) -> tf.data.Dataset:
        return batches.pretraining_dataset(
            packed,
            batch_size=size,
            first_step=first,
            last_step=last,
            max_predictions=self._max_predictions,
            masked_lm_prob=FLAGS.masked_lm_prob,
            whole_word=FLAGS.do_whole_word_mask,
            max_ngram=FLAGS.max_ngram,
            pair=self.pair,
            **masking.masking_arguments(self.tokenizer),
            **arguments,
        )

    def train(
        self, first_step: int, last_step: int, reader: Reader = ALONE
    ) -> tf.data.Dataset:
        """Training batches `first_step` to `last_step` - 1 of the run."""
        return self._batches(
            self._train,
            self._batch_size,
            first_step,
            last_step,
            seed=FLAGS.seed,
            reader=reader,
        )


class Records:
    """TFRecords of examples that were masked when they were written.

    Args:
        train_files: TFRecords.
        held_out_files: TFRecords.
        shape: as for `load`, like all that follow.
        batch_size: B.
        replicas: R.

    Raises:
        InputError: as `load`; every record is checked.
    """

    def __init__(
        self,
        train_files: list[str],
        held_out_files: list[str],
        shape: Shape,
        batch_size: int,
        replicas: int,
    ):
        self.tokenizer = vocabulary.load_tokenizer(
            FLAGS.vocab_file, FLAGS.lowercase
        )
        self.vocab_size = self.tokenizer.get_vocab_size()
        self.max_seq_length = shape.max_seq_length
        # Records do not say what their labels mean.
        self.pair = self.task = families.chosen().pair
        self.fill = FLAGS.fill
        self._batch_size = batch_size
        self._arguments = {
            "max_seq_length": shape.max_seq_length,
            "max_predictions": shape.max_predictions,
            "vocab_size": self.vocab_size,
        }
        self._files = train_files
        self._examples, held_out = (
            records.check_records(paths, **self._arguments)
            for paths in (train_files, held_out_files)
        )
        self._arguments["pair"] = self.pair
        size = _held_out_batch(held_out, replicas)
        self.held_out = self._in_order(held_out_files, held_out, size).cache()
        once = self._in_order(train_files, self._examples, _HELD_OUT_BATCH)
        self.unigram = batches.unigram_baseline(
            batches.masked_tokens(once), self.held_out, self.vocab_size
        )
        self.description = (
            f"{self._examples:,} records, {held_out:,} held out"
            f"{_measured(held_out, size)}, {_vocabulary(self.vocab_size)}"
        )

    def _in_order(self, files, examples: int, size: int) -> tf.data.Dataset:
        """Whole batches of all examples, or one batch if they are fewer."""
        return records.read_records(
            files,
            batch_size=min(size, examples),
            first_step=0,
            last_step=max(examples // size, 1),
            seed=0,
            shuffle=False,
            examples=examples,
            **self._arguments,
        )

    def train(
        self, first_step: int, last_step: int, reader: Reader = ALONE
    ) -> tf.data.Dataset:
        """Training batches `first_step` to `last_step` - 1 of the run."""
        return records.read_records(
            self._files,
            batch_size=self._batch_size,
            first_step=first_step,
            last_step=last_step,
            seed=FLAGS.seed,
            examples=self._examples,
            reader=reader,
            **self._arguments,
        )


def _read(
    train_files: list[Path], held_out_files: list[Path]
) -> tuple[list[list[str]], list[list[str]], str]:
    """The documents of both, each a list of sentences, and what was found."""
    # Shakespeare's plays are a file each.
    name = FLAGS.input_format if FLAGS.input else "text"
    form = documents.Format(name, FLAGS.text_field)
    train, found = formats.read_all(train_files, form)
    if held_out_files:
        return train, formats.read_all(held_out_files, form)[0], found
    if len(train) > 1:
        held_out = max(len(train) // 10, 1)
        return train[:-held_out], train[-held_out:], found
    cut = len(train[0]) * 9 // 10
    return [train[0][:cut]], [train[0][cut:]], found


def _held_out_batch(examples: int, replicas: int) -> int:
    size = min(_HELD_OUT_BATCH, examples) // replicas * replicas
    if not size:
        raise InputError(
            f"--eval_input: {examples} sequences held out, expected at least "
            f"the {replicas} replicas"
        )
    return size


def _measured(examples: int, size: int) -> str:
    """What is said where held-out examples do not fill whole batches."""
    used = examples // size * size
    if used == examples:
        return ""
    return f" (the first {used:,} are measured: whole batches of {size})"


def _task() -> str:
    """What the label of a pair of plain text says."""
    return "sentence_order" if FLAGS.sentence_order else "next_sentence"


def _renamed(pair: str, task: str) -> str:
    """What is said where the model's output has the name of another task."""
    if pair == task:
        return ""
    task, output = task.replace("_", " "), pair.replace("_", " ")
    return (
        f"; pairs are those of {task}, which metrics.csv calls {output}, by "
        "the model's output"
    )


def _vocabulary(size: int) -> str:
    """Its size, and whether a flag that asks for another has no effect."""
    ignored = FLAGS.vocab_file and FLAGS["vocab_size"].present
    of_file = " (of --vocab_file: --vocab_size has no effect)"
    return f"vocabulary {size:,}{of_file if ignored else ''}"


def _tokenizer(train: list[list[str]], folder: Path) -> Tokenizer:
    if FLAGS.vocab_file:
        return vocabulary.load_tokenizer(FLAGS.vocab_file, FLAGS.lowercase)
    path = folder / families.chosen().vocabulary
    if (folder / run_folder.RECORD).exists() and path.exists():
        return vocabulary.load_tokenizer(path, FLAGS.lowercase is not False)
    return families.train_tokenizer(train, path)


def _lines_to_fill(held_out: list[list[str]]) -> list[str]:
    """Shakespeare's lines, or held-out sentences with a word masked."""
    if not FLAGS.input:
        return list(shakespeare.MASKED_LINES)
    rng = np.random.default_rng(FLAGS.seed)
    lines = [s for text in held_out for s in text if 6 <= len(s.split()) <= 20]
    chosen = rng.permutation(len(lines))[:6]
    texts = []
    for words in (lines[i].split() for i in chosen):
        words[rng.integers(1, len(words) - 1)] = "[MASK]"
        texts.append(" ".join(words))
    return texts
