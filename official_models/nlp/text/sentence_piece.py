"""ALBERT's SentencePiece vocabularies: trained here, or as published.

A `.model` file becomes a pipeline of the tokenizers library, as a `vocab.txt`
does, so that all that follows treats both alike. Only training a vocabulary
needs the package `sentencepiece`.

References:
    https://github.com/google/sentencepiece (`sentencepiece_model.proto`)
    https://github.com/google-research/albert (`tokenization.py`, README.md)
"""

from __future__ import annotations

import functools
import io
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Regex, Tokenizer, decoders, models, normalizers
from tokenizers import pre_tokenizers as pre

from official_models.common import files
from official_models.common.errors import InputError, first_line, require

SUFFIX = ".model"
SPACE = "\u2581"  # begins a piece that begins a word
PAD, UNKNOWN = "<pad>", "<unk>"
CONTROL = ("[CLS]", "[SEP]", "[MASK]")
# What the published models keep as pieces of their own.
SYMBOLS = ("(", ")", '"', "-", ".", "\u2013", "\u00a3", "\u20ac")

# What `begins_word` knows.
_MARKS = set('!"#$%&()*+,-./:;?@[\\]^_`{|}~\u00a3\u20ac')
_LETTERS = set("abcdefghijklmnopqrstuvwxyz")
_EXPECTED = "expected a SentencePiece .model of the unigram kind"
_UNIGRAM = 1  # of TrainerSpec.ModelType
_UNKNOWN, _CONTROL = 2, 3  # of SentencePiece.Type
# Below every piece: the published code takes such a piece apart.
_NUMBER_AND_COMMA = re.compile(r"[0-9],$")
_PENALTY = 100.0


def load_tokenizer(
    model_path: str | os.PathLike, lowercase: bool = True
) -> Tokenizer:
    """ALBERT's tokenizer over a published or a trained `.model`.

    A text is lower-cased if asked, its accents are stripped, and it is
    normalised by the model's own map; then each word, a `SPACE` before it, is
    cut into the likeliest pieces. A piece that ends in a digit and a comma is
    not used. Ids are those of the published code with the package
    `sentencepiece`; a text that spells a control token, such as "[MASK]", is
    cut up like any other. (`AlbertTokenizer` of transformers 5 gives other ids
    around symbols that the model keeps whole.)

    Args:
        model_path: Local or on `gs://`.
        lowercase: Whether to lower-case ("uncased").

    Raises:
        InputError: The file cannot be read, is damaged or no unigram model, or
            lacks a token that ALBERT needs.
    """
    proto = _read(model_path)
    try:
        return _build(proto, lowercase)
    # The library raises Exception itself.
    except Exception as error:
        raise InputError(
            f"{model_path}: {first_line(error)}; {_EXPECTED}, whole"
        ) from error


def _build(proto: Any, lowercase: bool) -> Tokenizer:
    """The tokenizer of a `ModelProto`; raises what the library raises."""
    pieces = [(piece.piece, piece.score) for piece in proto.pieces]
    special = [p.piece for p in proto.pieces if p.type in (_UNKNOWN, _CONTROL)]
    names = {name for name, _ in pieces}
    missing = [t for t in (PAD, UNKNOWN, *CONTROL) if t not in names]
    if missing:
        raise ValueError(f"lacks {', '.join(missing)}")
    if (
        len(names) < len(pieces)
        or not np.isfinite([s for _, s in pieces]).all()
    ):
        raise ValueError("has a piece twice, or a score that is no number")
    scores = [
        (name, score - _PENALTY * bool(_NUMBER_AND_COMMA.search(name)))
        for name, score in pieces
    ]
    unknown = next(i for i, p in enumerate(proto.pieces) if p.type == _UNKNOWN)
    tokenizer = Tokenizer(models.Unigram(scores, unk_id=unknown))
    steps = [_preprocess(lowercase)]
    if charsmap := proto.normalizer_spec.precompiled_charsmap:
        steps.append(normalizers.Precompiled(charsmap))
    tokenizer.normalizer = normalizers.Sequence(steps)
    space = pre.Metaspace(replacement=SPACE, prepend_scheme="always")
    tokenizer.pre_tokenizer = pre.Sequence(
        [pre.WhitespaceSplit(), space, pre.Split(_inside(special), "isolated")]
    )
    tokenizer.decoder = decoders.Metaspace(
        replacement=SPACE, prepend_scheme="always"
    )
    return tokenizer


def _preprocess(lowercase: bool) -> normalizers.Sequence:
    """What is done to a text before the model's own normalisation."""
    steps = [normalizers.Replace("``", '"'), normalizers.Replace("''", '"')]
    steps += [normalizers.NFKD(), normalizers.StripAccents()]
    return normalizers.Sequence(
        steps + ([normalizers.Lowercase()] if lowercase else [])
    )


def _inside(tokens: Iterable[str]) -> Regex:
    """Control tokens in a text, without their first character.

    Cut off there, they cannot be taken for the pieces of that name.
    """
    parts = (f"(?<={re.escape(t[0])}){re.escape(t[1:])}" for t in tokens)
    return Regex("|".join(parts))


