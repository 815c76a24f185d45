"""The variables of models that people train with LAMB and LARS."""

from typing import List, Tuple

Shapes = List[Tuple[str, Tuple[int, ...]]]


def bert(
    layers: int = 12, width: int = 768, vocab: int = 30522, ff: int = 3072
) -> Shapes:
    """BERT for pretraining: pooler, masked words and next sentence included.

    The defaults are BERT-base: 206 variables, 110,106,428 parameters.

    Args:
      layers: of the encoder.
      width: hidden size.
      vocab: word pieces.
      ff: width of the feed-forward layers.

    Returns:
      (name, shape) of each variable, names as in google-research/bert.
    """
    found = []

    def dense(name, n_in, n_out):
        found.append((f"{name}/kernel", (n_in, n_out)))
        found.append((f"{name}/bias", (n_out,)))

    def layer_norm(name):
        found.append((f"{name}/LayerNorm/gamma", (width,)))
        found.append((f"{name}/LayerNorm/beta", (width,)))

    for name, rows in (
        ("word_embeddings", vocab),
        ("token_type_embeddings", 2),
        ("position_embeddings", 512),
    ):
        found.append((f"bert/embeddings/{name}", (rows, width)))
    layer_norm("bert/embeddings")
    for i in range(layers):
        layer = f"bert/encoder/layer_{i}"
        for name in ("query", "key", "value"):
            dense(f"{layer}/attention/self/{name}", width, width)
        dense(f"{layer}/attention/output/dense", width, width)
        layer_norm(f"{layer}/attention/output")
        dense(f"{layer}/intermediate/dense", width, ff)
        dense(f"{layer}/output/dense", ff, width)
        layer_norm(f"{layer}/output")
    dense("bert/pooler/dense", width, width)
    dense("cls/predictions/transform/dense", width, width)
    layer_norm("cls/predictions/transform")
    found.append(("cls/predictions/output_bias", (vocab,)))
    found.append(("cls/seq_relationship/output_weights", (2, width)))
    found.append(("cls/seq_relationship/output_bias", (2,)))
    return found
