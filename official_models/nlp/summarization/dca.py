"""Deep communicating agents: encoders that talk, a decoder that points.

Axes: as in `dca_layers`.

References:
    Celikyilmaz, Bosselut, He, Choi 2018 (arXiv:1803.10357)
"""

from __future__ import annotations

from typing import Any, NamedTuple

import keras

from official_models.common import ops
from official_models.common.layer import functional, registration
from official_models.nlp.summarization.config import AgentsConfig
from official_models.nlp.summarization.dca_layers import (
    AgentAttention,
    BiLSTM,
    ContextualLayer,
    Part,
    Switch,
    Vocabulary,
    WordAttention,
    last_states,
    mixture,
)

register = registration("tf_lamb_models.summarization")
AGENTS = "dca"
SOURCE = ("input_ids", "input_mask")
TARGET = "target_ids"
LOG_P, STATES, ALONG = "log_p", "states", "along"
_SMALLEST = 1e-37  # added to a probability, so that its logarithm is finite


class Memory(NamedTuple):
    """What the decoder needs of documents.

    Attributes:
        states: h(K), [B, M, I, H].
        keys: W5 h(K) + b1, [B, M, I, H].
        ids: In the extended vocabulary, [B, M, I].
        mask: [B, M, I].
        first: s0, the last state of agent 1, [B, H].
    """

    states: Any
    keys: Any
    ids: Any
    mask: Any
    first: Any


class State(NamedTuple):
    """What the decoder needs of the tokens before.

    Attributes:
        hidden: [B, H].
        cell: [B, H].
        context: c*, [B, H].
    """

    hidden: Any
    cell: Any
    context: Any


class Step(NamedTuple):
    """What the decoder gives for some tokens.

    Attributes:
        p: Of the next token, over the extended vocabulary, [B, L, E], float32
            in mixed precision too.
        p_voc: P_voc, [B, L, V].
        attention: l, [B, L, M, I].
        agents: g, [B, L, M].
        switch: p_a, [B, L, M].
        states: s, [B, L, H].
        state: After the last token.
    """

    p: Any
    p_voc: Any
    attention: Any
    agents: Any
    switch: Any
    states: Any
    state: State


@register
class CommunicatingAgents(Part):
    """All of the network.

    The encoder's parameters are shared by all agents; each contextual layer
    has its own. One embedding serves encoder and decoder, and the decoder's
    cell begins at zero (our choices).
    """

    def build(self, input_shape=None):
        config = self.config
        self.word_embeddings = self.add_matrix(
            "word_embeddings", (config.vocab_size, config.embedding_size)
        )
        size = (None, None, None, config.embedding_size)
        self.local = self.child(BiLSTM, name="local")
        ops.build_child(self.local, size)
        self.contextual = [
            self.child(ContextualLayer, name=f"contextual_{k}")
            for k in range(config.contextual_layers)
        ]
        self.word_attention = self.child(WordAttention, name="word_attention")
        self.agent_attention = self.child(
            AgentAttention, name="agent_attention"
        )
        self.vocabulary = self.child(Vocabulary, name="vocabulary")
        self.switch = self.child(Switch, name="switch")
        for layer in (
            *(*self.contextual, self.word_attention, self.agent_attention),
            *(self.vocabulary, self.switch),
        ):
            ops.build_child(layer, None)
        self.decoder = self.add_lstm("decoder")
        ops.build_child(self.decoder, (None, None, config.embedding_size))

    def call(self, input_ids, input_mask, target_ids, other_ids=None):
        """log P [B, L, E] and the decoder's states [B, L, H], as a dict.

        With other summaries of the same documents, "along" is their log P.
        """
        memory = self.memory(input_ids, input_mask)
        step = self.advance(target_ids, None, memory)
        found = {
            LOG_P: log_of(step.p),
            STATES: ops.cast(step.states, self.variable_dtype),
        }
        if other_ids is not None:
            found[ALONG] = log_of(self.advance(other_ids, None, memory).p)
        return found

    def compute_output_spec(self, input_ids, input_mask, target_ids):
        config = self.config
        sizes = {LOG_P: config.extended_size, STATES: config.hidden_size}
        return {
            name: keras.KerasTensor(
                (*target_ids.shape, size), self.variable_dtype
            )
            for name, size in sizes.items()
        }

    def embed(self, ids):
        """Vectors of ids; one beyond the vocabulary has the unknown word's."""
        config = self.config
        known = ops.where(ids < config.vocab_size, ids, config.unknown_id)
        found = ops.take(self.word_embeddings, known, axis=0)
        return ops.cast(found, self.compute_dtype)

    def memory(self, input_ids, input_mask) -> Memory:
        """Reads documents, [B, M, I] each; agent 1 has to have a token."""
        states = self.local(self.embed(input_ids), input_mask)
        for layer in self.contextual:
            states = layer(states, input_mask)
        first = last_states(states, input_mask)[:, 0]
        keys = self.word_attention.key(states)
        return Memory(states, keys, input_ids, input_mask, first)

    def advance(self, target_ids, before: State | None, memory: Memory) -> Step:
        """Reads tokens of summaries, the beginning first.

        Args:
            target_ids: In the extended vocabulary, [B, L].
            before: Of the tokens before; None for no token.
            memory: Of `memory`.
        """
        zeros = ops.zeros_like(memory.first)
        if before is None:
            before = State(memory.first, zeros, zeros)
        y = self.embed(target_ids)
        s, hidden, cell = self.decoder(
            y, initial_state=[before.hidden, before.cell]
        )
        attention = self.word_attention(s, memory.keys, memory.mask)
        own = ops.cast(attention, self.compute_dtype)
        contexts = ops.einsum("blmi,bmih->blmh", own, memory.states)
        agents = self.agent_attention(s, contexts, memory.mask[:, :, 0])
        context = ops.einsum(
            "blm,blmh->blh", ops.cast(agents, self.compute_dtype), contexts
        )
        earlier = ops.concatenate(
            [before.context[:, None], context[:, :-1]], axis=1
        )
        p_voc = self.vocabulary(s, context, earlier)
        switch, other = self.switch(contexts, s, y)
        p = mixture(
            *(p_voc, attention, agents * switch, agents * other, memory.ids),
            self.config.extended_size,
        )
        after = State(hidden, cell, context[:, -1])
        return Step(p, p_voc, attention, agents, switch, s, after)


def log_of(p):
    """log(P + 1e-37), a finite number where P = 0."""
    # Not the larger of both, which has no gradient where P is tiny.
    return ops.log(p + _SMALLEST)


def communicating_agents(
    config: AgentsConfig, *, seed: int = 0, dtype=None
) -> keras.Model:
    """Deep communicating agents.

    Args:
        config: Sizes.
        seed: Fixes its initial weights.
        dtype: Keras dtype policy; None is the global one.

    Returns:
        A model from `input_ids`, ids of the extended vocabulary, and
        `input_mask` [B, M, I], and `target_ids` [B, L], int32, to "log_p" of
        the token after each, [B, L, E], and "states" of the decoder, [B, L,
        H], float32.
    """
    inputs = {
        name: keras.Input((config.agents, None), dtype="int32", name=name)
        for name in SOURCE
    }
    inputs[TARGET] = keras.Input((None,), dtype="int32", name=TARGET)
    layer = CommunicatingAgents(config, seed, name=AGENTS, dtype=dtype)
    outputs = layer(*(inputs[name] for name in (*SOURCE, TARGET)))
    return functional(
        inputs, outputs, name=AGENTS, dtype_policy=layer.dtype_policy
    )
