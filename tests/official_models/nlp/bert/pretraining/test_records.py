"""Records: written, read back, and refused when they are not whole."""

import gzip
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from official_models.common import files
from official_models.common import records as common_records
from official_models.nlp.bert.pretraining import (
    batches,
    masking,
    recipe,
    records,
)
from official_models.nlp.bert.pretraining.packing import PackedPairs
from official_models.nlp.text import corpus, wordpiece
from tests import warm
from tests.official_models.nlp.bert.pretraining import small_examples as small
from tests.official_models.scripts import refusal

ROOT = Path(__file__).parents[5]


def _rows(dataset):
    """Every example of some batches as bytes of all it holds."""
    rows = []
    for x, y, sample_weight in dataset:
        arrays = [*x.values(), *y.values(), sample_weight["masked_lm"]]
        arrays = [array.numpy() for array in arrays]
        rows += [b"".join(r.tobytes() for r in row) for row in zip(*arrays)]
    return rows


# Round trip


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_records_hold_what_was_masked(tmp_path, compression):
    (path,) = small.write(tmp_path, compression=compression)
    assert small.check(path) == 50
    order = np.random.default_rng(7).permutation(50)
    packed = PackedPairs(*(array[order] for array in small.of_records(50)))
    keys = masking.example_keys(packed, seed=7)
    features = masking.mask_tokens(
        packed,
        draws=masking.draw_by_key(keys, 16, small.RECORD_VOCAB),
        **small.RECORD_MASKING,
    )
    expected = batches.model_inputs(features)
    (batch,) = small.read([path], 0, 1, batch_size=50, shuffle=False)
    tf.nest.map_structure(np.testing.assert_array_equal, expected, batch)
    specs = tf.nest.map_structure(lambda a: (a.shape, a.dtype), expected)
    assert specs == tf.nest.map_structure(lambda a: (a.shape, a.dtype), batch)


def test_features_are_those_of_bert(tmp_path):
    (path,) = small.write(tmp_path)
    record = next(iter(tf.data.TFRecordDataset(str(path)))).numpy()
    features = tf.train.Example.FromString(record).features.feature
    kinds = {
        name: (feature.WhichOneof("kind"), len(feature.int64_list.value))
        for name, feature in features.items()
    }
    assert kinds == {
        "input_ids": ("int64_list", 16),
        "input_mask": ("int64_list", 16),
        "segment_ids": ("int64_list", 16),
        "masked_lm_positions": ("int64_list", 3),
        "masked_lm_ids": ("int64_list", 3),
        "masked_lm_weights": ("float_list", 0),
        "next_sentence_labels": ("int64_list", 1),
    }
    assert len(features["masked_lm_weights"].float_list.value) == 3


def test_shards_and_duplicates(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "_CHUNK", 8)
    paths = small.write(tmp_path, num_shards=4, dupe_factor=3)
    assert [path.name for path in paths] == [
        f"examples-0000{i}-of-00004.tfrecord" for i in range(4)
    ]
    assert [small.check(path) for path in paths] == [38, 38, 37, 37]
    assert small.check(tmp_path) == small.check(f"{tmp_path}/*-of-*") == 150
    (batch,) = small.read([tmp_path], 0, 1, batch_size=150, shuffle=False)
    x, y, sample_weight = batch
    ids = x["input_ids"].numpy()
    rows, places = np.nonzero(sample_weight["masked_lm"].numpy())
    positions = x["masked_lm_positions"].numpy()
    ids[rows, positions[rows, places]] = y["masked_lm"].numpy()[rows, places]
    originals = Counter(row.tobytes() for row in ids)
    assert originals == {r.tobytes(): 3 for r in small.of_records(50).input_ids}
    # Each duplicate has a mask of its own.
    masks = {
        (row.tobytes(), mask.tobytes()) for row, mask in zip(ids, positions)
    }
    assert len(masks) > 140
    # No two chunks of eight have the same masks: of the 55 pairs of places
    # that there are, chance misses few.
    assert len({mask.tobytes() for mask in positions}) > 40


def test_writing_is_repeatable(tmp_path):
    for compression in ("none", "gzip"):
        arguments = {"num_shards": 2, "compression": compression}
        first, second = (
            [
                gzip.decompress(p.read_bytes())
                if compression == "gzip"
                else p.read_bytes()
                for p in small.write(tmp_path / compression / run, **arguments)
            ]
            for run in "ab"
        )
        assert first == second


