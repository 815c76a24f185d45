"""The classes of maps: what is generated, what is read, what is said."""

import json
import sys

import numpy as np
import pytest

from official_models.common.errors import InputError
from official_models.nlp.head_analysis import (
    evaluate_patterns,
    figures,
    generated,
    labelled,
    patterns,
    train_patterns,
)

VERTICAL, DIAGONAL, BOTH, BLOCK, OTHER = range(5)


def ideal(name, tokens):
    """A map without noise of a class."""
    x = np.full((tokens, tokens), 0.1 / tokens)
    if name in (VERTICAL, BOTH):
        x[:, 0] += 0.5
    if name in (DIAGONAL, BOTH):
        x += 0.5 * np.eye(tokens)
    if name == BLOCK:
        half = tokens // 2
        x[:half, :half] += 1 / half
        x[half:, half:] += 1 / (tokens - half)
    return x / x.sum(1, keepdims=True)


def test_generated_maps_are_attention_and_repeat():
    maps, labels = generated.generate(40, seed=3)
    again, same = generated.generate(40, seed=3)
    assert all(np.array_equal(a, b) for a, b in zip(maps, again))
    assert np.array_equal(labels, same) and set(labels) == set(range(5))
    other, _ = generated.generate(40, seed=4)
    assert not all(np.array_equal(a, b) for a, b in zip(maps, other))
    for x in maps:
        assert x.dtype == "float32" and x.min() >= 0
        assert generated.MIN_TOKENS <= len(x) <= generated.MAX_TOKENS
        np.testing.assert_allclose(x.sum(1), 1, atol=1e-5)


def test_generated_maps_are_of_their_class():
    """Weight of the best column, and of the best line by the diagonal."""
    rng = np.random.default_rng(0)
    lines = {}
    for name in generated.CLASSES:
        maps = [generated.generate_one(name, rng, 20) for _ in range(40)]
        column = np.mean([x.mean(0).max() for x in maps])
        off = range(-2, 3)
        line = np.mean([max(np.diag(x, k).mean() for k in off) for x in maps])
        lines[name] = column, line
    vertical, diagonal, both, block, other = lines.values()
    assert vertical[0] > 0.3 > 0.15 > vertical[1]
    assert diagonal[1] > 0.3 > 0.15 > diagonal[0]
    assert min(both) > 0.2 > 0.18 > max(*block, *other)


def test_blocks_attend_to_themselves():
    rng = np.random.default_rng(1)
    for _ in range(20):
        bonus = generated._blocks(12, rng)
        assert np.array_equal(bonus > 0, bonus.T > 0)
        own = np.diag(bonus) > 0
        assert own.sum() >= 3
        assert (bonus[own].astype(bool).sum(1) >= 3).all()


@pytest.mark.parametrize("tokens", [4, 32, 64])
def test_prepare(tokens):
    uniform = np.full((1, tokens, tokens), 1 / tokens)
    np.testing.assert_allclose(patterns.prepare(uniform), 1, atol=1e-5)
    found = patterns.prepare(np.eye(tokens)[None])
    assert found.shape == (1, patterns.SIZE, patterns.SIZE, 2)
    # A line of one token stays as dark as it was in the second channel.
    np.testing.assert_allclose(np.diag(found[0, ..., 1]), 1)
    # In the first, two tokens of a long map share a cell's four.
    expected = 0.5 if tokens == 64 else 1
    np.testing.assert_allclose(np.diag(found[0, ..., 0]), expected, atol=1e-6)


def test_shades_are_roots_of_the_weights():
    x = np.tile([0.64, 0.16, 0.16, 0.04], (1, 4, 1))
    cell = patterns.SIZE // 4
    found = patterns.prepare(x)[0, 0, ::cell]
    expected = np.array([1, 0.5, 0.5, 0.25])
    np.testing.assert_allclose(found, np.stack([expected] * 2, 1), atol=1e-6)


