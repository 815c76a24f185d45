"""The plan, the store, the training and the report of batch_scaling."""

import dataclasses
import json
import math
import sys

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from benchmarks import measure
from benchmarks.batch_scaling import __main__ as program
from benchmarks.batch_scaling import grid, report, studies
from benchmarks.batch_scaling.store import Store
from official_models.common.errors import InputError
from tests import warm

STUDY = grid.Study(
    batches=(32, 128, 2048),
    epochs=2,
    warmup_epochs=0.1,
    first_rates={"lamb": 0.01, "lars": 4.0, "adamw": 0.001, "sgd": 0.02},
    variations=(("lamb", "warmup x 2"),),
)
# The best rate of each, by a made-up landscape.
BEST = {"lamb": 0.04, "lars": 4.0, "adamw": 0.0005, "sgd": 0.02}


def score(cell):
    """Falls with the distance to the best rate, and with the batch."""
    best = BEST[cell.optimizer] * (cell.batch / 32) ** 0.5
    off = abs(math.log2(cell.learning_rate / best))
    return 95 - off - cell.batch / 1000 - (cell.optimizer == "sgd")


def play(study, seeds, scores=None, limit=1000, score=score):
    """Runs a study on the landscape; the cells in their order."""
    scores, order = dict(scores or {}), []
    while len(order) < limit:
        left = grid.pending(study, seeds, scores)
        if not left:
            break
        scores[left[0].key] = score(left[0])
        order.append(left[0])
    return scores, order


def _line_colours(png):
    """Which colours of the optimizers' lines a picture has pixels of."""
    pixels = {rgb for _, rgb in Image.open(png).convert("RGB").getcolors(2**24)}
    cycle = {f"C{i}": to_rgb(f"C{i}") for i in range(len(report.NAMES))}
    return {
        name
        for name, colour in cycle.items()
        if tuple(round(255 * c) for c in colour) in pixels
    }


@pytest.mark.parametrize(
    "first, rungs", [(0, [0, 1, 2, 3, 4]), (4, [2, 3, 4, 5]), (3, [2, 3, 4])]
)
def test_ladder_climbs_to_a_rung_between_worse_neighbours(first, rungs):
    scores = {}
    while True:
        wanted, best = grid.climb(scores, lambda a, b: a > b, first)
        if not wanted:
            break
        scores[wanted[0]] = -abs(wanted[0] - 3)
    assert best == 3
    assert sorted(scores) == rungs


def test_ladder_passes_over_runs_that_diverged_and_has_an_end():
    nan = float("nan")
    study = STUDY
    assert grid.climb({0: nan, 1: nan, -1: 5.0, -2: 4.0}, study.better) == (
        (),
        -1,
    )
    scores = {}
    while True:
        wanted, best = grid.climb(scores, study.better)
        if not wanted:
            break
        scores[wanted[0]] = float(wanted[0])
    assert len(scores) == grid.MAX_RUNGS
    assert best == max(scores)


def test_study_runs_tuning_grid_retuning_then_further_seeds():
    scores, order = play(STUDY, (1, 2))
    assert len({c.key for c in order}) == len(order)
    assert grid.tuned_rates(STUDY, scores) == pytest.approx(BEST)
    stages = [c.stage for c in order]
    first_grid = stages.index("grid")
    assert set(stages[:first_grid]) == {"tune"}
    assert all(c.validates for c in order[:first_grid])
    of_seed = [c.seed for c in order if c.stage == "grid"]
    assert of_seed == sorted(of_seed)
    # Five methods at two batches, four at the base; two seeds.
    assert stages.count("grid") == 2 * (2 * 5 + 4)
    assert stages.count("retuned") == 2 * 4
    assert stages.count("variation") == 1
    again = grid.retuned_rates(STUDY, scores)
    assert again == pytest.approx({k: 8 * v for k, v in BEST.items()})


def test_retuning_begins_where_the_study_says():
    study = dataclasses.replace(STUDY, retune_from=-2)
    scores, order = play(study, (1,))
    first = {}
    for cell in order:
        if cell.stage == "retune":
            first.setdefault(cell.optimizer, cell.learning_rate)
    assert first == pytest.approx({k: 2 * v for k, v in BEST.items()})
    again = grid.retuned_rates(study, scores)
    assert again == pytest.approx({k: 8 * v for k, v in BEST.items()})


def test_a_stopped_study_goes_on_to_the_same_cells():
    whole, _ = play(STUDY, (1, 2))
    part, first = play(STUDY, (1, 2), limit=20)
    rest, second = play(STUDY, (1, 2), part)
    assert rest == whole
    assert not {c.key for c in first} & {c.key for c in second}


