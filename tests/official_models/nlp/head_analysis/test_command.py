"""The whole command: two seeds, the model before, stopped and resumed."""

import json
import shutil

import numpy as np
import pytest
import tensorflow as tf

from official_models.nlp.checkpoint import models
from official_models.nlp.checkpoint.export import export
from official_models.nlp.checkpoint.tokenizer import TokenizerFiles
from official_models.nlp.head_analysis import __main__ as command
from official_models.nlp.head_analysis import disable, patterns, result
from tests.official_models import scripts
from tests.official_models.nlp.bert.finetuning import small_tasks
from tests.official_models.nlp.head_analysis.small import BERT

RELATIONS = {
    "relations": [
        {
            "name": "subject",
            "examples": [
                {"texts": ["the film is bad ."], "pairs": [["film", "is"]]}
            ],
        }
    ]
}


def write_model(folder, seed, head="classifier", labels=2, format="keras"):
    folder.parent.mkdir(parents=True, exist_ok=True)
    model = models.make(BERT, head, num_labels=labels, seed=seed)
    vocab = small_tasks.write_vocab(folder.parent)
    export(model, folder, format, TokenizerFiles({"vocab.txt": vocab}))
    return model


@pytest.fixture(scope="module", autouse=True)
def eager():
    """Nothing is traced, which takes longer than these models do."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.fixture(scope="module")
def there(tmp_path_factory):
    """A fine-tuning run of two seeds, the encoder before it, and data."""
    folder = tmp_path_factory.mktemp("heads")
    for seed in (1, 2):
        write_model(folder / f"new{seed}", seed)
    run = folder / "run"
    shutil.copytree(folder / "new1", run)
    for seed in (1, 2):
        (run / f"seed_{seed}").mkdir()
        shutil.copy(folder / f"new{seed}/model.keras", run / f"seed_{seed}")
    record = {"task_name": "SST-2", "max_seq_length": 16}
    (run / "task.json").write_text(json.dumps(record))
    for name, seed in (("raw", 1), ("raw2", 2)):
        write_model(folder / name, seed, "encoder", format="huggingface")
    small_tasks.write_sst2(folder, 4, 22)
    (folder / "classes.json").write_text('{"nouns": ["film", "song"]}')
    (folder / "relations.json").write_text(json.dumps(RELATIONS))
    return folder


def analyse(there, output_dir, *arguments, models=("run/seed_1",)):
    with scripts.flags_of(command):
        scripts.run(
            command,
            *(f"--model={there / name}" for name in models),
            f"--output_dir={output_dir}",
            "--batch_size=32",
            *(
                {"--data": f"--data={there / 'dev.tsv'}"}
                | dict((a.partition("=")[0], a) for a in arguments)
            ).values(),
        )
    assert (output_dir / "report.html").is_file()
    return json.loads((output_dir / result.NAME).read_text())


@pytest.fixture(scope="module")
def found(there, tmp_path_factory):
    return analyse(
        there,
        tmp_path_factory.mktemp("found") / "heads",
        f"--raw_model={there / 'raw'}",
        f"--token_classes={there / 'classes.json'}",
        f"--relations={there / 'relations.json'}",
        models=("run/seed_1", "run/seed_2"),
    )


def test_heads_json_has_every_part(found, there):
    result.check(found)
    assert (found["layers"], found["heads"]) == (2, 2)
    assert (found["task"], found["max_seq_length"]) == ("SST-2", 16)
    assert found["data"]["examples"] == 22
    assert found["data"]["choose"] == found["data"]["report"] == 11
    assert set(found["attention_to"]) == {
        *("[CLS]", "[SEP]", "punctuation", "nouns")
    }
    assert found["attention_to"]["nouns"]["examples"] == 11
    for one in found["attention_to"].values():
        assert (np.array(one["mean"]) > 0).all()
        assert (np.array(one["deviation"]) > 0).any()
    maps = np.array(found["mean_maps"])
    np.testing.assert_allclose(maps.sum(-1), 1, atol=1e-3)
    kinds = np.array(found["patterns"]["probabilities"])
    assert kinds.shape == (2, 2, 5) and found["patterns"]["maps"] == 22
    np.testing.assert_allclose(kinds.sum(-1), 1, atol=1e-5)
    (relation,) = found["relations"]
    assert relation["name"] == "subject" and len(relation["above"]) == 1


def test_a_seed_that_was_not_trained_has_cosine_1(found):
    """Seed 1 has the weights of the raw model, seed 2 others."""
    same, other = np.array(found["change"]["models"])
    np.testing.assert_allclose(same, 1, atol=1e-6)
    assert (other < 0.99).all()
    by_layer = found["change"]["by_layer"]["mean"]
    np.testing.assert_allclose(by_layer, (same + other).mean(-1) / 2)


def test_accuracies_are_those_of_models_with_a_head_off(found, there):
    """Of seed 2, on all of the data: both splits, as large."""
    model = models.make(BERT, "classifier", seed=2)
    examples, labels = zip(*small_tasks.sentences(22))
    vocab = small_tasks.WORDS.index
    ids = np.array(
        [[vocab(w) for w in f"[CLS] {t} [SEP]".split()] for t in examples]
    )
    given = {
        "input_ids": ids,
        "input_mask": 0 * ids + 1,
        "segment_ids": 0 * ids,
    }
    off = found["switching_off"]
    for places, kept in (
        ([], off["accuracy"]),
        ([(0, 1)], off["heads"]),
        ([(1,)], off["layers"]),
    ):
        disable.switch_off(model, places)
        logits = np.asarray(model(given))
        values = [np.array(kept[s][1]) for s in ("choose", "report")]
        for place in places:
            values = [value[place] for value in values]
        expected = (logits.argmax(-1) == labels).mean()
        assert np.mean(values) == pytest.approx(expected)


def test_what_is_chosen_is_the_best_of_its_split(found):
    off = found["switching_off"]
    change = np.array(off["heads"]["choose"]) - np.array(
        off["accuracy"]["choose"]
    ).reshape(-1, 1, 1)
    for i, one in enumerate(off["chosen"]["head"]["each"]):
        assert one["choose_change"] == pytest.approx(change[i].max())
    both = off["chosen"]["head"]["common"]
    assert both["choose_change"]["mean"] == pytest.approx(change.mean(0).max())
    assert len(both["report_change"]["models"]) == 2
    assert len(off["chosen"]["layer"]["common"]["place"]) == 1


def test_it_resumes_at_the_head_where_it_was_stopped(
    there, found, tmp_path, monkeypatch, capsys
):
    calls, logits = [], disable.Sweep.logits

    def counted(self, heads=()):
        calls.append((self.layer, *heads))
        if len(calls) == 5:
            raise KeyboardInterrupt
        return logits(self, heads)

    monkeypatch.setattr(disable.Sweep, "logits", counted)
    with pytest.raises(KeyboardInterrupt):
        analyse(there, tmp_path / "heads")
    assert not (tmp_path / "heads/heads.json").exists()
    assert len(json.loads((tmp_path / "heads/off_0.json").read_text())) == 4
    stopped = calls[-1]
    again = analyse(there, tmp_path / "heads")
    # Nothing off, 2 layers of 2 heads, 2 whole layers: 7, and one repeated.
    assert calls[5] == stopped and len(calls) == 8
    off = found["switching_off"]
    for part in ("accuracy", "heads", "layers"):
        for split in ("choose", "report"):
            kept = again["switching_off"][part][split]
            assert kept == off[part][split][:1]
    assert again["change"] is None and again["relations"] is None
    assert "layer 1, head 1 off: accuracy" in capsys.readouterr().out
    # Half of the maps by another classifier of patterns: another run.
    monkeypatch.setattr(patterns, "WEIGHTS", tmp_path / "other.npz")
    scripts.refusal(
        lambda: analyse(there, tmp_path / "heads"), "other.npz: cannot be read"
    )
    (tmp_path / "other.npz").write_bytes(b"x")
    scripts.refusal(
        lambda: analyse(there, tmp_path / "heads"), "patterns_sha256 = "
    )


def test_paper_compat_is_said_and_changes_the_cosines(found, there, tmp_path):
    kept = analyse(
        there,
        tmp_path / "heads",
        f"--raw_model={there / 'raw'}",
        *("--paper_compat", "--task_name=sst-2", "--max_seq_length=16"),
        models=("raw2",),
    )
    assert kept["change"]["padding"] == "kept"
    assert found["change"]["padding"] == "cropped"
    cropped = np.array(found["change"]["models"][1])
    assert (abs(np.array(kept["change"]["mean"]) - cropped) > 1e-4).all()


def test_a_folder_of_hugging_face_without_classifier(there, tmp_path, capsys):
    kept = analyse(
        there,
        tmp_path / "heads",
        "--task_name=sst-2",
        "--max_seq_length=12",
        "--max_examples=10",
        models=("raw",),
    )
    assert kept["switching_off"] is None and kept["data"]["examples"] == 10
    assert kept["attention_to"]["[SEP]"]["deviation"] is None
    said = capsys.readouterr().out
    assert "no classifier, so that no head is off" in said
    assert "10 of 22 examples are used" in said


@pytest.mark.parametrize(
    "arguments, folders, said",
    [
        ([], ["nowhere"], "nowhere"),
        ([], ["raw"], "--task_name is missing"),
        ([], ["run", "run"], "one is given twice"),
        ([], ["run", "run/../run"], "one is given twice"),
        (["--task_name=sts-b"], ["run"], "real numbers"),
        (["--task_name=mnli"], ["run"], "has contradiction, entailment"),
        (["--max_seq_length=25"], ["run"], "expected 5 to 24"),
        (["--data=nowhere.tsv"], ["run"], "nowhere.tsv"),
        (["--relations=none.json"], ["run"], "none.json"),
        (["--task_name=rte"], ["run"], "no column"),
    ],
)
def test_bad_input_is_refused(arguments, folders, said, there, tmp_path):
    scripts.refusal(
        lambda: analyse(there, tmp_path / "heads", *arguments, models=folders),
        said,
    )
    assert not (tmp_path / "heads").exists()


def test_a_model_of_another_architecture_is_refused(there, tmp_path):
    from tests.official_models.nlp.bert.finetuning import small_checkpoints

    other = small_checkpoints.albert_checkpoint(tmp_path / "albert")
    scripts.refusal(
        lambda: analyse(there, tmp_path / "heads", f"--raw_model={other}"),
        "another architecture",
    )


def test_a_model_of_another_vocabulary_is_refused(there, tmp_path):
    """Of the same size: the ids of two words are exchanged."""
    other = shutil.copytree(there / "raw", tmp_path / "other")
    for path in other.glob("tokenizer*.json"):
        path.unlink()
    words = (other / "vocab.txt").read_text().splitlines()
    words[-1], words[-2] = words[-2], words[-1]
    (other / "vocab.txt").write_text("\n".join(words))
    scripts.refusal(
        lambda: analyse(there, tmp_path / "heads", f"--raw_model={other}"),
        *("other", "expected models of one vocabulary"),
    )


def test_a_probe_of_words_that_are_not_there_is_refused(there, tmp_path):
    value = json.loads(json.dumps(RELATIONS))
    value["relations"][0]["examples"][0]["pairs"] = [["film", "book"]]
    path = tmp_path / "probe.json"
    path.write_text(json.dumps(value))
    scripts.refusal(
        lambda: analyse(there, tmp_path / "heads", f"--relations={path}"),
        "'book' is not in the text 'the film is bad .'",
    )
    assert not (tmp_path / "heads").exists()
