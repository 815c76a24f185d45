"""From the flags of `pretrain.py` to training and held-out batches."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from absl import flags
from tokenizers import Tokenizer

from official_models.common import run_dir
from official_models.common.errors import InputError
from official_models.nlp.bert.pretraining import (
    batches,
    fill_mask,
    masking,
    packing,
    records,
)
from official_models.nlp.text import corpus, shakespeare, wordpiece

FLAGS = flags.FLAGS


class PretrainingText(NamedTuple):
    """Batches and what belongs to them.

    Attributes:
        tokenizer: the vocabulary.
        make_dataset: training batches `first` to `last` - 1 of the run.
        held_out: finite batches, masked once and for all.
        unigram: (loss, accuracy) of the training text's token counts on the
            held-out masks.
        fill: texts with a [MASK].
        description: of what the text is, in a line.
    """

    tokenizer: Tokenizer
    make_dataset: Callable[[int, int], tf.data.Dataset]
    held_out: tf.data.Dataset
    unigram: tuple[float, float]
    fill: list[str]
    description: str


def define_flags() -> None:
    """Defines the flags that say which text, and how it is cut and masked."""
    flags.DEFINE_list(
        "input",
        [],
        "Plain-text files, globs or folders, comma-separated, one document a "
        "file. Default: the works of Shakespeare.",
    )
    flags.DEFINE_list(
        "eval_input",
        [],
        "Held-out text. Default: about a tenth of the files of --input, or "
        "the last tenth of a single file.",
    )
    flags.DEFINE_list(
        "records",
        [],
        "In place of --input: TFRecords of masked examples, as "
        "official_models.nlp.bert.pretraining.records writes them; wants "
        "--eval_records and --vocab_file.",
    )
    flags.DEFINE_list("eval_records", [], "Held-out TFRecords.")
    flags.DEFINE_string(
        "vocab_file",
        None,
        "A vocab.txt, one token a line. Default: one trained on the text.",
    )
    flags.DEFINE_integer("vocab_size", 8192, "Of a vocabulary trained here.")
    flags.DEFINE_boolean("lowercase", True, "Whether --vocab_file is uncased.")
    flags.DEFINE_integer("max_seq_length", 32, "Tokens a sequence.", 8)
    flags.DEFINE_integer(
        "max_predictions_per_seq", 5, "Masked tokens a sequence at most.", 1
    )
    flags.DEFINE_float("masked_lm_prob", 0.15, "Share of tokens masked.")
    flags.DEFINE_boolean("do_whole_word_mask", False, "Mask whole words.")
    flags.DEFINE_float("short_seq_prob", 0.1, "Share of shorter sequences.")
    flags.DEFINE_integer(
        "dupe_factor",
        5,
        "How often the training text is packed, each time into other pairs.",
        1,
    )
    flags.DEFINE_multi_string(
        "fill", [], "A text with a [MASK] to fill at the end; repeatable."
    )
    flags.DEFINE_string(
        "cache_dir", None, "Where Shakespeare is kept. Default: ~/.cache."
    )


def identity() -> dict:
    """What the flags say of the batches, with a digest of the files."""
    names = (
        "vocab_size",
        "max_seq_length",
        "max_predictions_per_seq",
        "masked_lm_prob",
        "do_whole_word_mask",
        "short_seq_prob",
        "dupe_factor",
        "lowercase",
    )
    train, held_out = _files()
    paths = [*train, *held_out]
    if FLAGS.vocab_file:
        paths.append(Path(FLAGS.vocab_file))
    return {name: FLAGS[name].value for name in names} | {
        "records": bool(FLAGS.records),
        "text_sha256": _digest(paths),
    }


def _digest(paths: list[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        try:
            digest.update(hashlib.sha256(Path(path).read_bytes()).digest())
        except OSError as error:
            raise InputError(f"{path}: {error.strerror}") from error
    return digest.hexdigest()


def _files() -> tuple[list[Path], list[Path]]:
    """Training and held-out files; none held out means a part of each."""
    if FLAGS.records:
        if FLAGS.input or not (FLAGS.eval_records and FLAGS.vocab_file):
            raise InputError(
                "--records: expected with --eval_records and --vocab_file, "
                "and without --input"
            )
        find = records.find_records
        return find(FLAGS.records), find(FLAGS.eval_records)
    if not FLAGS.input:
        if FLAGS.eval_input:
            raise InputError("--eval_input: expected together with --input")
        works = shakespeare.fetch_shakespeare(FLAGS.cache_dir)
        return shakespeare.split_held_out(works)
    train = corpus.expand_inputs(FLAGS.input)
    if FLAGS.eval_input:
        return train, corpus.expand_inputs(FLAGS.eval_input)
    if len(train) == 1:
        return train, []
    rng = np.random.default_rng(FLAGS.seed)
    count = max(1, round(len(train) / 10))
    chosen = set(rng.permutation(len(train))[:count].tolist())
    return (
        [path for i, path in enumerate(train) if i not in chosen],
        [path for i, path in enumerate(train) if i in chosen],
    )


def load(folder: Path, replicas: int = 1) -> PretrainingText:
    """Reads, tokenizes and packs the text, or opens the records.

    Args:
        folder: of the run; a vocabulary trained here is kept in it.
        replicas: that share each batch; of held-out text too.

    Raises:
        InputError: the text, the vocabulary or a record is not usable.
    """
    train_files, held_out_files = _files()
    if FLAGS.records:
        text = _load_records(train_files, held_out_files, replicas)
    else:
        text = _load_text(train_files, held_out_files, folder, replicas)
    for line in text.fill:
        # Now, not after the training.
        fill_mask.encode(line, text.tokenizer, FLAGS.max_seq_length)
    return text


def _load_text(
    train_files: list[Path],
    held_out_files: list[Path],
    folder: Path,
    replicas: int,
) -> PretrainingText:
    train = corpus.read_documents(train_files)
    held_out = corpus.read_documents(held_out_files) if held_out_files else []
    if not held_out:
        cut = len(train[0]) * 9 // 10
        train, held_out = [train[0][:cut]], [train[0][cut:]]
    tokenizer = _tokenizer(train, folder)
    packed = [
        packing.pack_pairs(
            corpus.tokenize(documents, tokenizer),
            tokenizer,
            FLAGS.max_seq_length,
            short_seq_prob=FLAGS.short_seq_prob,
            dupe_factor=dupe_factor,
            seed=FLAGS.seed,
        )
        for documents, dupe_factor in (
            (train, FLAGS.dupe_factor),
            (held_out, 1),
        )
    ]
    arguments = {
        "max_predictions": FLAGS.max_predictions_per_seq,
        "masked_lm_prob": FLAGS.masked_lm_prob,
        "whole_word": FLAGS.do_whole_word_mask,
        **masking.masking_arguments(tokenizer),
    }

    def make_dataset(first_step, last_step, reader=(0, 1)):
        return batches.pretraining_dataset(
            packed[0],
            batch_size=micro_batch_size(),
            first_step=first_step,
            last_step=last_step,
            seed=FLAGS.seed,
            reader=reader,
            **arguments,
        )

    # Whole batches only: a last one of another size would be compiled again.
    examples = len(packed[1].lengths)
    batch_size = _held_out_batch(examples, replicas)
    evaluation = batches.pretraining_dataset(
        packed[1],
        batch_size=batch_size,
        first_step=0,
        last_step=examples // batch_size,
        seed=0,
        **arguments,
    ).cache()
    vocab_size = arguments["vocab_size"]
    words = sum(len(line.split()) for text in train for line in text)
    return PretrainingText(
        tokenizer,
        make_dataset,
        evaluation,
        batches.unigram_baseline(
            batches.ordinary_tokens(packed[0]), evaluation, vocab_size
        ),
        FLAGS.fill or _lines_to_fill(held_out),
        f"{words:,} words in {len(packed[0].lengths):,} sequences, "
        f"{examples:,} sequences held out, vocabulary {vocab_size:,}",
    )


def _held_out_batch(examples: int, replicas: int) -> int:
    size = min(256, examples) // replicas * replicas
    if not size:
        raise InputError(
            f"--eval_input: {examples} sequences held out, expected at least "
            f"the {replicas} replicas"
        )
    return size


def micro_batch_size() -> int:
    """Sequences held in memory at once."""
    batch_size, parts = (
        FLAGS.global_batch_size,
        FLAGS.gradient_accumulation_steps,
    )
    if batch_size % parts:
        raise InputError(
            f"--gradient_accumulation_steps {parts}: expected a divisor of "
            f"--global_batch_size {batch_size}"
        )
    return batch_size // parts


def _tokenizer(train: list[list[str]], folder: Path) -> Tokenizer:
    if FLAGS.vocab_file:
        return wordpiece.load_tokenizer(FLAGS.vocab_file, FLAGS.lowercase)
    path = folder / "vocab.txt"
    if (folder / run_dir.RECORD).exists() and path.exists():
        return wordpiece.load_tokenizer(path)
    return wordpiece.train_tokenizer(train, FLAGS.vocab_size, path)


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


def _load_records(
    train: list[str], held_out: list[str], replicas: int
) -> PretrainingText:
    tokenizer = wordpiece.load_tokenizer(FLAGS.vocab_file, FLAGS.lowercase)
    arguments = {
        "max_seq_length": FLAGS.max_seq_length,
        "max_predictions": FLAGS.max_predictions_per_seq,
        "vocab_size": tokenizer.get_vocab_size(),
    }
    counts = [
        records.check_records(paths, **arguments) for paths in (train, held_out)
    ]

    def make_dataset(first_step, last_step, reader=(0, 1)):
        return records.read_records(
            train,
            batch_size=micro_batch_size(),
            first_step=first_step,
            last_step=last_step,
            seed=FLAGS.seed,
            examples=counts[0],
            reader=reader,
            **arguments,
        )

    batch_size = _held_out_batch(counts[1], replicas)
    evaluation = records.read_records(
        held_out,
        batch_size=batch_size,
        first_step=0,
        last_step=counts[1] // batch_size,
        seed=0,
        shuffle=False,
        examples=counts[1],
        **arguments,
    ).cache()
    once = records.read_records(
        train,
        batch_size=min(256, counts[0]),
        first_step=0,
        last_step=max(counts[0] // 256, 1),
        seed=0,
        shuffle=False,
        examples=counts[0],
        **arguments,
    )
    return PretrainingText(
        tokenizer,
        make_dataset,
        evaluation,
        batches.unigram_baseline(
            batches.masked_tokens(once), evaluation, arguments["vocab_size"]
        ),
        FLAGS.fill,
        f"{counts[0]:,} records, {counts[1]:,} held out, vocabulary "
        f"{arguments['vocab_size']:,}",
    )
