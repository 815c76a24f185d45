r"""Summarizes a text, or JSON lines of documents, by a trained model.

    python -m official_models.nlp.summarization.summarize \
        --checkpoint runs/ext --input article.txt --explain
    cat article.txt | python -m official_models.nlp.summarization.summarize \
        --checkpoint runs/extabs --min_length 10 --max_length 60

A text gives its summary, a sentence a line. A file that ends with .jsonl has
a document a line, {"document": text or list of sentences}, and gives a line
{"place", "summary"} of each. `--explain` adds what decided: the score of each
sentence, or what the beam search found, and the attention to each agent.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from absl import flags, logging

from official_models.common import errors, files, weights
from official_models.common import flags as run_flags
from official_models.common.errors import InputError
from official_models.nlp.checkpoint import opening
from official_models.nlp.checkpoint.tokenizer import find
from official_models.nlp.summarization import inputs, prepare, readers, record
from official_models.nlp.summarization.dca import AGENTS
from official_models.nlp.summarization.evaluation import Written
from official_models.nlp.summarization.model import DECODER, EXTRACTIVE

FLAGS = flags.FLAGS
STDIN = "-"


def define_flags() -> None:
    """Defines this script's flags."""
    string, integer = flags.DEFINE_string, flags.DEFINE_integer
    string("checkpoint", None, "Folder of a run of summarization.train.")
    string(
        "input",
        STDIN,
        "A text in UTF-8, or a .jsonl file; - is the standard input, a text.",
    )
    flags.DEFINE_boolean("explain", False, "Whether to say what decided.")
    integer("max_bad", 0, "Damaged or empty documents that are left out.", 0)
    integer("eval_batch_size", 16, "Documents at once.", 1)
    run_flags.without_effect(
        "checkpoint", "input", "explain", "max_bad", "eval_batch_size"
    )
    record.define_summary_flags(known=False)
    flags.adopt_module_key_flags(record)  # for --help


def _texts(bad: readers.BadDocuments) -> list[prepare.Document]:
    """The documents of --input, cut into sentences.

    Raises:
        InputError: There is none, or too much is bad.
    """
    documents = []
    for raw in _raws(bad):
        try:
            documents.append(prepare.cut(raw))
        except ValueError as error:
            bad.note(raw.place, str(error))
    if not documents:
        raise InputError(f"--input {FLAGS.input}: no document in it; {bad}")
    return documents


def _raws(bad: readers.BadDocuments):
    if FLAGS.input == STDIN:
        content = sys.stdin.buffer.read()
        try:
            text = content.decode("utf-8")
        except UnicodeDecodeError as error:
            raise InputError(
                f"--input -: not UTF-8 text: byte 0x{content[error.start]:02x} "
                f"at byte offset {error.start} (from 0)"
            ) from error
        return [readers.Raw("--input -", text, [])]
    path = Path(FLAGS.input)
    if path.suffix == ".jsonl":
        return readers.read_lines(path, bad, readers.document)
    return [readers.Raw(str(path), files.read_text(path), [])]


def load():
    """The record, the model and the encoding of --checkpoint.

    Raises:
        InputError: It has no summarizer.
    """
    if not FLAGS.checkpoint:
        raise InputError(
            "--checkpoint is missing: the folder of a run of "
            "official_models.nlp.summarization.train"
        )
    folder = Path(FLAGS.checkpoint)
    where = f"--checkpoint {folder}"
    if not (folder / opening.KERAS).is_file():
        raise InputError(
            f"{where}: has no {opening.KERAS}; expected the folder of a run of "
            "official_models.nlp.summarization.train that has ended"
        )
    found = None
    if (folder / record.NAME).is_file():
        found = record.load(folder)  # before the model, which takes longer
    model = weights.read_keras(folder / opening.KERAS, where)
    names = {layer.name for layer in model.layers}
    if not names & {EXTRACTIVE, DECODER, AGENTS}:
        raise InputError(
            f"{where}: {model.name} has neither a sentence head nor a decoder, "
            "and cannot summarize; expected a model of "
            "official_models.nlp.summarization.train"
        )
    found = found or record.load(folder)
    layers = {"bertsum_ext": EXTRACTIVE, "dca": AGENTS}
    if layers.get(found.model, DECODER) not in names:
        raise InputError(
            f"{folder / record.NAME}: is of {found.model}, the model beside it "
            f"is {model.name}; copy both from one run"
        )
    tokenizer = find(folder, lowercase=found.lowercase).load(where)
    return (
        found,
        model,
        inputs.Encoding(tokenizer, found.max_tokens, found.max_target),
    )


def show(
    documents: list[prepare.Document], written: Written, is_json: bool
) -> str:
    """What is printed."""
    lines = []
    for document, summary, details in zip(
        documents, written.summaries, written.details, strict=True
    ):
        if is_json:
            found = {"place": document.place, "summary": summary}
            found |= details if FLAGS.explain else {}
            lines.append(json.dumps(found, ensure_ascii=False))
            continue
        lines += summary
        if FLAGS.explain:
            lines += ["", *_explained(document, details)]
    return "\n".join(lines)


def _explained(document: prepare.Document, details: dict) -> list[str]:
    if "beams" in details:
        lines = [
            f"{found['score']:9.4f}  {' '.join(found['summary'])}"
            for found in details["beams"]
        ]
        shares = enumerate(details.get("agents", []), 1)
        return lines + [f"{g:9.4f}  agent {a}" for a, g in shares]
    lines = []
    for i, score in enumerate(details["scores"]):
        mark = "*" if i in details["chosen"] else " "
        lines.append(f"{score:.4f} {mark} {document.sentences[i]}")
    unread = len(document.sentences) - len(details["scores"])
    if unread:
        lines.append(
            f"({unread} sentences more than --max_tokens were not read)"
        )
    return lines


def main(_) -> None:
    """Reads, summarizes, prints."""
    logging.set_verbosity(logging.WARNING)
    bad = readers.BadDocuments(FLAGS.max_bad)
    documents = _texts(bad)
    found, model, encoding = load()
    rows = inputs.encode_all(documents, encoding)
    written = record.write(found, model, documents, rows, encoding)
    print(show(documents, written, FLAGS.input.endswith(".jsonl")))
    if bad.places:
        print(bad, file=sys.stderr)


if __name__ == "__main__":
    define_flags()
    errors.run(main)
