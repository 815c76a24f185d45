"""`train.py` and `summarize.py`, whole and small."""

import io
import json
import shutil

import numpy as np
import pytest

from official_models.common import weights
from official_models.nlp.checkpoint.opening import open_source
from official_models.nlp.checkpoint.source import make
from official_models.nlp.summarization import (
    evaluation,
    network,
    optimization,
    record,
    train,
)
from tests.official_models import scripts
from tests.official_models.nlp.summarization.small_scripts import (
    make_places,
    summaries_by,
)
from tests.official_models.scripts import refusal

SMALL = (
    "--steps=4 --global_batch_size=4 --eval_batch_size=4 --log_every=2 "
    "--eval_every=4 --save_every=2 --max_tokens=24 --max_target=12 "
    "--num_layers=1 --num_heads=2 --intermediate_size=8 --sentences=1 "
    "--jobs=1 --warmup_steps=1 --optimizer=lamb"
).split()
BEAMS = "--beam_size=2 --min_length=1 --max_length=6".split()


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    return make_places(tmp_path_factory.mktemp("summaries"))


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def run(places, folder, *arguments):
    writes = any(x.startswith("--model=") for x in arguments)
    with scripts.flags_of(train):
        scripts.run(
            train,
            *SMALL,
            *(BEAMS if writes else ()),
            f"--data_dir={places['data']}",
            f"--init_checkpoint={places['bert']}",
            f"--cache_dir={places['folder'] / 'cache'}",
            f"--output_dir={folder}",
            *arguments,
        )
    return json.loads((folder / "report.json").read_text())


@pytest.fixture(scope="module")
def ext(places):
    folder = places["folder"] / "ext"
    return folder, run(places, folder)


@pytest.fixture(scope="module")
def extabs(places, ext):
    folder = places["folder"] / "extabs"
    report = run(
        places,
        folder,
        "--model=bertsum_extabs",
        f"--init_checkpoint={ext[0]}",
        *("--compare_speed", "--test_limit=4"),
    )
    return folder, report


def test_an_extractive_run(ext, places):
    folder, report = ext
    assert {path.name for path in folder.iterdir()} >= {
        *("model.keras", "report.json", "summaries.jsonl", "curves.png"),
        *("summarizer.json", "vocab.txt", "bert_config.json"),
        *("metrics.csv", "trust_ratio.csv"),
    }
    assert report["steps"] == 4 and report["test_documents"] == 9
    assert [*report["rows"]] == ["Oracle", "Lead-1", "bertsum_ext"]
    # The summary is the document's second sentence, word for word.
    assert report["rows"]["Oracle"]["rouge2"]["mean"] == 100
    assert report["rows"]["Lead-1"]["rouge2"]["mean"] == 0
    lines = (folder / "summaries.jsonl").read_text().splitlines()
    first = json.loads(lines[0])
    best = int(np.argmax(first["scores"]))
    assert first["chosen"] == [best] and len(first["scores"]) == 3
    assert len(scripts.rows(folder / "metrics.csv")) == 2
    after = weights.by_path(weights.read_keras(folder / "model.keras", ""))
    before = weights.by_path(make(open_source(places["bert"]))[0])
    moved = {
        path
        for path, variable in before.items()
        if np.abs(np.subtract(variable, after[path])).max() > 1e-5
    }
    assert "bert/embeddings/word_embeddings" in moved
    assert set(before) - moved <= {
        *("bert/pooler/dense/kernel", "bert/pooler/dense/bias"),
        *(path for path in before if path.endswith("key/bias")),
    }


def test_a_run_is_resumed_as_if_it_had_not_stopped(places, ext, tmp_path):
    whole = weights.read_keras(ext[0] / "model.keras", "whole")
    part = tmp_path / "part"
    shutil.copytree(ext[0], part)
    (part / "model.keras").unlink()
    for path in (part / "checkpoints").glob("ckpt-4*"):
        path.unlink()
    run(places, part)
    again = weights.read_keras(part / "model.keras", "part")
    for one, other in zip(whole.weights, again.weights, strict=True):
        if "seed_generator" not in one.path:
            np.testing.assert_allclose(one, other, atol=1e-6)
    refusal(lambda: run(places, part, "--dropout=0.2"), "dropout = 0.1")


def test_an_abstractive_run_begins_with_the_extractive_encoder(extabs, ext):
    folder, report = extabs
    assert [*report["rows"]] == ["Oracle", "Lead-1", "bertsum_extabs"]
    assert report["perplexity"] > 1
    assert report["tokens_per_second"] > 0
    assert set(report["speeds"]) == {"cached", "uncached"}
    rows = scripts.rows(folder / "metrics.csv")
    assert float(rows[0]["cross_entropy"]) > 0
    lines = (folder / "summaries.jsonl").read_text().splitlines()
    assert 1 <= len(json.loads(lines[0])["beams"]) <= 2


