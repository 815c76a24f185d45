"""What the Beam pipeline writes, held against what is made in memory."""

import json
from collections import Counter
from pathlib import Path

import pytest
import tensorflow as tf
from apache_beam.options.pipeline_options import PipelineOptions

from official_models.common.errors import InputError
from official_models.nlp.bert.pretraining import pipeline, records
from official_models.nlp.bert.pretraining.recipe import Recipe
from official_models.nlp.text import (
    corpus,
    documents,
    vocabulary,
    wordpiece,
)
from official_models.nlp.text.documents import BadLines, Format
from tests.data import corpora
from tests.official_models.nlp.text import pieces

SMALL = {"max_seq_length": 32, "max_predictions": 5, "dupe_factor": 2}
RECIPES = {
    "next sentence": Recipe(**SMALL),
    "whole words": Recipe(**SMALL, whole_word=True, short_seq_prob=0.5),
    "sentence order, n-grams": Recipe(
        **SMALL, sentence_order=True, max_ngram=3, seed=4
    ),
}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vocabulary")
    return wordpiece.load_tokenizer(corpora.vocabulary(folder))


def _job(inputs, output, form="text", recipe="next sentence", **arguments):
    return pipeline.Job(
        inputs=[str(inputs)],
        output_dir=str(output),
        form=form if isinstance(form, Format) else Format(form),
        recipe=RECIPES[recipe],
        **arguments,
    )


def _run(job, tokenizer, *options):
    options = PipelineOptions(["--runner=FnApiRunner", *options])
    return pipeline.run(job, tokenizer, options)


def _contents(folder):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def _examples(folder):
    """Counter of the serialized examples of a folder of records."""
    paths = records.find_records([folder])
    kind = "GZIP" if paths[0].endswith(".gz") else ""
    return Counter(e.numpy() for e in tf.data.TFRecordDataset(paths, kind))


def _in_memory(texts, tokenizer, recipe, folder):
    packed = recipe.pack(texts, tokenizer)
    records.write_records(
        packed, folder, seed=recipe.seed, **recipe.masking(tokenizer)
    )
    return packed


def _checked(folder, tokenizer, recipe=RECIPES["next sentence"]):
    return records.check_records(
        [folder],
        max_seq_length=recipe.max_seq_length,
        max_predictions=recipe.max_predictions,
        vocab_size=tokenizer.get_vocab_size(),
    )


@pytest.mark.parametrize("recipe", RECIPES)
def test_one_bucket_is_the_in_memory_path_byte_by_byte(
    tmp_path, tokenizer, recipe
):
    glob = corpora.write(tmp_path / "in", corpora.texts(), "text")
    manifest = _run(_job(glob, tmp_path / "beam", recipe=recipe), tokenizer)
    texts = corpus.read_documents(corpus.expand_inputs([glob]))
    packed = _in_memory(texts, tokenizer, RECIPES[recipe], tmp_path / "memory")
    name = "examples-00000-of-00001.tfrecord"
    one, other = (_contents(tmp_path / n)[name] for n in ("beam", "memory"))
    assert one == other
    assert manifest["shards"] == {name: len(packed.lengths)}
    assert manifest["documents"] == 30
    assert manifest["tokens"] == int(packed.lengths.sum())
    unknown = vocabulary.count_unknown(packed.input_ids, tokenizer)
    assert manifest["unknown"] == unknown
    assert _checked(tmp_path / "beam", tokenizer) == len(packed.lengths) > 200


def test_a_sentence_piece_vocabulary(tmp_path):
    """Its pipeline reaches the workers whole; words begin where it says."""
    path = pieces.write(tmp_path / "a.model", ["ant", "be", "do"])
    recipe = "sentence order, n-grams"
    test_one_bucket_is_the_in_memory_path_byte_by_byte(
        tmp_path, vocabulary.load_tokenizer(path), recipe
    )


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_each_bucket_is_the_in_memory_path_of_its_documents(
    tmp_path, tokenizer, compression
):
    glob = corpora.write(tmp_path / "in", corpora.texts(), "jsonl", shards=3)
    job = _job(
        glob,
        tmp_path / "out",
        "jsonl",
        bucket_bytes=4000,
        compression=compression,
    )
    manifest = _run(job, tokenizer)
    assert len(manifest["shards"]) == 4
    files = pipeline.find_inputs([glob])
    expected = Counter()
    for number, bucket in enumerate(
        documents.buckets(files, job.form, 4000, job.recipe.seed)
    ):
        for group in documents.read_groups(
            bucket, job.form, 1 << 20, BadLines(), lambda name: open(name, "rb")
        ):
            folder = tmp_path / f"memory-{number}"
            _in_memory(group, tokenizer, job.recipe, folder)
            expected += _examples(folder)
    assert _examples(tmp_path / "out") == expected
    assert _checked(tmp_path / "out", tokenizer) == expected.total()


