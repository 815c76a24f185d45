"""Registration of the models' classes; seeds; configurations that are saved."""

import ast
import dataclasses
from pathlib import Path

import keras
import numpy as np
import pytest

import tf_lamb
from official_models.common import layer
from official_models.nlp.albert.config import AlbertConfig
from official_models.nlp.albert.model import albert_pretrainer
from official_models.nlp.bert import heads
from official_models.nlp.bert.config import BertConfig
from official_models.nlp.bert.model import bert_pretrainer
from official_models.nlp.summarization import network as summaries
from official_models.nlp.term_weighting import model as term_weighting
from official_models.nlp.transformer import layers as transformer_layers
from official_models.vision.batch_norm import model as batch_norm
from official_models.vision.few_shot import model as few_shot
from official_models.vision.resnet import model as resnet

ROOT = Path(__file__).parents[3]
TINY = BertConfig.of_size("tiny", vocab_size=100)
ALBERT = AlbertConfig(
    vocab_size=50,
    hidden_size=12,
    num_layers=3,
    num_heads=3,
    intermediate_size=24,
    embedding_size=8,
    max_position_embeddings=16,
)
IMAGES = {"image_size": 8, "channels": 1, "num_classes": 3, "width": 4}
# Every module of a model is imported above: names that clash would show.
MODELS = {
    "bert": lambda: bert_pretrainer(TINY, seed=1),
    "classifier": lambda: heads.bert_classifier(TINY, 3, seed=1),
    "span": lambda: heads.bert_span(TINY, seed=1),
    "albert": lambda: albert_pretrainer(ALBERT, seed=1),
    "resnet8_cifar": lambda: resnet.build("resnet8_cifar", seed=1, **IMAGES),
    "davidnet": lambda: resnet.build("davidnet", seed=1, **IMAGES),
}
# `fingerprint` and `dropout_seeds` of each. The weights were equal to the bit
# before and after these layers got a common class (2026-11-26).
BEFORE = {
    "bert": (-9.543798, 8482249046),
    "classifier": (-9.904265, 9609133457),
    "span": (-9.883690, 8482249046),
    "albert": (-3.741563, 5018389135),
    "resnet8_cifar": (-8.436853, 0),
    "davidnet": (-0.088941, 0),
}


def fingerprint(model) -> float:
    """The sum of all weights, each times another number in (-1, 1)."""
    total = 0.0
    for i, weight in enumerate(model.weights):
        values = np.asarray(weight, "float64").ravel()
        total += values @ np.cos(np.arange(len(values)) + i)
    return total


def dropout_seeds(model) -> int:
    """The sum of the dropouts' seeds."""
    parts = model._flatten_layers()
    return sum(
        p.seed for p in parts if isinstance(p, transformer_layers.Dropout)
    )


@pytest.mark.parametrize("name", MODELS)
def test_a_seed_gives_the_weights_that_it_always_gave(name):
    if keras.config.backend() != "tensorflow":
        pytest.skip("the numbers are those of TensorFlow's random generator")
    model = MODELS[name]()
    weights, seeds = BEFORE[name]
    assert fingerprint(model) == pytest.approx(weights, abs=1e-4)
    assert dropout_seeds(model) == seeds


@pytest.mark.parametrize("name", MODELS)
def test_each_model_is_loaded_beside_all_others(name, tmp_path):
    model = MODELS[name]()
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    ours, theirs = model.layers, loaded.layers
    assert [type(x) for x in theirs] == [type(x) for x in ours]
    configured = 0
    for one, other in zip(ours, theirs):
        if isinstance(one, layer.ConfiguredLayer):
            assert (other.config, other.seed) == (one.config, one.seed)
            assert type(other.config) is type(one.config)
            configured += 1
    assert configured > 1
    for one, other in zip(model.variables, loaded.variables, strict=True):
        # Keras numbers the generators of a process.
        assert "seed_generator" in one.path or one.path == other.path
        np.testing.assert_array_equal(one, other)