def test_resuming_gives_the_same_batches(tmp_path):
    paths = small.write(tmp_path, num_shards=3)
    whole = list(small.read(paths, 0, 20))
    assert len(whole) == 20
    for first in (3, 7, 13):  # 50 examples an epoch: within, after, far after
        resumed = list(small.read(paths, first, 20, examples=50))
        for expected, batch in zip(whole[first:], resumed):
            tf.nest.map_structure(
                np.testing.assert_array_equal, expected, batch
            )
    assert _rows(small.read(paths, 0, 20, seed=4)) != _rows(whole)


@pytest.mark.parametrize("seed", [0, 5])
def test_any_seed_of_the_program_will_do(tmp_path, seed):
    paths = small.write(tmp_path, num_shards=2)
    tf.random.set_seed(seed)
    rows = _rows(small.read(paths, 0, 5))
    tf.random.set_seed(seed)
    again = _rows(small.read(paths, 0, 5))
    tf.random.set_seed(1)
    assert len(rows) == 40 and rows == again


@pytest.mark.parametrize("shuffle", [False, True])
def test_each_example_once_an_epoch(tmp_path, shuffle):
    paths = small.write(tmp_path, num_shards=3)
    rows = _rows(small.read(paths, 0, 25, shuffle=shuffle))  # 4 epochs
    epochs = [rows[i : i + 50] for i in range(0, 200, 50)]
    assert len(set(epochs[0])) == 50
    assert all(set(epoch) == set(epochs[0]) for epoch in epochs)
    orders = len(set(map(tuple, epochs)))
    assert orders == (4 if shuffle else 1)


# Writers that fail


def test_failed_writer_leaves_nothing(tmp_path, monkeypatch):
    calls = []

    def fail(features, floats):
        calls.append(features)
        if len(calls) == 20:
            raise KeyboardInterrupt
        return b"record"

    monkeypatch.setattr(common_records, "serialize", fail)
    with pytest.raises(KeyboardInterrupt):
        small.write(tmp_path, num_shards=2)
    assert list(tmp_path.iterdir()) == []


def test_killed_writer_leaves_nothing_that_looks_whole(tmp_path):
    script = f"""
import sys, time
sys.path[:0] = [{str(ROOT)!r}]
from official_models.common import records
from tests.official_models.nlp.bert.pretraining import small_examples
serialize, calls = records.serialize, []
def slow(features, floats):
    calls.append(features)
    if len(calls) == 40:
        open({str(tmp_path / "reached")!r}, "w").close()
        time.sleep(60)
    return serialize(features, floats)
records.serialize = slow
small_examples.write({str(tmp_path / "out")!r}, num_shards=2)
"""
    process = warm.popen([sys.executable, "-c", script], stderr=subprocess.PIPE)
    deadline = time.time() + 60
    while not (tmp_path / "reached").exists() and time.time() < deadline:
        assert process.poll() is None, process.stderr.read().decode()
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    left = list((tmp_path / "out").iterdir())
    assert all(path.name.startswith(files.TEMPORARY) for path in left)
    refusal(lambda: small.check(tmp_path / "out"), tmp_path / "out")
    # What is left is not in the way of the next run.
    small.write(tmp_path / "out", num_shards=2)
    assert small.check(tmp_path / "out") == 50


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ({"num_shards": 0}, "num_shards 0"),
        ({"num_shards": 51}, "num_shards 51"),
        ({"dupe_factor": 0}, "dupe_factor 0"),
        ({"compression": "zip"}, "compression 'zip'"),
        ({"seed": -1}, "seed -1"),
        ({"vocab_size": 10}, "vocab_size 10"),
        ({"max_predictions": 14}, "max_predictions 14"),
        ({"examples": 0}, "no examples"),
    ],
)
def test_bad_writing_arguments(tmp_path, arguments, part):
    refusal(lambda: small.write(tmp_path, **arguments), part)
    assert list(tmp_path.iterdir()) == []


def test_earlier_records_are_not_overwritten(tmp_path):
    (path,) = small.write(tmp_path)
    before = path.read_bytes()
    refusal(
        lambda: small.write(tmp_path, num_shards=2), tmp_path, "--output_dir"
    )
    assert path.read_bytes() == before and small.check(tmp_path) == 50


def test_unwritable_folder(tmp_path):
    (tmp_path / "file").write_text("x")
    refusal(lambda: small.write(tmp_path / "file"), tmp_path / "file")


