"""Text and records of the flags: one interface, digests, refusals."""

import contextlib
import re
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver

from official_models.nlp.bert import pretrain
from official_models.nlp.bert.pretraining import (
    families,
    inputs,
    report,
    source,
)
from official_models.nlp.bert.pretraining.inputs import Shape
from tests.official_models.nlp.bert.pretrain_script import ROOT, write_corpus
from tests.official_models.scripts import flags_of, refusal

SMALL = ("--max_seq_length=16", "--max_predictions_per_seq=2")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(autouse=True)
def defined_flags():
    with flags_of(pretrain):
        yield


@contextlib.contextmanager
def given(*arguments):
    flags.FLAGS.unparse_flags()
    with flagsaver.flagsaver():
        flags.FLAGS(["pretrain", *SMALL, *arguments])
        families.apply()
        yield


def load(folder, *arguments, batch_size=8, replicas=1):
    with given("--vocab_size=80", *arguments):
        return source.load(folder, Shape(16, 2), batch_size, replicas)


def _numbers(dataset, name="input_ids"):
    return [batch[0][name].numpy() for batch in dataset]


def test_text_gives_batches_by_step_and_reader(corpus, tmp_path):
    with given("--vocab_size=80", f"--input={corpus}"):
        text = source.load(tmp_path, Shape(16, 2), 8)
        assert text.vocab_size == text.tokenizer.get_vocab_size()
        assert f"vocabulary {text.vocab_size}" in text.description
        first, second = _numbers(text.train(0, 2))
        assert first.shape == (8, text.max_seq_length) == (8, 16)
        np.testing.assert_array_equal(_numbers(text.train(1, 2))[0], second)
        # Masks are each reader's own.
        name = "segment_ids"
        halves = [text.train(2, 3, (i, 2)) for i in (0, 1)]
        shared = np.concatenate([_numbers(half, name)[0] for half in halves])
        whole = _numbers(text.train(2, 3), name)[0]
        np.testing.assert_array_equal(shared, whole)
    loss, accuracy = text.unigram
    assert 0 < loss < np.log(text.vocab_size) and 0 < accuracy < 1
    assert all("[MASK]" in line for line in text.fill)
    held_out = [_numbers(text.held_out) for _ in range(2)]
    np.testing.assert_array_equal(held_out[0], held_out[1])
    assert int(text.held_out.cardinality()) == len(held_out[0])


def test_documents_in_one_file(corpus, tmp_path):
    """A sentence a line, a blank line between documents, as published."""
    texts = [path.read_text() for path in sorted(corpus.glob("*.txt"))]
    one = tmp_path / "all.txt"
    one.write_text("\n\n".join(texts))
    text = load(tmp_path, f"--input={one}")
    assert "10 documents in 1 files of sentences" in text.description
    assert "% [UNK]" in text.description
    # The tenth document is held out.
    words = len(" ".join(texts[:-1]).split())
    assert f"{words:,} words" in text.description
    forced = load(tmp_path / "b", f"--input={one}", "--input_format=text")
    assert "1 documents in 1 files of text" in forced.description


def test_a_cased_vocabulary_is_trained_and_followed(corpus, tmp_path):
    (path,) = corpus.glob("a.txt")
    cased = tmp_path / "cased.txt"
    cased.write_text(path.read_text().title())
    given_text = f"--input={cased}"
    text = load(tmp_path, given_text, "--nolowercase")
    assert "Ant" in text.tokenizer.get_vocab()
    vocab = f"--vocab_file={tmp_path / 'vocab.txt'}"
    followed = load(tmp_path / "b", given_text, vocab)
    assert "--vocab_size has no effect" not in text.description
    assert "--vocab_size has no effect" in followed.description
    assert (
        followed.tokenizer.encode("Ant").ids == text.tokenizer.encode("Ant").ids
    )
    refusal(
        lambda: load(tmp_path / "c", given_text, vocab, "--lowercase"),
        *("vocab.txt", "it is cased"),
    )


def test_records_have_the_same_interface(corpus, tmp_path):
    load(tmp_path, f"--input={corpus}")
    vocab = tmp_path / "vocab.txt"
    module = "official_models.nlp.bert.pretraining.records"
    for name, files in (("train", "[a-h].txt"), ("eval", "[ij].txt")):
        command = [sys.executable, "-m", module, *SMALL]
        command += [f"--input={corpus / files}", f"--vocab_file={vocab}"]
        command += [f"--output_dir={tmp_path / name}", "--dupe_factor=1"]
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    arguments = [f"--records={tmp_path / 'train'}", f"--vocab_file={vocab}"]
    arguments += [f"--eval_records={tmp_path / 'eval'}"]
    with given(*arguments):
        text = source.load(tmp_path, Shape(16, 2), 8)
        assert inputs.facts([Shape(16, 2)])["source"] == "records"
        assert inputs.facts([Shape(16, 2)])["pairs_drawn_by"] is None
        first, second = _numbers(text.train(0, 2))
        assert first.shape == (8, 16)
        np.testing.assert_array_equal(_numbers(text.train(1, 2))[0], second)
        loss, accuracy = text.unigram
        assert 0 < loss < np.log(text.vocab_size) and 0 < accuracy < 1
        assert text.fill == [] and "held out" in text.description


