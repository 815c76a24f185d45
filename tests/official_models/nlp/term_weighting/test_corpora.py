"""Corpora in their published forms: what is read, what is refused."""

import io
import tarfile

import numpy as np
import pytest

from official_models.nlp.term_weighting import corpora, reuters
from tests.official_models.scripts import refusal

STORY = """<REUTERS TOPICS="{topics}" LEWISSPLIT="{split}" NEWID="1">
<DATE>26-FEB-1987</DATE>
<TOPICS>{names}</TOPICS>
<PLACES><D>usa</D></PLACES>
<TEXT>&#2;
<TITLE>{title}</TITLE>
<DATELINE>New York</DATELINE><BODY>Prices &lt;AB> rose.
&#3;</BODY></TEXT>
</REUTERS>
"""
HEAD = '<!DOCTYPE lewis SYSTEM "lewis.dtd">\n'


def story(split="TRAIN", topics="YES", names=("grain",), title="A title"):
    marks = "".join(f"<D>{name}</D>" for name in names)
    return STORY.format(split=split, topics=topics, names=marks, title=title)


def test_modapte_takes_what_has_topics_yes():
    text = HEAD + "".join(
        [
            story("TRAIN", names=("grain", "corn")),
            story("TEST", names=()),
            story("NOT-USED"),
            story("TRAIN", topics="NO"),
            story("TRAIN", topics="BYPASS"),
        ]
    )
    found = reuters.parse(text, "a.sgm")
    assert [split for split, _ in found] == ["train", "test"]
    assert found[0][1].categories == ("grain", "corn")  # no place
    assert found[1][1].categories == ()
    assert found[0][1].text.startswith("A title\nPrices <AB> rose.")


def test_a_story_without_title_and_body():
    text = story().replace("<TEXT>", '<TEXT TYPE="UNPROC">')
    begin, end = text.index("<TITLE>"), text.index("</TEXT>")
    text = text[:begin] + "All of it" + text[end:]
    (found,) = reuters.parse(text, "a.sgm")
    assert found[1].text.strip().endswith("All of it")


def test_files_that_break_off():
    whole = HEAD + story() + story()
    refusal(
        lambda: reuters.parse(whole[:-20], "a.sgm"), "a.sgm, line 11", "</R"
    )
    inside = HEAD + story()[:150] + story()
    refusal(lambda: reuters.parse(inside, "a.sgm"), "line 2", "breaks off")
    refusal(
        lambda: reuters.parse(whole + "rest", "a.sgm"), "line 20", "damaged"
    )
    refusal(lambda: reuters.parse(HEAD, "a.sgm"), "a.sgm: no story")


def archive(path, contents):
    with tarfile.open(path, "w:gz") as made:
        for name, text in contents.items():
            content = text.encode("latin-1")
            member = tarfile.TarInfo(name)
            member.size = len(content)
            made.addfile(member, io.BytesIO(content))
    return path


def folder(path, contents):
    for name, text in contents.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(text, encoding="latin-1")
    return path


REUTERS = {
    "data/reut2-000.sgm": HEAD + story(names=("grain", "corn")) + story(),
    "data/reut2-001.sgm": HEAD + story("TEST", names=("grain", "rye")),
    "data/README.txt": "no SGML",
}


@pytest.mark.parametrize("kind", [archive, folder])
def test_reuters_as_an_archive_and_as_a_folder(kind, tmp_path):
    found = reuters.load(kind(tmp_path / "r", REUTERS))
    assert found.categories == ("corn", "grain")  # rye: no training document
    np.testing.assert_array_equal(found.train_labels, [[1, 1], [0, 1]])
    np.testing.assert_array_equal(found.test_labels, [[0, 1]])
    assert found.in_both() == ("grain",)
    assert "2 training and 1 test documents, 2 categories" in found.description


POST = """From: someone
Subject: a thing

In article <1@x> someone writes:
> a quote
The text.

--
Signature
"""


def test_newsgroups_without_headers_quotes_and_footers(tmp_path):
    found = corpora.load_newsgroups(
        folder(
            tmp_path,
            {
                "20ng/20news-bydate-train/sci.space/1": POST,
                "20ng/20news-bydate-train/alt.atheism/2": POST,
                "20ng/20news-bydate-test/sci.space/3": POST,
                "20ng/other/sci.space/3": POST,
                "notes.txt": "",
            },
        )
    )
    assert found.categories == ("alt.atheism", "sci.space")
    assert [text.strip() for text in found.train] == ["The text."] * 2
    np.testing.assert_array_equal(found.train_labels, [[1, 0], [0, 1]])


def test_ohsumed_has_documents_in_several_folders(tmp_path):
    found = corpora.load_ohsumed(
        folder(
            tmp_path,
            {
                "o/training/C01/0001": "one",
                "o/training/C02/0001": "one",
                "o/training/C02/0002": "two",
                "o/test/C01/0001": "another with the same number",
            },
        )
    )
    assert found.train == ["one", "two"]
    np.testing.assert_array_equal(found.train_labels, [[1, 1], [0, 1]])
    np.testing.assert_array_equal(found.test_labels, [[1, 0]])


def test_corpora_that_are_not_there_or_damaged(tmp_path):
    refusal(lambda: reuters.load(tmp_path / "no"), "no: no such file", "reut2")
    path = archive(tmp_path / "r.tar.gz", REUTERS)
    path.write_bytes(path.read_bytes()[:-60])
    refusal(lambda: reuters.load(path), "r.tar.gz", "whole tar archive")
    path.write_bytes(b"nothing")
    refusal(lambda: reuters.load(path), "r.tar.gz", "expected Reuters")
    empty = folder(tmp_path / "e", {"a.txt": ""})
    refusal(lambda: reuters.load(empty), "no .sgm file")
    refusal(lambda: corpora.load_ohsumed(empty), "no training documents")
    bare = {"r.sgm": story(names=()) + story("TEST", names=())}
    refusal(
        lambda: reuters.load(folder(tmp_path / "bare", bare)),
        "no training document has a label",
    )
    only = {"r.sgm": story()}
    refusal(
        lambda: reuters.load(folder(tmp_path / "o", only)), "no test documents"
    )
