"""BERT's pretraining examples, masked once and kept as TFRecords.

    python -m official_models.nlp.bert.pretraining.records \
        --input 'books/*.txt' --vocab_file vocab.txt --output_dir records

Axes: N examples, B batch, T tokens of a sequence, P predictions, V vocabulary.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
from absl import flags
from tqdm import tqdm

from official_models.common.errors import InputError, run
from official_models.nlp.bert.pretraining.batches import (
    check_steps,
    model_inputs,
    rows_of_reader,
)
from official_models.nlp.bert.pretraining.masking import (
    check_masking,
    mask_tokens,
    masking_arguments,
)
from official_models.nlp.bert.pretraining.packing import PackedPairs, pack_pairs
from official_models.nlp.bert.pretraining.record_files import (
    MANIFEST,
    check_records,
    find_records,
    is_compressed,
    open_records,
    parse_records,
    record_fields,
)

__all__ = ["check_records", "find_records", "read_records", "write_records"]

_CHUNK = 1024
_SHUFFLE_BUFFER = 16384
_OPEN_SHARDS = 8


# Writing


def write_records(
    packed: PackedPairs,
    output_dir: str | Path,
    *,
    num_shards: int = 1,
    dupe_factor: int = 1,
    seed: int,
    compression: str = "none",
    vocab_size: int,
    mask_id: int,
    special_ids: Sequence[int],
    max_predictions: int,
    masked_lm_prob: float = 0.15,
    whole_word: bool = False,
) -> list[Path]:
    """Masks examples and writes them, shuffled, as TFRecords.

    The shards appear when all are complete, and `examples.json`, which lists
    how many records each has, after them: a writer that is killed leaves
    nothing that `check_records` accepts.

    Args:
        packed: N examples, as arrays.
        output_dir: Receives `examples-00000-of-00001.tfrecord` (or
            `.tfrecord.gz`) and so on; must not hold such files yet.
        num_shards: Number of files; examples are dealt to them in turn.
        dupe_factor: How often each example is written, each time masked
            anew.
        seed: In [0, 2**32). The files are a function of the arguments.
        compression: "none" or "gzip".
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
    }
    check_masking(packed, **masking)
    total = len(packed.lengths) * dupe_factor
    if dupe_factor < 1 or not 1 <= num_shards <= total:
        raise InputError(
            f"num_shards {num_shards}, dupe_factor {dupe_factor}: expected "
            f"at least 1, and no more shards than examples ({total})"
        )
    if compression not in ("none", "gzip") or not 0 <= seed < 2**32:
        raise InputError(
            f"compression {compression!r}, seed {seed}: expected 'none' or "
            "'gzip', and 0 to 2**32 - 1"
        )
    order = np.random.default_rng(seed).permutation(total) % len(packed.lengths)
    manifest = {
        "max_seq_length": packed.input_ids.shape[1],
        "dupe_factor": dupe_factor,
        "seed": seed,
        **masking,
    }
    try:
        return _write_shards(
            _examples(packed, order, seed, masking),
            Path(output_dir),
            _shard_sizes(total, num_shards, compression),
            manifest,
        )
    except (OSError, tf.errors.OpError) as error:
        raise InputError(f"cannot write to {output_dir}: {error}") from error


def _shard_sizes(total, num_shards, compression) -> dict[str, int]:
    suffix = ".tfrecord.gz" if compression == "gzip" else ".tfrecord"
    return {
        f"examples-{shard:05d}-of-{num_shards:05d}{suffix}": len(
            range(shard, total, num_shards)
        )
        for shard in range(num_shards)
    }


