"""Small models whose attention is not uniform, and inputs of five lengths."""

import numpy as np

from official_models.nlp.albert.config import AlbertConfig
from tests.official_models.nlp.bert.finetuning import small_tasks
from tests.official_models.nlp.bert.small_bert import config_of

V = len(small_tasks.WORDS)
BERT = config_of(vocab_size=V, initializer_range=0.5)
ALBERT = AlbertConfig(
    vocab_size=V,
    embedding_size=8,
    hidden_size=32,
    num_layers=2,
    num_heads=2,
    intermediate_size=64,
    max_position_embeddings=24,
    initializer_range=0.5,
)
T, LENGTHS = 20, np.array([20, 3, 9, 20, 4])


def inputs(lengths=LENGTHS, vocab_size=V):
    """Random tokens, int32 [N, longest of the N lengths]."""
    rng = np.random.default_rng(0)
    mask = (np.arange(lengths.max()) < lengths[:, None]).astype("int32")
    ids = rng.integers(5, vocab_size, mask.shape, "int32") * mask
    return {"input_ids": ids, "input_mask": mask, "segment_ids": 0 * mask}
