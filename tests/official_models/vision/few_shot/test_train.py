"""The whole script, small: what it writes, resumes, and refuses."""

import json
import math

import keras
import numpy as np
import pytest
from absl.testing import flagsaver

from official_models.vision.few_shot import evaluation, glyphs, model, train
from tests.official_models import scripts
from tests.official_models.scripts import refusal

SMALL = (
    "--steps=6 --episodes=2 --ways=3 --queries=2 --filters=4 --image_size=16 "
    "--eval_episodes=4 --log_every=4 --optimizer=lamb"
).split()


@pytest.fixture(scope="module", autouse=True)
def flags():
    with scripts.flags_of(train):
        yield


@pytest.fixture(autouse=True)
def few_scripts(monkeypatch):
    names = {"train": ("OGHAM",), "validation": ("LAO",), "test": ("COPTIC",)}
    monkeypatch.setattr(glyphs, "SCRIPTS", names)


def run(folder, *arguments):
    scripts.run(train, *SMALL, f"--output_dir={folder}", *arguments)
    return json.loads((folder / "report.json").read_text())


def test_a_run_and_more_seeds_of_it(tmp_path, capsys):
    first = run(tmp_path / "run")
    out = capsys.readouterr().out
    assert "seed 1, step 4 of 6: loss" in out
    assert "seed 1, step 6 of 6: loss" in out
    assert [row["step"] for row in first["seeds"][0]["rows"]] == [4, 6]
    written = {p.name for p in (tmp_path / "run" / "seed_1").iterdir()}
    assert written == {"embedding.png", "model.keras", "result.json"}

    both = run(tmp_path / "run", "--seeds=2")
    assert both["seeds"][0] == first["seeds"][0]  # not trained again
    scores = [s["scores"]["test"]["accuracy"] for s in both["seeds"]]
    assert both["scores"]["test"]["mean"] == pytest.approx(np.mean(scores))
    assert both["scores"]["test"]["deviation"] == pytest.approx(
        np.std(scores, ddof=1)
    )

    again = run(tmp_path / "other", "--log_every=3")
    assert [row["step"] for row in again["seeds"][0]["rows"]] == [3, 6]
    saved, other = (
        keras.saving.load_model(tmp_path / name / "seed_1/model.keras")
        for name in ("run", "other")
    )
    # To the bit: how often is printed changes no episode.
    for one, two in zip(saved.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)
    found = evaluation.evaluate(
        saved,
        glyphs.load(16, 20, seed=0).test,
        (3, 3),
        4,
        train._TEST_SEED,
    )
    assert found.mean == pytest.approx(scores[0])

    refusal(lambda: run(tmp_path / "run", "--margin=2"), "margin = 0.5")
    record = json.loads((tmp_path / "run/run.json").read_text())
    assert record["data_sha256"] == glyphs.load(16, 20, seed=0).digest()


def test_the_margin_and_the_graph_are_trained(tmp_path):
    short = "--optimizer=sgd", "--steps=2"  # nothing of theirs is compiled
    plain = run(tmp_path / "plain", *short, "--margin_weight=0")
    margin = run(tmp_path / "margin", *short, "--margin_weight=2")
    # A node has fewer features than there are ways.
    narrow = "--model=graph", "--filters=2"
    graph = run(tmp_path / "graph", *short, *narrow)
    losses = [r["seeds"][0]["rows"][0]["loss"] for r in (plain, margin, graph)]
    assert len(set(losses)) == 3
    assert all(map(math.isfinite, losses))


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--data=omniglot"], ["--data_dir is missing"]),
        (["--data_dir=x"], ["--data_dir: for --data omniglot"]),
        (["--ways=1000"], ["classes, but --ways 1000"]),
        (["--shots=19"], ["20 images a class"]),
        (["--margin_weight=-1"], ["--margin_weight"]),
        (["--margin=-1"], ["--margin:"]),
        (["--temperature=0"], ["--temperature"]),
        (["--model=graph", "--temperature=2"], ["for --model prototypical"]),
        (["--gradient_accumulation_steps=3"], ["divisor of --episodes 2"]),
        (["--learning_rate=-1"], ["--learning_rate"]),
    ],
)
def test_flags_that_are_refused(tmp_path, arguments, parts):
    refusal(lambda: run(tmp_path / "run", *arguments), *parts)
    assert not (tmp_path / "run" / "run.json").exists()


def test_each_update_has_an_episode_of_its_own():
    def drawn(*seed):
        return np.random.default_rng(seed).integers(2**62)

    def of_batch(seed, number, parts=1):
        return drawn(*train.episode_seed(seed, number, parts))

    # Also of seed 0, the words of which are not to be taken for fill.
    seeds = {of_batch(seed, n, 2) for seed in range(3) for n in range(300)}
    assert len(seeds) == 900
    # As the figures of README were drawn.
    assert of_batch(1, 57) == drawn(2**32 + 50, 7)
    assert of_batch(1, 103, 2) == drawn(2**32 + 50, 3)


def test_parts_of_an_update_leave_the_schedule_as_it_is():
    def rates(parts):
        more = [f"--gradient_accumulation_steps={parts}", "--warmup_ratio=0.4"]
        with flagsaver.flagsaver():
            train.FLAGS(["train", *SMALL, *more])
            optimizer = train.make_model(1).optimizer
        # Keras counts parts; an update is called with its last one.
        steps = range(parts - 1, 6 * parts, parts)
        return [float(optimizer._learning_rate(step)) for step in steps]

    assert rates(2) == rates(1)


def test_features_of_one_number_are_drawn_too(tmp_path):
    config = model.FewShotConfig(3, 1, 1, image_size=16, filters=1)
    network = model.make("prototypical", config, seed=1)
    classes = glyphs.load(16, 2, seed=0).test
    path = tmp_path / "embedding.png"
    evaluation.plot_embedding(network, classes, path, "a title")
    assert path.stat().st_size


def test_the_interval_is_that_of_the_mean():
    each = np.array([0.2, 0.4, 0.9, 0.5], "float32")
    found = evaluation.accuracy_of(each)
    assert found.mean == pytest.approx(0.5)
    deviation = math.sqrt(((each - 0.5) ** 2).sum() / 3)
    assert found.interval == pytest.approx(1.96 * deviation / 2, rel=1e-4)
    assert found.as_json()["episodes"] == 4