def test_sentence_order_is_the_same_whatever_the_files(tmp_path, tokenizer):
    texts = corpora.texts()
    recipe = RECIPES["sentence order, n-grams"]
    _in_memory(texts, tokenizer, recipe, tmp_path / "memory")
    expected = _examples(tmp_path / "memory")
    for form, shards, gzipped, bucket_bytes in (
        ("sentences", 1, False, 3000),
        ("sentences", 4, True, 3000),
        ("jsonl", 1, True, 1500),
        ("jsonl", 5, False, 500),
        ("text", 30, False, 3000),
    ):
        name = f"{form}-{shards}-{gzipped}"
        glob = corpora.write(tmp_path / name, texts, form, shards, gzipped)
        job = _job(
            glob,
            tmp_path / f"out-{name}",
            form,
            "sentence order, n-grams",
            bucket_bytes=bucket_bytes,
        )
        _run(job, tokenizer)
        assert _examples(job.output_dir) == expected, name


def test_workers_and_bundles_change_nothing(tmp_path, tokenizer):
    glob = corpora.write(tmp_path / "in", corpora.texts(), "jsonl", shards=2)
    found = []
    for name, options in {
        "one": [],
        "threads": [
            "--direct_running_mode=multi_threading",
            "--direct_num_workers=3",
        ],
        "repeated bundles": ["--direct_runner_bundle_repeat=2"],
    }.items():
        job = _job(glob, tmp_path / name, "jsonl", bucket_bytes=2000)
        _run(job, tokenizer, *options)
        found.append(_contents(tmp_path / name))
    assert len(found[0]) > 8
    assert found[0] == found[1] == found[2]


def _bad_corpus(folder):
    """A file of jsonl with five bad lines between good ones; their offsets."""
    folder.mkdir()
    good = "".join(
        json.dumps({"text": " ".join(text)}) + "\n" for text in corpora.texts(9)
    ).encode()
    content, offsets = good, {}
    for kind, line in {
        "not UTF-8": b'{"text": "caf\xe9"}\n',
        "NUL": b'{"text": "ant\0bee"}\n',
        "too long": b'{"text": "' + b"ant " * 30_000 + b'"}\n',
        "not JSON": b"ant\n",
        "no text field": b'{"txt": "ant bee"}\n',
    }.items():
        offsets[kind] = len(content)
        content += line + good
    path = folder / "bad.jsonl"
    path.write_bytes(content)
    return path, offsets


@pytest.mark.parametrize("bucket_bytes", [2000, 8 << 20])
def test_bad_lines_are_counted_and_listed(tmp_path, tokenizer, bucket_bytes):
    path, offsets = _bad_corpus(tmp_path / "in")
    form = Format("jsonl", max_line_bytes=50_000)
    job = _job(path, tmp_path / "out", form, bucket_bytes=bucket_bytes)
    manifest = _run(job, tokenizer)
    assert manifest["bad_lines"] == dict.fromkeys(offsets, 1)
    assert manifest["documents"] == 6 * 9
    listed = json.loads((tmp_path / "out" / pipeline.BAD_LINES).read_text())
    assert listed["lines"] == manifest["bad_lines"]
    places = {
        place["kind"]: (place["file"], place["offset"])
        for place in listed["places"]
    }
    assert places == {kind: (str(path), at) for kind, at in offsets.items()}
    assert _checked(tmp_path / "out", tokenizer) > 50


