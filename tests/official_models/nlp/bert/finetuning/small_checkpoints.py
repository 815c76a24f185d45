"""Small models with random weights, in Hugging Face's layout."""

from official_models.nlp.albert.config import AlbertConfig
from official_models.nlp.checkpoint import models
from official_models.nlp.checkpoint.export import export
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
