"""Who reads which rows of which batch."""

import pytest

from official_models.common import readers
from official_models.common.readers import Reader
from tests.official_models.scripts import refusal


@pytest.mark.parametrize("count", [1, 2, 4, 12])
def test_readers_share_a_batch_in_equal_slices(count):
    rows = list(range(12))
    parts = [rows[readers.rows_of((i, count), 12)] for i in range(count)]
    assert sum(parts, []) == rows
    assert {len(part) for part in parts} == {12 // count}


def test_a_reader_is_a_plain_tuple():
    assert readers.ALONE == Reader() == (0, 1)
    assert readers.rows_of(Reader(1, 2), 4) == readers.rows_of((1, 2), 4)


@pytest.mark.parametrize("reader", [(2, 2), (-1, 2), (0, 3), (0, 0)])
def test_a_reader_out_of_range_is_refused(reader):
    refusal(
        lambda: readers.rows_of(reader, 8, "eval_batch"),
        "eval_batch 8",
        f"reader {reader[0]} of {reader[1]}",
    )


def test_no_row_is_refused():
    refusal(lambda: readers.rows_of((0, 1), 0), "batch_size 0", "at least 1")


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_is_one_word(seed):
    refusal(lambda: readers.check_seed(seed), f"seed {seed}", "2**32 - 1")
    readers.check_seed(abs(seed) % 2**32)


@pytest.mark.parametrize("steps", [(3, 3), (-1, 3), (4, 3)])
def test_steps_are_in_order(steps):
    first, last = steps
    refusal(lambda: readers.check_steps(*steps), f"steps {first} to {last}")
    readers.check_steps(0, 1)


def test_steps_of_an_epoch():
    assert readers.steps_per_epoch(50, 8) == 6
    assert readers.steps_per_epoch(50, 50) == 1
    for batch in (0, 51):
        refusal(
            lambda b=batch: readers.steps_per_epoch(50, b),
            f"global_batch_size {batch}",
            "1 to 50",
        )


def test_epochs_are_permutations_by_seed():
    order = readers.shuffled_epochs(50, 2, seed=3)
    assert order == readers.shuffled_epochs(50, 2, seed=3)
    assert order != readers.shuffled_epochs(50, 2, seed=4)
    assert sorted(order[:50]) == sorted(order[50:]) == list(range(50))
    assert order[:50] != order[50:]
    assert order[:50] == readers.shuffled_epochs(50, 1, seed=3)
