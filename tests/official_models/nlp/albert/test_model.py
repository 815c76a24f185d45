"""ALBERT: its parameters by the published formula, what is shared, saving."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_lamb
from official_models.nlp.albert import model as albert
from official_models.nlp.albert.config import SHARING, AlbertConfig, sharing
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


def shared(mode, num_layers=3):
    return small(num_layers, **sharing(mode, num_layers))


def expanded(model, num_layers=3):
    """Its clone that shares nothing; {path of the clone: path of its own}."""
    clone = shared("none", num_layers)
    values = {v.path: v for v in model.trainable_variables}
    origin = {}
    for variable in clone.trainable_variables:
        path = variable.path
        if path not in values:
            path = re.sub(r"group_\d+/", "group_0/", path)
        origin[variable.path] = path
        variable.assign(values[path])
    return clone, origin


def gradients(model):
    """{path: gradient} of a loss of both heads, weights that are not 0."""
    x, rng = batch(), np.random.default_rng(5)
    with tf.GradientTape() as tape:
        outputs = model(x)
        value = sum(
            tf.reduce_sum(out * rng.normal(size=out.shape).astype("float32"))
            for _, out in sorted(outputs.items())
        )
    variables = model.trainable_variables
    found = tape.gradient(value, [v.value for v in variables])
    return {
        v.path: tf.convert_to_tensor(g).numpy()
        for v, g in zip(variables, found)
    }


# Parameters: of the rest, of a layer's attention, of its feed-forward block.
@pytest.mark.parametrize(
    "mode, attention, ffn",
    [("all", 1, 1), ("attention", 1, 4), ("ffn", 4, 1), ("none", 4, 4)],
)
def test_parameters_of_each_way_of_sharing(mode, attention, ffn):
    v, h, i, e, t = 50, 12, 24, 8, 16
    rest = (v + t + 2 + 2) * e + (e * h + h) + (h * h + h)
    heads = (h * e + e) + 2 * e + v + (2 * h + 2)
    each = (4 * (h * h + h) + 2 * h) * attention
    each += ((h * i + i) + (i * h + h) + 2 * h) * ffn
    model = shared(mode, 4)
    assert model.count_params() == rest + heads + each
    paths = [v.path for v in model.trainable_variables]
    assert len(set(paths)) == len(paths) == len(model.weights)


@pytest.mark.parametrize("mode", SHARING)
def test_what_is_shared_computes_as_its_clones_do(mode):
    """The same results; the gradient is the sum of the clones' gradients."""
    model = shared(mode)
    rng = np.random.default_rng(3)
    for variable in model.trainable_variables:
        centre = float(variable.path.endswith("gamma"))
        variable.assign(rng.normal(centre, 0.2, variable.shape))
    clone, origin = expanded(model)
    for name, value in model(batch()).items():
        np.testing.assert_allclose(clone(batch())[name], value, atol=1e-5)
    sums = dict.fromkeys(origin.values(), 0.0)
    for path, gradient in gradients(clone).items():
        sums[origin[path]] = sums[origin[path]] + gradient
    own = gradients(model)
    assert own.keys() == sums.keys()
    for path, gradient in own.items():
        np.testing.assert_allclose(
            gradient, sums[path], rtol=1e-3, atol=1e-4, err_msg=path
        )


@pytest.mark.parametrize("mode", ["attention", "ffn"])
def test_lamb_has_one_trust_ratio_of_a_shared_tensor(mode):
    """That of the summed gradient, not those of the clones."""
    model = shared(mode)
    part = {"attention": "attention_1/self/query", "ffn": "intermediate/dense"}
    (path,) = (
        v.path
        for v in model.trainable_variables
        if v.path.endswith(f"{part[mode]}/kernel")
    )
    own = gradients(model)
    variables = {v.path: v for v in model.trainable_variables}
    before = variables[path].numpy()
    optimizer = tf_lamb.LAMB(0.01, weight_decay=0.1)
    optimizer.apply([own[p] for p in variables], list(variables.values()))
    assert set(optimizer.trust_ratios) == set(variables)
    alone = keras.Variable(before, name="alone")
    of_one = tf_lamb.LAMB(0.01, weight_decay=0.1)
    of_one.apply([own[path]], [alone])
    np.testing.assert_allclose(variables[path], alone, rtol=1e-6)
    (ratio,) = of_one.trust_ratios.values()
    assert optimizer.trust_ratios[path] == pytest.approx(ratio, rel=1e-6)


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


@pytest.mark.parametrize("mode", ["all", "attention", "ffn"])
def test_saved_and_loaded(mode, tmp_path):
    model = shared(mode)
    model.save(tmp_path / "albert.keras")
    again = keras.models.load_model(tmp_path / "albert.keras")
    assert again.count_params() == model.count_params()
    for name, value in model(batch()).items():
        np.testing.assert_array_equal(again(batch())[name], value)


def test_an_unknown_size():
    with pytest.raises(ValueError, match="xxxl"):
        AlbertConfig.of_size("xxxl")