def test_a_decoder_of_the_checkpoint_is_kept(extabs):
    source = open_source(extabs[0])
    model = weights.read_keras(extabs[0] / "model.keras", "here")
    variables = weights.by_path(model)
    own = variables["decoder/word_embeddings"]
    trained = np.array(own.numpy())
    words = variables["bert/embeddings/word_embeddings"].numpy()
    assert np.abs(trained - words).max() > 1e-4
    own.assign(0 * trained)
    network.initialize(source, model)
    np.testing.assert_array_equal(own.numpy(), trained)
    # An encoder alone has none.
    network.initialize(
        source._replace(
            names={n for n in source.names if not n.startswith("decoder/")},
        ),
        model,
    )
    np.testing.assert_array_equal(own.numpy(), words)


def test_the_vocabulary_is_read_as_the_flags_say(places, tmp_path):
    def opened(checkpoint, *arguments):
        with scripts.flags_of(train):
            train.FLAGS(
                ["train", f"--init_checkpoint={checkpoint}", *arguments]
            )
            _, tokenizer = network.open_checkpoint()
            told = record.from_flags("bertsum_ext").lowercase
        return tokenizer.encode("FILM", add_special_tokens=False).tokens, told

    assert opened(places["bert"]) == (["film"], True)
    # What `summarize` will do, too.
    assert opened(places["bert"], "--nolowercase") == (["[UNK]"], False)
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copy(places["bert"] / name, bare)
    words = places["bert"] / "vocab.txt"
    given = f"--vocab_file={words}"
    assert opened(bare, given) == (["film"], None)
    more = tmp_path / "more.txt"
    more.write_text(words.read_text().rstrip("\n") + "\nmore\n")
    refusal(lambda: opened(bare, f"--vocab_file={more}"), more, "tokens")


def test_summaries_of_a_text_and_of_lines(
    ext, extabs, tmp_path, capsys, monkeypatch
):
    text = tmp_path / "a.txt"
    text.write_text("The film is good. Anna lives in Oslo.\n\nIt was bad.")
    summaries_by(f"--checkpoint={ext[0]}", f"--input={text}", "--explain")
    out = capsys.readouterr().out.splitlines()
    sentences = ["The film is good.", "Anna lives in Oslo.", "It was bad."]
    assert out[0] in sentences and out[1] == ""
    assert [line.split(maxsplit=1)[1].lstrip("* ") for line in out[2:]] == (
        sentences
    )
    best = max(out[2:], key=lambda line: float(line.split()[0]))
    assert best.endswith(f"* {out[0]}")

    monkeypatch.setattr(
        "sys.stdin", io.TextIOWrapper(io.BytesIO(text.read_bytes()))
    )
    summaries_by(f"--checkpoint={ext[0]}", "--sentences=2")
    assert len(capsys.readouterr().out.splitlines()) == 2

    lines = tmp_path / "many.jsonl"
    lines.write_text('{"document": "The film is good."}\n{"document": ""}\n')
    many = f"--checkpoint={extabs[0]}", f"--input={lines}"
    refusal(lambda: summaries_by(*many), "line 2", "empty document")
    summaries_by(*many, "--max_bad=1", "--explain", "--max_length=4")
    printed = capsys.readouterr()
    found = json.loads(printed.out)
    assert found["place"].endswith("line 1") and found["beams"]
    assert "1 documents left out" in printed.err


def test_what_cannot_summarize(places, ext, extabs, tmp_path):
    text = tmp_path / "a.txt"
    text.write_text("The film is good.")
    given = f"--input={text}"
    refusal(lambda: summaries_by(given), "--checkpoint is missing")
    refusal(
        lambda: summaries_by(given, f"--checkpoint={places['bert']}"),
        *("model.keras", "summarization.train"),
    )
    bare = tmp_path / "bare"
    bare.mkdir()
    model, _ = make(open_source(places["bert"]))
    model.save(bare / "model.keras")
    refusal(
        lambda: summaries_by(given, f"--checkpoint={bare}"),
        "neither a sentence head nor a decoder",
    )
    damaged = tmp_path / "damaged"
    shutil.copytree(ext[0], damaged)
    whole = json.loads((damaged / record.NAME).read_text())
    for change in (
        {"model": "other"},
        {"max_tokens": "many"},
        {"beam": 3},
        {"more": 1},
        {"model": "bertsum_abs", "max_target": 900},
    ):
        (damaged / record.NAME).write_text(json.dumps({**whole, **change}))
        refusal(
            lambda: summaries_by(given, f"--checkpoint={damaged}"), record.NAME
        )
    checkpoint = f"--checkpoint={extabs[0]}"
    refusal(
        lambda: summaries_by(given, checkpoint, "--max_length=50"),
        *("--max_length 50", "12"),
    )
    refusal(
        lambda: summaries_by(given, checkpoint, "--beam_size=1", "--alpha=-1"),
        "--alpha",
    )
    refusal(
        lambda: summaries_by(given, checkpoint, "--sentences=2"),
        *("--sentences", "bertsum_extabs", "writes"),
    )
    refusal(
        lambda: summaries_by(given, f"--checkpoint={ext[0]}", "--beam_size=2"),
        *("--beam_size", "chooses sentences"),
    )
    text.write_bytes(b"The \xff film")
    refusal(lambda: summaries_by(given, checkpoint), "not UTF-8")
    text.write_text(" ")
    refusal(lambda: summaries_by(given, checkpoint), "empty document")


