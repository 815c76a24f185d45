"""Tables of the pages against the results that are committed.

A row of a page is held to the numbers that its benchmark's own table, made anew
of the JSON, has in the columns that the page shows.
"""

import json
import re
from pathlib import Path

import pytest

from benchmarks import (
    albert_sharing,
    few_shot_study,
    groups,
    image_pipeline,
    monitoring,
    pretraining_data,
    sharded_memory,
    torch_update,
    train_step,
    update_step,
)

ROOT = Path(__file__).parents[2]
RESULTS = "benchmarks/results"
FEW_SHOT = "official_models/vision/few_shot"
BERT, NLP = "official_models/nlp/bert", "official_models/nlp"


def _json(path):
    return json.loads((ROOT / path).read_text(encoding="utf-8"))


def _text(path):
    return (ROOT / path).read_text(encoding="utf-8")


def _cells(text):
    """The rows of all tables of a text, without the name of a row."""
    return [
        [cell.strip() for cell in line.strip(" |").split("|")[1:]]
        for line in text.splitlines()
        if line.startswith("|") and "---" not in line
    ]


def _numbers(cells):
    text = " ".join(cells).replace(",", "")
    return [float(x) for x in re.findall(r"\d+(?:\.\d+)?(?:e-\d+)?", text)]


def _pages_rows(page):
    return [_numbers(cells) for cells in _cells(_text(page))]


# Page; JSON; the benchmark's table; its columns that the page has, None for
# all; names of rows that the page leaves out.
TABLES = [
    ("benchmarks/README.md", "update_step", update_step.render, None, ()),
    ("benchmarks/README.md", "train_step", train_step.render, None, ()),
    (
        "benchmarks/README.md",
        "torch_update",
        lambda found: torch_update.table(found["models"]),
        None,
        (),
    ),
    ("docs/guides/groups.md", "groups", groups.render, (1, 3), ("group",)),
    (
        "docs/guides/devices_and_workers.md",
        "sharded_memory",
        sharded_memory.markdown,
        None,
        (),
    ),
    (
        "docs/guides/monitoring.md",
        "monitoring",
        monitoring.render,
        (1,),
        ("| step",),
    ),
    (
        "official_models/vision/resnet/README.md",
        "image_pipeline",
        lambda found: image_pipeline.markdown(found["rows"]),
        None,
        ("cached", "evaluation: ours, bicubic"),
    ),
    (
        f"{BERT}/README.md",
        "pretraining_data",
        lambda found: pretraining_data.markdown(found["rows"]),
        (0, 1, 2, 4),
        (),
    ),
    (
        f"{NLP}/albert/README.md",
        f"{NLP}/albert/results/sharing",
        albert_sharing.markdown,
        (0, 1, 2, 4),
        (),
    ),
    (
        f"{FEW_SHOT}/README.md",
        f"{FEW_SHOT}/results/margin",
        lambda found: few_shot_study.markdown(
            found["rows"], found["margin less cross-entropy"]
        ),
        None,
        (),
    ),
]


@pytest.mark.parametrize(
    "page, path, table, columns, left_out",
    TABLES,
    ids=[Path(row[1]).name for row in TABLES],
)
def test_a_table_is_that_of_its_json(page, path, table, columns, left_out):
    path = path if "/" in path else f"{RESULTS}/{path}"
    text = "\n".join(
        line
        for line in table(_json(f"{path}.json")).splitlines()
        if not any(words in line for words in left_out)
    )
    found = _pages_rows(page)
    rows = _cells(text)[1:]
    assert len(rows) >= 2
    for cells in rows:
        shown = cells if columns is None else [cells[i] for i in columns]
        assert _numbers(shown) in found, (page, cells)


def test_batch_scaling_is_that_of_the_studies():
    page = _text("benchmarks/batch_scaling.md")
    for name in ("mnist", "cifar10", "masked_lm"):
        table = _text(f"{RESULTS}/batch_scaling/{name}.md")
        for line in table.replace("beta_2 .99", "beta_2 0.99").splitlines():
            assert not line.startswith("|") or line in page, line


def _mean(found):
    return f"{found['mean']:.2f} ± {found['half']:.2f}"


@pytest.mark.parametrize(
    "page", ["benchmarks/batch_scaling.md", "docs/evidence.md"]
)
def test_enough_steps_are_those_of_the_json(page):
    said = _json(f"{RESULTS}/enough_steps.json")
    text = _text(page).split("ith enough updates\n")[1]
    names = {"sgd": "momentum", "adamw": "AdamW", "nadamw": "NadamW"}
    names |= {"lamb": "LAMB", "lars": "LARS", "muon": "Muon"}
    names["schedule_free"] = "ScheduleFreeAdamW"
    seen = 0
    for row in said["rows"]:
        title = f"| {names[row['optimizer']]}, {row['rule']} |"
        lines = [line for line in text.splitlines() if line.startswith(title)]
        measured = {_mean(one) for one in row["score"].values()}
        retuned = [
            _mean(other["retuned"])
            for other in said["rows"]
            if other["optimizer"] == row["optimizer"] and "retuned" in other
        ]
        for line in lines[:1]:
            shown = re.findall(r"[\d.]+ ± [\d.]+", line)
            assert shown and {*shown} <= {*measured, *retuned}, line
            seen += 1
    assert seen >= 5
    if "evidence" in page:
        return
    for pair in said["pairs"]:
        if pair["mean"] < 10:  # but LARS by the linear rule, which diverged
            assert f"{pair['mean']:+.2f} ± {pair['half']:.2f}" in text, pair


