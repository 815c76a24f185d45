"""Episodes, letters and Omniglot's files: what is drawn, what is refused."""

import io
import zipfile

import numpy as np
import pytest
from PIL import Image

from official_models.common.errors import InputError
from official_models.vision.few_shot import glyphs, images, omniglot
from tests.official_models.scripts import refusal


def classes(count=6, each=5, size=16):
    """Class c has images whose first pixel is c and second is their number."""
    found = np.zeros((count, each, size, size), "uint8")
    found[:, :, 0, 0] = np.arange(count)[:, None]
    found[:, :, 0, 1] = np.arange(each)
    return images.Classes(found, tuple(f"class {c}" for c in range(count)))


def test_an_episode_has_other_classes_and_other_images():
    data = classes()
    found = images.draw(data, 4, 3, np.random.default_rng(0))
    assert found.shape == (4, 3, 16, 16)
    of_class, number = found[..., 0, 0], found[..., 0, 1]
    assert (of_class == of_class[:, :1]).all()
    assert len(set(of_class[:, 0].tolist())) == 4
    assert all(len(set(row.tolist())) == 3 for row in number)


def test_batches_depend_on_seed_and_number():
    def batch(seed, index):
        seeds = [(seed, number) for number in range(5)]
        return images.Episodes(classes(), 3, 2, 4, seeds)[index][0]

    assert len(images.Episodes(classes(), 3, 2, 4, [(1, 0), (1, 1)])) == 2
    assert batch(1, 0).shape == (4, 3, 2, 16, 16, 1)
    assert batch(1, 0).dtype == "float32"
    np.testing.assert_array_equal(batch(1, 3), batch(1, 3))
    assert (batch(1, 3) != batch(1, 2)).any()
    assert (batch(1, 3) != batch(2, 3)).any()
    full = images.Classes(np.full((3, 2, 16, 16), 255, "uint8"), ("a",) * 3)
    assert images.Episodes(full, 3, 2, 1, [(0, 0)])[0][0].min() == 1


def test_turned_classes_are_classes_of_their_own():
    data = classes(2, 1)
    found = data.rotated()
    assert found.images.shape[0] == len(found.names) == 8
    assert found.names[2] == "class 0/90"
    np.testing.assert_array_equal(
        found.images[2, 0], np.rot90(data.images[0, 0])
    )


def test_too_few_classes_or_images():
    refusal(
        lambda: classes().check(7, 2, "test"), "test: 6 classes", "--ways 7"
    )
    refusal(lambda: classes().check(3, 6, "train"), "train: 5 images a class")
    classes().check(6, 5, "train")


@pytest.fixture
def few_scripts(monkeypatch):
    monkeypatch.setattr(
        glyphs,
        "SCRIPTS",
        {"train": ("OGHAM",), "validation": ("LAO",), "test": ("COPTIC",)},
    )


def test_letters_are_those_of_their_scripts_without_accents():
    found = glyphs.letters(["GREEK"])
    assert "\u03a9" in found  # omega
    assert "\u0389" not in found  # eta with tonos
    assert "A" not in found
    scripts = [set(names) for names in glyphs.SCRIPTS.values()]
    assert not scripts[0] & scripts[1] | scripts[0] & scripts[2]
    assert not scripts[1] & scripts[2]


def test_a_letter_that_looks_like_another_is_found():
    def coarse(letter):
        return glyphs._coarse(glyphs.drawn(letter))

    latin = coarse("A")[None]
    assert latin.shape == (1, 28, 28)
    assert latin.max() > 0.9
    assert glyphs.look_alike(coarse("\u0391"), latin)  # alpha
    assert not glyphs.look_alike(coarse("B"), latin)
    assert not glyphs.look_alike(coarse("B"), latin[:0])


def test_glyphs_are_distorted_and_repeat_themselves(few_scripts):
    found = glyphs.load(28, 3, seed=1)
    again = glyphs.load(28, 3, seed=1)
    other = glyphs.load(28, 3, seed=2)
    assert found.train.images.shape == (len(found.train.names), 3, 28, 28)
    assert all(name.startswith("OGHAM") for name in found.train.names)
    assert all(name.startswith("COPTIC") for name in found.test.names)
    np.testing.assert_array_equal(found.test.images, again.test.images)
    assert (found.test.images != other.test.images).any()
    one, two = found.test.images[0, :2].astype(int)
    assert 0 < np.abs(one - two).sum() < (one + two).sum()
    assert (found.test.images.max((2, 3)) > 100).all()  # ink in each


