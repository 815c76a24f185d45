"""SST-2, movie-review sentiment, in GLUE's TSV format."""

import random

from official_models.nlp.datasets import glue


def read_split(data_dir, split: str) -> tuple[list[str], list[int]]:
    """Sentences and labels (0 negative, 1 positive) of a split.

    Args:
        data_dir: folder with the TSV files, or one that has `SST-2/` in it.
        split: "train", "dev" or "test" (with labels).

    Raises:
        InputError: no such file, a line that is not `sentence<TAB>label`, a
            label other than 0 and 1, or no example at all.
    """
    examples, _ = glue.read_split(data_dir, glue.TASKS["sst-2"], split)
    return [e.texts[0] for e in examples], [e.label for e in examples]


def encode(sentences, vocabulary, max_length: int):
    """`input_word_ids`, `input_mask`, `input_type_ids`, [N, T] int32 each.

    Args:
        sentences: texts.
        vocabulary: WordPiece file, one token a line; text is lower-cased.
        max_length: T, with [CLS] and [SEP]; longer sentences are cut.
    """
    import numpy as np
    from tokenizers import BertWordPieceTokenizer

    tokenizer = BertWordPieceTokenizer(str(vocabulary), lowercase=True)
    tokenizer.enable_truncation(max_length)
    tokenizer.enable_padding(length=max_length)
    rows = tokenizer.encode_batch(list(sentences))
    return {
        "input_word_ids": np.array([r.ids for r in rows], "int32"),
        "input_mask": np.array([r.attention_mask for r in rows], "int32"),
        "input_type_ids": np.zeros((len(rows), max_length), "int32"),
    }


def order(num_examples: int, epochs: int, seed: int) -> list[int]:
    """Indices of all epochs, each shuffled anew, the same for a seed."""
    shuffle = random.Random(seed)
    indices = []
    for _ in range(epochs):
        epoch = list(range(num_examples))
        shuffle.shuffle(epoch)
        indices += epoch
    return indices