def _write_shards(examples, output_dir, sizes, manifest) -> list[Path]:
    output_dir.mkdir(parents=True, exist_ok=True)
    present = sorted(output_dir.glob("examples*"))
    if present:
        raise InputError(
            f"{present[0]} is in the way: remove the examples of an earlier "
            "run or choose another --output_dir"
        )
    compression = "GZIP" if is_compressed(list(sizes)) else ""
    with tempfile.TemporaryDirectory(
        prefix=".partial-", dir=output_dir
    ) as folder:
        partial = Path(folder)
        writers = [
            tf.io.TFRecordWriter(str(partial / name), compression)
            for name in sizes
        ]
        total = sum(sizes.values())
        progress = tqdm(examples, total=total, unit=" examples", disable=None)
        for number, example in enumerate(progress):
            writers[number % len(writers)].write(example)
        for writer in writers:
            writer.close()
        (partial / MANIFEST).write_text(
            json.dumps({"shards": sizes, **manifest}, indent=2) + "\n"
        )
        for name in (*sizes, MANIFEST):
            os.replace(partial / name, output_dir / name)
    return [output_dir / name for name in sizes]


def _examples(packed, order, seed, masking) -> Iterator[bytes]:
    """Serialized examples for the rows `order`."""
    masked = tf.function(
        lambda rows, mask_seed: mask_tokens(rows, seed=mask_seed, **masking),
        reduce_retracing=True,
    )
    for chunk, first in enumerate(range(0, len(order), _CHUNK)):
        rows = order[first : first + _CHUNK]
        batch = PackedPairs(*(tf.constant(array[rows]) for array in packed))
        features = masked(batch, tf.constant([seed, chunk], tf.int64))
        features = {
            name: value.numpy().reshape(len(rows), -1).tolist()
            for name, value in features.items()
        }
        for row in range(len(rows)):
            yield _serialize({name: v[row] for name, v in features.items()})


def _serialize(features: dict[str, list]) -> bytes:
    example = tf.train.Example()
    for name, values in features.items():
        feature = example.features.feature[name]
        if name == "masked_lm_weights":
            feature.float_list.value.extend(values)
        else:
            feature.int64_list.value.extend(values)
    # A map of protobuf has no order of its own.
    return example.SerializeToString(deterministic=True)


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
    shard: tuple[int, int] = (0, 1),
) -> tf.data.Dataset:
    """Batches number `first_step` to `last_step` - 1 of an endless run.

    The order is a function of the files, `batch_size`, `seed` and TensorFlow's
    global seed, so a run resumed at step k sees the batches that an
    uninterrupted one would. Each epoch has every example once, shuffled
    through a buffer over shards in random order; batches may straddle epochs.

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
        shard: (index, count) of this reader; it reads all records, and parses
            and gives its B / count rows of each batch.

    Returns:
        Batches like those of `data.pretraining_dataset`.

    Raises:
        InputError: If a file is not whole (see `check_records`) or an
            argument is out of range.
    """
    check_steps(batch_size, first_step, last_step, seed)
    sizes = {
        "max_seq_length": max_seq_length,
        "max_predictions": max_predictions,
        "vocab_size": vocab_size,
    }
    files = find_records(paths)
    if examples is None:
        examples = check_records(files, **sizes)
    fields = record_fields(**sizes)
    # Whole epochs are passed over without reading them.
    epoch, skipped = divmod(first_step * batch_size, examples)
    epochs = tf.data.Dataset.range(epoch, np.iinfo(np.int64).max)
    dataset = epochs.flat_map(
        lambda epoch: _epoch(files, tf.stack([seed, epoch]), shuffle)
    )
    dataset = dataset.skip(skipped).batch(batch_size, drop_remainder=True)
    index, readers = shard
    size = rows_of_reader(batch_size, readers)
    rows = slice(index * size, (index + 1) * size)
    dataset = dataset.take(last_step - first_step).map(
        lambda records: model_inputs(_as_features(records[rows], fields)),
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )
    known = tf.data.experimental.assert_cardinality(last_step - first_step)
    return dataset.apply(known).prefetch(tf.data.AUTOTUNE)


