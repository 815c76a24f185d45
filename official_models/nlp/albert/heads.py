"""ALBERT for fine-tuning: a classifier of texts, and a finder of answers.

The heads are BERT's; inputs, outputs and errors are as described there.
"""

import keras

from official_models.nlp.albert.config import AlbertConfig
from official_models.nlp.albert.model import Albert
from official_models.nlp.bert.heads import (
    Classifier,
    SpanHeads,
    classifier_model,
    span_model,
)


def albert_classifier(
    config: AlbertConfig,
    num_labels: int,
    *,
    dropout: float = 0.1,
    seed: int = 0,
    dtype=None,
) -> keras.Model:
    """ALBERT with a linear layer on its pooled output.

    Arguments, inputs and outputs are those of `bert_classifier`.

    Raises:
        ValueError: an argument is out of range.
    """
    head = Classifier(
        num_labels,
        config,
        seed,
        dropout=dropout,
        name="classifier",
        dtype=dtype,
    )
    encoder = Albert(config, seed, name="bert", dtype=dtype)
    return classifier_model(encoder, head, "albert_classifier")


def albert_span(
    config: AlbertConfig, *, seed: int = 0, dtype=None
) -> keras.Model:
    """ALBERT with the logits of an answer's first and last token.

    Arguments, inputs and outputs are those of `bert_span`.
    """
    head = SpanHeads(config, seed, name="cls", dtype=dtype)
    encoder = Albert(config, seed, name="bert", dtype=dtype)
    return span_model(encoder, head, "albert_span")
