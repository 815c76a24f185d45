"""Deep communicating agents, a token at a time, for `decoding.search`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from official_models.common import ops
from official_models.nlp.summarization import dca, dca_inputs
from official_models.nlp.summarization.decoding import compiled
from official_models.nlp.summarization.inputs import Encoded


class AgentStepper:
    """A trained `dca.communicating_agents`; methods as `decoding.Stepper`'s.

    Args:
        model: Trained.
    """

    def __init__(self, model: keras.Model):
        self._layer = model.get_layer(dca.AGENTS)
        self._agents = self._layer.config.agents
        self._memory_of = compiled(self._layer.memory)
        self._first = compiled(self._begin)
        self._next = compiled(self._continue)
        self._shares = compiled(self._agents_of)

    def _begin(self, ids, memory):
        step = self._layer.advance(ids, None, memory)
        return dca.log_of(step.p)[:, -1], step.state

    def _continue(self, ids, before, memory):
        step = self._layer.advance(ids, before, memory)
        return dca.log_of(step.p)[:, -1], step.state

    def _agents_of(self, ids, memory):
        return self._layer.advance(ids, None, memory).agents

    def batch(self, rows: Sequence[Encoded]) -> dict[str, np.ndarray]:
        """Inputs of `start`."""
        return dca_inputs.document_batch(rows, self._agents)

    def explain(
        self, row: Encoded, tokens: Sequence[int], begin: int
    ) -> dict[str, Any]:
        """Each agent's share g, the mean over the tokens of a summary."""
        inputs = self.batch([row])
        ids = np.array([[begin, *tokens]], "int32")
        memory = self._memory_of(*(inputs[name] for name in dca.SOURCE))
        shares = ops.convert_to_numpy(
            self._shares(ops.convert_to_tensor(ids), memory)
        )
        return {"agents": [round(float(x), 6) for x in shares[0].mean(0)]}

    def start(self, inputs: dict[str, np.ndarray], beams: int) -> None:
        """Reads documents, each repeated as often as there are beams."""
        given = [ops.convert_to_tensor(inputs[name]) for name in dca.SOURCE]
        self._memory = keras.tree.map_structure(
            lambda x: ops.repeat(x, beams, axis=0), self._memory_of(*given)
        )
        self._state: Any = None

    def step(self, tokens: np.ndarray) -> np.ndarray:
        """log P of the token after each row's, float32 [R, E]."""
        ids = ops.convert_to_tensor(tokens[:, -1:])
        if self._state is None:
            found, self._state = self._first(ids, self._memory)
        else:
            found, self._state = self._next(ids, self._state, self._memory)
        return ops.convert_to_numpy(found)

    def keep(self, rows: np.ndarray) -> None:
        """Takes the state of these rows, [R]; those of a document may mix."""
        index = ops.convert_to_tensor(rows.astype("int32"))
        self._state = keras.tree.map_structure(
            lambda x: ops.take(x, index, axis=0), self._state
        )
