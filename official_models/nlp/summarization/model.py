"""BertSumExt and BertSumAbs on an encoder of ours.

Axes: B batch, T tokens of the document, S its sentences, L tokens of the
summary, H hidden, V vocabulary, N heads, D = H / N.

References:
    Liu, Lapata 2019 (arXiv:1908.08345), and its code
"""

from __future__ import annotations

import keras

from official_models.common import ops
from official_models.common.layer import functional, registration
from official_models.nlp.bert.model import id_inputs
from official_models.nlp.summarization.config import SummarizerConfig
from official_models.nlp.summarization.layers import (
    DecoderLayer,
    SentenceLayer,
    sinusoid,
)
from official_models.nlp.transformer.layers import (
    MASKED_LOGIT,
    Dense,
    Encoder,
    LayerNorm,
    TransformerPart,
    attention_bias,
)

register = registration("tf_lamb_models.summarization")
DOCUMENT = ("input_ids", "input_mask", "segment_ids")
SENTENCES = ("clss", "sentence_mask")
TARGET = "target_ids"
EXTRACTIVE, DECODER = "ext", "decoder"


@register
class ExtractiveHead(TransformerPart):
    """A logit for each sentence, from the states of its [CLS].

    Sinusoidal positions of the sentences are added, without a factor. The
    layers are those of the published code: LN before each block, but none
    before the attention of layer 0, and a LN at the end. (The paper's
    equations 3 and 4 have the LN after each block.)
    """

    def build(self, input_shape=None):
        config = self.config
        self.layers = [
            self.child(SentenceLayer, name=f"layer_{i}", norm_first=i > 0)
            for i in range(config.num_layers)
        ]
        self.norm = self.child(LayerNorm, name="LayerNorm")
        self.score = self.child(Dense, 1, name="score")
        for layer in (*self.layers, self.norm):
            ops.build_child(layer, None)
        ops.build_child(self.score, (None, None, config.hidden_size))
        self._positions = sinusoid(config.max_positions, config.hidden_size)

    def call(self, sequence, clss, sentence_mask):
        """Logits [B, S] of [B, T, H], [B, S] and [B, S]."""
        one_hot = ops.one_hot(
            clss, ops.shape(sequence)[1], dtype=self.compute_dtype
        )  # [B, S, T]
        x = ops.matmul(one_hot, sequence)  # [B, S, H]
        mask = ops.cast(sentence_mask, self.compute_dtype)
        positions = ops.convert_to_tensor(self._positions, self.compute_dtype)
        x = x * mask[:, :, None] + positions[: ops.shape(clss)[1]]
        bias = attention_bias(sentence_mask, self.compute_dtype)
        for layer in self.layers:
            x = layer(x, bias)
        logits = self.score(self.norm(x))[:, :, 0]
        return ops.cast(logits, self.variable_dtype)

    def compute_output_spec(self, sequence, clss, sentence_mask):
        return keras.KerasTensor(clss.shape, self.variable_dtype)


