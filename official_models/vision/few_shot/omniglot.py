"""Omniglot as it is published: two zip files of drawings (Lake et al. 2015).

`images_background.zip` (964 characters of 30 alphabets) and
`images_evaluation.zip` (659 of 20), each character 20 PNG files of 105 x 105
pixels, black on white, from https://github.com/brendenlake/omniglot.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from pathlib import Path

import numpy as np

from official_models.common.errors import InputError
from official_models.vision.few_shot.images import Classes, Splits

FILES = ("images_background.zip", "images_evaluation.zip")
_VALIDATION_ALPHABETS = 5


def load(data_dir: str, size: int) -> Splits:
    """The drawings as classes, smaller, with their training classes turned.

    Training classes are the background's, but those of its last five alphabets
    by name, which are for validation; each is there four times, turned by 0,
    90, 180 and 270 degrees. Test classes are those of the evaluation.

    Args:
        data_dir: Folder with both files.
        size: Of an image's side.

    Raises:
        InputError: A file is missing, no zip file, or damaged, a picture is no
            square or cannot be read, the pictures have several sizes, or a
            character has fewer drawings than another.
    """
    background, evaluation = (
        _read(Path(data_dir) / name, size) for name in FILES
    )
    alphabets = sorted({name.split("/")[0] for name in background.names})
    held = set(alphabets[-_VALIDATION_ALPHABETS:])
    if len(alphabets) <= _VALIDATION_ALPHABETS:
        raise InputError(
            f"{Path(data_dir) / FILES[0]}: {len(alphabets)} alphabets; "
            f"expected more than the {_VALIDATION_ALPHABETS} that are held out"
        )
    parts = [
        [
            i
            for i, name in enumerate(background.names)
            if (name.split("/")[0] in held) == is_held
        ]
        for is_held in (False, True)
    ]
    train, validation = (
        Classes(
            background.images[rows], tuple(background.names[i] for i in rows)
        )
        for rows in parts
    )
    sizes = f"{len(train.names)}, {len(validation.names)}, " + str(
        len(evaluation.names)
    )
    return Splits(
        train.rotated(),
        validation,
        evaluation,
        f"Omniglot: {sizes} characters to train on (in four rotations), for "
        "validation, to test on",
    )


# What `zipfile` raises of a damaged file; the last two of one that is encrypted
# or compressed in a way that it does not know.
_DAMAGED = (
    *(zipfile.BadZipFile, zlib.error, OSError, EOFError),
    *(RuntimeError, NotImplementedError),
)


def _read(path: Path, size: int) -> Classes:
    """All characters of a zip file.

    Raises:
        InputError: It is missing or damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = [
                name
                for name in archive.namelist()
                # Of a file that was packed anew on a Mac: no pictures.
                if name.endswith(".png") and not name.startswith("__MACOSX/")
            ]
            drawings: dict[str, list[np.ndarray]] = {}
            shapes: dict[tuple[int, int], str] = {}
            for name in sorted(names):
                picture, shape = _picture(path, name, archive.read(name), size)
                shapes.setdefault(shape, name)
                if len(shapes) > 1:
                    (one, first), (two, second) = shapes.items()
                    raise InputError(
                        f"{path}: {first} has {one[0]} x {one[1]} pixels, "
                        f"{second} {two[0]} x {two[1]}; expected one size"
                    )
                character = "/".join(name.split("/")[-3:-1])
                drawings.setdefault(character, []).append(picture)
    except FileNotFoundError as error:
        raise InputError(
            f"{path}: no such file; expected Omniglot's {' and '.join(FILES)} "
            "in --data_dir"
        ) from error
    except _DAMAGED as error:
        raise InputError(
            f"{path}: {error}; expected a whole zip file of Omniglot"
        ) from error
    if not drawings:
        raise InputError(
            f"{path}: no PNG file in it; expected Omniglot's "
            "ALPHABET/CHARACTER/DRAWING.png"
        )
    few = min(drawings, key=lambda name: len(drawings[name]))
    many = max(drawings, key=lambda name: len(drawings[name]))
    if len(drawings[few]) < len(drawings[many]):
        raise InputError(
            f"{path}: {few} has {len(drawings[few])} drawings, {many} "
            f"{len(drawings[many])}; expected as many of each: copy the file "
            "anew"
        )
    return Classes(np.array([*drawings.values()], "uint8"), tuple(drawings))


def _picture(path: Path, name: str, content: bytes, size: int):
    """A drawing, uint8 [size, size], 255 = ink; and its size as stored."""
    from PIL import Image

    try:
        picture = Image.open(io.BytesIO(content)).convert("L")
    except (OSError, SyntaxError, ValueError) as error:
        raise InputError(
            f"{path}: {name} is no picture that can be read; copy the file anew"
        ) from error
    if picture.width != picture.height:
        raise InputError(
            f"{path}: {name} has {picture.width} x {picture.height} pixels; "
            "expected a square"
        )
    small = picture.resize((size, size), Image.Resampling.BOX)
    return 255 - np.asarray(small), picture.size
