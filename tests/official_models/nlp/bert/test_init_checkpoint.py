"""Pretraining that begins with a checkpoint, and runs that are exported."""

import contextlib
import dataclasses
import io
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from official_models.common import weights
from official_models.nlp.bert import pretrain
from official_models.nlp.checkpoint.opening import open_source
from official_models.nlp.checkpoint.source import make
from official_models.nlp.text import wordpiece
from tests import warm
from tests.official_models import scripts
from tests.official_models.nlp.bert.pretrain_script import write_corpus
from tests.official_models.nlp.checkpoint import folders

ROOT = Path(__file__).parents[4]
# As in pretrain_script.py, but for the sizes.
SMALL = (
    "--steps=2 --save_every=2 --log_every=2 --eval_every=2 --nojit_compile "
    "--global_batch_size=8 --max_seq_length=16 --max_predictions_per_seq=2"
).split()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def words(corpus, tmp_path_factory):
    """A vocabulary of the corpus, of the size of the fixture's BERT."""
    from official_models.nlp.text import corpus as texts

    path = tmp_path_factory.mktemp("words") / "vocab.txt"
    documents = texts.read_documents(sorted(corpus.iterdir()))
    tokenizer = wordpiece.train_tokenizer(documents, folders.V, path)
    words = path.read_text().split()
    # Padded, as some published vocabularies are.
    return (
        words
        + [f"[unused{i}]" for i in range(folders.V - len(words))][
            : folders.V - tokenizer.get_vocab_size()
        ]
    )


@pytest.fixture(autouse=True)
def defined_flags(begun):
    # After `begun`: the flags of a script are defined once at a time.
    with scripts.flags_of(pretrain):
        yield


def run(corpus, output_dir, *arguments):
    scripts.run(
        pretrain,
        f"--input={corpus}",
        f"--output_dir={output_dir}",
        *SMALL,
        *arguments,
    )


def refuses(corpus, output_dir, *arguments, parts):
    message = scripts.refusal(
        lambda: run(corpus, output_dir, *arguments), *parts
    )
    assert not (Path(output_dir) / "run.json").exists()
    return message


def values(source):
    model, _ = make(open_source(source))
    return {p: v.numpy() for p, v in weights.by_path(model).items()}


RUN = ("--learning_rate=0", "--dropout=0.1")


@pytest.fixture(scope="module")
def begun(corpus, words, tmp_path_factory):
    """(checkpoint, run, what was printed) of a run that changes no weight."""
    folder = tmp_path_factory.mktemp("begun")
    hf = folders.write(folder / "hf", words=words)
    printed = io.StringIO()
    with scripts.flags_of(pretrain), contextlib.redirect_stdout(printed):
        run(corpus, folder / "run", f"--init_checkpoint={hf}", *RUN)
    return hf, folder / "run", printed.getvalue()


@pytest.fixture
def copied(begun, tmp_path):
    return shutil.copytree(begun[1], tmp_path / "run")


def same_values(one, other):
    one, other = values(one), values(other)
    assert one.keys() == other.keys()
    for path, array in one.items():
        np.testing.assert_array_equal(other[path], array, err_msg=path)


def test_a_run_begins_with_the_checkpoint(begun, words):
    """Its sizes, its vocabulary and, as the rate is 0, still its weights."""
    hf, folder, printed = begun
    assert "46 variables loaded" in printed
    theirs, ours = open_source(hf).config, open_source(folder).config
    rates = {"hidden_dropout": 0.1, "attention_dropout": 0.1}
    assert ours == dataclasses.replace(theirs, **rates)
    assert (folder / "vocab.txt").read_text().split() == words
    same_values(hf, folder)


def test_a_resumed_run_loads_nothing(corpus, begun, copied, capsys):
    hf = begun[0]
    run(corpus, copied, f"--init_checkpoint={hf}", *RUN)
    assert "variables loaded" not in capsys.readouterr().out


def test_another_checkpoint_is_another_run(corpus, words, copied, tmp_path):
    state = folders.fixture("state")
    state["bert.pooler.dense.bias"] += 1
    other = folders.write(tmp_path / "hf", state, words=words)
    scripts.refusal(
        lambda: run(corpus, copied, f"--init_checkpoint={other}", *RUN),
        "init_checkpoint_sha256 = ",
    )


def test_a_run_that_has_not_come_to_its_end(begun, copied):
    """Its last checkpoint has what model.keras would have."""
    (copied / "model.keras").unlink()
    same_values(begun[1], copied)
    shutil.rmtree(copied / "checkpoints")
    scripts.refusal(lambda: open_source(copied), copied, "without checkpoint")


def test_checkpoints_that_do_not_fit(corpus, words, tmp_path):
    folder = folders.write(tmp_path / "hf", words=words)
    init, out = f"--init_checkpoint={folder}", tmp_path / "out"
    sizes = ("--hidden_size=16", "--num_layers=1", "--num_heads=4")
    refuses(
        *(corpus, out, init, *sizes, "--gelu=tanh"),
        parts=[
            f"--init_checkpoint {folder}: is of another architecture: "
            "hidden_size is 32, this model has 16; num_layers is 2, this "
            "model has 1; num_heads is 2, this model has 4; and 1 more",
        ],
    )
    refuses(
        *(corpus, out, init, "--max_seq_length=32"),
        parts=["has 24 positions; expected at least --max_seq_length 32"],
    )
    other = tmp_path / "other.txt"
    other.write_text("\n".join([*words[:-1], "more"]) + "\n")
    refuses(
        *(corpus, out, init, f"--vocab_file={other}"),
        parts=[f"--vocab_file {other}: is another vocabulary than"],
    )
    (folder / "vocab.txt").unlink()
    refuses(
        corpus, out, init, parts=["no vocab.txt and no spiece.model beside it"]
    )
    other.write_text("\n".join(words[:-1]) + "\n")
    refuses(
        *(corpus, out, init, f"--vocab_file={other}"),
        parts=["vocab_size is 60, this model has 59"],
    )
    albert = {"embedding_size": 8, "model_type": "albert", "words": words}
    folders.write(folder, {"a": np.zeros(1, "float32")}, **albert)
    refuses(corpus, out, init, parts=["family is 'ALBERT', this model has"])
    refuses(
        *(corpus, out, f"--init_checkpoint={tmp_path / 'none'}"),
        parts=["no checkpoint; expected the folder of a training run"],
    )


def checkpoint(*arguments):
    return warm.run(
        [sys.executable, "-m", "official_models.nlp.checkpoint", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )


def test_the_process_exports_a_run(begun, tmp_path):
    made = checkpoint(
        "export",
        f"--checkpoint={begun[1]}",
        f"--output_dir={tmp_path / 'out'}",
    )
    assert made.returncode == 0, made.stderr
    assert "bert_pretrainer" in made.stdout
    assert "46 variables loaded" in made.stdout
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        *("config.json", "model.safetensors", "vocab.txt"),
        *("tokenizer.json", "tokenizer_config.json"),
    }
    config = json.loads((tmp_path / "out/config.json").read_text())
    assert config["architectures"] == ["BertForPreTraining"]
    same_values(begun[1], tmp_path / "out")


def test_its_process_ends_with_status_2_and_one_line(tmp_path):
    folder = folders.write(tmp_path / "hf")
    out = f"--output_dir={tmp_path / 'out'}"
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-5])
    result = checkpoint("export", f"--checkpoint={folder}", out)
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    lines = result.stderr.splitlines()
    (line,) = [x for x in lines if x.startswith("error: ")]
    assert "model.safetensors: damaged or cut short" in line
    assert [path.name for path in tmp_path.iterdir()] == ["hf"]
