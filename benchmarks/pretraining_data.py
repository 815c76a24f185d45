r"""Megabytes of text a second of the Beam pipeline, and its memory.

    python -m benchmarks.pretraining_data --input 'books/*/*.md' \
        --vocab_file vocab.txt --output benchmarks/results/pretraining_data.json

Each file is a document. Against the tokenizer alone, in one thread, over the
same sentences: what is left to win. Rates are of processor seconds, so that
another program on the machine does not count; all of it is in turns, and the
middle one is given. Memory is the peak of a process, for a tenth of the files
and for all of them, in buckets of a megabyte. Runs on Apache Beam
(`make bench-pretraining-data ARGS=...`).
"""

import glob
import json
import os
import resource
import tempfile
import time
from pathlib import Path

from benchmarks import measure
from tf_lamb.diagnostics import command_line

MODULE = "benchmarks.pretraining_data"
_MEGABYTE = 1e6
# name, arguments of a job
ROWS = {
    "tokenizer alone, 1 thread": {"kind": "tokenizer"},
    "pipeline, 1 process": {},
    "pipeline, 2 processes": {"workers": 2},
    "pipeline, 1 process, whole words": {"whole_word": True},
    "pipeline, 1 process, n-grams, sentence order": {
        "max_ngram": 3,
        "sentence_order": True,
    },
    "pipeline, 1 process, a tenth of the text, 10 times": {
        "part": 0.1,
        "dupe_factor": 10,
    },
    "memory: a tenth of the text, buckets of 1 MB": {
        "part": 0.1,
        "bucket_mb": 1,
    },
    "memory: all of the text, buckets of 1 MB": {"bucket_mb": 1},
}


def choose(pattern, part):
    """The files of a glob, or evenly chosen ones of about a part's bytes."""
    paths = sorted(glob.glob(pattern, recursive=True))
    if not paths:
        raise SystemExit(f"--input {pattern}: no file")
    step = round(1 / part)
    return paths[step // 2 :: step] if part < 1 else paths


def _processor_seconds():
    mine, others = (
        resource.getrusage(who)
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return sum(u.ru_utime + u.ru_stime for u in (mine, others))


def _tokenize(paths, tokenizer):
    from official_models.nlp.text import corpus

    documents = corpus.read_documents(paths)
    begun = time.perf_counter(), _processor_seconds()
    for document in documents:
        tokenizer.encode_batch_fast(document, add_special_tokens=False)
    return begun


def _write(paths, tokenizer, bucket_mb=8, workers=1, **recipe):
    from apache_beam.options.pipeline_options import PipelineOptions

    from official_models.nlp.bert.pretraining import pipeline
    from official_models.nlp.bert.pretraining.recipe import Recipe
    from official_models.nlp.text.documents import Format

    mode = "multi_processing" if workers > 1 else "in_memory"
    with tempfile.TemporaryDirectory() as folder:
        job = pipeline.Job(
            paths,
            f"{folder}/out",
            Format("text"),
            Recipe(**{"dupe_factor": 1, **recipe}),
            bucket_bytes=bucket_mb << 20,
        )
        options = PipelineOptions(
            [
                "--runner=FnApiRunner",
                f"--direct_running_mode={mode}",
                f"--direct_num_workers={workers}",
            ]
        )
        begun = time.perf_counter(), _processor_seconds()
        manifest = pipeline.run(job, tokenizer, options)
    return begun, sum(manifest["shards"].values())


def run_job(job):
    """One row, in a process of its own: rates and the peak of memory."""
    from official_models.nlp.text import wordpiece

    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    job = dict(job)
    tokenizer = wordpiece.load_tokenizer(job.pop("vocab_file"))
    paths = choose(job.pop("input"), job.pop("part", 1))
    size = sum(os.path.getsize(path) for path in paths) / _MEGABYTE
    examples = 0
    if job.pop("kind", "") == "tokenizer":
        wall, processor = _tokenize(paths, tokenizer)
    else:
        (wall, processor), examples = _write(paths, tokenizer, **job)
    wall = time.perf_counter() - wall
    processor = _processor_seconds() - processor
    peak = max(
        resource.getrusage(who).ru_maxrss
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return {
        "text_mb": size,
        "examples": examples,
        "mb_per_second": size / wall,
        "mb_per_processor_second": size / processor,
        "peak_mb": peak * 1024 / _MEGABYTE,
    }


def measure_all(pattern, vocab_file, rounds, names=tuple(ROWS)):
    """All rows, `rounds` times in turns."""
    found = {name: [] for name in names}
    for _ in range(rounds):
        for name in names:
            job = {"input": pattern, "vocab_file": vocab_file, **ROWS[name]}
            found[name].append(measure.fresh(MODULE, job))
    rows = []
    for name, results in found.items():
        middle = {
            key: measure.summary([result[key] for result in results])
            for key in ("mb_per_second", "mb_per_processor_second", "peak_mb")
        }
        same = {key: results[0][key] for key in ("text_mb", "examples")}
        rows.append({"name": name, **same, **middle})
    return {"rows": rows}


def markdown(rows):
    """A table of the rows."""
    return measure.table(
        ["", "MB of text", "examples", "MB/s a core", "MB/s", "peak MB"],
        [
            [
                row["name"],
                f"{row['text_mb']:.1f}",
                f"{row['examples']:,}" if row["examples"] else "",
                f"{row['mb_per_processor_second']['median']:.2f}",
                f"{row['mb_per_second']['median']:.2f}",
                f"{row['peak_mb']['median']:.0f}",
            ]
            for row in rows
        ],
    )


def main(argv=None):
    parser = measure.parser(MODULE, __doc__, "one round of the first two rows")
    parser.add_argument("--input", help="glob of files, each a document")
    parser.add_argument("--vocab_file", type=Path, help="vocab.txt of BERT")
    parser.add_argument("--rounds", type=command_line.count, default=3)
    args = parser.parse_args(argv)
    if args.job:
        print(json.dumps(run_job(args.job)))
        return
    if not (args.input and args.vocab_file):
        parser.error("--input and --vocab_file: expected both")
    rounds, names = (1, list(ROWS)[:2]) if args.quick else (args.rounds, ROWS)
    result = measure_all(
        args.input, str(args.vocab_file.absolute()), rounds, tuple(names)
    )
    if args.output:
        value = dict(provenance=measure.provenance(), **result)
        measure.write_json(args.output, value)
    print(markdown(result["rows"]))


if __name__ == "__main__":
    main()
