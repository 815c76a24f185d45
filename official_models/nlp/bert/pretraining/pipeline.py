"""Pretraining examples by Apache Beam, on one machine or on many.

A worker reads a bucket of documents (`nlp.text.documents`), makes its examples
by the functions that `records` uses, and writes them into a file of its own.
Nothing but short reports goes from worker to worker, so memory depends on the
bucket's size and not on the corpus, and the files depend on the input and the
arguments and not on the workers.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import apache_beam as beam
import tensorflow as tf
from apache_beam.io.filesystem import BeamIOError, CompressionTypes
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions
from tokenizers import Tokenizer

from official_models.common import files, records
from official_models.common.errors import InputError, first_line
from official_models.nlp.bert.pretraining.recipe import Recipe
from official_models.nlp.bert.pretraining.records import masked_examples
from official_models.nlp.text import documents, vocabulary
from official_models.nlp.text.documents import BadLines, Format, Piece

BAD_LINES = "bad_lines.json"


class Job(NamedTuple):
    """What is read, made and written.

    Attributes:
        inputs: files, globs or folders, local or on what Beam can read.
        output_dir: where the records are to be; must not exist.
        form: how documents lie in the files.
        recipe: how they become examples.
        bucket_bytes: of text that are read together; a random next segment
            comes from the same bucket.
        compression: of the records, "none" or "gzip".
        max_bad_lines: the most there may be; None for any number.
    """

    inputs: Sequence[str]
    output_dir: str
    form: Format
    recipe: Recipe
    bucket_bytes: int = 8 << 20
    compression: str = "none"
    max_bad_lines: int | None = None


def run(
    job: Job, tokenizer: Tokenizer, options: PipelineOptions
) -> dict[str, Any]:
    """Writes a corpus as records, as `records.write_records` names them.

    Files are written into a folder beside the output's, whose name begins with
    `.writing-`. When all are complete they are renamed, the manifest last, so
    that a run that is killed leaves nothing that `records.check_records`
    accepts.

    Args:
        job: what is to be done.
        tokenizer: of BERT.
        options: of Beam, with the runner.

    Returns:
        The manifest: shards, examples, documents, bytes read, bad lines, and
        the arguments.

    Raises:
        InputError: an argument is out of range, a file cannot be read, the
            output exists, there are too many bad lines, or no example.
    """
    job.recipe.check(tokenizer)
    _refuse_existing(job.output_dir)
    buckets = documents.buckets(
        find_inputs(job.inputs), job.form, job.bucket_bytes, job.recipe.seed
    )
    head, tail = FileSystems.split(job.output_dir.rstrip("/"))
    name = f"{files.TEMPORARY}{secrets.token_hex(4)}-{tail}"
    work = FileSystems.join(head, name) if head else name
    try:
        with _naming(job.output_dir):
            FileSystems.mkdirs(work)
        reports = _run_pipeline(buckets, work, job, tokenizer, options)
        manifest = _manifest(reports, job, tokenizer)
        with _naming(job.output_dir):
            _publish(reports, manifest, work, job)
        return manifest
    finally:
        with contextlib.suppress(BeamIOError, OSError):
            FileSystems.delete([work])


@contextlib.contextmanager
def _naming(output_dir: str) -> Iterator[None]:
    try:
        yield
    except (BeamIOError, OSError) as error:
        raise InputError(
            f"--output_dir {output_dir}: {first_line(error)}; name a folder "
            "that is not there yet and can be written"
        ) from error


def _refuse_existing(output_dir: str) -> None:
    with _naming(output_dir):
        exists = FileSystems.exists(output_dir) or any(
            match.metadata_list
            for match in FileSystems.match([f"{output_dir.rstrip('/')}/*"], [1])
        )
    if exists:
        raise InputError(
            f"--output_dir {output_dir}: exists; remove it or name another "
            "folder"
        )


def find_inputs(patterns: Sequence[str]) -> list[tuple[str, int]]:
    """The files that patterns mean, with their bytes, sorted, each once.

    Args:
        patterns: Files, globs, or folders, which mean all files right in them
            whose names do not begin with a dot.

    Raises:
        InputError: A pattern matches no file, or all files are empty.
    """
    found = {}
    for pattern in patterns:
        # A folder's files have to be asked for.
        matches = _match(pattern) or _match(f"{pattern.rstrip('/')}/*")
        if not matches:
            raise InputError(
                f"--input {pattern}: no file; expected files, quoted globs "
                "or folders"
            )
        found.update((match.path, match.size_in_bytes) for match in matches)
    if not sum(found.values()):
        raise InputError("--input: all files are empty")
    return sorted(found.items())


def _match(pattern: str) -> list:
    """What a pattern matches: no folders; hidden files by their name only."""
    try:
        (match,) = FileSystems.match([pattern])
    except (BeamIOError, OSError, ValueError) as error:
        raise InputError(f"--input {pattern}: {first_line(error)}") from error
    return [
        file
        for file in match.metadata_list
        if not os.path.isdir(file.path)
        and (
            file.path == pattern
            or not os.path.basename(file.path).startswith(".")
        )
    ]


def _run_pipeline(buckets, work, job, tokenizer, options) -> list[dict]:
    """The reports of all buckets, in their order."""
    numbered = [
        (number, [tuple(piece) for piece in bucket])
        for number, bucket in enumerate(buckets)
    ]
    with beam.Pipeline(options=options) as pipeline:
        _ = (
            pipeline
            | "Buckets" >> beam.Create(numbered)
            | "Spread" >> beam.Reshuffle()
            | "Examples"
            >> beam.ParDo(WriteExamples(job, tokenizer.to_str(), work))
            | "Reports"
            >> beam.io.WriteToText(
                FileSystems.join(work, "reports"),
                num_shards=1,
                shard_name_template="",
            )
        )
    with FileSystems.open(FileSystems.join(work, "reports")) as file:
        reports = [json.loads(line) for line in file.read().splitlines()]
    return sorted(reports, key=lambda report: report["bucket"])


class WriteExamples(beam.DoFn):
    """From (number, pieces) of a bucket to a file of records and its report.

    The report is a line of JSON; the file's name in it is new at each call, so
    that a bucket that a runner works on twice does no harm.

    Args:
        job: as for `run`.
        tokenizer: as JSON.
        work: folder of the file.
    """

    def __init__(self, job: Job, tokenizer: str, work: str):
        self._job = job
        self._serialized = tokenizer
        self._work = work

    def setup(self) -> None:
        """Loads what a worker needs once; it keeps to one core."""
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        with contextlib.suppress(RuntimeError):  # TensorFlow runs already.
            tf.config.threading.set_intra_op_parallelism_threads(1)
            tf.config.threading.set_inter_op_parallelism_threads(1)
        self._tokenizer = Tokenizer.from_str(self._serialized)

    def process(self, element: tuple[int, list[tuple]]) -> Iterator[str]:
        """Yields the report of a bucket."""
        number, pieces = element
        bucket = [Piece(*piece) for piece in pieces]
        bad = BadLines()
        report: dict[str, Any] = {"bucket": number, "error": None}
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "examples")
            try:
                report.update(self._write(bucket, bad, path))
            except InputError as error:
                report["error"] = str(error)
            if not report["error"] and report["examples"]:
                report["part"] = f"part-{secrets.token_hex(8)}"
                self._copy(path, FileSystems.join(self._work, report["part"]))
        report["bad_lines"] = dict(bad.counts)
        report["places"] = bad.places
        yield json.dumps(report)

    def _write(self, bucket, bad, path) -> dict[str, int]:
        """Writes the records of a bucket; says how many there are."""
        recipe, form = self._job.recipe, self._job.form
        masking = recipe.masking(self._tokenizer)
        counts = {"examples": 0, "documents": 0, "tokens": 0, "unknown": 0}
        compression = {"none": "", "gzip": "GZIP"}[self._job.compression]
        groups = documents.read_groups(
            bucket,
            form,
            # Only what is packed can have twice the bytes of a bucket.
            2 * self._job.bucket_bytes,
            bad,
            lambda name: FileSystems.open(
                name, compression_type=CompressionTypes.UNCOMPRESSED
            ),
        )
        with tf.io.TFRecordWriter(path, compression) as writer:
            for group in groups:
                counts["documents"] += len(group)
                packed = recipe.pack(group, self._tokenizer, may_be_empty=True)
                if not len(packed.lengths):
                    continue
                counts["tokens"] += int(packed.lengths.sum())
                counts["unknown"] += vocabulary.count_unknown(
                    packed.input_ids, self._tokenizer
                )
                for example in masked_examples(
                    packed, masking, seed=recipe.seed
                ):
                    writer.write(example)
                    counts["examples"] += 1
        return counts

    def _copy(self, path: str, target: str) -> None:
        with (
            open(path, "rb") as source,
            FileSystems.create(
                target, compression_type=CompressionTypes.UNCOMPRESSED
            ) as file,
        ):
            shutil.copyfileobj(source, file, 1 << 20)


def _manifest(reports, job: Job, tokenizer: Tokenizer) -> dict[str, Any]:
    for report in reports:
        if report["error"]:
            raise InputError(report["error"])
    _check_bad_lines(reports, job.max_bad_lines)
    written = [report for report in reports if report["examples"]]
    if not written:
        raise InputError(
            "--input: no example: the corpus gave no pair of segments; "
            "is --input_format right?"
        )
    names = (
        records.shard_name(number, len(written), job.compression)
        for number in range(len(written))
    )
    recipe = job.recipe._asdict()
    return {
        "shards": {n: r["examples"] for n, r in zip(names, written)},
        **{
            name: sum(report[name] for report in reports)
            for name in ("documents", "tokens", "unknown")
        },
        "bad_lines": dict(bad_lines(reports)),
        "bucket_bytes": job.bucket_bytes,
        "input_format": job.form.name,
        "compression": job.compression,
        **{**recipe, **job.recipe.masking(tokenizer)},
    }


def bad_lines(reports: Sequence[dict]) -> Counter[str]:
    """{kind: lines} of all reports."""
    counts: Counter[str] = Counter()
    for report in reports:
        counts.update(report["bad_lines"])
    return counts


def _check_bad_lines(reports, most: int | None) -> None:
    counts = bad_lines(reports)
    if most is None or counts.total() <= most:
        return
    kinds = ", ".join(f"{n} {kind}" for kind, n in sorted(counts.items()))
    kind, path, offset = next(r["places"][0] for r in reports if r["places"])
    raise InputError(
        f"--max_bad_lines {most}: {counts.total()} bad lines ({kinds}), such "
        f"as {path} at byte {offset} (from 0): {kind}; mend the input or "
        "allow more"
    )


def _publish(reports, manifest, work, job: Job) -> None:
    """Moves the files of all buckets to the output, the manifest last."""
    output = job.output_dir.rstrip("/")
    parts = [report["part"] for report in reports if report["examples"]]
    names = dict(zip(parts, manifest["shards"]))
    places = [place for report in reports for place in report["places"]]
    if places:
        names[BAD_LINES] = BAD_LINES
        places = [dict(zip(("kind", "file", "offset"), p)) for p in places]
        listed = {"lines": manifest["bad_lines"], "places": places}
        _write_json(f"{work}/{BAD_LINES}", listed)
    _write_json(f"{work}/{records.MANIFEST}", manifest)
    # Fails if it has come into being meanwhile.
    FileSystems.mkdirs(output)
    try:
        _rename(names, work, output)
        _rename({records.MANIFEST: records.MANIFEST}, work, output)
    except BaseException:
        FileSystems.delete([output])
        raise


def _rename(names: dict[str, str], work: str, output: str) -> None:
    FileSystems.rename(
        [f"{work}/{old}" for old in names],
        [f"{output}/{new}" for new in names.values()],
    )


def _write_json(path: str, value: Any) -> None:
    with FileSystems.create(path) as file:
        file.write(json.dumps(value, indent=2).encode() + b"\n")
