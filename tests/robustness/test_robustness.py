"""Damaged inputs are refused in one line, or taken for what they can be."""

import random

import pytest

from tests.robustness import damage, outcomes, readers, run

INPUTS = 300


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("robustness")


@pytest.mark.parametrize("kind", readers.READERS)
def test_whole_files_are_read(kind, root):
    reader = readers.READERS[kind]
    reader.read(readers.copy(kind, root))


def test_damaged_inputs(root):
    wrong = []
    for number in range(INPUTS):
        kind, found = run.one(number, 1, root)
        if found.name not in ("refused", "accepted"):
            wrong.append(
                f"--only {number}: {kind}: {found.name} {found.detail}"
            )
    assert not wrong, "\n".join(wrong)


def test_damages_change_what_they_are_given():
    content = b'{"a": [1, 2, {"b": "x"}], "c": null}' * 3
    for one in (*damage.BYTES, damage.flip_at_an_end, damage.scatter):
        rng = random.Random(1)
        assert any(one(content, rng) != content for _ in range(3)), one
        for _ in range(50):
            assert damage.certainly(one, content, rng) != content
    whole = content[: len(content) // 3]
    found = {damage.of_json(whole, random.Random(i)) for i in range(50)}
    assert len(found) > 20


def _raises(error):
    raise error


@pytest.mark.parametrize(
    "error, name",
    [
        (ValueError("what, where, why"), "refused"),
        (ValueError("two\nlines"), "fault"),
        (ValueError(""), "fault"),
        (ValueError("x" * 1000), "fault"),
        (KeyError("x"), "fault"),
        (outcomes.Silent("twice"), "silent"),
    ],
)
def test_outcomes(error, name):
    assert outcomes.of(lambda: _raises(error), (ValueError,)).name == name


def test_what_does_not_end(monkeypatch):
    monkeypatch.setattr(outcomes, "SECONDS", 1)

    def forever():
        while True:
            pass

    assert outcomes.of(forever, (ValueError,)).name == "hang"
    assert outcomes.of(lambda: None, (ValueError,)).name == "accepted"
