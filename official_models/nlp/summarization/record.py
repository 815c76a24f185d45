"""How a trained model summarizes: in its folder, and by flags."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import keras
from absl import flags

from official_models.common import files
from official_models.common import flags as run_flags
from official_models.common.errors import InputError, first_line
from official_models.nlp.summarization import decoding, evaluation
from official_models.nlp.summarization.dca import AGENTS
from official_models.nlp.summarization.dca_decoding import AgentStepper
from official_models.nlp.summarization.inputs import Encoded, Encoding
from official_models.nlp.summarization.prepare import Document
from tf_lamb import check

FLAGS = flags.FLAGS
NAME = "summarizer.json"
MODELS = ("bertsum_ext", "bertsum_abs", "bertsum_extabs", "dca")
_BEAM = {
    "beam_size": "size",
    "alpha": "alpha",
    "min_length": "min_length",
    "max_length": "max_length",
    "block_trigrams": "block_trigrams",
}
# Flags of a beam search alone.
OF_BEAMS = ("beam_size", "alpha", "min_length", "max_length")


@dataclasses.dataclass(frozen=True)
class Record:
    """What `summarize` has to know of a model.

    Attributes:
        model: As --model of `train`.
        max_tokens: Of a document.
        max_target: Of a summary in training.
        sentences: Of an extractive summary.
        lowercase: Whether the vocabulary is uncased; None for what it says.
        beam: As of `decoding.Beam`.
    """

    model: str
    max_tokens: int
    max_target: int
    sentences: int
    lowercase: bool | None
    beam: decoding.Beam

    @property
    def is_extractive(self) -> bool:
        """Whether it chooses sentences."""
        return self.model == "bertsum_ext"

    @property
    def longest(self) -> int | None:
        """Tokens for which its decoder has positions; None: any number."""
        return self.max_target if self.model.startswith("bertsum_") else None


def define_flags() -> None:
    """Defines the flags that say how summaries are made."""
    integer = flags.DEFINE_integer
    integer("max_tokens", 512, "Tokens of a document.", 8)
    integer("max_target", 200, "Tokens of a summary in training.", 8)
    define_summary_flags()


def define_summary_flags(known: bool = True) -> None:
    """Defines those that a trained model can be given anew.

    Args:
        known: Whether they have defaults; else it is the model's record.
    """
    integer = flags.DEFINE_integer
    end = "" if known else " Default: as in training."
    integer(
        "sentences",
        3 if known else None,
        f"Sentences of an extractive summary, and of Lead.{end}",
        1,
    )
    integer("beam_size", 5 if known else None, f"Beams.{end}", 1)
    flags.DEFINE_float(
        "alpha",
        0.95 if known else None,
        f"Exponent of the length penalty.{end}",
    )
    integer("min_length", 50 if known else None, f"Tokens at least.{end}", 0)
    integer("max_length", 200 if known else None, f"Tokens at most.{end}", 1)
    flags.DEFINE_boolean(
        "block_trigrams",
        True if known else None,
        f"Whether three words in a row may come but once.{end}",
    )
    run_flags.without_effect("sentences", *_BEAM)


def _beam(values: dict) -> decoding.Beam:
    try:
        return decoding.Beam(**values)
    except ValueError as error:
        name = "beam_" if str(error).startswith("size") else ""
        raise InputError(f"--{name}{error}") from error


def check_flags(model: str) -> None:
    """Refuses lengths that do not fit each other.

    Args:
        model: Value of --model.

    Raises:
        InputError: Of an abstractive model.
    """
    found = from_flags(model)
    if found.is_extractive or not found.longest:
        return
    if FLAGS.max_length > found.longest:
        raise InputError(
            f"--max_length {FLAGS.max_length}: expected at most --max_target "
            f"{found.longest}, for which the decoder has positions"
        )


def from_flags(model: str) -> Record:
    """The record of a run of `train`.

    Args:
        model: Value of --model.
    """
    beam = {ours: FLAGS[name].value for name, ours in _BEAM.items()}
    if model == MODELS[0]:  # it has no beams
        beam = {"block_trigrams": FLAGS.block_trigrams}
    return Record(
        *(model, FLAGS.max_tokens, FLAGS.max_target, FLAGS.sentences),
        FLAGS.lowercase,
        _beam(beam),
    )


def save(folder: Path, record: Record) -> None:
    """Writes it into the folder of a run."""
    files.write_json(folder / NAME, dataclasses.asdict(record))


def load(folder: Path) -> Record:
    """The record of a folder, with what flags say anew.

    Raises:
        InputError: There is none, or it is damaged; a flag is of another
            kind of model.
    """
    remedy = (
        "expected the folder of a run of "
        "official_models.nlp.summarization.train"
    )
    found = files.read_json(folder / NAME, remedy)
    try:
        _refuse_unread(found["model"])
        beam = dict(found.pop("beam"))
        for name, ours in _BEAM.items():
            if FLAGS[name].value is not None:
                beam[ours] = FLAGS[name].value
        if FLAGS.sentences is not None:
            found["sentences"] = FLAGS.sentences
        for name in ("max_tokens", "max_target", "sentences"):
            check.count(name, found[name])
        record = Record(**found, beam=_beam(beam))
        check.one_of("model", record.model, MODELS)
    except InputError:
        raise
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        raise InputError(
            f"{folder / NAME}: damaged ({first_line(error)}); {remedy}"
        ) from error
    longest = None if record.is_extractive else record.longest
    if longest and record.beam.max_length > longest:
        raise InputError(
            f"--max_length {record.beam.max_length}: expected at most "
            f"{longest}, for which the decoder has positions"
        )
    return record


def _refuse_unread(model: str) -> None:
    """Refuses flags of `summarize` that this model does not read."""
    is_extractive = model == MODELS[0]
    for name in OF_BEAMS if is_extractive else ("sentences",):
        if FLAGS[name].value is not None:
            what = "chooses sentences" if is_extractive else "writes"
            raise InputError(
                f"--{name}: not for a model of --model {model}, which {what}; "
                "leave the flag out"
            )


def stepper_of(model: keras.Model) -> decoding.Stepper | AgentStepper:
    """A trained model that writes, a token at a time."""
    agents = any(layer.name == AGENTS for layer in model.layers)
    return AgentStepper(model) if agents else decoding.Stepper(model)


def write(
    record: Record,
    model: keras.Model,
    documents: Sequence[Document],
    rows: Sequence[Encoded],
    encoding: Encoding,
) -> evaluation.Written:
    """Summaries of some documents, as the record says.

    Args:
        record: Of the model.
        model: Trained.
        documents: To be summarized.
        rows: They, as token ids.
        encoding: That made these.
    """
    size = FLAGS.eval_batch_size
    if record.is_extractive:
        return evaluation.write_extracts(
            model,
            documents,
            rows,
            sentences=record.sentences,
            block=record.beam.block_trigrams,
            batch_size=size,
        )
    stepper = stepper_of(model)
    return evaluation.write_abstracts(
        stepper, rows, encoding, record.beam, batch_size=size
    )
