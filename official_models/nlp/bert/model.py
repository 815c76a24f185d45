"""BERT (Devlin et al., 2018): the encoder, and its two pretraining heads.

Axes: B batch, T tokens, H hidden, V vocabulary, P masked-language-model
predictions per sequence.

Variables carry the names of Google's published checkpoints, such as
`bert/encoder/layer_0/attention/self/query/kernel`, and their shapes.

References:
    https://arxiv.org/abs/1810.04805
    https://github.com/google-research/bert (`modeling.py`,
    `run_pretraining.py`)
"""

import keras

from official_models.common import ops
from official_models.common.layer import functional, registration
from official_models.nlp.bert.config import BertConfig
from official_models.nlp.transformer.layers import (
    Dense,
    Encoder,
    LayerNorm,
    TransformerLayer,
    TransformerPart,
    attention_bias,
    gelu,
)

register = registration("tf_lamb_models.bert")


@register
class Embeddings(TransformerPart):
    """x = dropout(LN(word[id] + position[t] + token_type[segment]))."""

    def build(self, input_shape=None):
        config = self.config
        self.word_embeddings, self.position_embeddings, self.type_embeddings = (
            self.add_matrix(f"{name}_embeddings", (rows, config.hidden_size))
            for name, rows in (
                ("word", config.vocab_size),
                ("position", config.max_position_embeddings),
                ("token_type", config.type_vocab_size),
            )
        )
        self.norm = self.child(LayerNorm, name="LayerNorm")
        ops.build_child(self.norm, None)
        self.dropout = self.add_dropout(config.hidden_dropout)

    def call(self, input_ids, segment_ids):
        num_tokens = ops.shape(input_ids)[1]
        longest = self.config.max_position_embeddings
        if (input_ids.shape[1] or 0) > longest:
            raise ValueError(
                f"input_ids: got {num_tokens} tokens, expected at most "
                f"max_position_embeddings = {longest}"
            )
        x = ops.take(self.word_embeddings, input_ids, axis=0)  # [B, T, H]
        x = x + self.position_embeddings[:num_tokens]
        x = x + ops.take(self.type_embeddings, segment_ids, axis=0)
        return self.dropout(self.norm(x))


@register
class Bert(Encoder):
    """The encoder as one layer, named "bert".

    Call arguments are `input_ids`, `input_mask` (1 = real token, 0 = padding)
    and `segment_ids`, each [B, T] int32. It returns the hidden states
    [B, T, H], the pooled first token tanh(h_CLS W + b) [B, H], and the word
    embeddings [V, H] for heads that tie their output matrix to them.
    """

    def build(self, input_shape=None):
        config = self.config
        self.embeddings = self.child(Embeddings, name="embeddings")
        self.encoder = [
            self.child(TransformerLayer, name=f"layer_{i}")
            for i in range(config.num_layers)
        ]
        self.pooler = self.child(Dense, config.hidden_size, name="dense")
        ops.build_child(self.embeddings, None)
        with ops.name_scope("encoder"):
            for layer in self.encoder:
                ops.build_child(layer, None)
        with ops.name_scope("pooler"):
            ops.build_child(self.pooler, (None, config.hidden_size))

    def call(self, input_ids, input_mask, segment_ids):
        bias = attention_bias(input_mask, self.compute_dtype)
        x = self.apply_layers(self.embedded(input_ids, segment_ids), bias)
        words = ops.convert_to_tensor(self.embeddings.word_embeddings)
        return x, self.pooled(x), ops.cast(words, self.compute_dtype)

    @property
    def applied(self) -> list:
        return list(self.encoder)

    def embedded(self, input_ids, segment_ids):
        return self.embeddings(input_ids, segment_ids)

    def compute_output_spec(self, input_ids, input_mask, segment_ids):
        batch, num_tokens = input_ids.shape
        vocab, size = self.config.vocab_size, self.config.hidden_size
        return tuple(
            keras.KerasTensor(shape, self.compute_dtype)
            for shape in (
                (batch, num_tokens, size),
                (batch, size),
                (vocab, size),
            )
        )


@register
class MaskedLM(TransformerPart):
    """Logits LN(gelu(h W + b)) E^T + output_bias of the masked tokens.

    h [B, P, H] are the hidden states at the predicted positions and E [V, H]
    the word embeddings.
    """

    @property
    def widths(self) -> tuple[int, int]:
        """Of the hidden states and of the word embeddings."""
        return self.config.hidden_size, self.config.hidden_size

    def build(self, input_shape=None):
        hidden, size = self.widths
        self.output_bias = self.add_bias("output_bias", self.config.vocab_size)
        self.transform = self.child(Dense, size, name="dense")
        self.norm = self.child(LayerNorm, name="LayerNorm")
        with ops.name_scope("transform"):
            ops.build_child(self.transform, (None, hidden))
            ops.build_child(self.norm, None)

    def call(self, sequence, positions, words):
        one_hot = ops.one_hot(
            positions, ops.shape(sequence)[1], dtype=self.compute_dtype
        )  # [B, P, T]
        x = ops.matmul(one_hot, sequence)  # [B, P, H]
        # Flat, since XLA on CPU is slow to sum [B, P, V] over two axes.
        x = ops.reshape(x, (-1, self.widths[0]))  # [B P, H]
        x = self.norm(gelu(self.transform(x), self.config.gelu))
        logits = ops.matmul(x, ops.transpose(words))  # [B P, V]
        logits = ops.cast(logits, self.variable_dtype)
        logits = ops.add(logits, self.output_bias)
        num_predictions = ops.shape(positions)[1]
        return ops.reshape(
            logits, (-1, num_predictions, self.config.vocab_size)
        )  # [B, P, V]


