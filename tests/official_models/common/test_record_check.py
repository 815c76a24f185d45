"""Records that are not whole are named; foreign ones are read."""

import json

import numpy as np
import pytest
import tensorflow as tf

from official_models.common import records
from official_models.common.errors import InputError
from tests.official_models.nlp.bert.pretraining import small_examples as small
from tests.official_models.scripts import refusal


def _read(path, **arguments):
    return small.read([path], 0, 1, **arguments)


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_no_flipped_bit_passes(tmp_path, compression):
    (path,) = small.write(tmp_path, examples=6, compression=compression)
    (good,) = _read(path, batch_size=6, shuffle=False)
    whole = path.read_bytes()
    named = 0
    step = max(len(whole) // 80, 1)
    for place in [*range(40), *range(40, len(whole), step)]:
        broken = bytearray(whole)
        broken[place] ^= 1 << place % 8
        path.write_bytes(broken)
        try:
            assert small.check(path) == 6
        except InputError as error:
            assert str(path) in str(error) and "record " in str(error)
            named += 1
            continue
        # Harmless: a gzip header has fields that nothing depends on.
        assert compression == "gzip" and place < 10
        (batch,) = _read(path, batch_size=6, shuffle=False)
        tf.nest.map_structure(np.testing.assert_array_equal, good, batch)
    assert named > 90


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_no_truncation_passes(tmp_path, compression):
    (path,) = small.write(tmp_path, examples=6, compression=compression)
    whole = path.read_bytes()
    cuts = [0, 1, 11, 12, 20, len(whole) - 1, len(whole) - 8]
    if compression == "none":
        first = 16 + int.from_bytes(whole[:8], "little")
        # Between two records there is nothing to see in the file itself.
        cuts += [first - 1, first, first + 1, len(whole) // 2]
    for cut in cuts:
        path.write_bytes(whole[:cut])
        refusal(lambda: small.check(path), path, "record")
        refusal(lambda: _read(path), path)


def test_fault_is_named_by_its_record(tmp_path):
    (path,) = small.write(tmp_path, examples=10)
    whole = bytearray(path.read_bytes())
    size = len(whole) // 10  # records may differ by some bytes, not by half
    whole[6 * size + size // 2] ^= 4
    path.write_bytes(whole)
    refusal(lambda: small.check(path), path, "record 6 (from 0)")


def _example(**changes):
    """A valid record but for `changes`; None leaves the feature out."""
    values = {
        "input_ids": [5] * 16,
        "input_mask": [1] * 16,
        "segment_ids": [0] * 16,
        "masked_lm_positions": [1, 2, 0],
        "masked_lm_ids": [5, 5, 0],
        "masked_lm_weights": [1.0, 1.0, 0.0],
        "next_sentence_labels": [1],
        **changes,
    }
    example = tf.train.Example()
    for name, value in values.items():
        if value is None:
            continue
        feature = example.features.feature[name]
        kind = "float" if any(isinstance(v, float) for v in value) else "int64"
        getattr(feature, f"{kind}_list").value.extend(value)
    return example.SerializeToString()


def _foreign(path, *examples):
    with tf.io.TFRecordWriter(str(path)) as writer:
        for example in examples:
            writer.write(example)
    return path


def test_foreign_records_are_read(tmp_path):
    path = _foreign(tmp_path / "tf_examples.tfrecord", *[_example()] * 4)
    assert small.check(path) == 4
    (batch,) = _read(path, batch_size=4)
    assert batch[1]["next_sentence"].numpy().tolist() == [1] * 4


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"segment_ids": None}, ["'segment_ids'", "missing"]),
        ({"input_ids": [5] * 15}, ["'input_ids'", "15", "expected 16"]),
        ({"masked_lm_ids": [5] * 4}, ["'masked_lm_ids'", "4", "expected 3"]),
        ({"input_ids": [5.0] * 16}, ["'input_ids'", "int64", "expected 16"]),
        ({"masked_lm_weights": [1, 1, 0]}, ["'masked_lm_weights'", "float"]),
        (
            {"input_ids": [small.RECORD_VOCAB] + [5] * 15},
            ["has 1000 at place 0", "to 999"],
        ),
        ({"masked_lm_ids": [5, -1, 0]}, ["has -1 at place 1"]),
        ({"masked_lm_ids": [2**32 + 5, 0, 0]}, ["'masked_lm_ids'", "to 999"]),
        ({"masked_lm_positions": [1, 16, 0]}, ["has 16", "0 to 15"]),
        ({"input_mask": [2] * 16}, ["'input_mask'", "0 to 1"]),
        ({"segment_ids": [2] * 16}, ["'segment_ids'", "0 to 1"]),
        ({"next_sentence_labels": [2]}, ["'next_sentence_labels'", "0 to 1"]),
        ({"masked_lm_weights": [float("nan"), 1.0, 0.0]}, ["has nan"]),
    ],
)
def test_bad_feature_is_named(tmp_path, changes, parts):
    # In the second batch of the check, so that its number is counted on.
    good, bad = [_example()] * 300, _example(**changes)
    path = _foreign(tmp_path / "x.tfrecord", *good, bad, *good[:5])
    refusal(lambda: small.check(path), path, "record 300 (from 0)", *parts)