def registered():
    """The registered names of this repository's models."""
    names = keras.saving.get_custom_objects()
    return {n for n in names if n.startswith("tf_lamb_models.")}


def test_each_model_has_a_package_of_its_own():
    assert summaries  # imported, as by other tests of one process
    weighting = keras.saving.get_registered_name(term_weighting.LearnedWeights)
    assert weighting == "tf_lamb_models.term_weighting>LearnedWeights"
    packages = {name.split(">")[0] for name in registered()}
    assert packages == {
        f"tf_lamb_models.{name}"
        for name in (
            *("albert", "batch_norm", "bert", "common", "few_shot"),
            *("resnet", "summarization", "term_weighting", "transformer"),
        )
    }


def test_classes_with_equal_names_are_kept_apart():
    """What Keras alone does: the second takes the first one's place."""

    def make(package, decorate):
        cls = type("Twin", (), {"get_config": dict})
        cls.__qualname__ = f"{package}.Twin"
        return decorate(cls)

    plain = keras.saving.register_keras_serializable("tests.plain")
    first, second = make("a", plain), make("b", plain)
    assert keras.saving.get_registered_object("tests.plain>Twin") is second
    assert first is not second

    ours = layer.registration("tests.ours")
    first = make("a", ours)
    with pytest.raises(ValueError, match="tests.ours>Twin: Keras has .*a.Twin"):
        make("b", ours)
    assert keras.saving.get_registered_object("tests.ours>Twin") is first
    other = make("b", layer.registration("tests.others"))
    assert keras.saving.get_registered_object("tests.others>Twin") is other


def test_a_module_may_be_loaded_again():
    """As a notebook does: the same class, defined once more."""

    def make():
        class Again:
            def get_config(self):
                return {}

        return layer.registration("tests.ours")(Again)

    first, second = make(), make()
    assert first is not second
    assert keras.saving.get_registered_object("tests.ours>Again") is second


def test_nothing_is_registered_by_keras_own_decorator():
    for path in sorted(ROOT.glob("official_models/**/*.py")):
        if path == Path(layer.__file__):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            name = getattr(node, "attr", getattr(node, "id", ""))
            assert name != "register_keras_serializable", path


def test_a_seed_is_a_function_of_its_key():
    assert layer.seed_of("1/stem") == layer.seed_of("1/stem")
    seeds = {layer.seed_of(f"{i}/stem") for i in range(1000)}
    assert len(seeds) == 1000
    assert all(0 <= seed < 2**31 for seed in seeds)


def test_a_configuration_is_saved_as_what_it_is():
    for config in (TINY, ALBERT):
        saved = keras.saving.serialize_keras_object(config)
        again = keras.saving.deserialize_keras_object(saved)
        assert again == config and type(again) is type(config)
        assert dataclasses.asdict(again) == config.get_config()
    saved["config"]["embedding_size"] = 0
    with pytest.raises(ValueError, match="embedding_size: .* got 0"):
        keras.saving.deserialize_keras_object(saved)


@pytest.mark.parametrize("dtype", ["mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize(
    "make",
    [
        lambda dtype: bert_pretrainer(TINY, dtype=dtype),
        lambda dtype: albert_pretrainer(ALBERT, dtype=dtype),
        lambda dtype: heads.bert_classifier(TINY, 2, dtype=dtype),
        lambda dtype: heads.bert_span(TINY, dtype=dtype),
        lambda dtype: resnet.build("resnet8_cifar", dtype=dtype, **IMAGES),
        lambda dtype: few_shot.make(
            "prototypical", few_shot.FewShotConfig(filters=4), dtype=dtype
        ),
        lambda dtype: batch_norm.make(batch_norm.SmallConfig(), dtype=dtype),
    ],
    ids=[
        *("pretrainer", "albert", "classifier", "span", "resnet", "few_shot"),
        "batch_norm",
    ],
)
def test_the_loss_is_scaled_where_layers_are_float16(make, dtype):
    model = make(dtype)
    model.compile(tf_lamb.LAMB())
    scaled = isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    assert scaled == (dtype == "mixed_float16")
