"""The format that a file of text looks like, and its documents."""

import gzip
import json

import pytest

from official_models.nlp.text import corpus, formats
from official_models.nlp.text.documents import Format
from tests.official_models.scripts import refusal

DOCUMENTS = [
    ["It was a fine day for an ant.", "The bees were out, too."],
    [
        "Nobody asked the fox at all.",
        "And why was that so?",
        "It was asleep then.",
    ],
    ["A hen looked at the river.", "She went on at last."],
]
SENTENCES = "\n\n".join(map("\n".join, DOCUMENTS)) + "\n"
JSON_LINES = "".join(
    json.dumps({"id": i, "text": " ".join(text)}) + "\n"
    for i, text in enumerate(DOCUMENTS)
)
WIKI = "".join(
    f'<doc id="{i}" url="https://w.org?curid={i}" title="Page {i}">\n'
    f"Page {i} of the book\n\n" + " ".join(text) + "\n</doc>\n"
    for i, text in enumerate(DOCUMENTS)
)
WRAPPED = """It was a fine day, and the ant that
had been asleep all night looked out
of its door. Nobody was there.

The bees were out, too. They said that
a fine day is a day for work, and so
they went to the river.
"""
PARAGRAPHS = "\n\n".join(map(" ".join, DOCUMENTS)) + "\n"
VERSE = """Shall I compare thee to a summer's day?
Thou art more lovely and more temperate:

Rough winds do shake the darling buds of May,
And summer's lease hath all too short a date:
"""


@pytest.mark.parametrize(
    "content, name",
    [
        (SENTENCES, "sentences"),
        (SENTENCES.replace("\n", "\r\n"), "sentences"),
        ("\ufeff" + SENTENCES, "sentences"),
        ("我们走了。\n你好吗？\n\n今天很好。\n是的！\n", "sentences"),
        (JSON_LINES, "jsonl"),
        (WIKI, "wikiextractor"),
        (WRAPPED, "text"),
        (PARAGRAPHS, "text"),
        (VERSE, "text"),
        ("one line", "text"),
        ("", "text"),
        ('{"words": "no text"}\n', "text"),
    ],
)
def test_what_a_file_looks_like(tmp_path, content, name):
    path = tmp_path / "wiki_00"
    path.write_text(content, newline="")
    assert formats.guess(str(path)) == name
    packed = tmp_path / "a.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert formats.guess(str(packed)) == name


@pytest.mark.parametrize("content", [SENTENCES, JSON_LINES])
def test_documents_of_each_format(tmp_path, content):
    path = tmp_path / "a.txt"
    path.write_text(content)
    found, words = formats.read_all([path], Format("auto"))
    assert found == DOCUMENTS
    assert words.startswith("3 documents in 1 files of ")


def test_wikiextractor(tmp_path):
    path = tmp_path / "wiki_00"
    path.write_text(WIKI)
    found, _ = formats.read_all([path], Format("auto"))
    assert [text[1:] for text in found] == DOCUMENTS
    assert found[2][0] == "Page 2 of the book"


def test_text_is_what_the_corpus_reader_reads(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text(WRAPPED)
    found, words = formats.read_all([path, path], Format("auto"))
    assert found == corpus.read_documents([path, path])
    assert words == "2 documents in 2 files of text"


@pytest.mark.parametrize(
    "content, form, parts",
    [
        (b"A line.\nOne of latin-1: \xe9\n", "auto", ["0xe9", "line 2"]),
        (b"A line.\nAnd \xe9\n", "sentences", ["not UTF-8", "offset 8"]),
        (b"A line.\nOne \0 more.\n", "sentences", ["NUL", "offset 8"]),
        (b"no JSON\n", "jsonl", ["not JSON at byte offset 0"]),
        (b"* * *\n", "text", ["no text"]),
        (b"* * *\n", "sentences", ["no text", "read as sentences"]),
        (b"no document\n", "wikiextractor", ["no text", "--input_format"]),
    ],
)
def test_refused(tmp_path, content, form, parts):
    path = tmp_path / "a.txt"
    path.write_bytes(content)
    refusal(lambda: formats.read_all([path], Format(form)), path, *parts)
    missing = tmp_path / "none"
    refusal(
        lambda: formats.read_all([missing], Format(form)), missing, "No such"
    )
