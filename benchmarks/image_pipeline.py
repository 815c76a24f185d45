r"""Images a second of the ImageNet pipeline and of what Keras users write.

    python -m benchmarks.image_pipeline \
        --output benchmarks/results/image_pipeline.json

On 1,024 JPEGs of 500 x 375 pixels and about 100 KB, made from a photograph by
seeded crops, turns and mirroring, as files and as records. Every pipeline
gives batches of 128 float32 images of 224 x 224, with as many threads as
tf.data chooses (AUTOTUNE); all run once before, so that the files are in
memory, and then in turns, 24 batches at a time. Takes about five minutes on
two cores; --quick half a minute.

Ours crops before it decodes what it keeps; `image_dataset_from_directory`
decodes everything and shrinks it, which is another picture: the comparison is
of what it takes to feed a model.
"""

import io
import os
import tempfile
import time
from pathlib import Path

from benchmarks import measure
from tf_lamb.diagnostics import command_line

MODULE = "benchmarks.image_pipeline"
SIZE, BATCH = 224, 128
WIDTH, HEIGHT = 500, 375
# Batches before the clock starts: tf.data is still looking for its threads.
_FIRST = 3
# Of so few images, refilling a large one every epoch would be all there is.
_SHUFFLE = 256


def make_photographs(folder, count, seed):
    """JPEGs in two classes, for training and validation alike.

    Returns:
        Their mean size in bytes.
    """
    import matplotlib.cbook
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(seed)
    with matplotlib.cbook.get_sample_data("grace_hopper.jpg") as file:
        photo = Image.open(file).convert("RGB")
    total = 0
    for i in range(count):
        width = int(photo.width * rng.uniform(0.6, 1))
        height = width * HEIGHT // WIDTH
        left = rng.integers(photo.width - width + 1)
        top = rng.integers(photo.height - height + 1)
        part = photo.rotate(rng.uniform(-15, 15), Image.BICUBIC)
        part = part.crop((left, top, left + width, top + height))
        part = part.resize((WIDTH, HEIGHT), Image.LANCZOS)
        if rng.random() < 0.5:
            part = part.transpose(Image.FLIP_LEFT_RIGHT)
        # Enlarging took the grain away, which is most of a file.
        grain = rng.normal(0, 7, (HEIGHT, WIDTH, 1))
        pixels = np.clip(np.asarray(part) + grain, 0, 255).astype(np.uint8)
        out = io.BytesIO()
        Image.fromarray(pixels).save(out, "JPEG", quality=94)
        path = Path(folder, "train", f"n{i % 2:02d}", f"{i:05d}.jpg")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(out.getvalue())
        total += out.tell()
    os.symlink(Path(folder, "train"), Path(folder, "validation"))
    return total / count


def _from_directory(folder, *, augment):
    import keras
    import tensorflow as tf

    dataset = keras.utils.image_dataset_from_directory(
        folder / "train",
        image_size=(256, 256) if augment else (SIZE, SIZE),
        batch_size=BATCH,
        seed=1,
        verbose=False,
    )
    if augment:
        crop = keras.layers.RandomCrop(SIZE, SIZE)
        flip = keras.layers.RandomFlip("horizontal")
        dataset = dataset.map(
            lambda x, y: (flip(crop(x, training=True), training=True), y),
            num_parallel_calls=tf.data.AUTOTUNE,
        )
    # A Keras user normalises in the model; here it is in all or in none.
    scale = keras.layers.Rescaling(1 / 127.5, offset=-1)
    dataset = dataset.map(
        lambda x, y: (scale(x), y), num_parallel_calls=tf.data.AUTOTUNE
    )
    return dataset.prefetch(tf.data.AUTOTUNE).repeat()


