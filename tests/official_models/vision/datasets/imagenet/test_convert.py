"""The converter: labels, order, what it re-encodes, skips and refuses."""

import io
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from official_models.vision.datasets.imagenet import (
    batches,
    encode,
)
from official_models.vision.datasets.imagenet import (
    convert as imagenet_convert,
)
from tests import warm
from tests.official_models.scripts import refusal
from tests.official_models.vision.datasets.imagenet import (
    small_imagenet as small,
)

ROOT = Path(__file__).parents[5]
CLASSES = ["n02", "n05", "n11"]


@pytest.fixture
def raw(tmp_path):
    """Three classes of five training and two validation images."""
    folder = tmp_path / "raw"
    for split, count in (("train", 5), ("validation", 2)):
        for place, name in enumerate(CLASSES):
            (folder / split / name).mkdir(parents=True)
            for i in range(count):
                file = folder / split / name / f"{name}_{split}{i}.JPEG"
                file.write_bytes(small.jpeg((place, count, i)))
    return folder


def convert(raw, out, **arguments):
    arguments = {"train_shards": 3, "validation_shards": 2, **arguments}
    return imagenet_convert.convert(raw, out, **arguments)


def features(folder, split="train"):
    """All records of a split as dicts."""
    found = []
    for path in sorted(folder.glob(f"{split}-*")):
        for record in small.records(path):
            made = tf.train.Example.FromString(record).features.feature
            found.append(
                {
                    key: (f.bytes_list.value or f.int64_list.value)[0]
                    for key, f in made.items()
                }
            )
    return found


def test_records_hold_what_the_folders_hold(raw, tmp_path):
    out = tmp_path / "out"
    assert convert(raw, out) == {
        "written": 21,
        "skipped": 0,
        "reencoded": 0,
        "warned": 0,
    }
    assert {path.name for path in out.iterdir()} == {
        "counts.json",
        *(f"train-{i:05d}-of-00003" for i in range(3)),
        *(f"validation-{i:05d}-of-00002" for i in range(2)),
    }
    for split, count in (("train", 15), ("validation", 6)):
        found = features(out, split)
        assert len({record["image/filename"] for record in found}) == count
        for record in found:
            synset = record["image/class/synset"].decode()
            assert record["image/class/label"] == CLASSES.index(synset) + 1
            file = record["image/filename"].decode()
            data = (raw / split / synset / file).read_bytes()
            assert record["image/encoded"] == data
            assert record["image/height"] == small.HEIGHT
            assert record["image/width"] == small.WIDTH
            assert record["image/channels"] == 3
            assert record["image/format"] == b"JPEG"
            assert record["image/colorspace"] == b"RGB"


def test_the_pipeline_reads_it(raw, tmp_path):
    convert(raw, tmp_path / "out")
    made = batches.ImageNetRecords(tmp_path / "out", 5, 1, image_size=8)
    assert (made.num_train, made.num_evaluation) == (15, 6)
    assert (made.num_classes, made.class_names) == (3, CLASSES)
    labels = np.concatenate([y for _, y in made.train(0, 3)])
    assert np.bincount(labels).tolist() == [5, 5, 5]


def test_order_is_by_seed(raw, tmp_path):
    names = []
    for seed, out in ((1, "a"), (1, "b"), (2, "c")):
        convert(raw, tmp_path / out, seed=seed)
        names.append([r["image/filename"] for r in features(tmp_path / out)])
    assert names[0] == names[1] != names[2]
    assert names[0] != sorted(names[0])


def test_flat_validation(raw, tmp_path):
    flat = raw / "validation"
    synsets = []
    for i, file in enumerate(sorted(flat.glob("*/*"))[::-1]):
        synsets.append(file.parent.name)
        file.rename(flat / f"ILSVRC2012_val_{i:08d}.JPEG")
    for name in CLASSES:
        (flat / name).rmdir()
    labels = tmp_path / "labels.txt"
    labels.write_text("".join(f"{name}\n" for name in synsets))
    convert(raw, tmp_path / "out", validation_labels=labels)
    found = features(tmp_path / "out", "validation")
    for record in found:
        place = int(record["image/filename"].split(b"_")[-1][:8])
        assert record["image/class/synset"].decode() == synsets[place]
    refusal(lambda: convert(raw, tmp_path / "o"), "--validation_labels")
    for text, parts in (
        ("n02\n", ["1 labels", "6 files"]),
        ("n02\nn05\nn99\nn02\nn05\nn11\n", ["line 3", "'n99'"]),
    ):
        labels.write_text(text)
        refusal(
            lambda: convert(raw, tmp_path / "o", validation_labels=labels),
            labels,
            *parts,
        )


