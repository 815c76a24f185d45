"""ALBERT by the pretraining script, and what is done with such a run."""

import json
import shutil

import numpy as np
import pytest
from absl.testing import flagsaver

from official_models.common import weights
from official_models.nlp.albert import sentence_pairs
from official_models.nlp.albert.config import SHARING, AlbertConfig, sharing
from official_models.nlp.bert import finetune_classifier, pretrain
from official_models.nlp.bert.pretraining import families
from official_models.nlp.checkpoint import initial
from official_models.nlp.checkpoint.export import export
from official_models.nlp.checkpoint.opening import open_source
from official_models.nlp.checkpoint.source import Source, make
from official_models.nlp.checkpoint.tokenizer import TokenizerFiles
from tests.official_models.nlp.bert.finetuning import small_tasks
from tests.official_models.nlp.bert.pretrain_script import (
    refuses,
    run,
    write_corpus,
)
from tests.official_models.scripts import flags_of, refusal, rows, same_weights
from tests.official_models.scripts import run as run_script

ALBERT = (
    *("--model=albert", "--embedding_size=8", "--num_layers=2"),
    *("--num_heads=2", "--jit_compile=false", "--dtype=float32"),
)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def finished(corpus, tmp_path_factory):
    """A run of eight steps."""
    folder = tmp_path_factory.mktemp("finished")
    with flags_of(pretrain):
        run(corpus, folder, *ALBERT)
    return folder


@pytest.fixture(scope="module")
def made(finished):
    """The model of the run, and its source."""
    source = open_source(finished)
    model, loaded = make(source)
    assert not loaded.new and not loaded.unused
    return model, source


def test_its_defaults_are_albert_s(finished):
    record = json.loads((finished / "run.json").read_text())
    assert record["sentence_order"] is True
    assert (record["max_ngram"], record["share_parameters"]) == (3, "all")
    config = json.loads((finished / "albert_config.json").read_text())
    assert (config["embedding_size"], config["num_hidden_groups"]) == (8, 1)
    report = json.loads((finished / "report.json").read_text())
    assert 0 <= report["sentence_order_accuracy"] <= 1
    assert 0.5 <= report["sentence_order_majority"] < 0.7
    (*_, last) = rows(finished / "metrics.csv")
    assert float(last["val_sentence_order_loss"]) > 0


def test_it_has_one_layer_and_one_trust_ratio_each(made, finished):
    model, source = made
    assert isinstance(source.config, AlbertConfig)
    layers = {p for p in weights.by_path(model) if "inner_group_" in p}
    assert len(layers) == 16
    ratios = rows(finished / "trust_ratio.csv")[-1]
    assert layers <= ratios.keys()
    assert float(ratios["bert/embeddings/word_embeddings"]) != 1


def test_a_vocabulary_is_trained_and_its_tokens_are_the_model_s(made):
    _, source = made
    tokenizer = source.tokenizer.load(source.where)
    assert tokenizer.get_vocab_size() == source.config.vocab_size
    ids = tokenizer.encode("ant bee.", add_special_tokens=False).ids
    assert ids and not {0, 1, 2, 3, 4} & set(ids)


def test_resumed_it_ends_with_the_same_weights(corpus, finished, tmp_path):
    folder = shutil.copytree(finished, tmp_path / "copy")
    for path in (folder / "checkpoints").glob("ckpt-8.*"):
        path.unlink()
    with flags_of(pretrain):
        refuses(
            "share_parameters = 'all', this one has 'ffn'",
            *(corpus, folder, *ALBERT, "--share_parameters=ffn"),
        )
        run(corpus, folder, *ALBERT)
    same_weights(finished, folder, 8)


def test_it_is_exported_and_read_back(made, tmp_path):
    model, source = made
    names = export(model, tmp_path / "out", "huggingface", source.tokenizer)
    assert {"spiece.model", "tokenizer.json", "config.json"} <= set(names)
    again, loaded = make(open_source(tmp_path / "out"))
    assert not loaded.new and not loaded.unused
    expected = weights.by_path(model)
    for path, variable in weights.by_path(again).items():
        np.testing.assert_array_equal(variable, expected[path])


