"""How text becomes pretraining examples: what the scripts' flags decide."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from absl import flags

from official_models.nlp.bert.pretraining.masking import (
    check_masking,
    masking_arguments,
)
from official_models.nlp.bert.pretraining.packing import PackedPairs, pack_pairs

if TYPE_CHECKING:
    from tokenizers import Tokenizer


class Recipe(NamedTuple):
    """Arguments of `packing.pack_pairs` and `masking.mask_tokens`.

    Attributes:
        max_seq_length: T, tokens of a sequence.
        max_predictions: P, masked tokens of a sequence at most.
        masked_lm_prob: In (0, 1), share of tokens masked.
        whole_word: Whether whole words are masked.
        max_ngram: Words of an n-gram that is masked at most.
        short_seq_prob: In [0, 1], share of shorter sequences.
        dupe_factor: How often the text is packed.
        sentence_order: Whether labels say that segments are swapped.
        seed: In [0, 2**32), of all randomness.
    """

    max_seq_length: int = 128
    max_predictions: int = 20
    masked_lm_prob: float = 0.15
    whole_word: bool = False
    max_ngram: int = 1
    short_seq_prob: float = 0.1
    dupe_factor: int = 10
    sentence_order: bool = False
    seed: int = 12345

    def pack(
        self,
        documents: list[list[str]],
        tokenizer: Tokenizer,
        may_be_empty: bool = False,
    ) -> PackedPairs:
        """Documents, as lists of sentences, packed into pairs of segments.

        Raises:
            InputError: as `packing.pack_pairs`.
        """
        # Only here, so that reading records needs no tokenizers package.
        from official_models.nlp.text import corpus

        return self._pack(
            corpus.tokenize(documents, tokenizer), tokenizer, may_be_empty
        )

    def _pack(self, documents, tokenizer, may_be_empty=False) -> PackedPairs:
        return pack_pairs(
            documents,
            tokenizer,
            self.max_seq_length,
            short_seq_prob=self.short_seq_prob,
            dupe_factor=self.dupe_factor,
            sentence_order=self.sentence_order,
            may_be_empty=may_be_empty,
            seed=self.seed,
        )

    def masking(self, tokenizer: Tokenizer) -> dict[str, Any]:
        """The arguments of `masking.mask_tokens` but its random numbers."""
        return {
            "max_predictions": self.max_predictions,
            "masked_lm_prob": self.masked_lm_prob,
            "whole_word": self.whole_word,
            "max_ngram": self.max_ngram,
            **masking_arguments(tokenizer),
        }

    def check(self, tokenizer: Tokenizer) -> None:
        """Raises `InputError` if an argument is out of range."""
        # Only here, so that reading records needs no tokenizers package.
        from official_models.nlp.text import vocabulary

        unknown = vocabulary.special_tokens(tokenizer)["unk_token"]
        sentence = np.array([tokenizer.token_to_id(unknown)], np.int32)
        tiny = self._pack([[sentence, sentence]], tokenizer)
        check_masking(tiny, **self.masking(tokenizer))


def define_flags() -> None:
    """Defines the flags of a script that writes records.

    They are no module-level names, so that a script that imports this module
    may have flags of these names.
    """
    flags.DEFINE_string("output_dir", None, "Folder for the records.")
    flags.DEFINE_string(
        "vocab_file",
        None,
        "WordPiece vocabulary, vocab.txt, or a SentencePiece .model.",
    )
    flags.DEFINE_boolean(
        "do_lower_case",
        None,
        "Lower-case the text. Default: what the vocabulary says by its tokens.",
    )
    flags.DEFINE_boolean("do_whole_word_mask", False, "Mask whole words.")
    flags.DEFINE_integer(
        "max_ngram",
        1,
        "Mask runs of 1 to this many whole words, as ALBERT does with 3.",
        1,
    )
    flags.DEFINE_boolean(
        "sentence_order",
        False,
        "Label whether the two segments are swapped (ALBERT's SOP), not "
        "whether the second one is random.",
    )
    flags.DEFINE_integer("max_seq_length", 128, "Tokens of a sequence.")
    flags.DEFINE_integer("max_predictions_per_seq", 20, "Masked tokens.")
    flags.DEFINE_integer(
        "random_seed", 12345, "Seed of all randomness.", 0, 2**32 - 1
    )
    flags.DEFINE_integer("dupe_factor", 10, "Times the text is packed.")
    flags.DEFINE_float("masked_lm_prob", 0.15, "Share of tokens masked.")
    flags.DEFINE_float("short_seq_prob", 0.1, "Share of short sequences.")
    flags.DEFINE_enum(
        "compression", "none", ["none", "gzip"], "How files are packed."
    )


def from_flags() -> Recipe:
    """The recipe of the flags."""
    args = flags.FLAGS
    return Recipe(
        max_seq_length=args.max_seq_length,
        max_predictions=args.max_predictions_per_seq,
        masked_lm_prob=args.masked_lm_prob,
        whole_word=args.do_whole_word_mask,
        max_ngram=args.max_ngram,
        short_seq_prob=args.short_seq_prob,
        dupe_factor=args.dupe_factor,
        sentence_order=args.sentence_order,
        seed=args.random_seed,
    )