def test_two_optimizers_and_one_rate(places, tmp_path):
    losses = {}
    for separate in ("multi_optimizer", "none"):
        folder = tmp_path / separate
        run(
            places,
            folder,
            *("--model=bertsum_abs", f"--separate={separate}", "--steps=2"),
            *("--eval_every=2", "--test_limit=1", "--optimizer=sgd"),
            *("--save_every=2", "--log_every=1", "--validation_limit=4"),
        )
        rows = scripts.rows(folder / "metrics.csv")
        losses[separate] = rows[-1]["val_loss"]
        assert float(rows[0]["learning_rate"]) > 0
    assert len(set(losses.values())) == 2


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--data_dir="], ["--data_dir is missing"]),
        (["--init_checkpoint="], ["--init_checkpoint is missing"]),
        (["--model=bertsum_extabs"], ["no sentence head", "bertsum_ext"]),
        (["--global_batch_size=10"], ["--global_batch_size", "9"]),
        (["--learning_rate=-1"], ["--learning_rate"]),
        (["--encoder_learning_rate=-1"], ["--encoder_learning_rate"]),
        (["--optimizer=adamw"], ["--separate groups", "none"]),
        (
            ["--separate=none", "--encoder_warmup_steps=3"],
            ["--encoder_warmup_steps", "--separate none"],
        ),
        (["--power=2"], ["--power", "--schedule polynomial"]),
        (["--schedule=polynomial"], ["--warmup_steps", "noam"]),
        (["--num_heads=3"], ["--num_heads", "divisor"]),
        (["--dropout=1"], ["--hidden_dropout"]),
        (["--smoothing=0.2"], ["--smoothing", "bertsum_ext"]),
        (["--compare_speed"], ["--compare_speed", "bertsum_ext"]),
        (["--max_length=50"], ["--max_length", "bertsum_ext"]),
        (["--size=base"], ["--size", "not with --init_checkpoint"]),
        (
            ["--init_checkpoint=", "--position=paper"],
            ["--position", "only for --init_checkpoint"],
        ),
        (["--model=bertsum_abs", "--smoothing=1"], ["--smoothing"]),
        (["--model=bertsum_abs", "--min_length=6"], ["--min_length"]),
        (["--model=bertsum_abs", "--max_length=50"], ["--max_target 12"]),
        (
            ["--separate=multi_optimizer", "--gradient_accumulation_steps=2"],
            ["--gradient_accumulation_steps"],
        ),
    ],
)
def test_flags_that_are_refused(places, tmp_path, arguments, parts):
    refusal(lambda: run(places, tmp_path / "run", *arguments), *parts)
    assert not (tmp_path / "run" / "run.json").exists()


def test_a_folder_of_another_run_stays_as_it_is(places, tmp_path):
    (tmp_path / "run.json").write_text('{"learning_rate": 0.5}')
    refusal(
        lambda: run(places, tmp_path, "--cache_dir="),
        "holds a run with",
    )
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_rates_of_the_groups():
    with scripts.flags_of(train):
        train.FLAGS(["train", "--learning_rate=0.1", "--warmup_steps=5"])
        found = optimization.from_flags(100, 2)
        (group,) = found.groups
        assert group.pattern == optimization.ENCODER
        # Micro-batches: an update has two.
        assert float(group.learning_rate(19)) == pytest.approx(0.01)
        assert float(found._learning_rate(9)) == pytest.approx(0.1)


def test_speeds_are_tokens_a_second(extabs):
    model = weights.read_keras(extabs[0] / "model.keras", "here")
    steppers = []

    def write(stepper):
        steppers.append(stepper)
        seconds = 2.0 if stepper.cached else 6.0
        return evaluation.Written([], [], 30, seconds)

    found = evaluation.speeds(model, write)
    assert found == {"cached": 15, "uncached": 5}
    # The second time, nothing is traced.
    assert steppers[0] is steppers[1] and steppers[2] is steppers[3]
    assert [stepper.cached for stepper in steppers] == [1, 1, 0, 0]
