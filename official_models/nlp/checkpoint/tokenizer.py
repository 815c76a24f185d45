"""The tokenizer's files beside a checkpoint: found, checked and written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import NamedTuple

from tokenizers import AddedToken, Tokenizer, processors

from official_models.common import files
from official_models.common.errors import InputError, first_line
from official_models.nlp.text import vocabulary

VOCABULARY = "vocab.txt"
PIPELINE = "tokenizer.json"
SENTENCE_PIECE = "spiece.model"
SETTINGS = "tokenizer_config.json"
NAMES = (
    VOCABULARY,
    PIPELINE,
    SENTENCE_PIECE,
    SETTINGS,
    "special_tokens_map.json",
    "added_tokens.json",
)


class TokenizerFiles(NamedTuple):
    """Files of a tokenizer, by their names in Hugging Face's folders.

    Attributes:
        files: {name in `NAMES`: file}; empty if nothing is known.
        lowercase: Whether it lower-cases and strips accents ("uncased").
        is_own: Whether they lay beside the checkpoint.
    """

    files: dict[str, Path] = {}
    lowercase: bool = True
    is_own: bool = True

    @property
    def vocabulary(self) -> Path | None:
        """WordPiece's, one token a line, or else SentencePiece's."""
        return self.files.get(VOCABULARY) or self.files.get(SENTENCE_PIECE)

    def size(self) -> int | None:
        """Number of tokens; None if there is no file of them.

        Raises:
            InputError: The file cannot be read.
        """
        if PIPELINE in self.files and VOCABULARY not in self.files:
            return _read_pipeline(self.files[PIPELINE]).get_vocab_size()
        if self.vocabulary is None:
            return None
        return vocabulary.load_tokenizer(self.vocabulary).get_vocab_size()

    def load(self, where: str) -> Tokenizer:
        """The tokenizer itself, which adds no special token to a text.

        Args:
            where: Of the checkpoint, for messages.

        Raises:
            InputError: There is none that the tokenizers library reads, or it
                has no [CLS] or no [SEP].
        """
        if VOCABULARY in self.files or (
            PIPELINE not in self.files and self.vocabulary
        ):
            return vocabulary.load_tokenizer(self.vocabulary, self.lowercase)
        if PIPELINE not in self.files:
            raise InputError(
                f"{where}: no {VOCABULARY}, {SENTENCE_PIECE} or {PIPELINE} "
                "beside it; give the vocabulary by --vocab_file, or save the "
                f"tokenizer there as {PIPELINE} with transformers"
            )
        path = self.files[PIPELINE]
        pipeline = _read_pipeline(path)
        pipeline.no_padding()
        pipeline.no_truncation()
        for token in ("[CLS]", "[SEP]"):
            if pipeline.token_to_id(token) is None:
                raise InputError(
                    f"{path}: no token {token}; expected the tokenizer of a "
                    "BERT or an ALBERT"
                )
        return pipeline


def _read_pipeline(path: Path) -> Tokenizer:
    try:
        return Tokenizer.from_file(str(path))
    # The library raises Exception itself.
    except Exception as error:
        raise InputError(
            f"{path}: cannot be read ({first_line(error)}); expected a "
            "file of the tokenizers library"
        ) from error


def find(
    folder: Path,
    vocab_file: str | None = None,
    lowercase: bool | None = None,
) -> TokenizerFiles:
    """The tokenizer's files in a folder, or the vocabulary that is given.

    Args:
        folder: Of the checkpoint.
        vocab_file: A WordPiece vocabulary, or a SentencePiece `.model`, that is
            used in place of the files there.
        lowercase: Whether it is uncased; None for what the folder says, else
            for what the vocabulary says by its tokens. If the other files say
            something else, the vocabulary alone is used.

    Raises:
        InputError: The vocabulary is not there, or a file cannot be read; or
            `lowercase` is not what a `tokenizer.json` without a vocabulary
            does.
    """
    if vocab_file and not Path(vocab_file).is_file():
        raise InputError(
            f"--vocab_file {vocab_file}: no such file; expected a vocab.txt, "
            "or a SentencePiece .model of an ALBERT"
        )
    there = {n: folder / n for n in NAMES if (folder / n).is_file()}
    if lowercase is None:
        lowercase = _lowercase(there.get(SETTINGS))
    elif not vocab_file:
        there = _agreeing(there, lowercase)
    known = vocab_file or there.get(VOCABULARY)
    if lowercase is None:
        lowercase = known is None or vocabulary.is_uncased(known)
    if vocab_file:
        path = Path(vocab_file)
        name = (
            SENTENCE_PIECE if vocabulary.is_sentence_piece(path) else VOCABULARY
        )
        return TokenizerFiles({name: path}, lowercase, False)
    return TokenizerFiles(there, lowercase, bool(there))


def _agreeing(there: dict[str, Path], lowercase: bool) -> dict[str, Path]:
    """The files, or the vocabulary alone where they lower-case otherwise."""
    said = [_lowercase(there.get(SETTINGS))]
    if PIPELINE in there:
        normalizer = _read_pipeline(there[PIPELINE]).normalizer
        said.append(
            normalizer is not None and normalizer.normalize_str("A") == "a"
        )
    if (not lowercase) not in said:
        return there
    for name in (VOCABULARY, SENTENCE_PIECE):
        if name in there:
            return {name: there[name]}
    if PIPELINE not in there:
        return there
    raise InputError(
        f"--lowercase {str(lowercase).lower()}: {there[PIPELINE]} has it "
        f"otherwise, and no {VOCABULARY} is beside it; leave the flag out, or "
        "give the vocabulary by --vocab_file"
    )


def _lowercase(settings: Path | None) -> bool | None:
    """What the tokenizer's settings say; None if they do not."""
    if settings is None:
        return None
    found = files.read_json(settings, f"expected a {SETTINGS}")
    value = found.get("do_lower_case") if isinstance(found, dict) else None
    return value if isinstance(value, bool) else None