def _epoch(files, seed, shuffle) -> tf.data.Dataset:
    """All serialized records once; `seed` is int64 [2]."""
    compressed = is_compressed(files)
    if not shuffle:
        return open_records(tf.constant(files), compressed)
    order_seed, buffer_seed = tf.unstack(
        tf.random.experimental.stateless_split(seed, 2)
    )
    shards = tf.random.experimental.stateless_shuffle(files, order_seed)
    dataset = tf.data.Dataset.from_tensor_slices(shards).interleave(
        lambda shard: open_records(shard, compressed),
        cycle_length=min(len(files), _OPEN_SHARDS),
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )
    graph = tf.compat.v1.get_default_graph()
    if graph.seed == 0:
        # shuffle() compares seeds of 0 as Python numbers, which a tensor is
        # not.
        graph.seed = 2**30
    return dataset.shuffle(
        _SHUFFLE_BUFFER,
        seed=tf.cast(buffer_seed[0], tf.int64),
        reshuffle_each_iteration=False,
    )


def _as_features(records, fields) -> dict[str, tf.Tensor]:
    parsed = parse_records(records, fields)
    features = {
        name: tf.cast(value, tf.int32) if value.dtype == tf.int64 else value
        for name, value in parsed.items()
    }
    labels = features["next_sentence_labels"]
    return {**features, "next_sentence_labels": tf.squeeze(labels, 1)}


# Script


def define_flags() -> None:
    """Defines the script's flags, named as in `create_pretraining_data.py`.

    They are no module-level names, so that a script that imports this module
    may have an --input of its own.
    """
    flags.DEFINE_list("input", None, "Text files, globs or folders of *.txt.")
    flags.DEFINE_string("output_dir", None, "Folder for the records.")
    flags.DEFINE_string("vocab_file", None, "WordPiece vocabulary, vocab.txt.")
    flags.DEFINE_boolean("do_lower_case", True, "Lower-case the text.")
    flags.DEFINE_boolean("do_whole_word_mask", False, "Mask whole words.")
    flags.DEFINE_integer("max_seq_length", 128, "Tokens of a sequence.")
    flags.DEFINE_integer("max_predictions_per_seq", 20, "Masked tokens.")
    flags.DEFINE_integer("random_seed", 12345, "Seed of all randomness.")
    flags.DEFINE_integer("dupe_factor", 10, "Times the text is packed.")
    flags.DEFINE_float("masked_lm_prob", 0.15, "Share of tokens masked.")
    flags.DEFINE_float("short_seq_prob", 0.1, "Share of short sequences.")
    flags.DEFINE_integer("num_shards", 1, "Number of files.")
    flags.DEFINE_enum("compression", "none", ["none", "gzip"], "Of the files.")
    flags.mark_flags_as_required(["input", "output_dir", "vocab_file"])


def main(argv: list[str]) -> None:
    """Text -> pairs -> masked examples -> TFRecords."""
    # Only here are texts read: reading records needs no tokenizers package.
    from official_models.nlp.text import corpus

    del argv
    args = flags.FLAGS
    tokenizer = corpus.load_tokenizer(args.vocab_file, args.do_lower_case)
    documents = corpus.read_documents(corpus.expand_inputs(args.input))
    packed = pack_pairs(
        corpus.tokenize(documents, tokenizer),
        tokenizer,
        args.max_seq_length,
        short_seq_prob=args.short_seq_prob,
        dupe_factor=args.dupe_factor,
        seed=args.random_seed,
    )
    paths = write_records(
        packed,
        args.output_dir,
        num_shards=args.num_shards,
        seed=args.random_seed,
        compression=args.compression,
        max_predictions=args.max_predictions_per_seq,
        masked_lm_prob=args.masked_lm_prob,
        whole_word=args.do_whole_word_mask,
        **masking_arguments(tokenizer),
    )
    print(
        f"{len(packed.lengths)} examples in {len(paths)} files in "
        f"{args.output_dir}",
        file=sys.stderr,
    )


if __name__ == "__main__":
    define_flags()
    run(main)