def test_too_many_bad_lines_are_refused(tmp_path, tokenizer):
    path, offsets = _bad_corpus(tmp_path / "in")
    job = _job(path, tmp_path / "out", Format("jsonl", max_line_bytes=50_000))
    with pytest.raises(InputError) as caught:
        _run(job._replace(max_bad_lines=4), tokenizer)
    message = str(caught.value)
    assert "--max_bad_lines 4: 5 bad lines (1 NUL, 1 no text field" in message
    assert f"{path} at byte {offsets['not UTF-8']} (from 0)" in message
    assert [p.name for p in tmp_path.iterdir()] == ["in"]
    _run(job._replace(max_bad_lines=5), tokenizer)


def test_damaged_gzip_is_refused_by_name(tmp_path, tokenizer):
    glob = corpora.write(tmp_path / "in", corpora.texts(), "jsonl", 3, True)
    path = tmp_path / "in" / "shard-001.txt.gz"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(InputError, match="shard-001.txt.gz: the gzip stream"):
        _run(_job(glob, tmp_path / "out", "jsonl"), tokenizer)
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


def test_no_examples(tmp_path, tokenizer):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.txt").write_text("ant")
    job = _job(folder, tmp_path / "out", "sentences")
    with pytest.raises(InputError, match="no example"):
        _run(job, tokenizer)
    (folder / "a.txt").write_text("")
    with pytest.raises(InputError, match="all files are empty"):
        _run(job, tokenizer)
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


def test_inputs(tmp_path):
    corpora.write(tmp_path / "in", corpora.texts(3), "text")
    (tmp_path / "in" / ".hidden").write_text("x")
    (tmp_path / "in" / "folder").mkdir()
    names = [f"{tmp_path}/in/shard-00{n}.txt" for n in range(3)]
    for patterns in (
        [f"{tmp_path}/in"],
        [f"{tmp_path}/in/"],
        [f"{tmp_path}/in/*"],
        [names[2], names[0], f"{tmp_path}/in/shard*"],
    ):
        assert [path for path, _ in pipeline.find_inputs(patterns)] == names
    with pytest.raises(InputError, match="--input .*nothing: no file"):
        pipeline.find_inputs([str(tmp_path / "nothing")])


def test_output_that_exists(tmp_path, tokenizer, monkeypatch):
    glob = corpora.write(tmp_path / "in", corpora.texts(4), "text")
    job = _job(glob, tmp_path / "out")
    (tmp_path / "out").mkdir()
    with pytest.raises(InputError, match="out: exists; remove it"):
        _run(job, tokenizer)
    # One that another process has made meanwhile is left alone too.
    monkeypatch.setattr(pipeline, "_refuse_existing", lambda _: None)
    (tmp_path / "out" / "mine").write_text("kept")
    with pytest.raises(InputError, match="--output_dir .*out: "):
        _run(job, tokenizer)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "out"]
    assert _contents(tmp_path / "out") == {"mine": b"kept"}


@pytest.mark.parametrize("call", [1, 2])
def test_a_failure_at_the_end_leaves_nothing(
    tmp_path, tokenizer, monkeypatch, call
):
    glob = corpora.write(tmp_path / "in", corpora.texts(4), "text")
    calls, rename = [], pipeline._rename

    def failing(names, work, output):
        calls.append(list(names.values()))
        if len(calls) == call:
            raise OSError("disk full")
        rename(names, work, output)

    monkeypatch.setattr(pipeline, "_rename", failing)
    with pytest.raises(InputError, match="disk full"):
        _run(_job(glob, tmp_path / "out"), tokenizer)
    assert [p.name for p in tmp_path.iterdir()] == ["in"]
    # The manifest is the last to come: what is killed before is refused.
    order = [["examples-00000-of-00001.tfrecord"], ["examples.json"]]
    assert calls == order[:call]


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"max_predictions": 30}, "max_predictions 30"),
        ({"masked_lm_prob": 1.5}, "masked_lm_prob 1.5"),
        ({"short_seq_prob": -1}, "short_seq_prob -1"),
        ({"dupe_factor": 0}, "dupe_factor 0"),
        ({"max_seq_length": 4}, "max_seq_length 4"),
        ({"max_ngram": 0}, "max_ngram 0"),
    ],
)
def test_bad_arguments_are_refused_before_the_text_is_read(
    tmp_path, tokenizer, changes, part
):
    job = _job(tmp_path / "nothing", tmp_path / "out")
    job = job._replace(recipe=job.recipe._replace(**changes))
    with pytest.raises(InputError, match=part):
        _run(job, tokenizer)
    assert not list(tmp_path.iterdir())
