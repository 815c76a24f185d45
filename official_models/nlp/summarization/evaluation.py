"""What a trained model writes, and how good it is beside Lead and Oracle."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from tqdm import tqdm

from official_models.common.errors import InputError
from official_models.nlp.summarization import decoding, ranking, rouge
from official_models.nlp.summarization.dca_decoding import AgentStepper
from official_models.nlp.summarization.inputs import (
    Encoded,
    Encoding,
    document_batch,
)
from official_models.nlp.summarization.prepare import Document


class Written(NamedTuple):
    """Summaries of some documents.

    Attributes:
        summaries: Of each, sentences.
        details: Of each, what decided, as JSON values: the sentences' scores,
            or what the beam found.
        tokens: That were generated; 0 of an extractive model.
        seconds: That it took.
    """

    summaries: list[list[str]]
    details: list[dict[str, Any]]
    tokens: int
    seconds: float


def _by_length(
    rows: Sequence[Encoded], batch_size: int, name: str
) -> list[np.ndarray]:
    """Rows of batches of about the same length, with a progress bar."""
    order = np.argsort([len(row.input_ids) for row in rows], kind="stable")
    found = [order[i : i + batch_size] for i in range(0, len(rows), batch_size)]
    return tqdm(found, desc=name, unit="batch", disable=len(found) < 2)


def sentence_scores(
    model: keras.Model, rows: Sequence[Encoded], batch_size: int
) -> list[np.ndarray]:
    """The probability of each sentence, [S] of each document.

    Raises:
        InputError: They are not finite.
    """
    found: list[Any] = [None] * len(rows)
    for part in _by_length(rows, batch_size, "scores"):
        batch = document_batch([rows[i] for i in part])
        logits = np.asarray(
            keras.ops.convert_to_numpy(model.predict_on_batch(batch)),
            "float64",
        )
        if not np.isfinite(logits).all():
            raise InputError(
                "the scores are not finite: the training has diverged; lower "
                "--learning_rate"
            )
        for i, row in zip(part, logits):
            found[i] = 1 / (1 + np.exp(-row[: len(rows[i].clss)]))
    return found


def write_extracts(
    model: keras.Model,
    documents: Sequence[Document],
    rows: Sequence[Encoded],
    *,
    sentences: int,
    block: bool,
    batch_size: int,
) -> Written:
    """Summaries of the sentences with the highest scores, best first."""
    began = time.perf_counter()
    scores = sentence_scores(model, rows, batch_size)
    summaries, details = [], []
    for document, values in zip(documents, scores, strict=True):
        chosen = ranking.select(document.sentences, values, sentences, block)
        summaries.append([document.sentences[i] for i in chosen])
        details.append(
            {"chosen": chosen, "scores": [round(float(x), 6) for x in values]}
        )
    return Written(summaries, details, 0, time.perf_counter() - began)


def write_abstracts(
    stepper: decoding.Stepper | AgentStepper,
    rows: Sequence[Encoded],
    encoding: Encoding,
    beam: decoding.Beam,
    *,
    batch_size: int,
) -> Written:
    """Summaries by beam search."""
    summaries: list[Any] = [None] * len(rows)
    details: list[Any] = [None] * len(rows)
    tokens = 0
    began = time.perf_counter()
    for part in _by_length(rows, batch_size, "beam search"):
        found = decoding.search(
            stepper,
            stepper.batch([rows[i] for i in part]),
            beam,
            encoding.marks,
            encoding.begins_word,
        )
        for i, hypotheses in zip(part, found):
            best = hypotheses[0]
            tokens += len(best.tokens)
            summaries[i] = encoding.text(best.tokens)
            details[i] = {
                "beams": [
                    {
                        "score": round(found.score, 4),
                        "log_probability": round(found.log_probability, 4),
                        "summary": encoding.text(found.tokens),
                    }
                    for found in hypotheses[: beam.size]
                ],
                **stepper.explain(rows[i], best.tokens, encoding.marks.begin),
            }
    seconds = time.perf_counter() - began
    return Written(summaries, details, tokens, seconds)


def speeds(
    model: keras.Model,
    write: Callable[[decoding.Stepper], Written],
) -> dict[str, float]:
    """Tokens of summaries a second, keys and values cached and not.

    Each is run twice; the second time, nothing is traced.

    Args:
        model: That writes.
        write: Summaries by a stepper of it.
    """
    found = {}
    for name, cached in (("cached", True), ("uncached", False)):
        stepper = decoding.Stepper(model, cached)
        write(stepper)
        written = write(stepper)
        found[name] = written.tokens / written.seconds
    return found


def compare(
    name: str,
    summaries: Sequence[Sequence[str]],
    documents: Sequence[Document],
    sentences: int,
) -> dict[str, Any]:
    """ROUGE of a model, of Lead and of the oracle, on the same documents.

    Args:
        name: Of the model.
        summaries: That it wrote.
        documents: With references and oracle.
        sentences: Of Lead, N.

    Returns:
        `rows` by name, and `differences`, the model's from Lead's.
    """
    references = [document.references for document in documents]
    lead_name = f"Lead-{sentences}"
    written = {
        "Oracle": [[d.sentences[i] for i in d.oracle] for d in documents],
        lead_name: [
            [d.sentences[i] for i in ranking.lead(d.sentences, sentences)]
            for d in documents
        ],
        name: summaries,
    }
    scores = {
        title: rouge.scores_of(texts, references)
        for title, texts in written.items()
    }
    return {
        "rows": {title: rouge.row(found) for title, found in scores.items()},
        "differences": {
            f"{name} - {lead_name}": rouge.difference(
                scores[name], scores[lead_name]
            )
        },
    }