def _read(path: str | os.PathLike) -> Any:
    """The `ModelProto` in a file."""
    try:
        from google.protobuf.message import DecodeError
    except ImportError:
        raise InputError(
            f"{path}: needs protobuf, which is not installed: pip install "
            "protobuf"
        ) from None

    content = files.read_bytes(path, _EXPECTED)
    proto = _message()()
    try:
        proto.ParseFromString(content)
    except DecodeError as error:
        raise InputError(
            f"{path}: cannot be read ({first_line(error)}); {_EXPECTED}"
        ) from error
    kind = proto.trainer_spec.model_type or _UNIGRAM
    kinds = [piece.type for piece in proto.pieces]
    if not kinds or kind != _UNIGRAM or kinds.count(_UNKNOWN) != 1:
        raise InputError(
            f"{path}: {len(kinds):,} pieces of a model of kind {kind}; "
            f"{_EXPECTED}, kind {_UNIGRAM}, with one token for the unknown"
        )
    return proto


@functools.cache
def _message():
    """The class of `ModelProto`, with those of its fields that are read.

    `sentencepiece` has it whole, for its own version of protobuf only.
    """
    from google.protobuf import (
        descriptor_pb2,
        descriptor_pool,
        message_factory,
    )

    file = descriptor_pb2.FileDescriptorProto(
        name="tf_lamb/sentence_piece.proto", package="tf_lamb.sentence_piece"
    )
    field = descriptor_pb2.FieldDescriptorProto
    plain = {
        "Piece": [
            ("piece", 1, field.TYPE_STRING),
            ("score", 2, field.TYPE_FLOAT),
            ("type", 3, field.TYPE_INT32),
        ],
        "Trainer": [("model_type", 3, field.TYPE_INT32)],
        "Normalizer": [("precompiled_charsmap", 2, field.TYPE_BYTES)],
    }
    for name, fields in plain.items():
        message = file.message_type.add(name=name)
        for field_name, number, kind in fields:
            message.field.add(
                name=field_name, number=number, type=kind, label=1
            )
    model = file.message_type.add(name="Model")
    for name, number, label, kind in (
        ("pieces", 1, field.LABEL_REPEATED, "Piece"),
        ("trainer_spec", 2, field.LABEL_OPTIONAL, "Trainer"),
        ("normalizer_spec", 3, field.LABEL_OPTIONAL, "Normalizer"),
    ):
        model.field.add(
            name=name,
            number=number,
            label=label,
            type=field.TYPE_MESSAGE,
            type_name=f".{file.package}.{kind}",
        )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    found = pool.FindMessageTypeByName(f"{file.package}.Model")
    return message_factory.GetMessageClass(found)


def train_tokenizer(
    documents: list[list[str]],
    vocab_size: int,
    model_path: str | Path,
    lowercase: bool = True,
) -> Tokenizer:
    """Trains a SentencePiece vocabulary as ALBERT's, and writes it.

    Its ids 0 to 4 are `<pad>`, `<unk>`, `[CLS]`, `[SEP]`, `[MASK]`. The result
    depends on the documents, `vocab_size` and the version of `sentencepiece`.

    Args:
        documents: Sentences as `corpus.read_documents` gives them.
        vocab_size: Number of tokens wanted, the special ones included. A small
            corpus may give fewer: ask the result's `get_vocab_size()`.
        model_path: Where the `.model` is written, in one step at the end.
        lowercase: Whether texts are lower-cased, here and when it is used.

    Returns:
        What `load_tokenizer(model_path, lowercase)` returns.

    Raises:
        InputError: `sentencepiece` is missing, `vocab_size` cannot hold the
            characters of the text, or the file cannot be written.

    References:
        https://github.com/google-research/albert (README.md, `spm_train`)
    """
    require("sentencepiece", "--model albert without --vocab_file")
    import sentencepiece

    clean = _preprocess(lowercase)
    trained = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=(
                clean.normalize_str(sentence)
                for document in documents
                for sentence in document
            ),
            model_writer=trained,
            vocab_size=vocab_size,
            # A text may not have so many pieces.
            hard_vocab_limit=False,
            pad_id=0,
            unk_id=1,
            bos_id=-1,
            eos_id=-1,
            control_symbols=list(CONTROL),
            user_defined_symbols=list(SYMBOLS),
            character_coverage=0.99995,
            model_type="unigram",
            # Threads add up in another order.
            num_threads=1,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise InputError(
            f"--vocab_size {vocab_size}: sentencepiece refuses: "
            f"{first_line(error)}"
        ) from error
    try:
        Path(model_path).parent.mkdir(parents=True, exist_ok=True)
        files.write_bytes(model_path, trained.getvalue())
    except OSError as error:
        raise InputError(
            f"cannot write {model_path}: {error.strerror}"
        ) from error
    return load_tokenizer(model_path, lowercase)


def begins_word(piece: str) -> bool:
    """Whether a word begins with a piece, by ALBERT's published rule.

    It does after a space; and at a lone punctuation mark, and at a piece with
    any other character than English letters and such marks, so that text in
    other scripts is masked piece by piece.

    References:
        https://github.com/google-research/albert
        (`create_pretraining_data.py`, `_is_start_piece_sp`)
    """
    if piece.startswith((SPACE, "<")) or piece in _MARKS:
        return True
    return not set(piece.lower()) <= _LETTERS | _MARKS
