"""SentencePiece models for tests: trained, or written piece by piece."""

import numpy as np

from official_models.nlp.text import sentence_piece

SPECIAL = [("<pad>", 3), ("<unk>", 2)]
SPECIAL += [(token, 3) for token in sentence_piece.CONTROL]
LETTERS = "abcdefghijklmnopqrstuvwxyz.,"


def write(path, words, size=None):
    """A `.model` of words, and of letters without and with a space.

    Args:
        path: of the file.
        words: each a piece that begins a word.
        size: number of pieces, cut or filled up; None for all letters.
    """
    proto = sentence_piece._message()()
    singles = [space + c for space in ("", "\u2581") for c in LETTERS]
    normal = [f"\u2581{word}" for word in words] + singles
    normal = normal[: size and size - len(SPECIAL)]
    for name, kind in SPECIAL:
        proto.pieces.add(piece=name, type=kind)
    for i, name in enumerate(normal):
        proto.pieces.add(piece=name, score=-1 - 0.01 * i, type=1)
    for i in range((size or 0) - len(proto.pieces)):
        proto.pieces.add(piece=f"\u2581z{i}z", score=-20.0, type=1)
    proto.trainer_spec.model_type = 1
    path.write_bytes(proto.SerializeToString())
    return path


def documents():
    """Two documents over a few hundred distinct words, with accents."""
    rng = np.random.default_rng(0)
    parts = ["ba", "ko", "lu", "mi", "né", "ta", "rüs", "fo", "xy", "Zed"]
    words = ["".join(rng.choice(parts, rng.integers(1, 5))) for _ in range(300)]
    return [
        [" ".join(rng.choice(words, 8)) + ", 42, (a-b)." for _ in range(200)]
        for _ in range(2)
    ]
