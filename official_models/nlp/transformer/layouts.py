"""How a Transformer's variables are split over the devices of a mesh.

{regex of whole paths: what splits each axis}, for
`keras.distribution.LayoutMap`; what is not named is on every device. A matrix
whose result is split is followed by one that is split along its inputs, so that
a block of two sends one sum a pass.

Axes: V vocabulary, T tokens, H hidden, I intermediate.

References:
    Shoeybi et al. 2019 (arXiv:1909.08053), section 3
"""

MODEL = "model"
COLUMNS = {"kernel": (None, MODEL), "bias": (MODEL,)}  # a bias is as wide
ROWS = {"kernel": (MODEL, None)}


def dense(path: str, layout: dict) -> dict:
    """The layouts of a dense layer's variables.

    Args:
        path: regex of the layer's path, after any other layers.
        layout: `COLUMNS`, results are split; or `ROWS`, inputs are.
    """
    return {rf".*/{path}/{name}": axes for name, axes in layout.items()}


# What BERT and ALBERT call alike. Embeddings are split along H: a published
# vocabulary, of 30,522, has few divisors.
SHARED = {
    r".*/(word|position|token_type)_embeddings": (None, MODEL),  # [., H]
    **dense("self/(query|key|value)", COLUMNS),  # [H, H], by heads
    **dense(r"attention(_1)?/output/dense", ROWS),  # [H, H]
    **dense("intermediate/dense", COLUMNS),  # [H, I]
    **dense("pooler/dense", COLUMNS),  # [H, H]
    **dense("predictions/transform/dense", COLUMNS),  # [H, H]
    r".*/seq_relationship/output_weights": (None, MODEL),  # [2, H]
}
