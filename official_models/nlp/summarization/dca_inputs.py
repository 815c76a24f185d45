"""Documents in parts, one for each agent.

Axes: B batch, M agents, I tokens of a part, L tokens of the summary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from official_models.nlp.summarization import dca
from official_models.nlp.summarization.inputs import Encoded, Marks, stack


def parts(row: Encoded, agents: int) -> list[np.ndarray]:
    """The document's sentences, in a row, as M parts of about equal length.

    A sentence is its agent's by where it begins; agent 1 has the first one.
    A part without any is empty.
    """
    owners = row.clss * agents // len(row.input_ids)
    first = np.searchsorted(owners, np.arange(agents))
    starts = [*row.clss, len(row.input_ids)]
    return np.split(row.input_ids, [starts[i] for i in first[1:]])


def document_batch(
    rows: Sequence[Encoded], agents: int
) -> dict[str, np.ndarray]:
    """{name in `dca.SOURCE`: int32 [B, M, I]}, as long as the longest part."""
    found = [part for row in rows for part in parts(row, agents)]
    shape = (len(rows), agents, -1)
    masks = [np.ones_like(part) for part in found]
    return {
        "input_ids": stack(found).reshape(shape),
        "input_mask": stack(masks).reshape(shape),
    }


class AgentForm(NamedTuple):
    """How rows become batches of `dca.communicating_agents`.

    Attributes:
        agents: M.
        marks: Of summaries.
    """

    agents: int
    marks: Marks

    def batch(self, rows: Sequence[Encoded]) -> tuple:
        """Inputs, labels and sample weights, as `fit` takes them.

        The labels of "states" are 1 where a sentence ends: where its break,
        or the end, is the next token.
        """
        inputs = document_batch(rows, self.agents)
        inputs[dca.TARGET] = stack([row.target[:-1] for row in rows])
        labels = stack([row.target[1:] for row in rows])
        ones = [np.ones(len(row.target) - 1, "int32") for row in rows]
        weight = stack(ones).astype("float32")
        ends = np.isin(labels, (self.marks.sentence, self.marks.end))
        return (
            inputs,
            {dca.LOG_P: labels, dca.STATES: ends * weight},
            {dca.LOG_P: weight, dca.STATES: np.ones(len(rows), "float32")},
        )

    def signature(self) -> tuple:
        """Of `batch`."""
        part = tf.TensorSpec((None, self.agents, None), "int32")
        ints = tf.TensorSpec((None, None), "int32")
        floats = tf.TensorSpec((None, None), "float32")
        return (
            {**{name: part for name in dca.SOURCE}, dca.TARGET: ints},
            {dca.LOG_P: ints, dca.STATES: floats},
            {dca.LOG_P: floats, dca.STATES: tf.TensorSpec((None,), "float32")},
        )
