"""ALBERT (Lan et al., 2019): BERT with one layer, applied again and again.

Axes: B batch, T tokens, E embedding, H hidden, V vocabulary, P predictions per
sequence.

Word, position and segment embeddings have E columns and are projected to H;
all Transformer layers share their weights, or those of a group do, or all
share one part of theirs. What is shared is one variable, named after the first
group. Variables carry the names of Google's published checkpoints, such as
`bert/encoder/transformer/group_0/inner_group_0/attention_1/self/query/kernel`,
and their shapes.

References:
    https://arxiv.org/abs/1909.11942, sections 3.1 and 3.2, table 1
    https://github.com/google-research/albert (`modeling.py`)
"""

import keras

from official_models.common import ops
from official_models.common.layer import registration
from official_models.nlp.albert.config import AlbertConfig
from official_models.nlp.bert.model import (
    Embeddings,
    MaskedLM,
    PretrainingHeads,
    encoder_model,
    pretraining_model,
)
from official_models.nlp.transformer.layers import (
    Dense,
    Encoder,
    LayerNorm,
    SelfAttention,
    TransformerPart,
    attention_bias,
    gelu,
)

register = registration("tf_lamb_models.albert")
# Part of a layer -> the sublayers that it is made of.
PARTS = {
    "attention": ("attention", "attention_output", "attention_norm"),
    "ffn": ("intermediate", "ffn_output", "ffn_norm"),
}


@register
class AlbertTransformerLayer(TransformerPart):
    """BERT's `TransformerLayer`, its variables named as in ALBERT's code."""

    def share(self, part: str, other: "AlbertTransformerLayer") -> None:
        """Takes a part of a layer that is built, before this one is."""
        for name in PARTS[part]:
            setattr(self, name, getattr(other, name))

    def build(self, input_shape=None):
        hidden = (None, None, self.config.hidden_size)
        inner = (None, None, self.config.intermediate_size)
        own = [part for part in PARTS if not hasattr(self, PARTS[part][0])]
        # In this order, which is that of the model's variables.
        if "attention" in own:
            self.attention = self.child(SelfAttention, name="self")
            self.attention_output = self.child(Dense, hidden[-1], name="dense")
        if "ffn" in own:
            self.ffn_output = self.child(Dense, hidden[-1], name="dense")
            self.intermediate = self.child(Dense, inner[-1], name="dense")
        if "attention" in own:
            self.attention_norm = self.child(LayerNorm, name="LayerNorm")
        if "ffn" in own:
            self.ffn_norm = self.child(LayerNorm, name="LayerNorm_1")
        self.attention_dropout, self.ffn_dropout = (
            self.add_dropout(self.config.hidden_dropout, name)
            for name in ("attention_dropout", "ffn_dropout")
        )
        if "attention" in own:
            self._build_attention(hidden)
        if "ffn" in own:
            self._build_ffn(hidden, inner)

    def _build_attention(self, hidden):
        with ops.name_scope("attention_1"):
            ops.build_child(self.attention, None)
            with ops.name_scope("output"):
                ops.build_child(self.attention_output, hidden)
        ops.build_child(self.attention_norm, None)

    def _build_ffn(self, hidden, inner):
        with ops.name_scope("ffn_1"), ops.name_scope("intermediate"):
            ops.build_child(self.intermediate, hidden)
            with ops.name_scope("output"):
                ops.build_child(self.ffn_output, inner)
        ops.build_child(self.ffn_norm, None)

    def call(self, x, bias, uniform=None, rows=None):
        context = self.attention(x, bias, uniform, rows=rows)
        return self.after_attention(context, x if rows is None else x[:, :rows])

    def after_attention(self, context, x):
        """As of BERT's `TransformerLayer`."""
        context = self.attention_output(context)
        x = self.attention_norm(x + self.attention_dropout(context))
        inner = gelu(self.intermediate(x), self.config.gelu)  # [B, R, I]
        return self.ffn_norm(x + self.ffn_dropout(self.ffn_output(inner)))


