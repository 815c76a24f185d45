"""SST-2, movie-review sentiment, in GLUE's TSV format."""

import random
from pathlib import Path

from official_models.common.errors import InputError

# What the splits are called, the best first.
SPLITS = {
    "train": ("train_full.tsv", "train.tsv"),
    "dev": ("dev.tsv",),
    "test": ("test-labeled.tsv", "test.tsv"),
}


def read_split(data_dir, split: str) -> tuple[list[str], list[int]]:
    """Sentences and labels (0 negative, 1 positive) of a split.

    Args:
        data_dir: folder with the TSV files, or one that has `SST-2/` in it.
        split: "train", "dev" or "test" (with labels).

    Raises:
        InputError: no such file, a line that is not `sentence<TAB>label`, a
            label other than 0 and 1, or no example at all.
    """
    path = _find(Path(data_dir), split)
    sentences, labels = [], []
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as UTF-8: {error}") from error
    if lines[0].split("\t") != ["sentence", "label"]:
        raise InputError(
            f"{path}, line 1: got {lines[0][:60]!r}, expected the head line "
            "sentence<TAB>label"
        )
    for number, line in enumerate(lines[1:], 2):
        if not line:
            continue
        fields = line.split("\t")
        if len(fields) != 2 or fields[1] not in ("0", "1"):
            raise InputError(
                f"{path}, line {number}: got {line[:60]!r}, expected "
                "sentence<TAB>label with label 0 or 1"
            )
        sentences.append(fields[0])
        labels.append(int(fields[1]))
    if not sentences:
        raise InputError(f"{path}: no example; expected sentence<TAB>label")
    return sentences, labels


def _find(folder: Path, split: str) -> Path:
    for parent in (folder, folder / "SST-2"):
        for name in SPLITS[split]:
            if (parent / name).is_file():
                return parent / name
    raise InputError(
        f"--data_dir {folder}: no {' or '.join(SPLITS[split])}; expected "
        "GLUE's SST-2, unpacked"
    )


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
