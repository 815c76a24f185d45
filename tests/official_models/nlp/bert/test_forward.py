"""BERT against plain NumPy, under every Keras there is.

It needs nothing that Keras 2 or the JAX backend lacks.
"""

import math
import zlib

import numpy as np
import pytest

from official_models.nlp.bert import model as bert
from tests.official_models.nlp.bert.small_bert import V, config_of

B, T, P = 3, 10, 4
H, N = 32, 2


def path_of(variable) -> str:
    return getattr(variable, "path", variable.name).split(":")[0]


def randomise(variables) -> dict[str, np.ndarray]:
    """Gives each variable values of its path, the same under every Keras."""
    values = {}
    for variable in variables:
        path = path_of(variable)
        if "seed_generator" in path:
            continue
        rng = np.random.default_rng(zlib.crc32(path.encode()))
        value = 0.3 * rng.normal(size=tuple(variable.shape))
        if path.endswith("gamma"):
            value = np.exp(value)
        variable.assign(value.astype("float32"))
        values[path] = value.astype("float32").astype("float64")
    return values


def features() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    lengths = np.array([[T], [6], [3]])
    return {
        "input_ids": rng.integers(0, V, (B, T)).astype("int32"),
        "input_mask": (np.arange(T) < lengths).astype("int32"),
        "segment_ids": (np.arange(T) >= lengths // 2).astype("int32"),
        "masked_lm_positions": rng.integers(0, 3, (B, P)).astype("int32"),
    }


def gelu(x, kind):
    if kind == "erf":
        return x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))) / 2
    return x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2


def dense(v, path, x):
    return x @ v[f"{path}/kernel"] + v[f"{path}/bias"]


def norm(v, path, x):
    path = f"{path}/LayerNorm"
    x = (x - x.mean(-1, keepdims=True)) / x.std(-1, keepdims=True)
    return x * v[f"{path}/gamma"] + v[f"{path}/beta"]


def softmax(x):
    x = np.exp(x - x.max(-1, keepdims=True))
    return x / x.sum(-1, keepdims=True)


def heads(x):
    return x.reshape(B, T, N, H // N).transpose(0, 2, 1, 3)


def transformer_layer(v, path, x, mask, kind):
    self = f"{path}/attention/self"
    q, k, u = (
        heads(dense(v, f"{self}/{n}", x)) for n in ("query", "key", "value")
    )
    logits = q @ k.swapaxes(2, 3) / math.sqrt(H // N)
    logits = np.where(mask[:, None, None, :] == 1, logits, -np.inf)
    context = softmax(logits) @ u
    context = context.transpose(0, 2, 1, 3).reshape(B, T, H)
    output = f"{path}/attention/output"
    x = norm(v, output, x + dense(v, f"{output}/dense", context))
    inner = gelu(dense(v, f"{path}/intermediate/dense", x), kind)
    output = f"{path}/output"
    return norm(v, output, x + dense(v, f"{output}/dense", inner))


def forward(v, f, kind) -> dict[str, np.ndarray]:
    """Logits of the published model, in float64."""
    path = "bert/embeddings"
    words = v[f"{path}/word_embeddings"]
    x = words[f["input_ids"]] + v[f"{path}/position_embeddings"][:T]
    x = x + v[f"{path}/token_type_embeddings"][f["segment_ids"]]
    x = norm(v, path, x)
    for i in range(2):
        path = f"bert/encoder/layer_{i}"
        x = transformer_layer(v, path, x, f["input_mask"], kind)
    pooled = np.tanh(dense(v, "bert/pooler/dense", x[:, 0]))
    x = x[np.arange(B)[:, None], f["masked_lm_positions"]]
    path = "cls/predictions/transform"
    x = norm(v, path, gelu(dense(v, f"{path}/dense", x), kind))
    weights = v["cls/seq_relationship/output_weights"]
    return {
        "masked_lm": x @ words.T + v["cls/predictions/output_bias"],
        "next_sentence": pooled @ weights.T
        + v["cls/seq_relationship/output_bias"],
    }


@pytest.mark.parametrize("kind", ["tanh", "erf"])
def test_logits_against_numpy(kind):
    model = bert.bert_pretrainer(config_of(gelu=kind))
    expected = forward(randomise(model.variables), features(), kind)
    actual = model(features())
    for name, logits in expected.items():
        assert np.abs(logits).max() > 1
        np.testing.assert_allclose(
            np.asarray(actual[name]), logits, rtol=1e-5, atol=1e-5
        )


def test_dropout_is_there_in_training_only():
    model = bert.bert_pretrainer(config_of(hidden_dropout=0.5))
    randomise(model.variables)
    first, again, trained = (
        np.asarray(model(features(), training=training)["masked_lm"])
        for training in (False, False, True)
    )
    np.testing.assert_array_equal(first, again)
    assert np.abs(trained - first).max() > 0.1


def test_bfloat16_leaves_variables_and_logits_in_float32():
    model = bert.bert_pretrainer(config_of(), dtype="mixed_bfloat16")
    expected = forward(randomise(model.variables), features(), "tanh")
    for variable in model.trainable_variables:
        assert "bfloat16" not in str(variable.dtype)
    actual = model(features())
    for name, logits in expected.items():
        assert "float32" in str(actual[name].dtype)
        error = np.abs(np.asarray(actual[name]) - logits).max()
        # bfloat16 has 8 bits.
        assert 2e-5 < error / np.abs(logits).max() < 0.1


def test_the_variables_are_those_of_published_checkpoints():
    model = bert.bert_pretrainer(config_of())
    paths = {path_of(v) for v in model.trainable_variables}
    assert len(paths) == len(model.trainable_variables)
    layer = {
        f"{part}/{name}"
        for part, names in {
            "attention/self/query": ("kernel", "bias"),
            "attention/self/key": ("kernel", "bias"),
            "attention/self/value": ("kernel", "bias"),
            "attention/output/dense": ("kernel", "bias"),
            "attention/output/LayerNorm": ("gamma", "beta"),
            "intermediate/dense": ("kernel", "bias"),
            "output/dense": ("kernel", "bias"),
            "output/LayerNorm": ("gamma", "beta"),
        }.items()
        for name in names
    }
    assert paths == {
        "bert/embeddings/word_embeddings",
        "bert/embeddings/position_embeddings",
        "bert/embeddings/token_type_embeddings",
        "bert/embeddings/LayerNorm/gamma",
        "bert/embeddings/LayerNorm/beta",
        *(f"bert/encoder/layer_{i}/{name}" for i in (0, 1) for name in layer),
        "bert/pooler/dense/kernel",
        "bert/pooler/dense/bias",
        "cls/predictions/transform/dense/kernel",
        "cls/predictions/transform/dense/bias",
        "cls/predictions/transform/LayerNorm/gamma",
        "cls/predictions/transform/LayerNorm/beta",
        "cls/predictions/output_bias",
        "cls/seq_relationship/output_weights",
        "cls/seq_relationship/output_bias",
    }