def make_pipelines(folder, records, batches):
    """(kind, name, function that gives a dataset of enough batches)."""
    from official_models.vision.datasets.imagenet.batches import ImageNetRecords

    def ours(**arguments):
        source = ImageNetRecords(
            records, BATCH, 1, shuffle_buffer=_SHUFFLE, **arguments
        )
        return source, lambda: source.train(0, _FIRST + batches)

    source, train = ours()
    smooth, bicubic = ours(resize="bicubic")
    _, guarded = ours(max_corrupt=10)
    _, cached = ours(cache=True)
    plain, augmented = (
        _from_directory(folder, augment=x) for x in (False, True)
    )
    return [
        ("training", "ours", train),
        ("training", "ours, bicubic", bicubic),
        ("training", "ours, records cached", cached),
        ("training", "ours, max_corrupt=10", guarded),
        (
            "training",
            "image_dataset_from_directory, RandomCrop, RandomFlip",
            lambda: augmented,
        ),
        ("evaluation", "ours", lambda: source.evaluation().repeat()),
        ("evaluation", "ours, bicubic", lambda: smooth.evaluation().repeat()),
        ("evaluation", "image_dataset_from_directory", lambda: plain),
    ]


def _images_per_second(dataset, batches):
    """Wall-clock rate and processor milliseconds an image, once it runs."""
    iterator = iter(dataset)
    for _ in range(_FIRST):
        next(iterator)
    wall, processor = time.perf_counter(), time.process_time()
    images = sum(len(next(iterator)[0]) for _ in range(batches))
    wall = time.perf_counter() - wall
    return images / wall, 1000 * (time.process_time() - processor) / images


def measure_all(count, batches, rounds, seed):
    """Every pipeline in turn, `rounds` times after one that is not counted."""
    from official_models.vision.datasets.imagenet import convert

    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder).resolve()
        size = make_photographs(folder / "raw", count, seed)
        convert.convert(
            folder / "raw",
            folder / "records",
            train_shards=16,
            validation_shards=16,
        )
        pipelines = make_pipelines(folder / "raw", folder / "records", batches)
        found = {pipeline[:2]: [] for pipeline in pipelines}
        for i in range(rounds + 1):
            for kind, name, dataset in pipelines:
                result = _images_per_second(dataset(), batches)
                if i:
                    found[kind, name].append(result)
                    print(
                        f"{i}/{rounds} {kind}, {name}: {result[0]:.0f}/s",
                        flush=True,
                    )
    rows = []
    for (kind, name), results in found.items():
        rate, processor = zip(*results)
        rows.append(
            {
                "kind": kind,
                "name": name,
                "images_per_second": measure.summary(rate),
                "processor_ms_per_image": measure.summary(processor),
            }
        )
    keras_rows = {r["kind"]: r for r in rows if not r["name"].startswith("our")}
    for row in rows:
        theirs = keras_rows[row["kind"]]["images_per_second"]["median"]
        row["over_keras"] = row["images_per_second"]["median"] / theirs
    return {
        "jpeg_bytes": round(size),
        "images": count,
        "batches": batches,
        "rows": rows,
    }


def markdown(rows):
    """A table of the rows."""
    return measure.table(
        ["", "images/s", "quartiles", "CPU ms an image", "over Keras"],
        [
            [
                f"{row['kind']}: {row['name']}",
                f"{row['images_per_second']['median']:.0f}",
                f"{row['images_per_second']['lower_quartile']:.0f}-"
                f"{row['images_per_second']['upper_quartile']:.0f}",
                f"{row['processor_ms_per_image']['median']:.2f}",
                f"{row['over_keras']:.2f}",
            ]
            for row in rows
        ],
    )


def main(argv=None):
    parser = measure.parser(
        MODULE, __doc__, "256 images, one round of 4 batches"
    )
    parser.add_argument(
        "--rounds", type=command_line.count, help="default 5, 1 if --quick"
    )
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    count = 256 if args.quick else 1024
    batches = 4 if args.quick else 24
    rounds = args.rounds or (1 if args.quick else 5)
    result = measure_all(count, batches, rounds, args.seed)
    if args.output:
        value = dict(provenance=measure.provenance(seed=args.seed), **result)
        measure.write_json(args.output, value)
    print(markdown(result["rows"]))


if __name__ == "__main__":
    main()