def check_size(tokenizer: TokenizerFiles, vocab_size: int, where: str) -> None:
    """Holds a vocabulary against a model's.

    Args:
        tokenizer: The files.
        vocab_size: V of the model. A checkpoint's own vocabulary may be
            smaller, since some models are padded.
        where: Of the checkpoint, for messages.

    Raises:
        InputError: It has another size.
    """
    size = tokenizer.size()
    if size is None or size == vocab_size:
        return
    if tokenizer.is_own and size < vocab_size:
        return
    path = tokenizer.vocabulary or tokenizer.files[PIPELINE]
    raise InputError(
        f"{path}: {size} tokens, {where} has {vocab_size}; expected the "
        "vocabulary that the model was trained with"
    )


def write(
    tokenizer: TokenizerFiles, folder: Path, max_tokens: int
) -> list[str]:
    """Writes the files into a folder that `transformers` opens.

    Files of Hugging Face are copied as they are. A vocabulary alone becomes
    the pipeline of `vocabulary.load_tokenizer`, with [CLS] and [SEP] around
    texts and the special tokens found in them, as transformers expects it.

    Args:
        tokenizer: The files.
        folder: Where to.
        max_tokens: Longest sequence of the model.

    Returns:
        The names of the files.
    """
    for name, path in tokenizer.files.items():
        shutil.copyfile(path, folder / name)
    names = list(tokenizer.files)
    if not tokenizer.vocabulary or SETTINGS in names or PIPELINE in names:
        return names
    pipeline = vocabulary.load_tokenizer(
        tokenizer.vocabulary, tokenizer.lowercase
    )
    special = vocabulary.special_tokens(pipeline)
    ids = {n: pipeline.token_to_id(n) for n in ("[CLS]", "[SEP]")}
    pipeline.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=list(ids.items()),
    )
    pipeline.add_special_tokens(
        [
            AddedToken(t, special=True, normalized=False)
            for t in special.values()
        ]
    )
    pipeline.save(str(folder / PIPELINE))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "do_lower_case": tokenizer.lowercase,
        "model_max_length": max_tokens,
        "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
        **special,
    }
    (folder / SETTINGS).write_text(
        json.dumps(settings, indent=2) + "\n", encoding="utf-8"
    )
    return [*names, PIPELINE, SETTINGS]