@register
class Albert(Encoder):
    """The encoder as one layer, named "bert" as in the published code.

    Call arguments and results are those of BERT's `Bert`, but the word
    embeddings are [V, E].
    """

    def build(self, input_shape=None):
        config = self.config
        self.embeddings = self.child(
            Embeddings, name="embeddings", config=config.narrow
        )
        self.projection = self.child(
            Dense, config.hidden_size, name="embedding_hidden_mapping_in"
        )
        self.groups = [
            self.child(AlbertTransformerLayer, name=f"inner_group_{i}")
            for _ in range(config.num_hidden_groups)
            for i in range(config.inner_group_num)
        ]  # flat: Keras tracks no list of lists
        self.pooler = self.child(Dense, config.hidden_size, name="dense")
        ops.build_child(self.embeddings, None)
        with ops.name_scope("encoder"):
            ops.build_child(
                self.projection, (None, None, config.embedding_size)
            )
            with ops.name_scope("transformer"):
                for i, layer in enumerate(self.groups):
                    group, inner = divmod(i, config.inner_group_num)
                    if group and config.shared_part in PARTS:
                        layer.share(config.shared_part, self.groups[inner])
                    with ops.name_scope(f"group_{group}"):
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
        inner, layers = self.config.inner_group_num, []
        for i in range(self.config.num_layers):
            first = self.config.group_of(i) * inner
            layers += self.groups[first : first + inner]
        return layers

    def embedded(self, input_ids, segment_ids):
        return self.projection(self.embeddings(input_ids, segment_ids))

    def compute_output_spec(self, input_ids, input_mask, segment_ids):
        batch, num_tokens = input_ids.shape
        config = self.config
        return tuple(
            keras.KerasTensor(shape, self.compute_dtype)
            for shape in (
                (batch, num_tokens, config.hidden_size),
                (batch, config.hidden_size),
                (config.vocab_size, config.embedding_size),
            )
        )


@register
class AlbertMaskedLM(MaskedLM):
    """BERT's, from hidden states H wide to word embeddings E wide."""

    @property
    def widths(self) -> tuple[int, int]:
        return self.config.hidden_size, self.config.embedding_size

    def child(self, cls, *args, **kwargs):
        # Its dense layer and its norm are E wide.
        return super().child(cls, *args, config=self.config.narrow, **kwargs)


@register
class AlbertHeads(PretrainingHeads):
    """Masked tokens and sentence order as one layer, named "cls".

    Sentence order has two logits: 0 as written, 1 swapped (section 3.1).
    """

    MASKED_LM = AlbertMaskedLM
    PAIR = "sentence_order"


def albert_encoder(
    config: AlbertConfig, *, seed: int = 0, dtype=None
) -> keras.Model:
    """The encoder with its pooler.

    Inputs, outputs and arguments are those of BERT's `bert_encoder`.
    """
    encoder = Albert(config, seed, name="bert", dtype=dtype)
    return encoder_model(encoder, "albert_encoder")


def pretrainer_layers(
    config: AlbertConfig, *, seed: int = 0, dtype=None
) -> tuple[Albert, AlbertHeads]:
    """The two layers of `albert_pretrainer`, "bert" and "cls".

    What they are for, and the arguments, are as in BERT's `pretrainer_layers`.
    """
    return (
        Albert(config, seed, name="bert", dtype=dtype),
        AlbertHeads(config, seed, name="cls", dtype=dtype),
    )


def albert_pretrainer(
    config: AlbertConfig, *, seed: int = 0, dtype=None
) -> keras.Model:
    """The encoder with the masked-token and sentence-order heads.

    Args:
        config: sizes and rates.
        seed: fixes the initial weights and the dropout masks.
        dtype: Keras dtype policy; None is the global one.

    Returns:
        A model from `input_ids`, `input_mask`, `segment_ids` [B, T] and
        `masked_lm_positions` [B, P], int32, to the logits `masked_lm`
        [B, P, V] and `sentence_order` [B, 2], float32.
    """
    albert, heads = pretrainer_layers(config, seed=seed, dtype=dtype)
    return pretraining_model(albert, heads, "albert_pretrainer")
