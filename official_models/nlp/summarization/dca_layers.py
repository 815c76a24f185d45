"""The layers of deep communicating agents.

Axes: B batch, M agents, I tokens of an agent's part, L tokens of the summary,
D embedding, H hidden, E extended vocabulary.

There is no published code. The equations of the encoder and of the word
attention are those of a reader's notes; what these leave open, and all the
rest, is our choice.

References:
    Celikyilmaz, Bosselut, He, Choi 2018 (arXiv:1803.10357)
"""

from __future__ import annotations

from keras import initializers, layers

from official_models.common import ops
from official_models.common.layer import registration
from official_models.nlp.transformer.layers import (
    MASKED_LOGIT,
    Dense,
    TransformerPart,
)

register = registration("tf_lamb_models.summarization")


class Part(TransformerPart):
    """A layer whose `config` is an `AgentsConfig`."""

    def add_lstm(self, name: str):
        """Makes an LSTM of H units that gives all states and the last ones."""
        return layers.LSTM(
            self.config.hidden_size,
            kernel_initializer=initializers.GlorotUniform(
                self.seed_for(f"{name}/kernel")
            ),
            recurrent_initializer=initializers.Orthogonal(
                seed=self.seed_for(f"{name}/recurrent_kernel")
            ),
            return_sequences=True,
            return_state=True,
            # cuDNN takes no padding on the left, which a flipped part has.
            use_cudnn=False,
            name=name,
            dtype=self.dtype_policy,
        )


@register
class BiLSTM(Part):
    """h_i = W [forward_i; backward_i] + b, of each agent's part by itself.

    (The bias is our choice.) The states at padding mean nothing; those of
    tokens do not depend on it.
    """

    def build(self, input_shape):
        size = self.config.hidden_size
        self.forward = self.add_lstm("forward")
        self.backward = self.add_lstm("backward")
        self.output_dense = self.child(Dense, size, name="output")
        for layer in (self.forward, self.backward):
            ops.build_child(layer, (None, None, input_shape[-1]))
        ops.build_child(self.output_dense, (None, None, 2 * size))

    def call(self, x, mask):
        """[B, M, I, H] of [B, M, I, .] and the mask [B, M, I]."""
        shape = ops.shape(x)  # B, M, I
        x = ops.reshape(x, (-1, shape[2], x.shape[-1]))
        real = ops.cast(ops.reshape(mask, (-1, shape[2])), "bool")
        ahead = self.forward(x, mask=real)[0]
        flipped = ops.flip(x, axis=1)
        back = self.backward(flipped, mask=ops.flip(real, axis=1))[0]
        both = ops.concatenate([ahead, ops.flip(back, axis=1)], axis=-1)
        found = self.output_dense(both)
        size = self.config.hidden_size
        return ops.reshape(found, (-1, shape[1], shape[2], size))


def last_states(states, mask):
    """The state of each part's last token, [B, M, H]; 0 of an empty part."""
    mask = ops.cast(mask, states.dtype)
    after = ops.concatenate(
        [mask[:, :, 1:], ops.zeros_like(mask[:, :, :1])], axis=2
    )
    return ops.einsum("bmi,bmih->bmh", mask * (1 - after), states)


def messages(states, mask):
    """z, the mean over the *other* agents of their last states, [B, M, H].

    Agents whose part is empty do not count (our choice). Without any other, as
    with one agent, z = 0.

    Args:
        states: [B, M, I, H].
        mask: 1 for a token, which come first, 0 for padding, [B, M, I].
    """
    last = last_states(states, mask)
    present = ops.cast(mask[:, :, :1], states.dtype)  # [B, M, 1]
    others = ops.sum(last, axis=1, keepdims=True) - last
    count = ops.sum(present, axis=1, keepdims=True) - present
    # Not others / count alone: rounding would leave a remainder without any.
    found = others / ops.maximum(count, 1)
    return ops.where(count > 0, found, ops.zeros_like(found))


@register
class ContextualLayer(Part):
    """h(k + 1) = BiLSTM(f(h(k), z(k))), f(h, z) = tanh(W3 h + W4 z).

    As it is written, f = v1^T tanh(W3 h + W4 z) is one number for each token,
    of which the next LSTM would have to live; this is its vector form, without
    v1 (our choice).
    """

    def build(self, input_shape=None):
        size = self.config.hidden_size
        self.own = self.add_matrix("own", (size, size))  # W3
        self.message = self.add_matrix("message", (size, size))  # W4
        self.lstm = self.child(BiLSTM, name="lstm")
        ops.build_child(self.lstm, (None, None, None, size))

    def call(self, states, mask):
        """[B, M, I, H] of [B, M, I, H] and [B, M, I]."""
        z = messages(states, mask)
        if not self.config.communicate:
            z = ops.zeros_like(z)
        found = ops.matmul(states, self.own)
        found = found + ops.matmul(z, self.message)[:, :, None]
        return self.lstm(ops.tanh(found), mask)


@register
class WordAttention(Part):
    """l_a = softmax_i(v2^T tanh(W5 h_(a,i) + W6 s + b1)), by each agent."""

    def build(self, input_shape=None):
        size = self.config.hidden_size
        self.key = self.child(Dense, size, name="key")  # W5, b1
        ops.build_child(self.key, (None, None, None, size))
        self.query = self.add_matrix("query", (size, size))  # W6
        self.score = self.add_matrix("score", (size,))  # v2

    def call(self, s, keys, mask):
        """Probabilities [B, L, M, I]; each row of a part that is not empty
        sums to 1 over its tokens.

        Args:
            s: States of the decoder, [B, L, H].
            keys: Of `key`, [B, M, I, H].
            mask: [B, M, I].
        """
        query = ops.matmul(s, self.query)[:, :, None, None]
        inner = ops.tanh(keys[:, None] + query)  # [B, L, M, I, H]
        logits = ops.einsum("blmih,h->blmi", inner, self.score)
        return masked_softmax(logits, mask[:, None], self.variable_dtype)


