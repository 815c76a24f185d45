r"""BERT's or ALBERT's pretraining examples from a corpus of any size.

    python -m official_models.nlp.bert.create_pretraining_data \
        --input 'wiki/*.jsonl.gz' --input_format jsonl \
        --vocab_file vocab.txt --output_dir records

writes TFRecords of masked examples, which `pretrain.py --records` reads, by
Apache Beam: on all cores of this machine or, by Beam's own flags after a `--`,
elsewhere:

    ... -- --runner FlinkRunner --flink_master HOST:8081

The examples are those of `pretraining.records`, which holds the corpus in
memory. They depend on the input and the flags, not on runner or workers. Needs
the extra `data` (apache-beam).
"""

import argparse
import sys

from absl import flags, logging

from official_models.common import errors, processes
from official_models.common.errors import InputError
from official_models.nlp.bert.pretraining import recipe
from official_models.nlp.text import documents, vocabulary

FLAGS = flags.FLAGS
_MEGABYTE = 1 << 20
# Beam's DirectRunner, without its look for one that it could download.
_LOCAL = "FnApiRunner"


def define_flags() -> None:
    """Defines the script's flags."""
    flags.DEFINE_list(
        "input", None, "Files, quoted globs or folders, comma-separated; *.gz."
    )
    flags.DEFINE_enum(
        "input_format",
        "text",
        list(documents.FORMATS),
        "text: a file is a document, blank lines part paragraphs. sentences: "
        "a line is a sentence, a blank line ends a document. jsonl: a line is "
        "a JSON object, a document is one of its strings.",
    )
    flags.DEFINE_string("text_field", "text", "Field of a JSON object.")
    recipe.define_flags()
    flags.adopt_module_key_flags(recipe)  # for --help
    flags.DEFINE_float(
        "bucket_mb",
        8,
        "Megabytes of text that are worked on together and become a file; "
        "a random next segment comes from the same bucket.",
        0.001,
    )
    flags.DEFINE_float("max_line_mb", 16, "A longer line is a bad line.", 0.001)
    flags.DEFINE_integer(
        "max_bad_lines",
        None,
        "The most lines that may be bad (not UTF-8, NUL, too long, not JSON, "
        "no text). Default: any number; they are left out and listed.",
        0,
    )
    flags.DEFINE_integer(
        "workers", None, "Processes here. Default: the cores.", 1
    )
    flags.mark_flags_as_required(["input", "output_dir", "vocab_file"])


def beam_options(rest: list[str]):
    """Beam's options: those after `--`, or the workers of this machine.

    Raises:
        InputError: Beam knows no such flag or runner, or refuses them.
    """
    from apache_beam.options.pipeline_options import PipelineOptions
    from apache_beam.options.pipeline_options_validator import (
        PipelineOptionsValidator,
    )
    from apache_beam.runners import create_runner

    parser = argparse.ArgumentParser(add_help=False, exit_on_error=False)
    for kind in PipelineOptions.__subclasses__():
        kind._add_argparse_args(parser)
    try:
        known, unknown = parser.parse_known_args(rest)
    except argparse.ArgumentError as error:
        raise InputError(f"-- {error}; correct Beam's flag") from error
    if unknown:
        raise InputError(
            f"-- {' '.join(unknown)}: Beam has no such flag; this script's "
            "flags come before --, Beam's after it"
        )
    options = PipelineOptions(rest if known.runner else [*_local(), *rest])
    try:
        runner = create_runner(known.runner or _LOCAL)
        faults = PipelineOptionsValidator(options, runner).validate()
    except (ValueError, ImportError, AttributeError) as error:
        faults = [str(error)]
    if faults:
        raise InputError(f"-- {' '.join(rest)}: {' '.join(faults)}")
    return options


def _local() -> list[str]:
    workers = FLAGS.workers or processes.cores()
    mode = "multi_processing" if workers > 1 else "in_memory"
    return [
        f"--runner={_LOCAL}",
        f"--direct_running_mode={mode}",
        f"--direct_num_workers={workers}",
    ]


def job():
    """What the flags ask for."""
    from official_models.nlp.bert.pretraining import pipeline

    return pipeline.Job(
        inputs=FLAGS.input,
        output_dir=FLAGS.output_dir,
        form=documents.Format(
            FLAGS.input_format,
            FLAGS.text_field,
            int(FLAGS.max_line_mb * _MEGABYTE),
            int(2 * FLAGS.bucket_mb * _MEGABYTE),
        ),
        recipe=recipe.from_flags(),
        bucket_bytes=int(FLAGS.bucket_mb * _MEGABYTE),
        compression=FLAGS.compression,
        max_bad_lines=FLAGS.max_bad_lines,
    )


def main(argv: list[str]) -> None:
    """Text -> pairs -> masked examples -> TFRecords, bucket by bucket."""
    # Beam warns at import of packages that only some runners need.
    logging.set_verbosity(logging.ERROR)
    try:
        from official_models.nlp.bert.pretraining import pipeline
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("apache_beam"):
            raise
        raise InputError(
            "apache-beam is not installed: pip install apache-beam (the extra "
            "`data`), or `make .venv-data`"
        ) from error
    logging.set_verbosity(logging.WARNING)
    tokenizer = vocabulary.load_tokenizer(FLAGS.vocab_file, FLAGS.do_lower_case)
    manifest = pipeline.run(job(), tokenizer, beam_options(argv[1:]))
    examples = sum(manifest["shards"].values())
    print(
        f"{examples:,} examples of {manifest['documents']:,} documents in "
        f"{len(manifest['shards'])} files in {FLAGS.output_dir}, "
        + vocabulary.unknown_words(manifest["unknown"], manifest["tokens"]),
        file=sys.stderr,
    )
    bad = manifest["bad_lines"]
    if bad:
        kinds = ", ".join(f"{n:,} {kind}" for kind, n in sorted(bad.items()))
        print(
            f"left out {sum(bad.values()):,} bad lines ({kinds}): see "
            f"{pipeline.BAD_LINES} there",
            file=sys.stderr,
        )


if __name__ == "__main__":
    define_flags()
    errors.run(main, takes_rest=True)