def test_records_of_something_else(tmp_path):
    path = _foreign(tmp_path / "x.tfrecord", _example(), b"\xff\xff\xff")
    refusal(
        lambda: small.check(path), path, "record 1 (from 0)", "tf.train.Example"
    )
    path.write_text("Plain text, long enough for a record's header.\n")
    refusal(
        lambda: small.check(path), path, "record 0 (from 0)", "no TFRecords"
    )


def test_sizes_that_do_not_fit_the_files(tmp_path):
    (path,) = small.write(tmp_path)
    refusal(lambda: small.check(path, max_seq_length=32), path, "expected 32")
    refusal(lambda: small.check(path, max_predictions=4), path, "expected 4")
    refusal(lambda: small.check(path, vocab_size=500), path, "0 to 499")


def test_missing_files_are_named(tmp_path):
    refusal(lambda: small.check(tmp_path / "none"), tmp_path / "none")
    refusal(lambda: small.check(tmp_path), tmp_path)
    refusal(lambda: small.check(), "no record files")
    refusal(lambda: _read(tmp_path / "*.tfrecord"), tmp_path)


def test_incomplete_sets_are_refused(tmp_path):
    paths = small.write(tmp_path, num_shards=3)
    manifest = tmp_path / "examples.json"
    text = manifest.read_text()
    manifest.unlink()
    refusal(lambda: small.check(tmp_path), paths[0], "examples.json")
    for damaged in (text[:50], "{}", '{"shards": 3}', "[]"):
        manifest.write_text(damaged)
        refusal(lambda: small.check(tmp_path), manifest, "damaged")
    counts = json.loads(text)
    counts["shards"][paths[1].name] += 1
    manifest.write_text(json.dumps(counts))
    refusal(lambda: small.check(tmp_path), paths[1], "ends after 17 records")
    del counts["shards"][paths[1].name]
    manifest.write_text(json.dumps(counts))
    refusal(lambda: small.check(tmp_path), paths[1], "does not list")
    manifest.write_text(text)
    paths[1].unlink()
    refusal(lambda: small.check(tmp_path), paths[1], "missing")


def test_mixed_compression_is_refused(tmp_path):
    paths = [
        *small.write(tmp_path / "a"),
        *small.write(tmp_path / "b", compression="gzip"),
    ]
    refusal(lambda: small.check(*paths), "*.gz")


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_counts_with_a_manifest_and_without(tmp_path, compression):
    paths = small.write(tmp_path / "a", num_shards=3, compression=compression)
    counts = [records.count(str(path)) for path in paths]
    assert counts == [17, 17, 16]
    foreign = tmp_path / paths[0].name.replace("examples", "foreign")
    foreign.write_bytes(paths[0].read_bytes())
    assert records.count(str(foreign)) == 17
    if compression == "none":
        foreign.write_bytes(paths[0].read_bytes()[:-1])
        refusal(lambda: records.count(str(foreign)), foreign)
    foreign.write_bytes(b"")
    refusal(lambda: records.count(str(foreign)), foreign)