@register
class AgentAttention(Part):
    """g = softmax_a(v3^T tanh(W7 c_a + W8 s + b2))."""

    def build(self, input_shape=None):
        size = self.config.hidden_size
        self.key = self.child(Dense, size, name="key")  # W7, b2
        ops.build_child(self.key, (None, None, None, size))
        self.query = self.add_matrix("query", (size, size))  # W8
        self.score = self.add_matrix("score", (size,))  # v3

    def call(self, s, contexts, present):
        """g [B, L, M], 0 of an agent whose part is empty.

        Args:
            s: [B, L, H].
            contexts: c_a, [B, L, M, H].
            present: 1 for an agent with tokens, [B, M].
        """
        inner = self.key(contexts) + ops.matmul(s, self.query)[:, :, None]
        logits = ops.einsum("blmh,h->blm", ops.tanh(inner), self.score)
        return masked_softmax(logits, present[:, None], self.variable_dtype)


def masked_softmax(logits, mask, dtype):
    """Softmax over the last axis, exactly 0 where the mask is, if not all."""
    logits = ops.cast(logits, dtype)
    logits = logits + (1 - ops.cast(mask, dtype)) * MASKED_LOGIT
    # Keras warns of a softmax of one number.
    if logits.shape[-1] == 1:
        return ops.ones_like(logits)
    return ops.softmax(logits, axis=-1)


@register
class Vocabulary(Part):
    """P_voc = softmax(V2 tanh(V1 [s; c*] + b) + b'), with caa V1 [s; c*; c*'].

    c*' is the context of the token before, 0 before the first. (One hidden
    layer of H units, and where c*' enters, are our choices.)
    """

    def build(self, input_shape=None):
        config = self.config
        size = config.hidden_size
        parts = 3 if config.caa else 2
        self.inner = self.child(Dense, size, name="inner")
        self.outer = self.child(Dense, config.vocab_size, name="outer")
        ops.build_child(self.inner, (None, None, parts * size))
        ops.build_child(self.outer, (None, None, size))

    def call(self, s, context, previous):
        """[B, L, V] of three [B, L, H]; the last one counts with caa alone."""
        parts = [s, context, *([previous] if self.config.caa else [])]
        inner = ops.tanh(self.inner(ops.concatenate(parts, axis=-1)))
        logits = ops.cast(self.outer(inner), self.variable_dtype)
        return ops.softmax(logits, axis=-1)


@register
class Switch(Part):
    """p_a = sigmoid(v5^T c_a + v6^T s + v7^T y), without a bias, and 1 - p_a.

    1 - p_a is sigmoid of minus the logit: as a difference it would be rounded
    to 0, and a word that can but be copied would have no gradient any more.
    """

    def build(self, input_shape=None):
        config = self.config
        self.context = self.add_matrix("context", (config.hidden_size,))
        self.state = self.add_matrix("state", (config.hidden_size,))
        self.word = self.add_matrix("word", (config.embedding_size,))

    def call(self, contexts, s, y):
        """Both, [B, L, M], of c_a [B, L, M, H], s [B, L, H], y [B, L, D]."""
        logits = ops.einsum("blmh,h->blm", contexts, self.context)
        shared = ops.einsum("blh,h->bl", s, self.state)
        shared = shared + ops.einsum("bld,d->bl", y, self.word)
        logits = ops.cast(logits + shared[:, :, None], self.variable_dtype)
        return ops.sigmoid(logits), ops.sigmoid(-logits)


def mixture(p_voc, attention, write, copy, source_ids, extended_size: int):
    r"""P over the extended vocabulary, by the pointers of all agents.

    $$P(w) = \sum_a g_a [p_a P_{voc}(w) + (1 - p_a)
    \sum_{i: w_i = w} l_{a,i}]$$

    Args:
        p_voc: P_voc, [B, L, V].
        attention: l, [B, L, M, I].
        write: g_a p_a, [B, L, M].
        copy: g_a (1 - p_a), [B, L, M].
        source_ids: Ids of the document in the extended vocabulary, [B, M, I].
        extended_size: E, V or more.

    Returns:
        [B, L, E]; sums to 1 where its inputs do.
    """
    shape = ops.shape(attention)  # B, L, M, I
    written = ops.sum(write, axis=-1, keepdims=True) * p_voc
    extra = extended_size - p_voc.shape[-1]
    written = ops.pad(written, ((0, 0), (0, 0), (0, extra)))
    copied = copy[..., None] * attention
    copied = ops.reshape(copied, (-1, shape[1], shape[2] * shape[3]))
    copied = ops.reshape(
        ops.transpose(copied, (0, 2, 1)), (-1, shape[1])
    )  # [B M I, L]
    rows = ops.arange(shape[0]) * extended_size
    places = ops.reshape(
        ops.cast(source_ids, "int32") + ops.cast(rows, "int32")[:, None, None],
        (-1, 1),
    )
    total = (shape[0] * extended_size, shape[1])
    found = ops.scatter(places, copied, total)  # [B E, L]
    found = ops.reshape(found, (-1, extended_size, shape[1]))
    return written + ops.transpose(found, (0, 2, 1))
