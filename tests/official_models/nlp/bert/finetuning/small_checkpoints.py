"""Small models with random weights, in Hugging Face's layout."""

import numpy as np

from official_models.common import weights
from official_models.nlp.albert.config import AlbertConfig
from official_models.nlp.checkpoint import models
from official_models.nlp.checkpoint.export import export
from official_models.nlp.checkpoint.opening import open_source
from official_models.nlp.checkpoint.source import make
from official_models.nlp.checkpoint.tokenizer import TokenizerFiles
from tests.official_models.nlp.bert.finetuning import small_tasks
from tests.official_models.nlp.bert.small_bert import config_of

V = len(small_tasks.WORDS)


def bert_checkpoint(folder, head="encoder"):
    """A BERT whose vocabulary is that of `small_tasks`, of 24 positions."""
    return _write(folder, config_of(vocab_size=V), head)


def albert_checkpoint(folder):
    """An ALBERT likewise."""
    sizes = {
        "vocab_size": V,
        "embedding_size": 8,
        "hidden_size": 32,
        "num_layers": 2,
        "num_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": 24,
    }
    return _write(folder, AlbertConfig(**sizes), "encoder")


def _write(folder, config, head):
    model = models.make(config, head, num_labels=3, seed=3)
    vocab = small_tasks.write_vocab(folder.parent)
    files = TokenizerFiles({"vocab.txt": vocab})
    export(model, folder, "huggingface", files)
    return folder


def moved(checkpoint, folder):
    """Paths of variables that a run changed, of those that it was given."""
    model, _ = make(open_source(folder))
    before, _ = make(open_source(checkpoint))
    before = weights.by_path(before)
    return {
        path
        for path, variable in weights.by_path(model).items()
        if path in before
        and before[path].shape == variable.shape
        and np.abs(np.subtract(variable, before[path])).max() > 1e-5
    }
