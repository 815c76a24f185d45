"""ALBERT: its parameters by the published formula, what is shared, saving."""

import re

import keras
import numpy as np
import pytest

from official_models.nlp.albert import model as albert
from official_models.nlp.albert.config import AlbertConfig
from official_models.nlp.transformer.losses import SparseCrossEntropy

CONFIG = dict(
    vocab_size=50,
    hidden_size=12,
    num_heads=3,
    intermediate_size=24,
    embedding_size=8,
    hidden_dropout=0.0,
    attention_dropout=0.0,
    max_position_embeddings=16,
)
B, T, P = 2, 7, 3
PLACE = "group_0/inner_group_0"


def small(num_layers=3, **changes):
    config = AlbertConfig(**{**CONFIG, **changes}, num_layers=num_layers)
    return albert.albert_pretrainer(config, seed=1)


def batch(seed=0):
    rng = np.random.default_rng(seed)
    x = {
        "input_ids": rng.integers(0, 50, (B, T)),
        "input_mask": np.ones((B, T)),
        "segment_ids": rng.integers(0, 2, (B, T)),
        "masked_lm_positions": rng.integers(0, T, (B, P)),
    }
    return {name: value.astype("int32") for name, value in x.items()}


@pytest.mark.parametrize(
    "size, published",
    [
        ("base", 11_683_584),
        ("large", 17_683_968),
        ("xlarge", 58_724_864),
        ("xxlarge", 222_595_584),
    ],
)
def test_parameters_of_the_encoder(size, published):
    """Lan et al. 2019, section 3.1: V E + E H and one layer's."""
    with keras.device("cpu"), _without_memory() as variables:
        layer = albert.Albert(AlbertConfig.of_size(size), name="bert")
        layer.build()
        count = sum(np.prod(v.shape, dtype="int64") for v in variables(layer))
    assert count == published


def _without_memory():
    """Variables that have a shape and no value."""
    from contextlib import contextmanager

    @contextmanager
    def scope():
        with keras.StatelessScope():
            yield lambda layer: layer.trainable_variables

    return scope()


def test_depth_costs_no_parameters_and_changes_the_result():
    shallow, deep = small(1), small(4)
    assert shallow.count_params() == deep.count_params()
    deep.set_weights(shallow.get_weights())
    one, four = (m(batch())["masked_lm"] for m in (shallow, deep))
    assert np.abs(one - four).max() > 1e-4


@pytest.mark.parametrize("groups, inner", [(3, 1), (2, 2), (1, 2)])
def test_groups_share_and_each_has_its_own(groups, inner):
    """Equal weights in all groups compute what one group does."""
    shared = small(3)
    model = small(3, num_hidden_groups=groups, inner_group_num=inner)
    own = [v for v in model.weights if "/inner_group_" in v.path]
    once = [v for v in shared.weights if "/inner_group_" in v.path]
    assert len(own) == groups * inner * len(once)
    values = {v.path: v for v in shared.weights}
    for variable in model.weights:
        path = re.sub(r"group_\d+/inner_group_\d+", PLACE, variable.path)
        variable.assign(values[path])
    deep = small(3 * inner)
    deep.set_weights(shared.get_weights())
    expected = deep(batch())["masked_lm"]
    np.testing.assert_allclose(model(batch())["masked_lm"], expected, atol=1e-5)
    # Application 2, the last one, uses the last group: its layers matter.
    last = own[-1]
    assert f"group_{groups - 1}/inner_group_{inner - 1}/" in last.path
    last.assign_add(np.ones(last.shape))
    assert np.abs(model(batch())["masked_lm"] - expected).max() > 1e-3


def test_a_shared_gradient_is_the_sum_over_the_layers_uses():
    """d/ds of the loss along a kernel, by differences."""
    model = small(3)
    labels = np.zeros((B, P), "int32")
    loss = SparseCrossEntropy()
    kernel = next(
        v
        for v in model.trainable_variables
        if v.path.endswith("ffn_1/intermediate/dense/kernel")
    )
    import tensorflow as tf

    with tf.GradientTape() as tape:
        value = loss(labels, model(batch())["masked_lm"])
    gradient = tape.gradient(value, kernel.value).numpy()
    direction = np.random.default_rng(1).normal(size=gradient.shape)
    before, step = kernel.numpy(), 1e-2

    def at(s):
        kernel.assign(before + s * direction)
        return float(loss(labels, model(batch())["masked_lm"]))

    slope = (at(step) - at(-step)) / (2 * step)
    np.testing.assert_allclose(
        slope, (gradient * direction).sum(), rtol=1e-2, atol=1e-6
    )


def test_embeddings_are_narrow_and_tied():
    model = small()
    shapes = {v.path: tuple(v.shape) for v in model.trainable_variables}
    assert shapes["bert/embeddings/word_embeddings"] == (50, 8)
    path = "bert/encoder/embedding_hidden_mapping_in/kernel"
    assert shapes[path] == (8, 12)
    assert shapes["cls/predictions/transform/dense/kernel"] == (12, 8)
    out = model(batch())
    assert out["masked_lm"].shape == (B, P, 50)
    assert out["sentence_order"].shape == (B, 2)


def test_saved_and_loaded(tmp_path):
    model = small()
    model.save(tmp_path / "albert.keras")
    again = keras.models.load_model(tmp_path / "albert.keras")
    for name, value in model(batch()).items():
        np.testing.assert_array_equal(again(batch())[name], value)


def test_an_unknown_size():
    with pytest.raises(ValueError, match="xxxl"):
        AlbertConfig.of_size("xxxl")
