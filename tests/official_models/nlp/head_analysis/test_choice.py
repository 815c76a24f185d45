"""The choice on one split, its worth on the other, and heads.json's form."""

import copy
import json

import numpy as np
import pytest

from official_models.nlp.head_analysis import choice, result
from tests.official_models import scripts

CHOSEN = np.array([1, 1, 1, 1, 0, 0, 0, 0], bool)
PLAIN = np.array([1, 1, 0, 0, 1, 1, 0, 1], bool)


def _right():
    """Head (0, 1) is best where it is chosen, (1, 0) on the other split."""
    right = np.tile(PLAIN, (2, 2, 1))
    right[0, 1] = [1, 1, 1, 0, 1, 0, 1, 0]
    right[1, 0] = [0, 1, 0, 0, 1, 1, 1, 1]
    return right


def test_signs_by_hand():
    assert choice.sign_test(5, 0) == pytest.approx(2 / 32)
    assert choice.sign_test(3, 1) == pytest.approx(2 * 5 / 16)
    assert choice.sign_test(0, 0) == 1
    assert choice.sign_test(2, 2) == 1


def test_a_head_is_chosen_on_one_split_and_reported_on_the_other():
    found = choice.alone(_right(), PLAIN, CHOSEN)
    assert found == {
        "place": [0, 1],
        "choose_change": 0.25,
        "report_change": -0.25,
        "fixed": 1,
        "broken": 2,
        "p": 1.0,
    }
    assert choice.alone(_right(), PLAIN, ~CHOSEN)["place"] == [1, 0]


def test_models_choose_together():
    other = np.tile(PLAIN, (2, 2, 1))
    other[0, 1] = [1, 1, 0, 0, 1, 1, 1, 1]
    found = choice.common([_right(), other], [PLAIN, PLAIN], CHOSEN)
    assert found["place"] == [0, 1]
    assert found["choose_change"]["mean"] == 0.125
    assert found["choose_change"]["deviation"] == pytest.approx(0.125 * 2**0.5)
    assert found["report_change"]["models"] == [-0.25, 0.25]
    assert (found["better"], found["worse"], found["p"]) == (1, 1, 1.0)


def test_the_spread_of_one_has_no_deviation():
    assert choice.spread([2.0]) == {"mean": 2.0, "deviation": None}
    found = choice.spread([[1.0, 2.0], [3.0, 2.0]])
    assert found["mean"] == [2.0, 2.0]
    assert found["deviation"] == pytest.approx([2**0.5, 0])


def _heads():
    """A whole heads.json of one layer and two heads."""
    spread = {"mean": [[0.6, 0.2]], "deviation": None}
    change = {"mean": 0.0, "deviation": None}
    chosen = {
        "each": [
            {
                "place": [0, 1],
                "choose_change": 0.1,
                "report_change": 0.0,
                "fixed": 1,
                "broken": 1,
                "p": 1.0,
            }
        ],
        "common": {
            "place": [0, 1],
            "choose_change": change,
            "report_change": {**change, "models": [0.0]},
            "better": 0,
            "worse": 0,
            "p": 1.0,
        },
    }
    return {
        "format": result.FORMAT,
        "measured": {"date": "2026-11-27"},
        "task": "SST-2",
        "max_seq_length": 16,
        "data": {
            "file": "dev.tsv",
            "sha256": "0",
            "examples": 20,
            "choose": 10,
            "report": 10,
        },
        "layers": 1,
        "heads": 2,
        "models": ["a"],
        "raw_model": None,
        "mean_maps": [[[[0.5, 0.5], [0.4, 0.6]], [[1.0, 0.0], [1.0, 0.0]]]],
        "patterns": {
            "classes": ["vertical", "block"],
            "probabilities": [[[0.5, 0.5], [1, 0]]],
            "maps": 3,
        },
        "change": {
            **spread,
            "padding": "cropped",
            "by_layer": {"mean": [0.4], "deviation": None},
            "models": [spread["mean"]],
        },
        "attention_to": {"[CLS]": {**spread, "examples": 20}},
        "relations": [
            {
                **spread,
                "name": "r",
                "examples": 2,
                "threshold": 0.59,
                "above": [[0, 0]],
                "best": [0, 0],
            }
        ],
        "switching_off": {
            "accuracy": {"choose": [0.8], "report": [0.9]},
            "heads": {"choose": [[[0.7, 0.9]]], "report": [[[0.8, 0.9]]]},
            "layers": {"choose": [[0.6]], "report": [[0.5]]},
            "chosen": {"head": chosen, "layer": chosen},
        },
    }


def test_a_whole_file_is_taken_with_and_without_its_parts():
    whole = json.loads(json.dumps(_heads()))
    assert result.check(whole) == whole
    for name in ("patterns", "change", "relations", "switching_off"):
        result.check({**whole, name: None})


def _set(path, value):
    found = copy.deepcopy(_heads())
    place = found
    for step in path[:-1]:
        place = place[step]
    if value is KeyError:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return found


@pytest.mark.parametrize(
    "path, value, said",
    [
        (("format",), "heads 2", "expected an object with format"),
        (("layers",), 2, "a list of 2 (L)"),
        (("models",), ["a", "b"], "a list of 2 (M)"),
        (("mean_maps", 0, 1), [[1.0, 0.0]], "a list of 2 (S)"),
        (("mean_maps", 0, 0, 0, 0), float("nan"), "a finite number"),
        (("mean_maps",), None, "a list of 1 (L)"),
        (("change", "mean"), None, "change: mean: got None"),
        (("change", "more"), 1, "'more' is not known"),
        (("task",), 1, "task: got 1, expected str"),
        (("attention_to", "[CLS]"), KeyError, None),
        (("attention_to", "[CLS]", "examples"), KeyError, "'examples' is miss"),
        (("switching_off", "chosen", "head", "each", 0, "p"), "1", "p: got 1"),
        (("relations", 0, "above"), [0], "expected a list"),
    ],
)
def test_a_file_of_another_form_is_refused(path, value, said):
    changed = _set(path, value)
    if said is None:
        result.check(changed)
    else:
        scripts.refusal(lambda: result.check(changed), "heads.json", said)
    scripts.refusal(lambda: result.check([]), "expected an object")
