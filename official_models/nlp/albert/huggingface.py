"""Names of the Keras ALBERT's variables in Hugging Face's state dictionaries.

They are those of `AlbertModel`, `AlbertForPreTraining`, `AlbertForMaskedLM`,
`AlbertForSequenceClassification` and `AlbertForQuestionAnswering`. The
functions of `official_models.nlp.bert.huggingface` take them.
"""

from official_models.nlp.bert.huggingface import HEADS, LEAVES, Naming

ALBERT = Naming(
    "albert.",
    (
        *HEADS,
        ("^bert/", "albert/"),
        (
            r"/transformer/group_(\d+)/inner_group_(\d+)/",
            r"/albert_layer_groups/\1/albert_layers/\2/",
        ),
        (r"(/albert_layers/\d+)/LayerNorm/", r"\1/attention/LayerNorm/"),
        ("/LayerNorm_1/", "/full_layer_layer_norm/"),
        ("/attention_1/self/", "/attention/"),
        ("/attention_1/output/dense/", "/attention/dense/"),
        ("/ffn_1/intermediate/dense/", "/ffn/"),
        ("/ffn_1/intermediate/output/dense/", "/ffn_output/"),
        ("/pooler/dense/", "/pooler/"),
        ("^cls/seq_relationship/", "sop_classifier/classifier/"),
        ("^cls/predictions/(transform/)?", "predictions/"),
        *LEAVES,
    ),
    {
        "predictions.decoder.weight": (
            "albert.embeddings.word_embeddings.weight"
        ),
        "predictions.decoder.bias": "predictions.bias",
    },
)
