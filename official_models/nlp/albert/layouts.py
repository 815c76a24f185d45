"""How ALBERT's variables are split over a mesh: `transformer/layouts.py`."""

from official_models.nlp.transformer.layouts import (
    COLUMNS,
    ROWS,
    SHARED,
    dense,
)

LAYOUTS = {
    **SHARED,
    **dense("embedding_hidden_mapping_in", COLUMNS),  # [E, H]
    **dense("ffn_1/intermediate/output/dense", ROWS),  # [I, H]
}
