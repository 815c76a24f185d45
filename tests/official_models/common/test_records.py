"""TFRecords of any features: serialized, parsed, read by several."""

import numpy as np
import pytest
import tensorflow as tf

from official_models.common import record_check, records
from tests.official_models.scripts import refusal

FIELDS = {
    "x": records.Field(tf.int64, 2, 0, 99),
    "y": records.Field(tf.int64, None, 0, 1),
    "w": records.Field(tf.float32, 1, 0, 1),
}


def _rows(count):
    for i in range(count):
        yield {"x": [i, 2 * i], "y": [i % 2], "w": [i / 64]}


def _write(folder, count, shards=2, compression="none"):
    sizes = {
        records.shard_name(i, shards, compression): len(range(i, count, shards))
        for i in range(shards)
    }
    examples = (records.serialize(row, floats=("w",)) for row in _rows(count))
    return records.write_set(examples, folder, sizes, {"seed": 7})


def _read(paths, first=0, last=5, **arguments):
    options = {"batch_size": 4, "seed": 3, "shuffle": True, "examples": 10}
    return list(
        records.read(
            records.find(paths),
            lambda serialized: records.as_int32(
                records.parse(serialized, FIELDS)
            ),
            first_step=first,
            last_step=last,
            **{**options, **arguments},
        )
    )


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_round_trip(tmp_path, compression):
    paths = _write(tmp_path, 10, compression=compression)
    (batch,) = _read(paths, 0, 1, batch_size=10, shuffle=False)
    assert {n: v.dtype.name for n, v in batch.items()} == {
        "x": "int32",
        "y": "int32",
        "w": "float32",
    }
    order = [*range(0, 10, 2), *range(1, 10, 2)]
    assert batch["x"].numpy().tolist() == [[i, 2 * i] for i in order]
    assert batch["y"].numpy().tolist() == [i % 2 for i in order]
    assert batch["w"].numpy().tolist() == [[i / 64] for i in order]


def test_the_same_row_is_the_same_bytes():
    row = {"x": [1, 2], "y": [0], "w": [0.5]}
    again = dict(reversed(row.items()))
    serialized = records.serialize(row, floats=["w"])
    assert serialized == records.serialize(again, floats=["w"])


def test_check_takes_any_fields(tmp_path):
    fields = {**FIELDS, "y": FIELDS["y"]._replace(length=1)}
    (path, _) = _write(tmp_path, 10)
    assert record_check.check([tmp_path], fields) == 10
    narrow = {**fields, "x": FIELDS["x"]._replace(high=9)}
    refusal(
        lambda: record_check.check([path], narrow),
        path,
        "record 3 (from 0)",
        "'x' has 12 at place 1, expected 0 to 9",
    )


def test_readers_share_each_batch(tmp_path):
    _write(tmp_path, 10)
    whole = _read([tmp_path])
    halves = [_read([tmp_path], reader=(i, 2)) for i in range(2)]
    for batch, parts in zip(whole, zip(*halves)):
        both = np.concatenate([part["x"] for part in parts])
        np.testing.assert_array_equal(batch["x"], both)


def test_bad_readers_steps_and_paths(tmp_path):
    _write(tmp_path, 10)
    refusal(lambda: _read([tmp_path], reader=(2, 2)), "reader 2 of 2")
    refusal(lambda: _read([tmp_path], 3, 3), "steps 3 to 3")
    refusal(lambda: records.find([tmp_path / "no"], "make some"), "make some")
