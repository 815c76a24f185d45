"""The small BERT of the tests: the sizes of hf_fixture.npz."""

from official_models.nlp.bert.config import BertConfig

V = 60


def config_of(**changes) -> BertConfig:
    """A BERT of two layers without dropout, with `changes` on top."""
    sizes = {
        "vocab_size": V,
        "hidden_size": 32,
        "num_layers": 2,
        "num_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": 24,
        "hidden_dropout": 0.0,
        "attention_dropout": 0.0,
    }
    return BertConfig(**{**sizes, **changes})