@pytest.mark.parametrize(
    ("model", "flag", "output", "task"),
    [
        ("bert", "--nosentence_order", "next_sentence", "next_sentence"),
        ("bert", "--sentence_order", "next_sentence", "sentence_order"),
        ("albert", "--nosentence_order", "sentence_order", "next_sentence"),
    ],
)
def test_the_report_names_what_the_pairs_are(
    corpus, tmp_path, monkeypatch, model, flag, output, task
):
    load(tmp_path, f"--input={corpus}")
    words = f"--vocab_file={tmp_path / 'vocab.txt'}", f"--model={model}"
    text = load(tmp_path, f"--input={corpus}", flag, *words)
    said = f"which metrics.csv calls {output.replace('_', ' ')}"
    assert (said in text.description) is (output != task)
    scores = {f"{output}_accuracy": 0.75, "masked_lm_loss": 1.0}
    trained = SimpleNamespace(
        evaluate=lambda *_, **__: {**scores, "masked_lm_accuracy": 0.5},
        count_params=lambda: 1,
    )
    monkeypatch.setattr(report.report, "skipped_steps", lambda _: 0)
    run = SimpleNamespace(end_step=1, speed=lambda: 1.0)
    figures = report.measure(trained, text, run, fill=False)
    assert figures["pair"] == task
    assert figures[f"{task}_accuracy"] == 0.75
    assert f"{task.replace('_', ' ')}: model" in report.show(figures)


def test_held_out_batches_are_of_all_replicas(corpus, tmp_path):
    text = load(tmp_path, f"--input={corpus}", replicas=3)
    sizes = [len(ids) for ids in _numbers(text.held_out)]
    assert len(set(sizes)) == 1 and sizes[0] % 3 == 0
    found = re.search(
        r"([\d,]+) sequences held out(.*?), vocab", text.description
    )
    held_out, said = int(found[1].replace(",", "")), found[2]
    assert sum(sizes) < held_out  # the corpus was made for that
    assert said == (
        f" (the first {sum(sizes)} are measured: whole batches of {sizes[0]})"
    )
    whole = load(tmp_path, f"--input={corpus}").description
    assert f"{held_out} sequences held out, vocabulary" in whole
    refusal(
        lambda: load(tmp_path, f"--input={corpus}", replicas=10_000),
        "held out, expected at least the 10000 replicas",
    )


def test_facts_tell_training_from_held_out_text(corpus):
    files = [str(path) for path in sorted(corpus.glob("*.txt"))]
    found = []
    for count in (8, 9):
        train, held_out = files[:count], files[count:]
        with given(
            f"--input={','.join(train)}", f"--eval_input={','.join(held_out)}"
        ):
            found.append(inputs.facts([Shape(16, 2)]))
    for name in ("train_sha256", "held_out_sha256"):
        assert found[0][name] != found[1][name]
    # A run of a version that drew other pairs has no such fact.
    assert found[0]["pairs_drawn_by"] == "document"
    with given(f"--input={corpus}", f"--vocab_file={files[0]}"):
        assert (
            inputs.facts([Shape(16, 2)])["vocab_file_sha256"]
            != (found[0]["vocab_file_sha256"])
        )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--records=x"], "--records: expected with --eval_records"),
        (["--eval_input=x"], "--eval_input: expected together with --input"),
        (["--input=/no/such/file"], "/no/such/file"),
    ],
)
def test_refused(arguments, message):
    with given(*arguments):
        refusal(lambda: inputs.facts([Shape(16, 2)]), message)


def test_what_is_trained_on_is_not_held_out(corpus):
    some = f"{corpus}/sub/../a.txt"
    (corpus / "sub").mkdir()
    with given(f"--input={corpus}", f"--eval_input={some}"):
        refusal(
            lambda: inputs.facts([Shape(16, 2)]),
            *("--eval_input ", ".txt: is among the files of --input, so that"),
        )


def test_flags_of_text_are_refused_with_records(tmp_path):
    for name in ("a.tfrecord", "b.tfrecord", "vocab.txt"):
        (tmp_path / name).write_bytes(name.encode())
    words = [
        f"--records={tmp_path}/a.tfrecord",
        f"--eval_records={tmp_path}/b.tfrecord",
        f"--vocab_file={tmp_path}/vocab.txt",
    ]
    with given(*words):
        assert len(inputs.files_of(Shape(16, 2))) == 2
    for word in ("--dupe_factor=3", "--sentence_order", "--max_ngram=3"):
        with given(*words, word):
            refusal(
                lambda: inputs.files_of(Shape(16, 2)),
                f"{word.partition('=')[0]}: has no effect on --records",
            )
    with given(*words[::2], f"--eval_records={tmp_path}/a.tfrecord"):
        refusal(
            lambda: inputs.files_of(Shape(16, 2)),
            *("--eval_records ", "is among the files of --records"),
        )


def test_phase_2_has_records_of_its_own(tmp_path):
    for name in "abcd":
        (tmp_path / f"{name}.tfrecord").write_bytes(name.encode())
    (tmp_path / "vocab.txt").write_text("[PAD]")
    first = [f"--records={tmp_path}/a.tfrecord"]
    first += [f"--eval_records={tmp_path}/b.tfrecord"]
    first += [f"--vocab_file={tmp_path}/vocab.txt"]
    second = [f"--phase2_records={tmp_path}/c.tfrecord"]
    second += [f"--phase2_eval_records={tmp_path}/d.tfrecord"]
    shapes = [Shape(16, 2), Shape(64, 8, 2)]
    with given(*first, *second):
        names = [
            [str(path)[-10:] for path in paths]
            for paths in inputs.files_of(shapes[1])
        ]
        assert names == [["c.tfrecord"], ["d.tfrecord"]]
        facts = inputs.facts(shapes)
    digests = [value for name, value in facts.items() if "_sha256" in name]
    assert len({*digests}) == 5
    with given(*first):
        assert "phase2_train_sha256" not in inputs.facts(shapes[:1])
        refusal(
            lambda: inputs.facts(shapes),
            "--records with --phase2_steps: expected with --phase2_records",
        )
    with given(*second):
        refusal(
            lambda: inputs.facts(shapes), "--phase2_records: expected together"
        )
