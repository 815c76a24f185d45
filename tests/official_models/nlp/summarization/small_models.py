"""Small models that summarize, and documents for them."""

import numpy as np

from official_models.nlp.bert.config import BertConfig
from official_models.nlp.checkpoint import models
from official_models.nlp.summarization import (
    inputs,
)
from official_models.nlp.summarization.config import SummarizerConfig
from official_models.nlp.summarization.model import bertsum_abs, bertsum_ext

V, H = 24, 16
MARKS = inputs.Marks(1, 2, 3)
ENCODER = {
    "vocab_size": V,
    "hidden_size": H,
    "num_layers": 1,
    "num_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 32,
    "initializer_range": 0.3,
}


def small(kind, config=None, **changes):
    """A model with weights large enough that its outputs differ."""
    config = config or BertConfig(**ENCODER)
    encoder = models.encoder_of(models.make(config, "encoder", seed=1))
    head = SummarizerConfig(
        H,
        vocab_size=V if kind is bertsum_abs else 1,
        num_heads=2,
        intermediate_size=16,
        max_positions=32,
        num_layers=2 if kind is bertsum_ext else 1,
        **{"initializer_range": 0.4, **changes},
    )
    return kind(encoder, head, seed=2)


def documents(lengths, clss=((0, 3),), seed=0):
    """Random documents of some lengths, padded."""
    rng = np.random.default_rng(seed)
    longest = max(lengths)
    ids = rng.integers(4, V, (len(lengths), longest)).astype("int32")
    mask = (np.arange(longest) < np.array(lengths)[:, None]).astype("int32")
    clss = np.array([clss[i % len(clss)] for i in range(len(lengths))], "int32")
    return {
        "input_ids": ids * mask,
        "input_mask": mask,
        "segment_ids": np.zeros_like(ids),
        "clss": clss,
        "sentence_mask": np.ones_like(clss),
    }
