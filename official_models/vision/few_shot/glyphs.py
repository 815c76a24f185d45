"""Characters of many scripts, drawn from a font that matplotlib brings along.

Nothing is downloaded: DejaVu Sans has some 2,500 letters. Scripts of the
training, validation and test classes are disjoint. Letters that Unicode makes
of others (with accents, or as ligatures) are left out, and so is a letter that
looks like an earlier one, such as the Greek capital alpha.
"""

from __future__ import annotations

import functools
import os
import unicodedata
from collections.abc import Iterable

import numpy as np

from official_models.vision.few_shot.images import Classes, Splits

SCRIPTS = {
    "train": ("LATIN", "CYRILLIC", "GREEK", "CANADIAN"),
    "validation": ("ARABIC", "LISU"),
    "test": (
        "GEORGIAN",
        "ARMENIAN",
        "HEBREW",
        "TIFINAGH",
        "LAO",
        "NKO",
        "OGHAM",
        "COPTIC",
    ),
}
FONT = "DejaVuSans.ttf"
_LETTERS = ("Lu", "Ll", "Lo")
_LARGE = 84  # where letters are distorted, before they are made small
_COARSE = 3
_ALIKE = 0.1  # share of the ink of two letters of which they differ


@functools.cache
def _font_path() -> str:
    import matplotlib

    return os.path.join(matplotlib.get_data_path(), "fonts", "ttf", FONT)


def letters(scripts: Iterable[str]) -> list[str]:
    """The font's letters of these scripts, in Unicode's order.

    Args:
        scripts: First words of characters' names in Unicode.
    """
    from matplotlib.ft2font import FT2Font

    wanted = set(scripts)
    found = map(chr, sorted(FT2Font(_font_path()).get_charmap()))
    return [
        letter
        for letter in found
        if unicodedata.category(letter) in _LETTERS
        and not unicodedata.decomposition(letter)
        and unicodedata.name(letter, "").partition(" ")[0] in wanted
    ]


def drawn(letter: str) -> np.ndarray:
    """A letter, uint8 [84, 84], 255 = ink; its longer side is 54 pixels."""
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.truetype(_font_path(), 120)
    left, top, right, bottom = font.getbbox(letter)
    page = Image.new("L", (max(right - left, 1), max(bottom - top, 1)))
    ImageDraw.Draw(page).text((-left, -top), letter, 255, font=font)
    box = page.getbbox()
    if box is None:  # a space in the form of a letter
        return np.zeros((_LARGE, _LARGE), "uint8")
    page = page.crop(box)
    page.thumbnail((54, 54), Image.Resampling.LANCZOS)
    width, height = page.size
    canvas = Image.new("L", (_LARGE, _LARGE))
    canvas.paste(page, ((_LARGE - width) // 2, (_LARGE - height) // 2))
    return np.asarray(canvas)


def look_alike(one: np.ndarray, others: np.ndarray) -> bool:
    """Whether an image differs from one of the others in little of its ink.

    Args:
        one: [H, B], in [0, 1], 1 = ink.
        others: [n, H, B].
    """
    different = np.abs(others - one).sum((1, 2))
    ink = one.sum() + others.sum((1, 2))
    return bool((different < _ALIKE * ink).any())


def _coarse(image: np.ndarray) -> np.ndarray:
    """A letter in few pixels, to be compared with others."""
    side = _LARGE // _COARSE
    blocks = image.reshape(side, _COARSE, side, _COARSE)
    return blocks.mean((1, 3), dtype="float32") / 255


def distorted(
    image: np.ndarray, size: int, rng: np.random.Generator
) -> np.ndarray:
    """A random affine distortion of an image, smaller.

    Rotation up to 15 degrees, shear up to 0.2, scale 0.8 to 1.2 by axis, shift
    up to 7% of the width, all uniform.

    Args:
        image: uint8 [84, 84].
        size: Of the result.
        rng: Draws.

    Returns:
        uint8 [size, size].
    """
    from PIL import Image

    angle = np.deg2rad(rng.uniform(-15, 15))
    cos, sin = np.cos(angle), np.sin(angle)
    turn = np.array([[cos, -sin], [sin, cos]])
    shear = np.array([[1, rng.uniform(-0.2, 0.2)], [0, 1]])
    matrix = turn @ shear @ np.diag(1 / rng.uniform(0.8, 1.2, 2))
    middle = np.full(2, (_LARGE - 1) / 2)
    offset = middle - matrix @ (middle + rng.uniform(-0.07, 0.07, 2) * _LARGE)
    rows = np.concatenate([matrix, offset[:, None]], axis=1)
    found = Image.fromarray(image).transform(
        (_LARGE, _LARGE),
        Image.Transform.AFFINE,
        rows.ravel().tolist(),
        Image.Resampling.BILINEAR,
    )
    return np.asarray(found.resize((size, size), Image.Resampling.BOX))


def load(size: int, per_class: int, seed: int) -> Splits:
    """Distorted letters as classes.

    Args:
        size: Of an image's side.
        per_class: K images of each letter.
        seed: Of the distortions.

    Returns:
        The splits; the same for the same arguments.
    """
    found = {split: letters(names) for split, names in SCRIPTS.items()}
    side = _LARGE // _COARSE
    seen = np.zeros((sum(map(len, found.values())), side, side), "float32")
    count, splits = 0, {}
    for split, wanted in found.items():
        names, images = [], []
        for letter in wanted:
            image = drawn(letter)
            coarse = _coarse(image)
            if not image.any() or look_alike(coarse, seen[:count]):
                continue
            seen[count] = coarse
            count += 1
            rng = np.random.default_rng((seed, ord(letter)))
            images.append(
                [distorted(image, size, rng) for _ in range(per_class)]
            )
            names.append(unicodedata.name(letter))
        splits[split] = Classes(np.array(images, "uint8"), tuple(names))
    sizes = ", ".join(
        f"{name} {len(part.names)} letters" for name, part in splits.items()
    )
    return Splits(
        **splits,
        description=f"glyphs of {FONT}: {sizes}, {per_class} images of each",
    )
