"""Google's checkpoints by name, and Model Garden's of objects."""

import json

import numpy as np
import pytest
import tensorflow as tf

from official_models.common import weights
from official_models.nlp.albert.config import AlbertConfig
from official_models.nlp.bert.config import BertConfig, write_config
from official_models.nlp.checkpoint import models, tokenizer
from official_models.nlp.checkpoint.export import export
from official_models.nlp.checkpoint.opening import open_source
from official_models.nlp.checkpoint.source import load, make
from tests.official_models.nlp.checkpoint import garden
from tests.official_models.scripts import refusal

V, T = 20, 16
SIZES = dict(
    vocab_size=V,
    hidden_size=garden.H,
    num_layers=3,
    num_heads=garden.N,
    intermediate_size=garden.WIDTH,
    max_position_embeddings=T,
)
CONFIGS = {
    "bert": BertConfig(**SIZES),
    "albert": AlbertConfig(**SIZES, embedding_size=garden.E),
}
NONE = tokenizer.TokenizerFiles()


def random_model(config, head, seed=0, **changes):
    model = models.make(config, head, num_labels=3, **changes)
    rng = np.random.default_rng(seed)
    for variable in weights.by_path(model).values():
        variable.assign(rng.normal(size=variable.shape))
    return model


def values(model):
    return {p: v.numpy() for p, v in weights.by_path(model).items()}


def same_values(one, other):
    one, other = values(one), values(other)
    assert one.keys() == other.keys()
    for path, array in one.items():
        np.testing.assert_array_equal(other[path], array, err_msg=path)


def save_by_name(arrays, prefix):
    """By TensorFlow's own Saver, as a training of TensorFlow 1 does it."""
    tf1 = tf.compat.v1
    with tf.Graph().as_default(), tf1.Session() as session:
        for name, array in arrays.items():
            tf1.get_variable(name, initializer=array)
        session.run(tf1.global_variables_initializer())
        tf1.train.Saver().save(session, str(prefix), write_meta_graph=False)


@pytest.mark.parametrize("family", CONFIGS)
@pytest.mark.parametrize(
    "head", ["encoder", "pretrainer", "classifier", "span"]
)
def test_checkpoints_by_name(family, head, tmp_path):
    """Read with what an optimizer kept, and written, to the bit."""
    config = CONFIGS[family]
    model = random_model(config, head)
    state = {f"{p}/adam_m": x for p, x in values(model).items()}
    more = {"global_step": np.int64(7), **state}
    save_by_name({**values(model), **more}, tmp_path / "model.ckpt-7")
    name = f"{family}_config.json"
    write_config(tmp_path / name, config)
    found, loaded = make(open_source(tmp_path / "model.ckpt-7"))
    assert not loaded.new and not loaded.unused
    assert models.config_of(found) == config
    same_values(found, model)

    export(found, tmp_path / "out", "tensorflow", NONE)
    reader = tf.train.load_checkpoint(str(tmp_path / "out/bert_model.ckpt"))
    assert reader.get_variable_to_shape_map().keys() == values(model).keys()
    for path, array in values(model).items():
        np.testing.assert_array_equal(reader.get_tensor(path), array)
    # The folder, with the configuration that was written there.
    again, _ = make(open_source(tmp_path / "out"))
    same_values(again, model)
    assert models.config_of(again) == config


@pytest.mark.parametrize("family", CONFIGS)
@pytest.mark.parametrize("attribute", ["model", "encoder"])
def test_checkpoints_of_objects(family, attribute, tmp_path):
    """What the model computes there, ours computes with its weights."""
    config = CONFIGS[family]
    theirs = garden.encoder(V, T, 3, is_albert=family == "albert")
    garden.randomize(theirs)
    prefix = tf.train.Checkpoint(**{attribute: theirs}).save(
        str(tmp_path / "bert_model.ckpt")
    )
    names = [name for name, _ in tf.train.list_variables(prefix)]
    query = "_attention_layer/_query_dense/kernel/.ATTRIBUTES/VARIABLE_VALUE"
    number = 4 + (family == "albert")
    assert f"{attribute}/layer_with_weights-{number}/{query}" in names
    write_config(tmp_path / f"{family}_config.json", config)
    ours, loaded = make(open_source(tmp_path))
    assert not loaded.new and not loaded.unused
    rng = np.random.default_rng(1)
    ids = rng.integers(0, V, (2, 7)).astype("int32")
    mask = (np.arange(7) < [[7], [4]]).astype("int32")
    segments = (np.arange(7) > [[3], [2]]).astype("int32")
    expected = theirs([ids, mask, segments])
    found = ours(
        {"input_ids": ids, "input_mask": mask, "segment_ids": segments}
    )
    outputs = found["sequence_output"], found["pooled_output"]
    for actual, wanted in zip(outputs, expected, strict=True):
        np.testing.assert_allclose(actual, wanted, atol=1e-5)


