"""The flags that say which text is read, its files, and their digests."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import flags

from official_models.common.errors import InputError
from official_models.common.flags import without_effect
from official_models.nlp.bert.pretraining import records
from official_models.nlp.text import corpus, formats, shakespeare

FLAGS = flags.FLAGS
# How text becomes examples; records hold examples that were made.
_OF_TEXT = (
    *("input_format", "text_field", "masked_lm_prob", "do_whole_word_mask"),
    *("max_ngram", "short_seq_prob", "dupe_factor", "sentence_order"),
)


class Shape(NamedTuple):
    """How long the sequences are, and in which phase of the training.

    Attributes:
        max_seq_length: T, tokens of a sequence.
        max_predictions: P, masked tokens of a sequence at most.
        phase: 1 or 2; the second has records of its own, which hold sequences
            of its length.
    """

    max_seq_length: int
    max_predictions: int
    phase: int = 1


def define_flags() -> None:
    """Defines the flags that say which text, and how it is cut and masked."""
    _define_file_flags()
    flags.DEFINE_integer(
        "vocab_size",
        8192,
        "Tokens of a vocabulary that is trained here.",
        upper_bound=2**24,
    )
    flags.DEFINE_boolean(
        "lowercase",
        None,
        "Whether the vocabulary is uncased. Default: what --vocab_file says by "
        "its tokens; one that is trained here is uncased.",
    )
    flags.DEFINE_enum(
        "input_format",
        formats.AUTO,
        list(formats.FORMATS),
        "text: a file is a document, blank lines part paragraphs. sentences: "
        "a line is a sentence, a blank line ends a document, as published. "
        "jsonl: a line is a JSON object, a document is one of its strings. "
        "wikiextractor: <doc ...> to </doc>. auto: what each file looks like.",
    )
    flags.DEFINE_string("text_field", "text", "Field of a JSON object.")
    _define_task_flags()
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
    # Of files, `facts` has digests.
    without_effect("input", "eval_input", "records", "eval_records")
    without_effect("phase2_records", "phase2_eval_records")
    without_effect("vocab_file", "cache_dir", "fill")


def _define_task_flags() -> None:
    flags.DEFINE_boolean(
        "sentence_order",
        None,
        "Label whether the two segments are swapped (SOP), not whether the "
        "second one is random (NSP). Default: as --model was published.",
    )
    flags.DEFINE_integer(
        "max_ngram",
        None,
        "Mask runs of 1 to this many whole words. Default: 1 for BERT, which "
        "masks single tokens, 3 for ALBERT.",
        1,
    )


def _define_file_flags() -> None:
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
    flags.DEFINE_list(
        "phase2_records", [], "TFRecords of phase 2, in its sequence length."
    )
    flags.DEFINE_list("phase2_eval_records", [], "Those held out of phase 2.")
    flags.DEFINE_string(
        "vocab_file",
        None,
        "A vocab.txt, one token a line, or a SentencePiece .model. Default: "
        "one trained on the text, of SentencePiece for --model albert.",
    )


def facts(shapes: Sequence[Shape]) -> dict[str, Any]:
    """What decides the batches beside flags: digests of the files.

    Args:
        shapes: of each phase.

    Raises:
        InputError: a file cannot be read, or flags contradict each other.
    """
    train, held_out = files_of(shapes[0])
    found = {
        "source": "records" if FLAGS.records else "text",
        # Runs of earlier versions drew other pairs and have no such fact.
        "pairs_drawn_by": None if FLAGS.records else "document",
        "train_sha256": _digest(train),
        "held_out_sha256": _digest(held_out),
        "vocab_file_sha256": _digest(filter(None, [FLAGS.vocab_file])),
    }
    if FLAGS.records:
        for shape in shapes[1:]:
            train, held_out = files_of(shape)
            found["phase2_train_sha256"] = _digest(train)
            found["phase2_held_out_sha256"] = _digest(held_out)
    return found


def _digest(paths) -> str:
    digest = hashlib.sha256()
    for path in paths:
        try:
            digest.update(hashlib.sha256(Path(path).read_bytes()).digest())
        except OSError as error:
            raise InputError(f"{path}: {error.strerror}") from error
    return digest.hexdigest()


def files_of(shape: Shape) -> tuple[list[Any], list[Any]]:
    """Training and held-out files; none held out means a part of each.

    Args:
        shape: of the sequences; its phase decides between records.

    Raises:
        InputError: a file cannot be found, or flags contradict each other.
    """
    if FLAGS.records:
        return _records_of(shape.phase)
    if FLAGS.phase2_records or FLAGS.phase2_eval_records:
        raise InputError("--phase2_records: expected together with --records")
    if not FLAGS.input:
        if FLAGS.eval_input:
            raise InputError("--eval_input: expected together with --input")
        works = shakespeare.fetch_shakespeare(FLAGS.cache_dir)
        return shakespeare.split_held_out(works)
    train = corpus.expand_inputs(FLAGS.input)
    if FLAGS.eval_input:
        held_out = corpus.expand_inputs(FLAGS.eval_input)
        check_held_out(train, held_out)
        return train, held_out
    if len(train) == 1:
        return train, []
    rng = np.random.default_rng(FLAGS.seed)
    count = max(1, round(len(train) / 10))
    chosen = set(rng.permutation(len(train))[:count].tolist())
    return (
        [path for i, path in enumerate(train) if i not in chosen],
        [path for i, path in enumerate(train) if i in chosen],
    )


def check_held_out(
    train: Iterable[str | Path],
    held_out: Iterable[str | Path],
    names: tuple[str, str] = ("input", "eval_input"),
) -> None:
    """Refuses held-out files that are trained on.

    Args:
        train: files.
        held_out: files.
        names: of the flags, of both.

    Raises:
        InputError: it names the first one.
    """
    known = {os.path.realpath(path) for path in train}
    for path in held_out:
        if os.path.realpath(path) in known:
            raise InputError(
                f"--{names[1]} {path}: is among the files of --{names[0]}, so "
                "that what is measured on it was learned; leave it out of one"
            )


def _records_of(phase: int) -> tuple[list[Any], list[Any]]:
    if FLAGS.input or not (FLAGS.eval_records and FLAGS.vocab_file):
        raise InputError(
            "--records: expected with --eval_records and --vocab_file, and "
            "without --input"
        )
    for name in _OF_TEXT:
        if FLAGS[name].present:
            raise InputError(
                f"--{name}: has no effect on --records, whose examples are "
                "made already; leave the flag out, or give it to the script "
                "that writes records"
            )
    names = "records", "eval_records"
    if phase == 2:
        names = "phase2_records", "phase2_eval_records"
        if not all(FLAGS[name].value for name in names):
            raise InputError(
                "--records with --phase2_steps: expected with --phase2_records "
                "and --phase2_eval_records, of --phase2_max_seq_length tokens"
            )
    train, held_out = (records.find_records(FLAGS[n].value) for n in names)
    check_held_out(train, held_out, names)
    return train, held_out