def test_tpu_words_are_those_of_the_json():
    rows = _pages_rows("benchmarks/tpu_words.md")
    for found in _json(f"{RESULTS}/tpu_words.json")["results"].values():
        for x in found.values():
            cells = f"{x['floor']} {x['words']:.2f} {x['hbm_words']:.2f}"
            cells += f" {x['cycles'] / 1e6:.3f} {x['cycles_a_parameter']:.4f}"
            assert _numbers(cells.split()) in [row[:5] for row in rows], x


def test_fine_tuning_is_that_of_the_json():
    page = _text(f"{BERT}/README.md").split("**Seeds.**")[1]
    folder = f"{BERT}/results/finetuning"
    of_mrpc = "mrpc_two_epochs", "mrpc_two_epochs_adamw"
    for name in ("sst2_16384", "sst2_8192", "sst2_batch_512", "rte", *of_mrpc):
        for row in _json(f"{folder}/{name}.json")["rows"]:
            found = row["scores"]["dev"]["accuracy"]
            said = f"{100 * found['mean']:.1f}%"
            if len(row["seeds"]) > 1:
                said += f" ± {100 * found['deviation']:.1f}"
            assert said in page, (name, row)
            for rate, accuracy in row["tried"].items():
                assert len(row["tried"]) == 1 or (
                    f"{float(rate):.5f}".rstrip("0") + f": {accuracy:.1%}"
                    in page
                ), (name, row)


def test_pairs_of_sentences_are_those_of_the_jsons():
    rows = _pages_rows("official_models/nlp/albert/README.md")
    for task in ("sop", "nsp"):
        name = f"official_models/nlp/albert/results/pairs_{task}.json"
        found = _json(name)
        of_tasks = "next_sentence", "sentence_order"
        for kind in ("trained", "untrained"):
            shown = [
                round(100 * found[kind][of][key], 1)
                for of in of_tasks
                for key in ("head", "probe")
            ]
            assert shown in rows, (task, kind)
        lengths = [found["trained"][of]["lengths"] for of in of_tasks]
        assert [round(100 * x, 1) for x in lengths] in rows, task


def test_lottery_tickets_are_those_of_the_json():
    rows = _pages_rows("docs/guides/lottery_tickets.md")
    result = _json(f"{RESULTS}/diagnostics/prune_digits.json")["rows"]
    for number in range(1, 8):
        shown = [
            round(100 * row[key], 1)
            for kind in ("ticket", "reinitialised", "random_mask")
            for row in result
            if (row["kind"], row["round"]) == (kind, number)
            for key in ("mean", "deviation")
        ]
        assert shown in rows, number


def test_the_run_of_make_run_is_that_of_its_report():
    report = _json(f"{BERT}/results/shakespeare_lamb.json")
    loss = f"{report['masked_lm_loss']:.3f}"
    pages = ["README.md", "docs/evidence.md", f"{BERT}/README.md"]
    for page in [*pages, f"{BERT}/pretrain.py"]:
        assert loss in _text(page), page
    for page in pages:
        assert f"{100 * report['masked_lm_accuracy']:.1f}%" in _text(page), page


def test_damaged_images_are_those_of_the_jsons():
    page = _text("official_models/vision/resnet/README.md")
    page = " ".join(page.split())
    folder = "tests/official_models/vision/datasets"
    counts = _json(f"{folder}/results/faults.json")["counts"]
    for name in ("binary", "python2", "python3"):
        refused, changed = (
            sum(kind.get(key, 0) for kind in counts[name].values())
            for key in ("refused", "changed")
        )
        pattern = rf"\b{refused} (were refused )?and {changed}\b"
        assert re.search(pattern, page), (name, refused, changed)
    (row,) = [
        row
        for row in _json(f"{folder}/imagenet/results/faults.json")["rows"]
        if (row["files"], row["damage"]) == ("raw JPEGs", "bytes")
    ]
    silent = row["silently different pixels"]
    assert f"skipped {row['skipped and counted']}, named" in page
    assert f"and {silent} became other pixels" in page


@pytest.mark.parametrize(
    "part", ["lambda", "optimizers", "batches", "partial", "a3c"]
)
def test_scores_of_dqn_lambda_are_those_of_the_json(part):
    folder = "official_models/rl/dqn_lambda"
    page = " ".join(_text(f"{folder}/README.md").split())
    rows = _json(f"{folder}/results/study_{part}.json")["rows"]
    shown = [r for r in rows if r["score"] == "evaluation"]
    shown += [
        r
        for r in rows
        if r["score"] == "training" and (part != "lambda" or "all" in r["game"])
    ]
    for row in shown:
        places = 2 if row["iqm"] < 10 else 1
        numbers = [row["iqm"], *row["interval_95"]]
        iqm, low, high = (f"{x:.{places}f}" for x in numbers)
        if part == "partial" and row["score"] == "training":
            assert f" {iqm}" in page, row
        else:
            assert f"{iqm} ({low}-{high})" in page, row