def test_a_masked_lm_head_of_objects(tmp_path):
    theirs = garden.encoder(V, T, 3)
    garden.randomize(theirs)
    head = tf.Module()
    head.dense, head.layer_norm = tf.Module(), tf.Module()
    rng = np.random.default_rng(3)

    def variable(*shape):
        return tf.Variable(rng.normal(size=shape), dtype=tf.float32)

    head.dense.kernel = variable(garden.H, garden.H)
    head.dense.bias = variable(garden.H)
    head.layer_norm.gamma = variable(garden.H)
    head.layer_norm.beta = variable(garden.H)
    head.bias = variable(V)
    tf.train.Checkpoint(encoder=theirs, masked_lm=head).write(
        str(tmp_path / "ckpt")
    )
    write_config(tmp_path / "bert_config.json", CONFIGS["bert"])
    ours, loaded = make(open_source(tmp_path / "ckpt"))
    assert not loaded.unused
    assert all("seq_relationship" in path for path in loaded.new)
    for path, expected in {
        "output_bias": head.bias,
        "transform/dense/kernel": head.dense.kernel,
        "transform/LayerNorm/beta": head.layer_norm.beta,
    }.items():
        found = values(ours)[f"cls/predictions/{path}"]
        np.testing.assert_array_equal(found, expected)


def test_a_configuration_of_other_heads(tmp_path):
    """The shapes by name do not tell them; those of objects do."""
    theirs = garden.encoder(V, T, 3)
    tf.train.Checkpoint(model=theirs).write(str(tmp_path / "ckpt"))
    other = BertConfig(**{**SIZES, "num_heads": 4})
    write_config(tmp_path / "bert_config.json", other)
    refusal(
        lambda: open_source(tmp_path / "ckpt"),
        tmp_path / "ckpt",
        "has 3 attention heads, its configuration says 4",
    )


def test_the_configuration_is_beside_it_or_given(tmp_path):
    model = random_model(CONFIGS["bert"], "encoder")
    save_by_name(values(model), tmp_path / "bert_model.ckpt")
    prefix = tmp_path / "bert_model.ckpt"
    refusal(lambda: make(open_source(prefix)), prefix, "--config_file")
    (tmp_path / "elsewhere").mkdir()
    write_config(tmp_path / "elsewhere/c.json", CONFIGS["bert"])
    given = open_source(prefix, config_file=tmp_path / "elsewhere/c.json")
    same_values(make(given)[0], model)
    # A model that is there already needs none.
    other = random_model(CONFIGS["bert"], "pretrainer", seed=1)
    before = values(other)
    loaded = load(open_source(prefix), other)
    assert set(loaded.loaded) == set(values(model))
    assert all(path.startswith("cls/") for path in loaded.new)
    for path in loaded.new:
        np.testing.assert_array_equal(values(other)[path], before[path])


def test_damaged_files(tmp_path):
    model = random_model(CONFIGS["bert"], "encoder")
    save_by_name(values(model), tmp_path / "bert_model.ckpt")
    write_config(tmp_path / "bert_config.json", CONFIGS["bert"])
    prefix = tmp_path / "bert_model.ckpt"
    data = tmp_path / "bert_model.ckpt.data-00000-of-00001"
    content = data.read_bytes()
    data.write_bytes(content[: len(content) // 2])
    refusal(lambda: make(open_source(prefix)), prefix, "cannot be read")
    (tmp_path / "bert_model.ckpt.index").write_bytes(b"no index")
    refusal(lambda: open_source(prefix), prefix, "cannot be read")
    (tmp_path / "bert_model.ckpt.index").unlink()
    refusal(lambda: open_source(prefix), prefix, "no checkpoint; expected")


def test_written_configurations_are_read_back(tmp_path):
    for family, config in CONFIGS.items():
        path = tmp_path / f"{family}_config.json"
        write_config(path, config)
        activation = json.loads(path.read_text())["hidden_act"]
        assert activation == "gelu"  # Google's name of the approximation
