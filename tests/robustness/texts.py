"""Texts, vocabularies and configurations: whole ones, and what reads them."""

from __future__ import annotations

import functools
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from official_models.common import files
from official_models.nlp.checkpoint import tokenizer
from official_models.nlp.datasets import glue, squad
from official_models.nlp.head_analysis import attention_to, relations
from official_models.nlp.term_weighting import reuters
from official_models.nlp.text import (
    corpus,
    documents,
    sentence_piece,
    vocabulary,
    wordpiece,
)
from tests.robustness.outcomes import Silent


def writes(name: str, content: str) -> Callable[[Path], None]:
    """What writes a text file into a folder."""
    return lambda folder: (folder / name).write_text(content, "utf-8") and None


def expect(right: bool, what: str) -> None:
    """Raises `Silent` where what was read is not right."""
    if not right:
        raise Silent(what)


WORDS = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nant\nbee\n##s\nd\u00e9j\u00e0\n"


def read_vocabulary(folder):
    found = wordpiece.load_tokenizer(folder / "vocab.txt")
    ids = found.encode("ant bees", add_special_tokens=False).ids
    expect(all(0 <= i < found.get_vocab_size() for i in ids), "ids")
    expect("" not in found.get_vocab(), "an empty token")


PROSE = """It was a fine day. The ants went out to look for bread!

And who was there? A bee; she said nothing, and so did they. D\u00e9j\u00e0 vu.
"""


RELATIONS = json.dumps(
    {
        "relations": [
            {
                "name": "subject",
                "examples": [
                    {"texts": ["ant bee"], "pairs": [["ant", "bee"]]},
                    {"texts": ["bees", "ant"], "pairs": [["bees", "ant"]]},
                ],
            }
        ]
    }
)
CLASSES = json.dumps({"insects": ["ant", "bees"], "others": ["bee"]})


@functools.cache
def _words():
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vocab.txt"
        path.write_text(WORDS, "utf-8")
        return wordpiece.load_tokenizer(path)


def read_relations(folder):
    for one in relations.read_relations(folder / "l.json", _words(), 12):
        expect(isinstance(one.name, str) and one.name.strip() != "", "a name")
        expect(len(one.inputs["input_ids"]) == len(one.links) > 0, "examples")
        for links in one.links:
            expect(len(links) > 0, "no pair")
            expect(all(a.any() and b.any() for a, b in links), "a link")


def read_classes(folder):
    words = attention_to.Words(_words())
    for one in attention_to.read_classes(folder / "c.json", words):
        expect(isinstance(one.name, str) and one.name.strip() != "", "a name")
        expect(bool(one.single or one.words), "no word")


SGML = "".join(
    f'<REUTERS TOPICS="YES" LEWISSPLIT="{split}">\n'
    f"<TOPICS><D>grain</D><D>corn</D></TOPICS>\n<TEXT><TITLE>Ants</TITLE>"
    f"<BODY>{PROSE}</BODY></TEXT>\n</REUTERS>\n"
    for split in ("TRAIN", "TRAIN", "TEST")
)


def read_sgml(folder):
    found = reuters.load(folder)
    expect(
        found.train_labels.shape == (len(found.train), len(found.categories)),
        "labels",
    )
    expect(found.train_labels.any() and found.test, "documents")


def read_text(folder):
    (sentences,) = corpus.read_documents([folder / "a.txt"])
    expect(all("\0" not in s and s.strip() for s in sentences), "a sentence")


def read_json_lines(folder, name="jsonl"):
    bad = documents.BadLines()
    path = str(folder / f"a.{name}")
    pieces = documents.buckets(
        [(path, (folder / f"a.{name}").stat().st_size)],
        documents.Format(name),
        1 << 20,
        0,
    )
    for bucket in pieces:
        for group in documents.read_groups(
            bucket,
            documents.Format(name),
            1 << 20,
            bad,
            functools.partial(open, mode="rb"),
        ):
            for document in group:
                expect(all(isinstance(s, str) for s in document), "a text")
                expect(all("\0" not in s for s in document), "NUL")


BERT = json.dumps(
    {
        "vocab_size": 60,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "hidden_act": "gelu",
        "max_position_embeddings": 24,
        "type_vocab_size": 2,
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1,
        "initializer_range": 0.02,
    }
)
ALBERT = json.dumps(
    {**json.loads(BERT), "embedding_size": 8, "num_hidden_groups": 1}
)


def check_config(config):
    for name, value in config.get_config().items():
        kind = {"gelu": str}.get(name, (int, float))
        ok = isinstance(value, kind) and not isinstance(value, bool)
        expect(ok or isinstance(value, str), f"{name} = {value!r}")
        if isinstance(value, (int, float)):
            expect(np.isfinite(value) and value >= 0, f"{name} = {value!r}")


SQUAD = json.dumps(
    {
        "version": "v2.0",
        "data": [
            {
                "title": "Ants",
                "paragraphs": [
                    {
                        "context": "Ants eat bread. Bees do not.",
                        "qas": [
                            {
                                "id": f"q{i}",
                                "question": "What do ants eat?",
                                "is_impossible": i == 1,
                                "answers": []
                                if i == 1
                                else [{"text": "bread", "answer_start": 9}],
                            }
                            for i in range(3)
                        ],
                    }
                ],
            }
        ],
    }
)


def read_squad(folder):
    questions, _ = squad.read_squad(str(folder / "dev.json"))
    ids = [q.id for q in questions]
    expect(len({*ids}) == len(ids), "an id twice")
    for question in questions:
        expect(isinstance(question.context, str), "a context")
        expect(isinstance(question.text, str), "a question")
        expect(all(isinstance(a, str) for a in question.answers), "an answer")
        for answer, start in zip(question.answers, question.starts):
            if start is not None:
                end = start + len(answer)
                found = question.context[start:end]
                expect(found == answer, "an answer's place")


SST2 = "sentence\tlabel\n" + "".join(
    f"a film like number {i}\t{i % 2}\n" for i in range(6)
)


def read_glue(folder):
    examples, _ = glue.read_split(folder, glue.task_of("sst-2"), "dev")
    for example in examples:
        expect(example.label in (0, 1), f"label {example.label}")
        expect(all("\0" not in text for text in example.texts), "NUL")


def make_pipeline(folder):
    (folder / "vocab.txt").write_text(WORDS)
    made = wordpiece.load_tokenizer(folder / "vocab.txt")
    made.save(str(folder / "tokenizer.json"))
    (folder / "vocab.txt").unlink()


@functools.cache
def _pieces():
    """A SentencePiece model, trained once."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "spiece.model")
        sentences = [[PROSE.replace("\n", " ")] * 20]
        sentence_piece.train_tokenizer(sentences, 60, path)
        return path.read_bytes()


def make_pieces(folder):
    (folder / "spiece.model").write_bytes(_pieces())


def read_pieces(folder):
    found = vocabulary.load_tokenizer(folder / "spiece.model")
    ids = found.encode("the ants", add_special_tokens=False).ids
    expect(all(0 <= i < found.get_vocab_size() for i in ids), "ids")


def read_pipeline(folder):
    found = tokenizer.find(folder).load("--checkpoint")
    found.encode("ant bees")


def read_json(folder):
    files.read_json(folder / "a.json")