@pytest.mark.parametrize(
    ("arguments", "part"),
    [({"batch_size": 0}, "batch_size 0"), ({"last_step": 0}, "steps 0 to 0")],
)
def test_bad_reading_arguments(tmp_path, arguments, part):
    paths = small.write(tmp_path)
    arguments = {"first_step": 0, "last_step": 1, **arguments}
    refusal(lambda: small.read(paths, **arguments), part)


# The script


def _script(*arguments, **paths):
    arguments = [*arguments, *(f"--{k}={v}" for k, v in paths.items())]
    return warm.run(
        [
            sys.executable,
            "-m",
            "official_models.nlp.bert.pretraining.records",
            *arguments,
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )


def _sources(folder):
    """A small text and its vocabulary."""
    words = [f"word{i} and other{i % 7} things." for i in range(200)]
    (folder / "a.txt").write_text(" ".join(words[:120]))
    (folder / "b.txt").write_text(" ".join(words[120:]))
    documents = corpus.read_documents([folder / "a.txt", folder / "b.txt"])
    wordpiece.train_tokenizer(documents, 120, folder / "vocab.txt")
    return {
        "input": f"{folder}/[ab].txt",
        "vocab_file": folder / "vocab.txt",
        "output_dir": folder / "out",
    }


def test_script_makes_records(tmp_path):
    result = _script(
        "--max_seq_length=32",
        "--max_predictions_per_seq=5",
        "--dupe_factor=2",
        "--num_shards=2",
        "--do_whole_word_mask",
        "--compression=gzip",
        **_sources(tmp_path),
    )
    assert result.returncode == 0, result.stderr
    sizes = {"max_seq_length": 32, "max_predictions": 5, "vocab_size": 120}
    examples = records.check_records([tmp_path / "out"], **sizes)
    assert examples > 60 and f"{examples} examples" in result.stderr


def test_script_makes_albert_examples(tmp_path):
    result = _script(
        "--max_seq_length=32",
        "--max_predictions_per_seq=5",
        "--dupe_factor=2",
        "--sentence_order",
        "--max_ngram=3",
        **_sources(tmp_path),
    )
    assert result.returncode == 0, result.stderr
    tokenizer = wordpiece.load_tokenizer(tmp_path / "vocab.txt")
    documents = corpus.read_documents([tmp_path / "a.txt", tmp_path / "b.txt"])
    how = recipe.Recipe(
        max_seq_length=32,
        max_predictions=5,
        dupe_factor=2,
        sentence_order=True,
        max_ngram=3,
    )
    packed = how.pack(documents, tokenizer)
    swapped = packed.next_sentence_labels
    assert 0.2 < swapped.mean() < 0.8
    masking_of = how.masking(tokenizer)
    assert masking_of["max_ngram"] == 3
    expected = list(records.masked_examples(packed, masking_of, seed=how.seed))
    (path,) = common_records.find([tmp_path / "out"])
    written = [e.numpy() for e in tf.data.TFRecordDataset(path)]
    assert written == expected
    manifest = files.read_json(tmp_path / "out" / "examples.json")
    assert manifest["max_ngram"] == 3
    # How the text was packed, too.
    assert (manifest["dupe_factor"], manifest["sentence_order"]) == (2, True)


def test_an_example_is_masked_alike_whatever_is_beside_it():
    packed = small.of_records(50)
    arguments = (small.RECORD_MASKING,)
    together = set(records.masked_examples(packed, *arguments, seed=7))
    part = PackedPairs(*(array[10:20] for array in packed))
    alone = set(records.masked_examples(part, *arguments, seed=7))
    assert len(alone) == 10 and alone < together
    assert not alone & set(records.masked_examples(part, *arguments, seed=8))


@pytest.mark.parametrize(
    ("arguments", "changes", "parts"),
    [
        ([], {"input": "nowhere/*.txt"}, ["nowhere/*.txt"]),
        (["--max_seq_length=long"], {}, ["--max_seq_length=long", "--help"]),
        (["--input_format=x"], {}, ["--input_format x: expected one of auto"]),
    ],
)
def test_script_names_bad_input_in_one_line(
    tmp_path, arguments, changes, parts
):
    result = _script(*arguments, **{**_sources(tmp_path), **changes})
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    lines = result.stderr.splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    assert len(errors) == 1 and lines[-1] == errors[0]
    assert all(part in errors[0] for part in parts)
    assert not (tmp_path / "out").exists()
