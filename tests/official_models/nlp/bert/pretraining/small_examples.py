"""Small packed examples, to be masked, and records of them."""

import numpy as np

from official_models.nlp.bert.pretraining import records
from official_models.nlp.bert.pretraining.packing import PackedPairs

CLS, SEP, MASK = 2, 3, 4
VOCAB = 5005
MASKING = {"vocab_size": VOCAB, "mask_id": MASK, "special_ids": (CLS, SEP)}


def packed():
    """1,000 different examples up to 32 long; a third are "##" pieces."""
    rng = np.random.default_rng(10)
    lengths = np.where(rng.random(1000) < 0.7, 32, rng.integers(5, 33, 1000))
    ids = rng.integers(5, VOCAB, (1000, 32), np.int32)
    segment_ids = np.zeros_like(ids)
    for row, segment, length in zip(ids, segment_ids, lengths):
        middle = rng.integers(2, length - 2)
        row[[0, middle, length - 1]] = CLS, SEP, SEP
        segment[middle + 1 : length] = 1
        row[length:] = 0
    word_starts = (ids >= 5) & (ids % 3 > 0)
    labels = rng.integers(0, 2, 1000, np.int32)
    lengths = lengths.astype(np.int32)
    return PackedPairs(ids, segment_ids, lengths, word_starts, labels)


# Of `of_records`.
RECORD_VOCAB = 1000
RECORD_MASKING = {
    "vocab_size": RECORD_VOCAB,
    "mask_id": MASK,
    "special_ids": (CLS, SEP),
    "max_predictions": 3,
}
SIZES = {
    "max_seq_length": 16,
    "max_predictions": 3,
    "vocab_size": RECORD_VOCAB,
}


def of_records(examples):
    """Examples of 16 tokens, no two alike."""
    rng = np.random.default_rng(1)
    ids = rng.integers(5, RECORD_VOCAB, (examples, 16), np.int32)
    ids[:, [0, 6, 13]] = CLS, SEP, SEP
    ids[:, 14:] = 0
    segment_ids = np.zeros_like(ids)
    segment_ids[:, 7:14] = 1
    lengths = np.full(examples, 14, np.int32)
    labels = rng.integers(0, 2, examples, np.int32)
    return PackedPairs(ids, segment_ids, lengths, ids >= 5, labels)


def write(folder, examples=50, **arguments):
    """`write_records` of some of them."""
    arguments = {"seed": 7, **RECORD_MASKING, **arguments}
    return records.write_records(of_records(examples), folder, **arguments)


def read(paths, first_step, last_step, **arguments):
    """`read_records` of them."""
    return records.read_records(
        paths,
        first_step=first_step,
        last_step=last_step,
        **{"batch_size": 8, "seed": 3, **SIZES, **arguments},
    )


def check(*paths, **sizes):
    """`check_records` of them."""
    return records.check_records(paths, **{**SIZES, **sizes})
