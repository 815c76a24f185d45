"""WordPiece vocabularies: trained, published, damaged."""

import numpy as np
import pytest

from official_models.common import files
from official_models.nlp.text import corpus, wordpiece
from tests.official_models.scripts import refusal


def _write(path, text):
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


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
        wordpiece.train_tokenizer(documents, 120, tmp_path / f"{run}.txt")
        vocabularies.add((tmp_path / f"{run}.txt").read_bytes())
    assert len(vocabularies) == 1


def test_trained_vocabulary(documents, tmp_path):
    path = tmp_path / "new" / "vocab.txt"
    tokenizer = wordpiece.train_tokenizer(documents, 120, path)
    assert tokenizer.to_str() == wordpiece.load_tokenizer(path).to_str()
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
    tokenizer = wordpiece.train_tokenizer([["a b ab ab"]], 1000, tmp_path / "v")
    assert 8 <= tokenizer.get_vocab_size() < 20


def test_vocabulary_too_small_for_the_characters(documents, tmp_path):
    path = tmp_path / "vocab.txt"
    refusal(
        lambda: wordpiece.train_tokenizer(documents, 20, path), "vocab_size 20"
    )
    assert not path.exists()


def test_unwritable_vocabulary(documents, tmp_path):
    path = _write(tmp_path / "file", "x") / "vocab.txt"
    refusal(lambda: wordpiece.train_tokenizer(documents, 120, path), path)


VOCAB = "\n".join(
    ["[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    + ["un", "##aff", "##able", "Un", "é", "e", "[", "]", "mask", "\u2028"]
)


UNCASED = VOCAB.replace("Un", "on")


def test_whether_text_is_lower_cased_is_what_the_vocabulary_says(tmp_path):
    cased = _write(tmp_path / "cased.txt", VOCAB)
    uncased = _write(tmp_path / "uncased.txt", UNCASED)
    assert [*map(wordpiece.is_uncased, (cased, uncased))] == [False, True]
    refusal(
        lambda: wordpiece.load_tokenizer(cased, lowercase=True),
        *(cased, "1 of 16 tokens have capitals", "'Un'", "it is cased"),
    )
    assert wordpiece.load_tokenizer(cased).encode("Un").ids == [9]
    # One capital among two hundred tokens may be anything.
    words = "\n".join([VOCAB, *(f"word{i}" for i in range(200))])
    assert wordpiece.is_uncased(_write(tmp_path / "many.txt", words))


def test_a_cased_vocabulary_is_trained_with_its_capitals(tmp_path):
    documents = [["The Ant met a bee. The Bee met an ant."] * 3]
    path = tmp_path / "vocab.txt"
    tokenizer = wordpiece.train_tokenizer(documents, 60, path, lowercase=False)
    assert {"The", "Ant"} <= set(tokenizer.get_vocab())
    assert not wordpiece.is_uncased(path)
    assert tokenizer.encode("The").ids != tokenizer.encode("the").ids


@pytest.mark.parametrize("ending", ["", "\n"])
def test_published_vocabulary(tmp_path, ending):
    path = _write(tmp_path / "vocab.txt", UNCASED + ending)
    tokenizer = wordpiece.load_tokenizer(path)
    assert tokenizer.get_vocab_size() == 16
    encode = lambda text: corpus.tokenize([[text]], tokenizer)  # noqa: E731
    (sentence,) = encode("UNAFFABLE é zzz")[0]
    assert sentence.dtype == np.int32
    assert sentence.tolist() == [6, 7, 8, 11, 2]
    # Text cannot spell a special token.
    assert encode("[MASK]")[0][0].tolist() == [12, 14, 13]
    path = _write(tmp_path / "cased.txt", VOCAB + ending)
    cased = wordpiece.load_tokenizer(path)
    assert corpus.tokenize([["Un é"]], cased)[0][0].tolist() == [9, 10]


def test_published_vocabulary_with_crlf(tmp_path):
    path = _write(tmp_path / "v", VOCAB.replace("\n", "\r\n") + "\r\n")
    assert wordpiece.load_tokenizer(path).token_to_id("##able") == 8


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
    refusal(lambda: wordpiece.load_tokenizer(path), path, *parts)


def test_missing_vocabulary_is_named(tmp_path):
    refusal(lambda: wordpiece.load_tokenizer(tmp_path / "v"), tmp_path / "v")


def test_a_long_word_is_unknown_from_201_characters_on(tmp_path):
    """As in `tokenization.py` of google-research/bert; Hugging Face: 101."""
    path = _write(tmp_path / "v", VOCAB + "\na\n##a")
    tokenizer = wordpiece.load_tokenizer(path)
    for length, tokens in ((100, 100), (101, 101), (200, 200)):
        assert len(tokenizer.encode("a" * length).ids) == tokens
    assert tokenizer.encode("a" * 201).tokens == ["[UNK]"]


def test_a_vocabulary_of_a_file_system_of_tensorflow():
    path = "ram://vocabulary.txt"
    files.write_text(path, VOCAB)
    assert wordpiece.load_tokenizer(path).token_to_id("[SEP]") == 4
    files.write_text(path, VOCAB + "\nun")
    refusal(lambda: wordpiece.load_tokenizer(path), path, "line 17", "line 7")