@pytest.mark.parametrize("tokens", [12, 24, 48])
def test_ideal_maps_have_their_class(tokens):
    maps = np.stack([ideal(k, tokens) for k in range(4)])
    found = patterns.classify(maps)
    assert found.shape == (4, 5)
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-5)
    assert found.argmax(1).tolist() == [VERTICAL, DIAGONAL, BOTH, BLOCK]


def test_no_maps_have_no_classes():
    assert patterns.classify(np.zeros((0, 5, 5))).shape == (0, 5)


def test_saved_weights_give_the_same_classes(tmp_path):
    model = patterns.load_classifier()
    path = tmp_path / "again.npz"
    patterns.save(model, path)
    maps, _ = generated.generate(8, seed=9)
    loaded = patterns.load_classifier(path)
    for x in maps:
        expected = patterns.classify(x[None])
        found = patterns.classify(x[None], loaded)
        np.testing.assert_array_equal(found, expected)
    assert patterns.WEIGHTS.stat().st_size < 500_000


@pytest.mark.parametrize(
    ("script", "argument", "said"),
    [
        (train_patterns, "--output={}/x", "expected a name with .npz"),
        (train_patterns, "--output={}/file/x.npz", "file"),
        (evaluate_patterns, "--output_dir={}/file/x", "file"),
        (figures, "--output_dir={}/file/x", "file"),
    ],
)
def test_an_output_that_cannot_be_is_one_line(
    script, argument, said, tmp_path, monkeypatch, capsys
):
    (tmp_path / "file").write_text("")
    more = []
    if script is figures:
        monkeypatch.setattr(
            figures, "_read", lambda _: {"layers": 1, "heads": 1}
        )
        monkeypatch.setattr(figures, "summary", lambda one: one)
        more = ["--analysis", "a"]
    monkeypatch.setattr(sys, "argv", ["x", *more, argument.format(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        script.main()
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_eight_convolutions_with_relu():
    layers = [x for x in patterns.network().layers if "conv" in x.name]
    assert [x.activation.__name__ for x in layers] == ["relu"] * 8


def test_training_moves_the_weights():
    """From the seed's start; what the seed decides repeats."""
    trained, accuracy = train_patterns.train(
        steps=2, batch_size=4, seed=5, test_maps=4
    )
    assert accuracy in (0, 0.25, 0.5, 0.75, 1)
    starts = [patterns.network(5).get_weights() for _ in range(2)]
    for a, b, c in zip(trained.get_weights(), *starts):
        np.testing.assert_array_equal(b, c)
        if b.ndim > 1:
            assert np.abs(a - b).max() > 1e-4
    for x, y in zip(train_patterns.batch(3, 1), train_patterns.batch(3, 1)):
        np.testing.assert_array_equal(x, y)


def test_figures_are_those_of_the_weights():
    """The committed figures, by the committed weights, maps and labels."""
    path = patterns.WEIGHTS.parent / "results" / "patterns.json"
    expected = json.loads(path.read_text())
    found = evaluate_patterns.evaluate()
    for half in ("held_out", "other_half"):
        moved = np.subtract(
            found[half]["confusion"], expected[half]["confusion"]
        )
        # Another backend may decide one map on the border otherwise.
        assert np.abs(moved).sum() <= 2
        assert found[half]["macro_f1"] == pytest.approx(
            expected[half]["macro_f1"], abs=0.05
        )


def test_scores_by_hand():
    found = evaluate_patterns.scores(
        np.array([0, 0, 0, 1, 4]), np.array([0, 0, 1, 1, 3])
    )
    f1 = list(found["f1"].values())
    assert f1[:2] == pytest.approx([0.8, 2 / 3])
    assert f1[2:] == [None, 0, 0]
    # The mean is over the classes that the labels have: 0, 1 and 4.
    assert found["macro_f1"] == pytest.approx((0.8 + 2 / 3) / 3)
    assert found["macro_f1_of_either"] == pytest.approx((0.8 + 2 / 3) / 4)
    assert found["accuracy"] == pytest.approx(0.6)


@pytest.mark.parametrize(
    "maps, message",
    [
        (np.ones((5, 5)), r"got shape \(5, 5\)"),
        (np.ones((1, 5, 6)), r"got shape \(1, 5, 6\)"),
        (np.ones((1, 3, 3)) / 3, "T of 4 or more"),
        (np.ones((1, 5, 5)), "off 1 by 4"),
        (np.full((1, 5, 5), np.nan), "off 1 by nan"),
    ],
)
def test_bad_maps(maps, message):
    with pytest.raises(InputError, match=message):
        patterns.classify(maps)


def test_bad_weights(tmp_path):
    path = tmp_path / "weights.npz"
    with pytest.raises(InputError, match="cannot be read"):
        patterns.load_classifier(path)
    path.write_bytes(b"no zip")
    with pytest.raises(InputError, match="cannot be read"):
        patterns.load_classifier(path)
    np.savez(path, **{"conv_0/kernel": np.zeros((3, 3, 2, 16))})
    with pytest.raises(InputError, match="conv_0/bias: got no array"):
        patterns.load_classifier(path)
    np.savez(path, **{"conv_0/kernel": np.zeros(3)})
    with pytest.raises(InputError, match=r"got \(3,\), expected \(3, 3, 2"):
        patterns.load_classifier(path)


def test_labels():
    maps, index, record = labelled.load()
    assert len(maps) == len(index) >= 150
    assert {(x["layer"], x["head"]) for x in index} == {
        (i, j) for i in range(6) for j in range(12)
    }
    for x, one in zip(maps, index):
        np.testing.assert_allclose(x.sum(1), 1, atol=1e-5)
        assert one["final"] in (one["first"], one["second"])
    passes = [np.array([x[w] for x in index]) for w in ("first", "second")]
    assert labelled.agreement(*passes) == record["agreement"]
    halves = [
        {x["text"] for x in index if x["held_out"] == half}
        for half in (True, False)
    ]
    assert not halves[0] & halves[1]  # no text in both
    assert not np.array_equal(
        labelled.order("first", 216), labelled.order("second", 216)
    )


def test_agreement_by_hand():
    """Cohen 1960: p = 3/4, e = 1/2 1/4 + 1/2 3/4 = 1/2, kappa = 1/2."""
    found = labelled.agreement(np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1]))
    assert found == {"raw": 0.75, "kappa": 0.5}


def test_pack_keeps_maps():
    maps, _ = generated.generate(4, seed=1)
    for x, found in zip(maps, labelled.unpack(*labelled.pack(maps))):
        np.testing.assert_allclose(found, x, atol=0.02)


def _passes(folder, first, second, third):
    index = [{"text": str(i)} for i in range(len(first))]
    (folder / labelled.INDEX).write_text(json.dumps(index))
    for name, letters in (("first", first), ("second", second)):
        shown = [letters[i] for i in labelled.order(name, len(letters))]
        (folder / f"{name}.txt").write_text(" ".join(shown))
    (folder / "third.json").write_text(json.dumps(third))


def test_passes_are_put_together(tmp_path):
    _passes(tmp_path, "vdmbh", "vdmhh", {"3": "b"})
    found = labelled.record(tmp_path, "somebody")
    assert [x["final"] for x in found["maps"]] == [0, 1, 2, 3, 4]
    assert [x["second"] for x in found["maps"]] == [0, 1, 2, 4, 4]
    assert found["labeller"] == "somebody"
    for first, third, message in (
        ("vdmbh", {}, r"expected those of the maps .* \[3\]"),
        ("vdmbx", {}, "got 5 letters, expected 5 of vdmbh"),
    ):
        _passes(tmp_path, first, "vdmhh", third)
        with pytest.raises(InputError, match=message):
            labelled.record(tmp_path, "somebody")


def test_sheets_of_both_passes(tmp_path):
    maps, _ = generated.generate(3, seed=1)
    labelled.draw_sheets(maps, tmp_path)
    assert {x.name for x in tmp_path.iterdir()} == {
        "first_0.png",
        "second_0.png",
    }