def test_what_is_no_jpeg_of_colour_or_grey_is_made_one(raw, tmp_path):
    folder = raw / "train" / "n05"
    kinds = {
        "png.JPEG": (small.jpeg(1, kind="PNG"), "PNG RGB"),
        "cmyk.JPEG": (small.jpeg(1, mode="CMYK"), "JPEG CMYK"),
        "grey.JPEG": (small.jpeg(1, mode="L"), None),
        "bmp.bmp": (small.jpeg(1, kind="BMP"), "BMP RGB"),
    }
    for name, (data, _) in kinds.items():
        (folder / name).write_bytes(data)
    out = tmp_path / "out"
    assert convert(raw, out)["reencoded"] == 3
    shards = json.loads((out / "counts.json").read_text())["shards"]
    said = {x for shard in shards.values() for x in shard["reencoded"]}
    assert said == {
        f"train/n05/{name}: {kind}" for name, (_, kind) in kinds.items() if kind
    }
    found = {r["image/filename"].decode(): r for r in features(out)}
    for name, (data, kind) in kinds.items():
        encoded = found[name]["image/encoded"]
        assert (encoded == data) == (kind is None)
        pixels = tf.io.decode_jpeg(encoded, channels=3).numpy().astype(int)
        if name in ("png.JPEG", "bmp.bmp"):
            exact = tf.io.decode_image(data).numpy().astype(int)
            assert np.abs(pixels - exact).mean() < 4
    assert found["cmyk.JPEG"]["image/width"] == small.WIDTH


def test_undecodable_images(raw, tmp_path):
    bad = raw / "train" / "n02" / "bad.JPEG"
    bad.write_bytes(small.jpeg(1)[:-40])
    refusal(
        lambda: convert(raw, tmp_path / "out"),
        bad,
        "cut short",
        "--max_corrupt",
    )
    assert not (tmp_path / "out" / "counts.json").exists()
    text = raw / "train" / "n05" / "page.JPEG"
    text.write_bytes(b"<html>")
    refusal(lambda: convert(raw, tmp_path / "a", max_corrupt=1), "2 corrupt")
    out = tmp_path / "b"
    found = convert(raw, out, max_corrupt=2)
    assert (found["written"], found["skipped"]) == (21, 2)
    shards = json.loads((out / "counts.json").read_text())["shards"]
    said = sorted(x for shard in shards.values() for x in shard["skipped"])
    assert said[0].startswith("train/n02/bad.JPEG: a JPEG of")
    assert said[1].startswith("train/n05/page.JPEG: no image of a known")


def test_decoders_warning_is_noted(raw, tmp_path):
    data = bytearray(small.jpeg(1, (200, 200)))
    data[-2:-2] = bytes(20)  # between the picture and its end
    found = encode.encode(bytes(data))
    assert "extraneous bytes" in found.warning
    assert encode.encode(small.jpeg(1)).warning is None
    (raw / "train" / "n02" / "odd.JPEG").write_bytes(data)
    assert convert(raw, tmp_path / "out")["warned"] == 1


def test_interrupted_conversion_goes_on(raw, tmp_path, monkeypatch):
    out, whole = tmp_path / "out", tmp_path / "whole"
    convert(raw, whole)
    write, written = encode.write_shard, []

    def write_three(root, path, *rest):
        if len(written) == 3:
            raise KeyboardInterrupt
        written.append(path)
        return write(root, path, *rest)

    monkeypatch.setattr(imagenet_convert, "write_shard", write_three)
    with pytest.raises(KeyboardInterrupt):
        convert(raw, out)
    assert not (out / "counts.json").exists()
    refusal(lambda: convert(raw, out, seed=2), "another seed")
    kept = {path: os.stat(path).st_mtime_ns for path in written}
    assert len(kept) == 3

    # One of them is gone, the other two stay.
    os.unlink(written.pop())
    written.clear()
    monkeypatch.setattr(imagenet_convert, "write_shard", write)
    convert(raw, out)
    assert sum(os.stat(p).st_mtime_ns == kept[p] for p in kept) == 2
    for path in whole.iterdir():
        assert (out / path.name).read_bytes() == path.read_bytes()
    assert len(list(out.iterdir())) == len(list(whole.iterdir()))


