"""The race of whole training steps: what is counted, its table, its errors."""

import numpy as np
import pytest

from benchmarks import train_step, train_steps
from benchmarks.train_steps import Sizes

SMALL = Sizes("tiny", 2, 8, 2)


def test_operations_are_those_of_the_matrix_products():
    """Counted by hand for BERT tiny: 2 layers, H 128, I 512, V 8192."""
    layer = 4 * 128 * 128 + 2 * 128 * 512  # weights, a product each
    attention = 2 * 8 * 128  # scores and context, a token
    tokens = 2 * 8 * 2 * (layer + attention)
    predicted = 2 * 2 * (128 * 128 + 128 * 8192)
    by_hand = 3 * 2 * (tokens + predicted)  # a product is two operations
    assert train_steps.matmul_flops(SMALL) == by_hand
    more = train_steps.matmul_flops(SMALL, 8) - by_hand
    assert more == 3 * 2 * 2 * 6 * (128 * 128 + 128 * 8192)


def test_a_batch_has_as_many_masked_tokens_as_it_says():
    batch = Sizes("tiny", 3, 32, 5).arrays()
    places = batch["masked_lm_positions"]
    assert places.shape == batch["masked_lm"].shape == (3, 5)
    assert all(len({*row}) == 5 and row.max() < 32 for row in places)


def test_a_step_of_ours_trains():
    step = train_steps.STEPS["tensorflow"]["tf_lamb.LAMB, graph"](SMALL)
    losses = [float(np.sum(step()[0])) for _ in range(3)]
    assert np.isfinite(losses).all() and losses[2] < losses[0]


def test_the_best_peer_and_the_share_of_the_update():
    names = [n for steps in train_steps.STEPS.values() for n in steps]
    assert len({*names}) == len(names)
    assert {train_steps.OURS, train_steps.GRADIENT, *train_steps.PEERS} <= {
        *names
    }
    seconds = {name: [2.0, 2.0] for name in names}
    seconds[train_steps.OURS] = [1.0, 1.0]
    seconds[train_steps.GRADIENT] = [0.75, 0.75]
    seconds["keras AdamW, XLA"] = [1.25, 1.25]
    first = dict.fromkeys(names, 3.0)
    found = train_step._result("tiny", seconds, first, peak=1e12)
    assert found["best_peer"] == "keras AdamW, XLA"
    assert found["share_of_the_update"]["median"] == 0.25
    row = found["steps"]["keras AdamW, XLA"]
    assert row["to_ours"]["median"] == 1.25
    assert row["tokens_per_second"] == 256 * 32 / 1.25
    result = {
        "provenance": {"date": "d", "cores": 2, "cpu": "c", "command": "x"},
        "models": {"tiny": found},
    }
    text = train_step.render(result)
    row = "| **tf_lamb.LAMB, XLA** | 1000 (1000-1000) | 1.00 (1.00-1.00) |"
    assert row in text
    assert "- tiny: 8,192 tokens/s, 3% of the peak. The update, with " in text
    assert "around a step, is, in percent of it, 25 (25-25)" in text


def test_too_few_rounds(capsys):
    with pytest.raises(SystemExit) as error:
        train_step.main(["--rounds", "1"])
    assert error.value.code == 2
    assert "--rounds 1: expected a number >= 2" in capsys.readouterr().err
