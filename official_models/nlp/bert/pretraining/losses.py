"""Losses and metrics of a pretraining model's two heads, by their outputs."""

import keras

from official_models.nlp.transformer.losses import SparseCrossEntropy, is_top


def pretraining_losses(
    pair: str = "next_sentence",
) -> dict[str, keras.losses.Loss]:
    """For `compile(loss=...)`: their sum is the model's loss.

    Args:
        pair: The output for the sentence pair: BERT's "next_sentence" or
            ALBERT's "sentence_order".

    Returns:
        {output: its `SparseCrossEntropy`}.
    """
    return {name: SparseCrossEntropy(name=name) for name in ("masked_lm", pair)}


def pretraining_metrics(
    pair: str = "next_sentence",
) -> dict[str, keras.metrics.Metric]:
    """For `compile(weighted_metrics=...)`.

    Args:
        pair: As in `pretraining_losses`.

    Returns:
        {output: its accuracy}.
    """
    return {
        name: keras.metrics.MeanMetricWrapper(is_top, name="accuracy")
        for name in ("masked_lm", pair)
    }
