"""How BERT's variables are split over a mesh: `transformer/layouts.py`."""

from official_models.nlp.transformer.layouts import ROWS, SHARED, dense

LAYOUTS = {**SHARED, **dense(r"layer_\d+/output/dense", ROWS)}  # [I, H]
