"""Plain text to sentences, and sentences to ids."""

import pytest

from official_models.nlp.text import corpus, wordpiece
from tests.official_models.scripts import refusal

TEXT = """THE TEMPEST

by William Shakespeare


MASTER.
Boatswain! What cheer there, good Mr. Boatswain? Speak
to the mariners; fall to it yarely, or
we run ourselves aground.

* * * * *

THE LORD OF NAPLES. Yare, lower, lower!

[Exit.]
"""


def _write(path, text):
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_sentences_of_a_play(tmp_path):
    document = corpus.read_documents([_write(tmp_path / "a.txt", TEXT)])[0]
    assert document == [
        "THE TEMPEST",
        "by William Shakespeare",
        "MASTER. Boatswain! What cheer there, good Mr.",
        "Boatswain? Speak to the mariners;",
        "fall to it yarely, or we run ourselves aground.",
        "THE LORD OF NAPLES. Yare, lower, lower!",
        "[Exit.]",
    ]


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ('He said: "Go now!" And left.', ['He said: "Go now!" And left.']),
        (
            'She said at last: "Go now!" And then they left.',
            ['She said at last: "Go now!"', "And then they left."],
        ),
        (
            "It cost 3.14 or more. Too much for us.",
            ["It cost 3.14 or more.", "Too much for us."],
        ),
        ("No mark at the end", ["No mark at the end"]),
        (
            "这是一句话 很短 的。 又一句 也 短.",
            ["这是一句话 很短 的。", "又一句 也 短."],
        ),
        (
            "我们今天去北京。他说：“你好！”然后走了。真的吗？！是的。",
            [
                "我们今天去北京。",
                "他说：“你好！”",
                "然后走了。",
                "真的吗？！",
                "是的。",
            ],
        ),
        (
            "今日は天気がいい。「行こう！」と彼は言った。はい。",
            ["今日は天気がいい。", "「行こう！」", "と彼は言った。", "はい。"],
        ),
        (
            "राम घर गया। वह खुश था। क्या वह आएगा?",
            ["राम घर गया।", "वह खुश था।", "क्या वह आएगा?"],
        ),
        (
            "هل أنت هنا؟ نعم، أنا هنا الآن معك.",
            ["هل أنت هنا؟", "نعم، أنا هنا الآن معك."],
        ),
    ],
)
def test_sentence_ends(tmp_path, text, sentences):
    path = _write(tmp_path / "a.txt", text)
    assert corpus.read_documents([path]) == [sentences]


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_line_endings_and_byte_order_mark(tmp_path, ending, mark):
    text = mark + "One two three.\nFour.\n\nFive".replace("\n", ending)
    document = corpus.read_documents([_write(tmp_path / "a.txt", text)])[0]
    assert document == ["One two three. Four.", "Five"]


def test_gutenberg_licence_is_dropped(tmp_path):
    text = (
        "Title: X\n\n*** START OF THE PROJECT GUTENBERG\nEBOOK X ***\n"
        "The text itself.\n\n*** a footnote\n\n"
        "*** END OF THE PROJECT GUTENBERG EBOOK X ***\nThe licence.\n"
    )
    document = corpus.read_documents([_write(tmp_path / "a.txt", text)])[0]
    assert document == ["The text itself.", "*** a footnote"]


@pytest.mark.parametrize(
    ("data", "parts"),
    [
        (b"fine\nfine\nna\xefve", ["0xef", "byte offset 12", "line 3"]),
        (b"\xef\xbb\xbfab\n\xff", ["0xff", "byte offset 6", "line 2"]),
        ("text".encode("utf-16-le"), ["NUL", "byte offset 1", "line 1"]),
        (b"", ["no text", "0 bytes"]),
        (b" \n\n \n", ["no text"]),
        (b"* * *\n", ["no text"]),
    ],
)
def test_unreadable_text_is_named(tmp_path, data, parts):
    good = _write(tmp_path / "good.txt", TEXT)
    bad = _write(tmp_path / "bad.txt", data)
    refusal(lambda: corpus.read_documents([good, bad]), bad, *parts)


def test_missing_files_are_named(tmp_path):
    missing = tmp_path / "none.txt"
    refusal(lambda: corpus.read_documents([missing]), missing)
    refusal(lambda: corpus.read_documents([tmp_path]), tmp_path)
    refusal(lambda: corpus.read_documents([]), "--input")
    for pattern in (missing, tmp_path / "*.md", tmp_path):
        refusal(lambda p=pattern: corpus.expand_inputs([str(p)]), pattern)
    refusal(lambda: corpus.expand_inputs([]), "--input")


def test_expand_inputs(tmp_path, monkeypatch):
    (tmp_path / "sub.txt").mkdir()
    a, b, md, odd, deep = (
        _write(tmp_path / name, "x")
        for name in ("a.txt", "b.txt", "c.md", "d[1].txt", "sub.txt/e.txt")
    )
    assert corpus.expand_inputs([str(tmp_path)]) == [a, b, odd]
    assert corpus.expand_inputs([f"{tmp_path}/*.txt", str(a)]) == [a, b, odd]
    assert corpus.expand_inputs([str(odd), str(md)]) == [md, odd]
    assert deep in corpus.expand_inputs([f"{tmp_path}/**/*.txt"])
    monkeypatch.chdir(tmp_path)
    assert len(corpus.expand_inputs(["a.txt", str(a), "./a.txt"])) == 1


def test_tokenize_drops_empty_sentences(tmp_path):
    tokenizer = wordpiece.load_tokenizer(
        _write(
            tmp_path / "v",
            "\n".join([*wordpiece.SPECIAL_TOKENS, "un", "e"]),
        )
    )
    ids = corpus.tokenize([["un", "", " \u200b "], ["e e"]], tokenizer)
    assert [[s.tolist() for s in d] for d in ids] == [[[5]], [[6, 6]]]