def write_omniglot(folder, sizes=(105,), alphabets=7, characters=2):
    """Both files, in Omniglot's form: black on white."""
    rng = np.random.default_rng(0)
    for name in omniglot.FILES:
        with zipfile.ZipFile(folder / name, "w") as archive:
            for a in range(alphabets):
                for c in range(characters):
                    for i in range(3):
                        size = sizes[(a + i) % len(sizes)]
                        page = np.full((size, size), 255, "uint8")
                        at = rng.integers(10, 60)
                        page[at : at + 30, 10 * c + 5 : 10 * c + 15] = 0
                        file = io.BytesIO()
                        Image.fromarray(page).save(file, "png")
                        path = (
                            f"{name[:-4]}/Alphabet_{a}/character{c + 1:02}/"
                            f"{a:04}_{i:02}.png"
                        )
                        archive.writestr(path, file.getvalue())


def test_omniglot_is_read_as_it_is_published(tmp_path):
    write_omniglot(tmp_path)
    found = omniglot.load(str(tmp_path), 28)
    # Two alphabets to train on, in four rotations; five for validation.
    assert found.train.images.shape == (4 * 4, 3, 28, 28)
    assert found.validation.images.shape == (10, 3, 28, 28)
    assert found.test.images.shape == (14, 3, 28, 28)
    assert found.test.names[0] == "Alphabet_0/character01"
    assert {n.split("/")[0] for n in found.validation.names} == {
        f"Alphabet_{i}" for i in range(2, 7)
    }
    image = found.test.images[0, 0]
    assert image[0, 0] == 0 and image.max() == 255  # ink is 255
    share = (image > 127).mean()
    assert 0.5 * 300 / 105**2 < share < 2 * 300 / 105**2


@pytest.mark.parametrize(
    ("damage", "parts"),
    [
        (lambda f: f.unlink(), ["no such file", "--data_dir"]),
        (lambda f: f.write_bytes(b"text"), ["not a zip file"]),
        (
            lambda f: f.write_bytes(f.read_bytes()[: f.stat().st_size // 2]),
            ["not a zip file", "expected a whole zip file"],
        ),
    ],
)
def test_damaged_files_of_omniglot(tmp_path, damage, parts):
    write_omniglot(tmp_path)
    damage(tmp_path / omniglot.FILES[1])
    message = refusal(lambda: omniglot.load(str(tmp_path), 28), *parts)
    assert omniglot.FILES[1] in str(message or parts)


def test_no_flipped_byte_of_omniglot_is_a_traceback(tmp_path):
    write_omniglot(tmp_path)
    path = tmp_path / omniglot.FILES[0]
    whole = path.read_bytes()
    refused = 0
    for place in np.random.default_rng(0).integers(len(whole), size=60):
        broken = bytearray(whole)
        broken[place] ^= 0xFF
        path.write_bytes(broken)
        try:
            omniglot.load(str(tmp_path), 28)
        except InputError as error:
            assert "\n" not in str(error) and str(path) in str(error)
            refused += 1
    assert refused > 30


def test_no_drawing_of_omniglot_is_left_out_in_silence(tmp_path):
    write_omniglot(tmp_path, alphabets=6, characters=1)
    path = tmp_path / omniglot.FILES[0]
    where = f"{path.stem}/Alphabet_3/character01"
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(f"__MACOSX/{where}/._0003_00.png", b"no picture")
    assert omniglot.load(str(tmp_path), 28).train.images.shape[1] == 3
    one, wide = io.BytesIO(), io.BytesIO()
    Image.new("L", (105, 105)).save(one, "png")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(f"{where}/0003_03.png", one.getvalue())
    refusal(
        lambda: omniglot.load(str(tmp_path), 28),
        "Alphabet_0/character01 has 3 drawings, Alphabet_3/character01 4",
    )
    Image.new("L", (105, 90)).save(wide, "png")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(f"{where}/0003_04.png", wide.getvalue())
    refusal(lambda: omniglot.load(str(tmp_path), 28), "105 x 90", "a square")


def test_other_images_have_another_digest(tmp_path):
    write_omniglot(tmp_path)
    found = omniglot.load(str(tmp_path), 28)
    assert found.digest() == omniglot.load(str(tmp_path), 28).digest()
    found.test.images[0, 0, 0, 0] ^= 1
    assert found.digest() != omniglot.load(str(tmp_path), 28).digest()


def test_pictures_of_omniglot(tmp_path):
    write_omniglot(tmp_path, sizes=(105, 100))
    refusal(
        lambda: omniglot.load(str(tmp_path), 28),
        "105 x 105 pixels",
        "100 x 100; expected one size",
    )
    write_omniglot(tmp_path, alphabets=5)
    refusal(lambda: omniglot.load(str(tmp_path), 28), "5 alphabets")
    with zipfile.ZipFile(tmp_path / omniglot.FILES[0], "w") as archive:
        archive.writestr("x/y/z.png", b"no picture")
    refusal(lambda: omniglot.load(str(tmp_path), 28), "z.png is no picture")
    with zipfile.ZipFile(tmp_path / omniglot.FILES[0], "w") as archive:
        archive.writestr("README", b"")
    refusal(lambda: omniglot.load(str(tmp_path), 28), "no PNG file in it")
