"""SentencePiece vocabularies: trained here and read; what is refused."""

import unicodedata

import numpy as np
import pytest
import sentencepiece
from tokenizers import Tokenizer

from official_models.nlp.bert.pretraining import packing
from official_models.nlp.text import corpus, sentence_piece, vocabulary
from tests.official_models.nlp.text import pieces
from tests.official_models.scripts import refusal


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(documents, path) of a model of 120 pieces."""
    documents = pieces.documents()
    path = tmp_path_factory.mktemp("trained") / "new" / "spiece.model"
    sentence_piece.train_tokenizer(documents, 120, path)
    return documents, path


def _encode(tokenizer, texts):
    found = tokenizer.encode_batch_fast(texts, add_special_tokens=False)
    return [encoding.ids for encoding in found]


def _published(processor, text, lowercase=True):
    """Ids by the package `sentencepiece`, as ALBERT's published code has them.

    It joins spaces, replaces two kinds of quotes, strips accents and takes
    pieces apart that end in a digit and a comma.
    """
    text = " ".join(text.split()).replace("``", '"').replace("''", '"')
    text = unicodedata.normalize("NFKD", text)
    text = "".join(c for c in text if not unicodedata.combining(c))
    found = []
    for piece in processor.encode(
        text.lower() if lowercase else text, out_type=str
    ):
        if len(piece) > 1 and piece[-1] == "," and piece[-2].isdigit():
            inner = processor.encode(piece[:-1].lstrip("\u2581"), out_type=str)
            if piece[0] != "\u2581" and inner[0][0] == "\u2581":
                inner[:1] = [inner[0][1:]] if inner[0] != "\u2581" else []
            found += [*inner, ","]
        else:
            found.append(piece)
    return [processor.piece_to_id(piece) for piece in found]


def test_training_is_repeatable(trained, tmp_path):
    documents, path = trained
    for again in range(2):
        other = tmp_path / f"{again}.model"
        sentence_piece.train_tokenizer(documents, 120, other)
        assert other.read_bytes() == path.read_bytes()


def test_a_trained_vocabulary(trained):
    documents, path = trained
    tokenizer = vocabulary.load_tokenizer(path)
    names = [tokenizer.id_to_token(i) for i in range(120)]
    assert names[:5] == ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"]
    assert tokenizer.get_vocab_size() == len(set(names)) == 120
    assert list(path.parent.iterdir()) == [path]
    ordinary = "".join(names[5:])
    assert ordinary == ordinary.lower() and not {"é", "ü"} & set(ordinary)
    for document in corpus.tokenize(documents, tokenizer):
        assert not any((sentence == 1).any() for sentence in document)


@pytest.mark.parametrize("lowercase", [True, False])
def test_ids_are_those_of_the_published_code(trained, lowercase):
    documents, path = trained
    processor = sentencepiece.SentencePieceProcessor(model_file=str(path))
    texts = [sentence for document in documents for sentence in document]
    texts += [
        "",
        "  two  spaces\tand a tab ",
        "``Quoted'' 42, 4,2 -- (Zed-ko) \u00a342",
        "ﬁ ½ ＡＢＣ ä\u0301 \u00ad x\u200by \u4e2d\u6587 \U0001f600",
        "bakolumi" * 40,
    ]
    found = _encode(vocabulary.load_tokenizer(path, lowercase), texts)
    for text, ids in zip(texts, found, strict=True):
        assert ids == _published(processor, text, lowercase), text


def test_a_number_with_its_comma_is_two_pieces(tmp_path):
    path = pieces.write(tmp_path / "a.model", ["ab", "1", "1,", "2,"])
    tokenizer = vocabulary.load_tokenizer(path)
    (ids,) = _encode(tokenizer, ["ab 1, b"])
    names = [tokenizer.id_to_token(i) for i in ids]
    assert names == ["\u2581ab", "\u25811", ",", "\u2581b"]


def test_a_text_that_spells_a_control_token_has_none(tmp_path):
    """Even in a pipeline that was sent to another process."""
    path = pieces.write(tmp_path / "a.model", ["ab"])
    for lowercase in (True, False):
        tokenizer = vocabulary.load_tokenizer(path, lowercase)
        tokenizer = Tokenizer.from_str(tokenizer.to_str())
        (ids,) = _encode(tokenizer, ["ab [MASK] a<pad> <unk>[CLS][SEP]ab"])
        assert not {0, 2, 3, 4} & set(ids)
        assert tokenizer.token_to_id("[MASK]") == 4


def test_cased_and_uncased(tmp_path):
    path = pieces.write(tmp_path / "a.model", ["Ab", "ab"])
    for lowercase, name in ((True, "\u2581ab"), (False, "\u2581Ab")):
        tokenizer = vocabulary.load_tokenizer(path, lowercase)
        (ids,) = _encode(tokenizer, ["Ab"])
        assert [tokenizer.id_to_token(i) for i in ids] == [name]


@pytest.mark.parametrize(
    "piece, begins",
    [
        *(("\u2581the", True), ("ing", False), ("\u2581", True), (".", True)),
        *(("s.", False), ("n't", True), ("中", True), ("7", True)),
        *(("é", True), ("<unk>", True)),
    ],
)
def test_where_words_begin(piece, begins):
    assert sentence_piece.begins_word(piece) == begins


def test_packed_words_begin_with_a_space(tmp_path):
    path = pieces.write(tmp_path / "a.model", ["ab"])
    tokenizer = vocabulary.load_tokenizer(path)
    text = [["ab abc. b", "cab ab"]]
    packed = packing.pack_pairs(
        corpus.tokenize(text, tokenizer),
        tokenizer,
        24,
        sentence_order=True,
        seed=1,
    )
    (row,), (starts,) = packed.input_ids, packed.word_starts
    names = np.array([tokenizer.id_to_token(i) for i in row])
    ordinary = ~np.isin(names, ["<pad>", "[CLS]", "[SEP]"])
    expected = ordinary & (
        np.char.startswith(names, "\u2581") | np.isin(names, ["."])
    )
    np.testing.assert_array_equal(starts, expected)
    assert expected.sum() == 6 and ordinary.sum() > 6


def test_refusals(tmp_path):
    path = tmp_path / "a.model"
    refusal(lambda: vocabulary.load_tokenizer(path), path, "No such file")
    path.write_bytes(b"[PAD]\n[UNK]\n")
    refusal(lambda: vocabulary.load_tokenizer(path), path, "unigram kind")
    proto = sentence_piece._message()()
    for change, expected in (("[MASK]", "lacks [MASK]"), ("", "of kind 2")):
        pieces.write(path, [])
        proto.ParseFromString(path.read_bytes())
        for piece in proto.pieces:
            piece.piece = piece.piece.replace(change or "\0", "other")
        proto.trainer_spec.model_type = 1 if change else 2
        path.write_bytes(proto.SerializeToString())
        refusal(lambda: vocabulary.load_tokenizer(path), path, expected)


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content.replace(b"\x61\x15", b"\xff\x15", 1),
        lambda content: content.replace(b"\n\x01b", b"\n\x01c", 1),
        lambda content: content.replace(b"a\x15\xae", b"a\x15\xff", 1)[:200],
        lambda content: content + b"\x1a\x07\x12\x05wrong",
    ],
    ids=["not UTF-8", "a piece twice", "cut short", "a map that is none"],
)
def test_damaged_files(damage, tmp_path):
    path = pieces.write(tmp_path / "a.model", ["word"])
    content = path.read_bytes()
    path.write_bytes(damage(content))
    assert path.read_bytes() != content
    refusal(lambda: vocabulary.load_tokenizer(path), path, "unigram kind")


def test_a_vocabulary_too_small_for_the_characters(tmp_path):
    path = tmp_path / "a.model"
    refusal(
        lambda: sentence_piece.train_tokenizer(pieces.documents(), 20, path),
        "--vocab_size 20",
    )
    assert not path.exists()
