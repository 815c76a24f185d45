"""The whole training steps of train_step.py: forward, backward, update of BERT.

`STEPS` has them by environment; nothing is imported before it is used. Each is
made of sizes and gives a function that makes one step on the same examples and
waits for its end.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

SEED, RATE, DECAY, VOCABULARY = 1, 1e-3, 0.01, 8192


class Sizes(NamedTuple):
    """Of a model, and of its batch.

    Attributes:
      model: one of `BertConfig.sizes`.
      batch: sequences.
      length: tokens of each, none of them padding.
      predictions: masked tokens of each.
    """

    model: str
    batch: int
    length: int
    predictions: int

    def config(self):
        """Ours, without dropout: frameworks draw their masks differently."""
        from official_models.nlp.bert.config import BertConfig

        return BertConfig.of_size(
            self.model,
            VOCABULARY,
            max_position_embeddings=self.length,
            hidden_dropout=0.0,
            attention_dropout=0.0,
        )

    def arrays(self) -> dict[str, np.ndarray]:
        """A batch of random tokens, int32, by our models' names."""
        rng = np.random.default_rng(SEED)
        shape = self.batch, self.length
        places = np.arange(0, self.length, self.length // self.predictions)
        chosen = np.tile(places[: self.predictions], (self.batch, 1))
        return {
            "input_ids": rng.integers(5, VOCABULARY, shape, "int32"),
            "input_mask": np.ones(shape, "int32"),
            "segment_ids": np.zeros(shape, "int32"),
            "masked_lm_positions": chosen.astype("int32"),
            "masked_lm": rng.integers(5, VOCABULARY, chosen.shape, "int32"),
            "next_sentence": rng.integers(0, 2, self.batch, "int32"),
        }


def matmul_flops(sizes: Sizes, predictions: int | None = None) -> float:
    """Operations of a step's matrix products: twice a product's, three times.

    Of a layer and token `2 (4 H^2 + 2 H I) + 4 T H`; of a predicted token
    `2 (H^2 + H V)`; the pooler and the pair's head are left out. Backward
    passes have two products for each one of the forward pass.

    Args:
      sizes: of model and batch.
      predictions: tokens of a sequence that get logits; None: the masked ones.
    """
    config = sizes.config()
    h, i = config.hidden_size, config.intermediate_size
    token = 2 * (4 * h * h + 2 * h * i) + 4 * sizes.length * h
    predicted = 2 * (h * h + h * config.vocab_size)
    each = config.num_layers * sizes.length * token
    each += (predictions or sizes.predictions) * predicted
    return 3.0 * sizes.batch * each


def _keras(optimizer, jit_compile):
    """A step as `fit` makes it, of this repository's model."""

    def make(sizes: Sizes) -> Callable[[], None]:
        import keras

        from official_models.nlp.bert import model as bert_model
        from official_models.nlp.bert.pretraining import losses

        keras.utils.set_random_seed(SEED)
        model = bert_model.bert_pretrainer(sizes.config(), seed=SEED)
        model.compile(
            optimizer(), losses.pretraining_losses(), jit_compile=jit_compile
        )
        x = sizes.arrays()
        y = {name: x.pop(name) for name in ("masked_lm", "next_sentence")}
        return lambda: model.train_on_batch(x, y)

    return make


def _lamb():
    import tf_lamb

    return tf_lamb.LAMB(
        RATE,
        weight_decay=DECAY,
        exclude_from_weight_decay=["LayerNorm", "bias"],
    )


def _adamw():
    import keras

    return keras.optimizers.AdamW(RATE, weight_decay=DECAY)


def _keras_lamb():
    import keras

    return keras.optimizers.Lamb(RATE, weight_decay=DECAY)


def _gradient(sizes: Sizes) -> Callable[[], None]:
    """Forward and backward of ours on TensorFlow, XLA, without an update."""
    import keras
    import tensorflow as tf

    from official_models.nlp.bert import model as bert_model
    from official_models.nlp.bert.pretraining import losses

    keras.utils.set_random_seed(SEED)
    model = bert_model.bert_pretrainer(sizes.config(), seed=SEED)
    model.compile(loss=losses.pretraining_losses())
    x = sizes.arrays()
    y = {name: x.pop(name) for name in ("masked_lm", "next_sentence")}

    @tf.function(jit_compile=True, autograph=False)
    def gradients(x, y):
        with tf.GradientTape() as tape:
            outputs = model(x, training=True)
            loss = model.compute_loss(x=x, y=y, y_pred=outputs)
        return tape.gradient(loss, model.trainable_variables)

    x, y = (
        {name: tf.constant(array) for name, array in part.items()}
        for part in (x, y)
    )
    return lambda: np.asarray(gradients(x, y)[-1])


def _hugging_face(optimizer, compiled=False, gathers=True):
    """transformers' BERT on torch, by a loop of torch's own kind."""

    def make(sizes: Sizes) -> Callable[[], None]:
        import torch
        import transformers

        torch.manual_seed(SEED)
        ours = sizes.config()
        config = transformers.BertConfig(
            vocab_size=ours.vocab_size,
            hidden_size=ours.hidden_size,
            num_hidden_layers=ours.num_layers,
            num_attention_heads=ours.num_heads,
            intermediate_size=ours.intermediate_size,
            max_position_embeddings=sizes.length,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )
        model = transformers.BertForPreTraining(config).train()
        made = optimizer(model.parameters())
        batch = {
            k: torch.as_tensor(v).long() for k, v in sizes.arrays().items()
        }
        rows = torch.arange(sizes.batch)[:, None]
        places = batch["masked_lm_positions"]
        every = torch.full_like(batch["input_ids"], -100)
        every[rows, places] = batch["masked_lm"]
        entropy = torch.nn.functional.cross_entropy

        def loss_of():
            tokens, pooled = model.bert(
                batch["input_ids"],
                batch["input_mask"],
                batch["segment_ids"],
                return_dict=False,
            )
            labels = every
            if gathers:
                tokens, labels = tokens[rows, places], batch["masked_lm"]
            words, pair = model.cls(tokens, pooled)
            loss = entropy(words.flatten(0, 1), labels.flatten())
            return loss + entropy(pair, batch["next_sentence"])

        if compiled:
            loss_of = torch.compile(loss_of)

        def step():
            loss = loss_of()
            loss.backward()
            made.step()
            made.zero_grad(set_to_none=True)
            return loss.item()

        return step

    return make


def _torch_adamw(parameters):
    import torch

    return torch.optim.AdamW(parameters, RATE, weight_decay=DECAY, fused=True)


def _timm_lamb(parameters):
    from benchmarks import optimizers

    # No global clip, as in the others.
    return optimizers.timm_lamb()(
        list(parameters), RATE, weight_decay=DECAY, max_grad_norm=None
    )


OURS = "tf_lamb.LAMB, XLA"
GRADIENT = "forward and backward alone, XLA"
ALL_LOGITS = "transformers as it is: logits of all tokens; AdamW fused, eager"
# {environment: {name: function of sizes}}
STEPS: dict[str, dict[str, Callable[[Sizes], Callable[[], None]]]] = {
    "tensorflow": {
        OURS: _keras(_lamb, True),
        "tf_lamb.LAMB, graph": _keras(_lamb, False),
        "keras AdamW, XLA": _keras(_adamw, True),
        "keras AdamW, graph": _keras(_adamw, False),
        "keras Lamb, XLA": _keras(_keras_lamb, True),
        GRADIENT: _gradient,
    },
    "jax": {
        "tf_lamb.LAMB, JAX": _keras(_lamb, True),
        "keras AdamW, JAX": _keras(_adamw, True),
    },
    "torch": {
        "tf_lamb.LAMB, torch": _keras(_lamb, False),
        "transformers, torch AdamW fused, eager": _hugging_face(_torch_adamw),
        "transformers, torch AdamW fused, compiled": _hugging_face(
            _torch_adamw, compiled=True
        ),
        "transformers, timm Lamb, eager": _hugging_face(_timm_lamb),
        ALL_LOGITS: _hugging_face(_torch_adamw, gathers=False),
    },
}
PEERS = [name for name in STEPS["torch"] if name.startswith("transformers, ")]
PEERS += ["keras AdamW, XLA", "keras AdamW, graph", "keras Lamb, XLA"]


def matmul_peak(size: int = 1024, seconds: float = 1.0) -> float:
    """Operations a second of TensorFlow's float32 product of squares.

    Args:
      size: rows and columns.
      seconds: how long it is tried; the best counts.
    """
    import time

    import tensorflow as tf

    a = tf.random.normal((size, size), seed=SEED)
    product = tf.function(lambda x: tf.matmul(x, x), autograph=False)
    product(a)
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        began = time.perf_counter()
        np.asarray(product(a)[0, 0])
        best = min(best, time.perf_counter() - began)
    return 2.0 * size**3 / best