@register
class Decoder(TransformerPart):
    """Logits of each next token of a summary.

    x = dropout(E[id] sqrt(H) + sinusoid), pre-LN layers, a LN, and logits
    x E^T + b: the generator is tied to the embedding E [V, H]. (The bias b is
    a choice of ours.)
    """

    def build(self, input_shape=None):
        config = self.config
        size = config.hidden_size
        self.word_embeddings = self.add_matrix(
            "word_embeddings", (config.vocab_size, size)
        )
        self.output_bias = self.add_bias("output_bias", config.vocab_size)
        self.layers = [
            self.child(DecoderLayer, name=f"layer_{i}")
            for i in range(config.num_layers)
        ]
        self.norm = self.child(LayerNorm, name="LayerNorm")
        for layer in (*self.layers, self.norm):
            ops.build_child(layer, None)
        self.dropout = self.add_dropout(config.hidden_dropout)
        self._positions = sinusoid(config.max_positions, size)

    def call(self, target_ids, sequence, input_mask):
        """Logits [B, L, V] of [B, L], [B, T, H] and [B, T]."""
        memory = self.memory(sequence)
        return self.advance(target_ids, None, memory, input_mask, 0)[0]

    def memory(self, sequence):
        """Keys and values of the document in each layer, [B, T, N, D]."""
        return [layer.cross.keys_values(sequence) for layer in self.layers]

    def advance(
        self, target_ids, before, memory, input_mask, first, last=False
    ):
        """Logits after some tokens, given what is known of those before.

        Args:
            target_ids: [B, L].
            before: Keys and values of the first tokens in each layer, as this
                method returned them; None for no token.
            memory: Of `memory`.
            input_mask: 1 for a token of the document, 0 for padding, [B, T].
            first: Position of the first of `target_ids`, from 0.
            last: Whether only the logits after the last token are wanted.

        Returns:
            Logits [B, L, V] (if `last`, [B, 1, V]), and the keys and values of
            all tokens so far.
        """
        length = ops.shape(target_ids)[1]
        words = ops.cast(
            ops.convert_to_tensor(self.word_embeddings), self.compute_dtype
        )
        x = ops.take(words, target_ids, axis=0) * self.config.hidden_size**0.5
        positions = ops.convert_to_tensor(self._positions, self.compute_dtype)
        places = first + ops.arange(length)
        x = self.dropout(x + ops.take(positions, places, axis=0))
        keys = ops.arange(first + length)
        hidden = ops.cast(keys[None, :] > places[:, None], self.compute_dtype)
        bias = (hidden * MASKED_LOGIT)[None, None]  # [1, 1, L, first + L]
        memory_bias = attention_bias(input_mask, self.compute_dtype)
        after = []
        for i, layer in enumerate(self.layers):
            known = None if before is None else before[i]
            x, state = layer(x, known, memory[i], bias, memory_bias)
            after.append(state)
        x = self.norm(x[:, -1:] if last else x)
        logits = ops.matmul(x, ops.transpose(words))
        logits = ops.cast(logits, self.variable_dtype)
        return ops.add(logits, self.output_bias), after

    def compute_output_spec(self, target_ids, sequence, input_mask):
        shape = (*target_ids.shape, self.config.vocab_size)
        return keras.KerasTensor(shape, self.variable_dtype)


def bertsum_ext(
    encoder: Encoder, config: SummarizerConfig, *, seed: int = 0, dtype=None
) -> keras.Model:
    """BertSumExt.

    Args:
        encoder: A BERT or an ALBERT, the layer "bert".
        config: Of the head.
        seed: Fixes its initial weights and dropout masks.
        dtype: Keras dtype policy; None is the global one.

    Returns:
        A model from `input_ids`, `input_mask`, `segment_ids` [B, T], `clss`
        (positions of the [CLS] of sentences) and `sentence_mask` [B, S],
        int32, to logits [B, S], float32.
    """
    inputs = id_inputs(*DOCUMENT, *SENTENCES)
    head = ExtractiveHead(config, seed, name=EXTRACTIVE, dtype=dtype)
    sequence, _, _ = encoder(**{name: inputs[name] for name in DOCUMENT})
    logits = head(sequence, *(inputs[name] for name in SENTENCES))
    return functional(
        inputs, logits, name="bertsum_ext", dtype_policy=head.dtype_policy
    )


def bertsum_abs(
    encoder: Encoder, config: SummarizerConfig, *, seed: int = 0, dtype=None
) -> keras.Model:
    """BertSumAbs, and BertSumExtAbs, which begins with an Ext's encoder.

    Args:
        encoder: A BERT or an ALBERT, the layer "bert".
        config: Of the decoder.
        seed: Fixes its initial weights and dropout masks.
        dtype: Keras dtype policy; None is the global one.

    Returns:
        A model from `input_ids`, `input_mask`, `segment_ids` [B, T] and
        `target_ids` [B, L], int32, to logits of the token after each,
        [B, L, V], float32.
    """
    inputs = id_inputs(*DOCUMENT, TARGET)
    decoder = Decoder(config, seed, name=DECODER, dtype=dtype)
    sequence, _, _ = encoder(**{name: inputs[name] for name in DOCUMENT})
    logits = decoder(inputs[TARGET], sequence, inputs["input_mask"])
    return functional(
        inputs, logits, name="bertsum_abs", dtype_policy=decoder.dtype_policy
    )
