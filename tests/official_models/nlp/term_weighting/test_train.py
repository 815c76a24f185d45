"""The whole script on a small corpus: what it writes, resumes, refuses."""

import json
import shutil

import numpy as np
import pytest
import tensorflow as tf

from official_models.nlp.term_weighting import classifiers, study, train
from tests.official_models import scripts
from tests.official_models.nlp.term_weighting.test_corpora import folder, story
from tests.official_models.scripts import refusal

SMALL = (
    "--weightings=tf,tfig,local_identity --classifiers=svm,naive_bayes "
    "--optimizers=lamb --hidden=2 --max_steps=2 --validate_every=1 "
    "--share=1 --batch_sizes=-1 --workers=1"
).split()


@pytest.fixture(scope="module", autouse=True)
def flags():
    tf.config.run_functions_eagerly(True)
    with scripts.flags_of(train):
        yield
    tf.config.run_functions_eagerly(False)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Stories whose titles tell their categories."""
    rng = np.random.default_rng(0)

    def some(split, count):
        made = []
        for i in range(count):
            name = ("grain", "corn")[i % 2]
            other = " ".join(rng.choice(["market", "bank", "trade"], 3))
            made.append(story(split, names=(name,), title=f"{name} {other}"))
        made.append(story(split, names=("rye/x",), title="rye bank"))
        return "".join(made)

    return folder(
        tmp_path_factory.mktemp("corpus"),
        {"r.sgm": some("TRAIN", 12) + some("TEST", 6)},
    )


def run(folder, corpus, *arguments):
    scripts.run(
        train, *SMALL, f"--output_dir={folder}", f"--data_dir={corpus}",
        *arguments,
    )  # fmt: skip
    return json.loads((folder / "report.json").read_text())


def test_the_whole_table(corpus, tmp_path, capsys, monkeypatch):
    found = run(tmp_path / "run", corpus)
    rows = found["rows"]
    assert list(rows) == ["tf", "tfig", "local_identity-lamb-mfull"]
    assert found["categories"] == ["corn", "grain", "rye/x"]
    tf_row = rows["tf"]["1"]["svm"]
    assert min(rows["tfig"]["1"]["svm"]["f1"]) > 0.7
    assert tf_row["macro_f1"] == pytest.approx(np.mean(tf_row["f1"]))
    assert set(rows["tf"]["1"]) == {"svm", "naive_bayes"}
    assert (tmp_path / "run/f1.png").stat().st_size > 1000
    out = capsys.readouterr().out
    assert "13 training and 7 test documents" in out
    assert "macro F1" in out
    compared = found["comparisons"]["svm"]
    assert [one["against"] for one in compared] == ["tf", "tfig"]
    assert sum(compared[0][k] for k in ("better", "equal", "worse")) == 3
    assert "svm: local_identity-lamb-mfull less tfig: macro F1" in out
    cells = sorted((tmp_path / "run/cells").iterdir())
    assert len(cells) == 9
    learned = json.loads(cells[0].read_text())["learned"]
    assert learned["optimizer"] == "lamb" and learned["steps"] >= 2

    # The same command computes what is missing, and that alone.
    cells[0].unlink()
    made, plain = [], study.run
    monkeypatch.setattr(
        study, "run", lambda *args: made.append(args[1]) or plain(*args)
    )
    again = run(tmp_path / "run", corpus)
    assert len(made) == 1 and again["rows"] == rows
    refusal(lambda: run(tmp_path / "run", corpus, "--share=0.5"), "share = 1")
    # As many documents, other words.
    other = shutil.copytree(corpus, tmp_path / "other")
    text = (other / "r.sgm").read_text().replace("market", "stocks")
    (other / "r.sgm").write_text(text)
    refusal(lambda: run(tmp_path / "run", other), "corpus_sha256 = ")


def test_comparisons_over_categories():
    def seeds(*each):
        return {str(i): {"svm": {"f1": f1}} for i, f1 in enumerate(each)}

    rows = {
        "tf": seeds([0.0, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5]),
        "a": seeds([0.0, 0.6, 0.6, 0.7, 0.8, 0.9, 0.4], [0.0] + [0.6] * 6),
        "b": seeds([0.0, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5]),
    }
    first, second, third = study.comparisons(rows, ["a", "b"], "svm")
    assert (first["row"], first["against"]) == ("a", "tf")
    assert (first["better"], first["equal"], first["worse"]) == (5, 2, 0)
    assert first["macro_f1"] == pytest.approx(0.8 / 7)
    assert first["p"] == pytest.approx(2 / 2**5)  # all of five differences
    assert (second["row"], second["against"]) == ("a", "b")
    assert (third["row"], third["against"], third["p"]) == ("b", "tf", None)


def test_several_processes_compute_the_same(corpus, tmp_path, capsys):
    baselines = ["--weightings=tf,tfig", "--classifiers=svm"]
    here = run(tmp_path / "one", corpus, *baselines)
    there = run(tmp_path / "two", corpus, *baselines, "--workers=2")
    assert there["rows"] == here["rows"]
    assert "6 of 6: " in capsys.readouterr().out
    assert len(list((tmp_path / "two/cells").iterdir())) == 6


def test_the_time_is_up(corpus, tmp_path, capsys):
    scripts.run(
        train, *SMALL, f"--output_dir={tmp_path / 'run'}",
        f"--data_dir={corpus}", "--hours=1e-9",
    )  # fmt: skip
    assert "the time is up before tf-corn" in capsys.readouterr().out
    assert not (tmp_path / "run/report.json").exists()


@pytest.mark.parametrize(
    ("flag", "parts"),
    [
        ("--categories=oats", ["--categories oats", "corn, grain"]),
        ("--categories=corn,corn", ["corn is given twice"]),
        ("--weightings=idf", ["--weightings idf", "tfidf"]),
        ("--classifiers=tree", ["--classifiers tree", "forest"]),
        ("--optimizers=sgd", ["--optimizers sgd", "adam"]),
        ("--batch_sizes=0", ["--batch_sizes 0", "-1"]),
        ("--share=0", ["--share 0", "at most 1"]),
        ("--learning_rate=-1", ["--learning_rate"]),
        ("--hours=-2", ["--hours -2"]),
        ("--output_dir=gs://a/b", ["gs://a/b"]),
        ("--data_dir=", ["--data_dir is missing"]),
        ("--data_dir=/nowhere", ["/nowhere", "no such"]),
    ],
)
def test_flags_that_do_not_fit(corpus, tmp_path, flag, parts):
    refusal(lambda: run(tmp_path / "run", corpus, flag), *parts)
    assert not (tmp_path / "run/report.json").exists()


def test_a_category_that_has_every_document(corpus):
    found = train.LOADERS["reuters"](corpus)
    counts = study.Counts.of(found)
    cell = study.Cell("corn", "tf", 1.0, ("svm",), 1, {})
    found.train_labels[:, 0] = True
    refusal(lambda: study.run(counts, cell), "'corn'", "every training")
    empty = study.Cell("oats", "tf", 1.0, ("svm",), 1, {})
    refusal(lambda: study.run(counts, empty), "'oats'", "no training document")


@pytest.mark.parametrize("name", classifiers.NAMES)
def test_a_classifier_tells_two_groups_apart(name):
    from scipy import sparse

    rng = np.random.default_rng(0)
    labels = np.arange(30) % 3 == 0
    x = rng.random((30, 4))
    x[:, 0] += 3 * labels
    x[:, 1] = -1  # naive Bayes takes no such weight
    x = sparse.csr_matrix(x)
    parts = np.arange(0, 24), np.arange(24, 30)
    found = classifiers.judge(name, (x, labels), (x, labels), parts, 0)
    assert found.f1 > 0.9
    refusal(lambda: classifiers.candidates("x", 0), "'x'", "svm")