def test_complete_conversion_is_left_alone(raw, tmp_path, monkeypatch):
    convert(raw, tmp_path / "out")
    monkeypatch.setattr(imagenet_convert, "write_shard", None)
    assert convert(raw, tmp_path / "out")["written"] == 21


@pytest.mark.parametrize(
    ("text", "damaged"),
    [
        ('"skipped"', '"skippee"'),
        ('"warned": []', '"warned": 3'),
        ('"reencoded": []', '"reencoded": [3]'),
        ('"records": ', '"records": 0.'),
        ('"bytes": ', '"bytes": "x", "b": '),
    ],
)
def test_a_damaged_index_is_one_line(raw, tmp_path, text, damaged):
    convert(raw, tmp_path / "out")
    index = tmp_path / "out" / "counts.json"
    whole = index.read_text()
    assert text in whole
    index.write_text(whole.replace(text, damaged, 1))
    refusal(lambda: convert(raw, tmp_path / "out"), index, "remove it")


def test_names_of_classes_may_have_spaces(raw, tmp_path):
    (raw / "train" / "n02").rename(raw / "train" / "green frog")
    flat = raw / "validation"
    for file in sorted(flat.glob("*/*")):
        file.rename(flat / file.name)
    for name in CLASSES:
        (flat / name).rmdir()
    labels = tmp_path / "labels.txt"
    labels.write_text("green frog\n" * 2 + "n05\nn05\nn11\nn11\n")
    convert(raw, tmp_path / "out", validation_labels=labels)
    found = features(tmp_path / "out", "validation")
    named = {r["image/filename"]: r["image/class/synset"] for r in found}
    assert named[b"n02_validation0.JPEG"] == b"green frog"


def test_folders_that_are_not_as_expected(raw, tmp_path):
    out = tmp_path / "out"
    refusal(lambda: convert(tmp_path / "no", out), tmp_path / "no" / "train")
    refusal(lambda: convert(raw, out, train_shards=16), "16", "15 train images")
    (raw / "validation" / "n99").mkdir()
    refusal(lambda: convert(raw, out), raw / "validation" / "n99")
    (raw / "validation" / "n99").rmdir()
    (raw / "train" / "n99").mkdir()
    refusal(lambda: convert(raw, out), raw / "train" / "n99", "no image")
    assert not out.exists()


def test_two_workers_write_the_same(raw, tmp_path):
    for out, workers in (("a", 1), ("b", 2)):
        convert(raw, tmp_path / out, workers=workers)
    for path in (tmp_path / "a").iterdir():
        assert (tmp_path / "b" / path.name).read_bytes() == path.read_bytes()


def test_script_refuses_in_one_line(raw, tmp_path):
    bad = raw / "train" / "n02" / "bad.JPEG"
    bad.write_bytes(b"")
    done = warm.run(
        [
            *(sys.executable, "-m"),
            "official_models.vision.datasets.imagenet.convert",
            *(f"--raw={raw}", f"--output_dir={tmp_path / 'out'}"),
            *("--train_shards=3", "--validation_shards=2", "--workers=1"),
        ],
        cwd=ROOT,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"error: {bad}: ")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_grey_of_16_bits_is_the_same_picture(kind):
    ramp = np.linspace(0, 65535, 32 * 32).reshape(32, 32).astype(np.uint16)
    out = io.BytesIO()
    Image.fromarray(ramp).save(out, kind)
    found = encode.encode(out.getvalue())
    assert found.reencoded.startswith(kind)
    pixels = tf.io.decode_jpeg(found.jpeg, channels=1).numpy()[..., 0]
    assert np.abs(pixels - ramp / 257).max() < 4


def test_a_picture_of_floats_is_refused():
    out = io.BytesIO()
    Image.fromarray(np.full((8, 8), 3e5, np.float32)).save(out, "TIFF")
    with pytest.raises(ValueError, match="numbers from 300000 .* 8 or 16 bits"):
        encode.encode(out.getvalue())