def test_it_is_fine_tuned(finished, tmp_path):
    """Without a vocabulary beside the run's own."""
    data = small_tasks.write_sst2(tmp_path / "sst2", 48, 12)
    with flags_of(finetune_classifier):
        run_script(
            finetune_classifier,
            *(f"--init_checkpoint={finished}", f"--data_dir={data}"),
            *("--task_name=sst-2", f"--output_dir={tmp_path / 'run'}"),
            *("--max_seq_length=32", "--global_batch_size=8", "--epochs=1"),
        )
        predicted = tmp_path / "texts.txt"
        predicted.write_text("the film is very good .\n")
        run_script(
            finetune_classifier,
            *(f"--output_dir={tmp_path / 'run'}", f"--predict={predicted}"),
        )
    report = json.loads((tmp_path / "run/report.json").read_text())
    assert np.isfinite(report["seeds"][0]["epochs"][0]["loss"])
    assert (tmp_path / "run/spiece.model").is_file()
    assert (tmp_path / "run/albert_config.json").is_file()


def test_what_it_knows_of_pairs(corpus, finished, tmp_path, capsys):
    output = tmp_path / "pairs.json"
    with flags_of(sentence_pairs):
        run_script(
            sentence_pairs,
            *(f"--checkpoint={finished}", f"--input={corpus}/[a-e].txt"),
            *(f"--eval_input={corpus}/[f-j].txt", f"--output={output}"),
            *("--max_seq_length=24", "--probe_examples=64"),
            "--eval_examples=100",
        )
        words = f"--checkpoint={finished}", f"--input={corpus}"
        for more, message in (
            (f"{corpus}/a.txt", "a.txt: is among the files of --input"),
            (f"{corpus} --max_seq_length=65", "has 64 positions; expected"),
        ):
            refusal(
                lambda more=more: run_script(
                    sentence_pairs,
                    *words,
                    *f"--eval_input={more}".split(),
                ),
                message,
            )
    found = json.loads(output.read_text())
    for trained in ("trained", "untrained"):
        for row in found[trained].values():
            assert 0 <= row["head"] <= 1 and 0 <= row["probe"] <= 1
            assert 30 < row["pairs"] <= 100
            assert row["standard_error"] == pytest.approx(
                0.5 / row["pairs"] ** 0.5
            )
    assert "untrained" in capsys.readouterr().out
    assert found["trained"] != found["untrained"]


def test_a_probe_finds_a_plane():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(500, 5)).astype("float32")
    labels = (features @ [1, -2, 0, 0, 3] > 0.5).astype("int32")
    found = sentence_pairs.probe(features[:400], labels[:400], features[400:])
    assert (found == labels[400:]).mean() > 0.95


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--share_parameters=ffn"], "--share_parameters: expected together"),
        (["--embedding_size=8"], "--embedding_size: expected together with"),
        (["--size=xlarge"], "--size: got 'xlarge', expected one of tiny"),
    ],
)
def test_flags_of_albert_alone(corpus, tmp_path, arguments, message):
    with flags_of(pretrain):
        refuses(message, corpus, tmp_path, *arguments)


@pytest.mark.parametrize("mode", SHARING)
def test_a_way_of_sharing_is_that_of_the_checkpoint_s_layers(mode):
    """As many groups as it has layers, though --size says two."""
    theirs = AlbertConfig.of_size("base", 80, **sharing("ffn", 12))
    nothing = dict.fromkeys(("name_of", "shape_of", "read"))
    source = Source(
        "x", theirs, (), **nothing, tokenizer=TokenizerFiles(), files=()
    )
    with flags_of(pretrain), flagsaver.flagsaver():
        pretrain.FLAGS(["", "--model=albert", f"--share_parameters={mode}"])
        families.apply()
        asked = families.make_config(80)
        if mode == "ffn":
            adapted = initial.adapt(source, asked, 16)
            assert (adapted.num_layers, adapted.num_hidden_groups) == (12, 12)
        else:
            refusal(
                lambda: initial.adapt(source, asked, 16),
                "shared_part is 'ffn', this model has "
                f"'{mode.replace('all', 'none')}'",
            )