@pytest.mark.parametrize(
    "rule, rate, warmup", [("sqrt", 0.08, 6.4), ("linear", 0.64, 6.4)]
)
def test_rates_and_warmup_follow_the_rule(rule, rate, warmup):
    cell = grid.grid_cell(STUDY, "lamb", rule, 2048, 0.01, 1)
    assert cell.learning_rate == pytest.approx(rate)
    assert cell.warmup_epochs == pytest.approx(warmup)
    base = grid.grid_cell(STUDY, "lamb", rule, 32, 0.01, 1)
    assert (base.rule, base.learning_rate) == ("sqrt", 0.01)


def fill(path, seeds=(1, 2), score=score, study=STUDY):
    store = Store(path, "mnist", study, {})
    _, order = play(study, seeds, score=score)
    for cell in order:
        steps = {"steps": 100, "seconds": 1.0}
        store.value["cells"][cell.key] = (
            vars(cell) | steps | {"score": score(cell)}
        )
    measure.write_json(path, store.value)
    return Store(path, "mnist", study, {})


def test_report_says_what_was_and_was_not_kept(tmp_path):
    store = fill(tmp_path / "mnist.json")
    text = report.write(STUDY, store, (1, 2))
    lost = (2048 - 32) / 1000
    assert f"{lost:.2f} lost: not kept within 0.5" in text
    assert "Seeds a cell: 2 to 2." in text
    assert "momentum, linear" in text
    assert "LAMB, warmup x 2" in text
    # Means and the deviation of two equal runs.
    assert f"{95 - 0.032:.2f} ± 0.00" in text
    assert (tmp_path / "mnist.md").read_text().endswith(text + "\n")
    assert {"C0", "C1", "C2", "C3"} <= _line_colours(tmp_path / "mnist.png")


def test_report_takes_the_test_score_of_the_run_that_won(tmp_path):
    store = fill(tmp_path / "mnist.json")
    cells = store.value["cells"]
    for key, cell in list(cells.items()):
        if cell["stage"] == "retune":
            cell["test_score"] = cell["score"] - 1
        if (cell["stage"], cell["optimizer"]) == ("retuned", "lamb"):
            del cells[key]
    found = report.retuned_scores(STUDY, cells, store.scores)
    rate, scores = found["lamb"]
    assert rate == pytest.approx(0.32)
    assert scores == pytest.approx([95 - 2048 / 1000 - 1])
    assert found["adamw"][1] == pytest.approx(2 * [95 - 2048 / 1000])


def test_a_variation_is_held_to_the_run_of_its_own_seed(tmp_path):
    def by_seed(cell):
        return score(cell) + 3 * cell.seed + 2 * (cell.stage == "variation")

    store = fill(tmp_path / "mnist.json", score=by_seed)
    text = report.tables(STUDY, store, (1, 2))
    (row,) = [x for x in text.splitlines() if "LAMB, warmup x 2" in x]
    assert row.endswith("| +2.00 |")


def test_report_of_a_loss_takes_less_for_better(tmp_path):
    # Of fewer methods, as the books have.
    study = dataclasses.replace(
        STUDY,
        higher_is_better=False,
        first_rates={"lamb": 0.01, "adamw": 0.001},
        methods=(("lamb", "sqrt"), ("adamw", "sqrt")),
    )

    def loss(cell):
        return -score(cell) + (cell.optimizer == "adamw")

    store = fill(tmp_path / "a.json", study=study, score=loss)
    text = report.write(study, store, (1, 2))
    rivals = [x for x in text.splitlines() if "Untuned at 2,048" in x]
    assert len(rivals) == 1
    assert "(+1.00)" in rivals[0]
    assert "not kept" in text
    assert _line_colours(tmp_path / "a.png") == {"C0", "C2"}  # LAMB, AdamW


def test_store_refuses_results_of_another_study(tmp_path):
    path = tmp_path / "mnist.json"
    fill(path)
    before = path.read_bytes()
    with pytest.raises(InputError, match="its weight_decay is None, now 0.5"):
        Store(path, "mnist", STUDY, {"weight_decay": 0.5})
    path.write_text("{")
    with pytest.raises(InputError, match="not a file of results"):
        Store(path, "mnist", STUDY, {})
    assert path.read_text() == "{"
    assert json.loads(before)["cells"]


def test_every_study_has_its_numbers():
    for name in studies.STUDIES:
        study, settings = studies.STUDIES[name], studies.settings(name)
        assert set(study.first_rates) == set(settings["weight_decay"])
        assert {n for n, _ in study.methods} == set(study.first_rates)
        assert list(study.batches) == sorted(study.batches)
        assert studies.SCORES[name]
    cifar = studies.STUDIES["cifar10"]
    assert cifar.batches[0] == 128
    assert cifar.batches[-1] == 8192