@register
class NextSentence(TransformerPart):
    """Logits pooled W^T + b that the second segment is 0 next or 1 random."""

    def build(self, input_shape=None):
        self.output_weights = self.add_matrix(
            "output_weights", (2, self.config.hidden_size)
        )
        self.output_bias = self.add_bias("output_bias", 2)

    def call(self, pooled):
        logits = ops.matmul(pooled, ops.transpose(self.output_weights))
        logits = ops.cast(logits, self.variable_dtype)
        return ops.add(logits, self.output_bias)


@register
class PretrainingHeads(TransformerPart):
    """Both heads as one layer, named "cls".

    Attributes:
        MASKED_LM: class of the head of the masked tokens.
        PAIR: what the head of the sentence pair says, the name of its output.
    """

    MASKED_LM = MaskedLM
    PAIR = "next_sentence"

    def build(self, input_shape=None):
        self.masked_lm = self.child(self.MASKED_LM, name="predictions")
        pair = self.child(NextSentence, name="seq_relationship")
        setattr(self, self.PAIR, pair)
        ops.build_child(self.masked_lm, None)
        ops.build_child(pair, None)

    def call(self, sequence, pooled, words, positions):
        return {
            "masked_lm": self.masked_lm(sequence, positions, words),
            self.PAIR: getattr(self, self.PAIR)(pooled),
        }

    def compute_output_spec(self, sequence, pooled, words, positions):
        predicted = (*positions.shape, self.config.vocab_size)  # [B, P, V]
        return {
            "masked_lm": keras.KerasTensor(predicted, self.variable_dtype),
            self.PAIR: keras.KerasTensor(
                (pooled.shape[0], 2), self.variable_dtype
            ),
        }


def id_inputs(*names: str) -> dict:
    """Symbolic int32 inputs [B, None] by name."""
    return {
        name: keras.Input((None,), dtype="int32", name=name) for name in names
    }


def bert_encoder(
    config: BertConfig, *, seed: int = 0, dtype=None
) -> keras.Model:
    """The encoder with its pooler.

    Args:
        config: sizes and rates.
        seed: fixes the initial weights and the dropout masks.
        dtype: Keras dtype policy; None is the global one.

    Returns:
        A model from `input_ids`, `input_mask`, `segment_ids`, each [B, T]
        int32, to `sequence_output` [B, T, H] and `pooled_output` [B, H].
    """
    bert = Bert(config, seed, name="bert", dtype=dtype)
    return encoder_model(bert, "bert_encoder")


def encoder_model(encoder: TransformerPart, name: str) -> keras.Model:
    """An encoder alone, as `bert_encoder` describes it."""
    inputs = id_inputs("input_ids", "input_mask", "segment_ids")
    sequence, pooled, _ = encoder(**inputs)
    return functional(
        inputs,
        {"sequence_output": sequence, "pooled_output": pooled},
        name=name,
        dtype_policy=encoder.dtype_policy,
    )


def pretraining_model(
    encoder: TransformerPart, heads: PretrainingHeads, name: str
) -> keras.Model:
    """An encoder with pretraining heads, as `bert_pretrainer` describes it."""
    inputs = id_inputs("input_ids", "input_mask", "segment_ids")
    positions = id_inputs("masked_lm_positions")
    return functional(
        {**inputs, **positions},
        heads(*encoder(**inputs), positions["masked_lm_positions"]),
        name=name,
        dtype_policy=encoder.dtype_policy,
    )


def pretrainer_layers(
    config: BertConfig, *, seed: int = 0, dtype=None
) -> tuple[Bert, PretrainingHeads]:
    """The two layers of `bert_pretrainer`, "bert" and "cls".

    A TPUEstimator's `model_fn` calls them on its own tensors, because a TPU
    knows no placeholders, which a `keras.Model` makes there.

    Args:
        config: sizes and rates.
        seed: fixes the initial weights and the dropout masks.
        dtype: Keras dtype policy; None is the global one.
    """
    return (
        Bert(config, seed, name="bert", dtype=dtype),
        PretrainingHeads(config, seed, name="cls", dtype=dtype),
    )


def bert_pretrainer(
    config: BertConfig, *, seed: int = 0, dtype=None
) -> keras.Model:
    """The encoder with the masked-token and next-sentence heads.

    Args:
        config: sizes and rates.
        seed: fixes the initial weights and the dropout masks.
        dtype: Keras dtype policy; None is the global one.

    Returns:
        A model from `input_ids`, `input_mask`, `segment_ids` [B, T] and
        `masked_lm_positions` [B, P], int32, to the logits `masked_lm`
        [B, P, V] and `next_sentence` [B, 2], float32.
    """
    bert, heads = pretrainer_layers(config, seed=seed, dtype=dtype)
    return pretraining_model(bert, heads, "bert_pretrainer")
