r"""BERT's pretraining examples, masked once and kept as TFRecords.

    python -m official_models.nlp.bert.pretraining.records \
        --input 'books/*.txt' --vocab_file vocab.txt --output_dir records

Axes: N examples, B batch, T tokens of a sequence, P predictions, V vocabulary.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from absl import flags

from official_models.common import readers, record_check, records
from official_models.common.errors import InputError, run
from official_models.common.readers import Reader
from official_models.nlp.bert.pretraining import recipe
from official_models.nlp.bert.pretraining.batches import model_inputs
from official_models.nlp.bert.pretraining.masking import (
    Draws,
    check_masking,
    draw_by_key,
    example_keys,
    mask_tokens,
)
from official_models.nlp.bert.pretraining.packing import (
    PackedPairs,
    unknown_words,
)

_CHUNK = 1024
_WRITER = "python -m official_models.nlp.bert.pretraining.records writes some"


def record_fields(
    max_seq_length: int, max_predictions: int, vocab_size: int
) -> dict[str, records.Field]:
    """The features of a record, in the order they are written.

    They are the seven that `create_pretraining_data.py` of google-research/bert
    writes.
    """
    tokens, predictions = max_seq_length, max_predictions
    return {
        "input_ids": records.Field(tf.int64, tokens, 0, vocab_size - 1),
        "input_mask": records.Field(tf.int64, tokens, 0, 1),
        "segment_ids": records.Field(tf.int64, tokens, 0, 1),
        "masked_lm_positions": records.Field(
            tf.int64, predictions, 0, tokens - 1
        ),
        "masked_lm_ids": records.Field(
            tf.int64, predictions, 0, vocab_size - 1
        ),
        "masked_lm_weights": records.Field(tf.float32, predictions, 0, 1),
        "next_sentence_labels": records.Field(tf.int64, 1, 0, 1),
    }


def find_records(paths: Sequence[str | Path]) -> list[str]:
    """The record files that `paths` mean, as `common.records.find`.

    Raises:
        InputError: If one of them matches no file.
    """
    return records.find(paths, _WRITER)


def check_records(
    paths: Sequence[str | Path],
    *,
    max_seq_length: int,
    max_predictions: int,
    vocab_size: int,
) -> int:
    """Holds every record of every file against the format.

    Args:
        paths: As for `find_records`.
        max_seq_length: T.
        max_predictions: P.
        vocab_size: V.

    Returns:
        The number of examples.

    Raises:
        InputError: See `common.record_check.check`.
    """
    fields = record_fields(max_seq_length, max_predictions, vocab_size)
    return record_check.check(find_records(paths), fields)


# Writing


def write_records(
    packed: PackedPairs,
    output_dir: str | Path,
    *,
    num_shards: int = 1,
    dupe_factor: int = 1,
    seed: int,
    compression: str = "none",
    packed_by: Mapping[str, Any] | None = None,
    vocab_size: int,
    mask_id: int,
    special_ids: Sequence[int],
    max_predictions: int,
    masked_lm_prob: float = 0.15,
    whole_word: bool = False,
    max_ngram: int = 1,
) -> list[Path]:
    """Masks examples and writes them, shuffled, as TFRecords.

    They appear as `common.records.write_set` says: a writer that is killed
    leaves nothing that `check_records` accepts.

    Args:
        packed: N examples, as arrays.
        output_dir: Receives `examples-00000-of-00001.tfrecord` (or
            `.tfrecord.gz`) and so on; must not hold such files yet.
        num_shards: Number of files; examples are dealt to them in turn.
        dupe_factor: How often each example is written, each time masked
            anew.
        seed: In [0, 2**32). The files are a function of the arguments.
        compression: "none" or "gzip".
        packed_by: What the manifest is to say of how the examples were packed,
            JSON values, which count more than the arguments.
        vocab_size: As for `masking.mask_tokens`, like all that follow.

    Returns:
        The files.

    Raises:
        InputError: If an argument is out of range or the files cannot be
            written.
    """
    masking = {
        "vocab_size": vocab_size,
        "mask_id": mask_id,
        "special_ids": tuple(special_ids),
        "max_predictions": max_predictions,
        "masked_lm_prob": masked_lm_prob,
        "whole_word": whole_word,
        "max_ngram": max_ngram,
    }
    check_masking(packed, **masking)
    total = len(packed.lengths) * dupe_factor
    _check_writing(total, num_shards, dupe_factor, compression, seed)
    sizes = {
        records.shard_name(shard, num_shards, compression): len(
            range(shard, total, num_shards)
        )
        for shard in range(num_shards)
    }
    manifest = {
        "max_seq_length": packed.input_ids.shape[1],
        "dupe_factor": dupe_factor,
        "seed": seed,
        **masking,
        **(packed_by or {}),
    }
    try:
        return records.write_set(
            masked_examples(
                packed, masking, dupe_factor=dupe_factor, seed=seed
            ),
            Path(output_dir),
            sizes,
            manifest,
        )
    except (OSError, tf.errors.OpError) as error:
        raise InputError(f"cannot write to {output_dir}: {error}") from error


def _check_writing(total, num_shards, dupe_factor, compression, seed) -> None:
    if dupe_factor < 1 or not 1 <= num_shards <= total:
        raise InputError(
            f"num_shards {num_shards}, dupe_factor {dupe_factor}: expected "
            f"at least 1, and no more shards than examples ({total})"
        )
    if compression not in ("none", "gzip"):
        raise InputError(
            f"compression {compression!r}: expected 'none' or 'gzip'"
        )
    readers.check_seed(seed)


def masked_examples(
    packed: PackedPairs,
    masking: Mapping[str, Any],
    *,
    dupe_factor: int = 1,
    seed: int,
) -> Iterator[bytes]:
    """Masks examples and serializes them in random order.

    The masks of an example depend on `masking.example_keys`, so they are the
    same whatever is masked beside it; the order depends on `seed` and on the
    number of examples.

    Args:
        packed: N examples, as arrays.
        masking: Arguments of `masking.mask_tokens` other than random numbers.
        dupe_factor: How often each example is given, each time masked anew.
        seed: Non-negative.

    Yields:
        N * `dupe_factor` serialized `tf.train.Example`.
    """
    keys = example_keys(packed, dupe_factor=dupe_factor, seed=seed)
    order = np.random.default_rng(seed).permutation(len(keys))
    length = packed.input_ids.shape[1]
    masked = _compiled(tuple(sorted(masking.items())))
    for first in range(0, len(order), _CHUNK):
        numbers = order[first : first + _CHUNK]
        rows = numbers % len(packed.lengths)
        batch = PackedPairs(*(tf.constant(array[rows]) for array in packed))
        draws = draw_by_key(
            [keys[number] for number in numbers], length, masking["vocab_size"]
        )
        features = masked(batch, Draws(*map(tf.constant, draws)))
        features = {
            name: value.numpy().reshape(len(rows), -1).tolist()
            for name, value in features.items()
        }
        for row in range(len(rows)):
            yield records.serialize(
                {name: values[row] for name, values in features.items()},
                floats=("masked_lm_weights",),
            )


@functools.lru_cache(maxsize=4)
def _compiled(masking: tuple[tuple[str, Any], ...]):
    """`mask_tokens` with these arguments, as a graph."""
    return tf.function(
        lambda rows, draws: mask_tokens(rows, draws=draws, **dict(masking)),
        reduce_retracing=True,
    )


# Reading


def read_records(
    paths: Sequence[str | Path],
    *,
    batch_size: int,
    max_seq_length: int,
    max_predictions: int,
    vocab_size: int,
    first_step: int,
    last_step: int,
    seed: int,
    shuffle: bool = True,
    examples: int | None = None,
    pair: str = "next_sentence",
    reader: Reader = readers.ALONE,
) -> tf.data.Dataset:
    """Batches number `first_step` to `last_step` - 1 of an endless run.

    Their order is that of `common.records.read`.

    Args:
        paths: Files, globs or folders, as for `find_records`.
        batch_size: B.
        max_seq_length: T.
        max_predictions: P.
        vocab_size: V.
        first_step: Number of the first batch, from 0.
        last_step: Number after the last batch's.
        seed: In [0, 2**32).
        shuffle: False keeps the order of the files, every epoch.
        examples: What `check_records` returned for the same files; by
            default they are checked now.
        pair: As for `batches.model_inputs`.
        reader: (index, count); it reads all records, and parses and gives its
            B / count rows of each batch.

    Returns:
        Batches like those of `batches.pretraining_dataset`.

    Raises:
        InputError: If a file is not whole (see `check_records`) or an
            argument is out of range.
    """
    sizes = {
        "max_seq_length": max_seq_length,
        "max_predictions": max_predictions,
        "vocab_size": vocab_size,
    }
    found = find_records(paths)
    if examples is None:
        examples = check_records(found, **sizes)
    fields = record_fields(**sizes)
    return records.read(
        found,
        lambda serialized: model_inputs(_as_features(serialized, fields), pair),
        batch_size=batch_size,
        first_step=first_step,
        last_step=last_step,
        seed=seed,
        shuffle=shuffle,
        examples=examples,
        reader=reader,
    )


def _as_features(serialized, fields) -> dict[str, tf.Tensor]:
    features = records.as_int32(records.parse(serialized, fields))
    labels = features["next_sentence_labels"]
    return {**features, "next_sentence_labels": tf.squeeze(labels, 1)}


# Script


def define_flags() -> None:
    """Defines the script's flags, named as in `create_pretraining_data.py`."""
    flags.DEFINE_list("input", None, "Text files, globs or folders of *.txt.")
    flags.DEFINE_string(
        "input_format",
        "auto",
        "text, sentences, jsonl or wikiextractor, as of "
        "create_pretraining_data; auto: what each file looks like.",
    )
    flags.DEFINE_string("text_field", "text", "Field of a JSON object.")
    recipe.define_flags()
    flags.adopt_module_key_flags(recipe)  # for --help
    flags.DEFINE_integer("num_shards", 1, "Number of files.")
    flags.mark_flags_as_required(["input", "output_dir", "vocab_file"])


def main(argv: list[str]) -> None:
    """Text -> pairs -> masked examples -> TFRecords."""
    # Only here are texts read: reading records needs no tokenizers package.
    from official_models.nlp.text import corpus, documents, formats, vocabulary

    del argv
    args = flags.FLAGS
    how = recipe.from_flags()
    if args.input_format not in formats.FORMATS:
        raise InputError(
            f"--input_format {args.input_format}: expected one of "
            f"{', '.join(formats.FORMATS)}"
        )
    tokenizer = vocabulary.load_tokenizer(args.vocab_file, args.do_lower_case)
    texts, found = formats.read_all(
        corpus.expand_inputs(args.input),
        documents.Format(args.input_format, args.text_field),
    )
    packed = how.pack(texts, tokenizer)
    paths = write_records(
        packed,
        args.output_dir,
        num_shards=args.num_shards,
        seed=how.seed,
        compression=args.compression,
        packed_by=how._asdict(),
        **how.masking(tokenizer),
    )
    print(
        f"{found}: {len(packed.lengths)} examples in {len(paths)} files in "
        f"{args.output_dir}, {unknown_words(packed, tokenizer)}",
        file=sys.stderr,
    )


if __name__ == "__main__":
    define_flags()
    run(main)