@pytest.mark.parametrize("parts", [1, 4])
def test_step_in_parts_equals_one_on_the_whole_batch(parts):
    import keras

    from benchmarks.batch_scaling import training

    cell = grid.Cell("grid", "lamb", "sqrt", 8, 0.1, 0.0, 1)
    inputs = keras.Input((3,))
    outputs = keras.layers.Dense(
        2, kernel_initializer=keras.initializers.HeNormal(seed=1)
    )(inputs)
    model = keras.Model(inputs, outputs)
    x = np.linspace(-1, 1, 24, dtype=np.float32).reshape(8, 3)
    y = np.arange(8, dtype=np.float32)[:, np.newaxis]

    def loss(network, part):
        x, y = part
        return keras.ops.mean((network(x) - y) ** 2)

    def optimizer():
        return training.make_optimizer(cell, {"lamb": 0.01}, ("bias",), 10, 0)

    weights = [w.copy() for w in model.get_weights()]
    step = training.make_step(model, optimizer(), loss, parts, False)
    value = float(step(x, y))
    found = model.get_weights()
    model.set_weights(weights)
    one = optimizer()
    one.build(model.trainable_variables)
    import tensorflow as tf

    with tf.GradientTape() as tape:
        expected = loss(model, (x, y))
    one.apply(tape.gradient(expected, model.trainable_variables))
    assert value == pytest.approx(float(expected), rel=1e-6)
    for a, b in zip(found, model.get_weights()):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


def test_every_variation_makes_its_optimizer():
    from benchmarks.batch_scaling import training

    decay = {"lamb": 0.01, "lars": 5e-4, "adamw": 0.05, "sgd": 0.05}
    for name, variation in studies.STUDIES["cifar10"].variations:
        made = [
            training.make_optimizer(
                grid.Cell("grid", name, "sqrt", 8, 0.1, 0.0, 1, which),
                decay,
                ("bias",),
                10,
                0,
            )
            for which in ("", variation)
        ]
        plain, changed = (optimizer.get_config() for optimizer in made)
        differ = {k for k in plain if plain[k] != changed[k]} - {"name"}
        if type(made[0]) is not type(made[1]):
            differ.add("optimizer")
        assert differ == set(training.VARIATIONS[variation]) - {
            "warmup",
            "epochs",
        }


def test_program_trains_cells_and_goes_on(tmp_path):
    """Two sittings on the digits, one cell and the next one."""
    command = [sys.executable, "-m", program.MODULE, "--workers", "1"]
    command += ["--output", str(tmp_path / "mnist.json"), "--cells", "1"]
    command += ["--epochs", "2"]
    counts = []
    for _ in range(2):
        process = warm.run(
            command, cwd=measure.ROOT, capture_output=True, text=True
        )
        assert process.returncode == 0, process.stderr
        value = json.loads((tmp_path / "mnist.json").read_text())
        counts.append(len(value["cells"]))
    assert counts == [1, 2]
    for cell in value["cells"].values():
        assert cell["score"] > 20  # of 10 by chance
        assert cell["losses"][-1] < cell["losses"][0]
    assert len(value["sittings"]) == 1


def test_program_refuses_what_is_not_there(tmp_path):
    process = warm.run(
        [
            *(sys.executable, "-m", program.MODULE, "--task", "cifar10"),
            *("--data_dir", str(tmp_path / "nothing"), "--workers", "1"),
            *("--output", str(tmp_path / "a.json")),
        ],
        cwd=measure.ROOT,
        capture_output=True,
        text=True,
    )
    assert process.returncode == 2
    lines = [x for x in process.stderr.splitlines() if x.startswith("error: ")]
    assert len(lines) == 1
    assert "nothing" in lines[0]


def test_masked_lm_trains_and_is_judged_by_other_books(tmp_path, monkeypatch):
    from benchmarks.batch_scaling import masked_lm, tasks, training

    rng = np.random.default_rng(0)
    words = ["sea", "ship", "whale", "captain", "harpoon", "sail", "storm"]
    for i in range(16):
        lines = [" ".join(rng.choice(words, 12)) + "." for _ in range(40)]
        (tmp_path / f"{i}.txt").write_text("\n\n".join(lines))
    monkeypatch.setattr(studies, "SEQUENCES", 64 * 4)
    monkeypatch.setattr(masked_lm, "VOCABULARY", 64)
    task = tasks.make("masked_lm", str(tmp_path))
    task.jit_compile = False  # compiling takes longer than four steps
    cell = grid.Cell("grid", "lamb", "sqrt", 64, 0.02, 0.0, 1)
    result = training.train(task, cell)
    assert result["steps"] == 4
    assert result["losses"][-1] < result["losses"][0]
    assert 1 < result["score"] < math.log(64)
    tuned = training.train(task, dataclasses.replace(cell, stage="tune"))
    assert tuned["losses"] == result["losses"]
    assert tuned["score"] != result["score"] == tuned["test_score"]
    assert "test_score" not in result
    # Worked through in two parts, one update is that of the whole batch.
    double = dataclasses.replace(cell, batch=128)
    parts = training.train(task, double)
    task.part = 128
    whole = training.train(task, double)
    assert parts["losses"] == pytest.approx(whole["losses"], abs=1e-3)
    with pytest.raises(InputError, match="nowhere: 0 .txt or .md files"):
        tasks.make("masked_lm", str(tmp_path / "nowhere"))
