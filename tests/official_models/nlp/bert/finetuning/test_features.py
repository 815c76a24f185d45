"""Features of examples, and their records: padded, shuffled, resumed."""

import numpy as np
import pytest

from official_models.nlp.bert.finetuning import feature_records, features
from official_models.nlp.datasets import glue
from official_models.nlp.text import wordpiece
from tests.official_models.nlp.bert.finetuning import small_tasks
from tests.official_models.scripts import refusal

N = 10


@pytest.fixture
def path(tmp_path):
    rows = ({"x": [i, 2 * i], "y": [i]} for i in range(N))
    assert feature_records.write_features(str(tmp_path / "r"), rows, 4) == (
        N,
        12,
    )
    assert [p.name for p in tmp_path.iterdir()] == ["r"]
    return str(tmp_path / "r")


def read(path, number=None, **options):
    dataset = feature_records.read_features(
        path, {"x": 2, "y": None}, **options
    )
    if number:
        dataset = dataset.take(number)
    return list(dataset.as_numpy_iterator())


def test_in_order_with_padding_that_does_not_count(path):
    batches = read(path, batch_size=4)
    assert [b["y"].shape for b in batches] == [(4,)] * 3
    assert batches[0]["x"].dtype == np.int32
    whole = {n: np.concatenate([b[n] for b in batches]) for n in batches[0]}
    np.testing.assert_array_equal(whole["y"][:N], np.arange(N))
    np.testing.assert_array_equal(whole["x"][:, 1], 2 * whole["y"])
    np.testing.assert_array_equal(whole["is_real_example"], [1] * N + [0] * 2)


@pytest.fixture
def unpadded(tmp_path):
    rows = ({"x": [i, 2 * i], "y": [i]} for i in range(N))
    feature_records.write_features(str(tmp_path / "u"), rows)
    return str(tmp_path / "u")


def test_each_epoch_is_another_order_of_all(unpadded):
    options = {"batch_size": 5, "num_examples": N, "seed": 3}
    ys = np.concatenate([b["y"] for b in read(unpadded, 6, **options)])
    epochs = ys.reshape(3, N)
    assert all(sorted(epoch) == list(range(N)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    again = np.concatenate([b["y"] for b in read(unpadded, 6, **options)])
    np.testing.assert_array_equal(ys, again)
    options["seed"] = 4
    other = np.concatenate([b["y"] for b in read(unpadded, 6, **options)])
    assert (ys != other).any()


def test_goes_on_where_it_was_and_divides_among_readers(unpadded):
    options = {"num_examples": N, "seed": 3}
    whole = read(unpadded, 6, batch_size=4, **options)
    rest = read(unpadded, 4, batch_size=4, first_batch=2, **options)
    for expected, actual in zip(whole[2:], rest, strict=True):
        np.testing.assert_array_equal(actual["y"], expected["y"])
    halves = [
        read(unpadded, 4, batch_size=2, first_batch=2, reader=(i, 2),
             **options)
        for i in (0, 1)
    ]  # fmt: skip
    for step, expected in enumerate(whole[2:]):
        both = [half[step]["y"] for half in halves]
        assert sorted(np.concatenate(both)) == sorted(expected["y"])


def test_no_row_is_refused(tmp_path):
    refusal(
        lambda: feature_records.write_features(str(tmp_path / "r"), []),
        "no example",
    )


def test_a_failed_writer_leaves_the_file_before(path, tmp_path):
    before = (tmp_path / "r").read_bytes()

    def rows():
        yield {"x": [0, 0], "y": [0]}
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        feature_records.write_features(path, rows())
    assert (tmp_path / "r").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["r"]


def test_the_longer_text_is_cut_first():
    for first in range(9):
        for second in range(9):
            for room in range(9):
                a, b = first, second
                while a + b > room:
                    if a > b:
                        a -= 1
                    else:
                        b -= 1
                assert features.kept_lengths(first, second, room) == (a, b)


def test_features_of_examples(tmp_path):
    tokenizer = wordpiece.load_tokenizer(small_tasks.write_vocab(tmp_path))
    pair = glue.Example(("The books , Zürich", "it is not good ."), 1)
    (row,) = features.encode([pair], tokenizer, 14)
    tokens = [tokenizer.id_to_token(i) for i in row["input_ids"]]
    assert tokens == [
        *("[CLS]", "the", "book", "##s", ",", "[UNK]", "[SEP]"),
        *("it", "is", "not", "good", ".", "[SEP]", "[PAD]"),
    ]
    assert row["input_mask"] == [1] * 13 + [0]
    assert row["segment_ids"] == [0] * 7 + [1] * 6 + [0]
    assert row["label_ids"] == [1]
    (row,) = features.encode([pair], tokenizer, 9)
    tokens = [tokenizer.id_to_token(i) for i in row["input_ids"]]
    assert " ".join(tokens) == ("[CLS] the book ##s [SEP] it is not [SEP]")
    single = glue.Example(("The book",), None)
    (row,) = features.encode([single], tokenizer, 5)
    assert row["segment_ids"] == [0] * 5 and row["label_ids"] == [0]
    refusal(lambda: features.encode([pair], tokenizer, 4), "at least 5")
