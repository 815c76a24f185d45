"""Weights on a mesh of eight devices: BERT, ALBERT, ResNet and the scripts."""

import re
import shutil

import keras
import numpy as np
import pytest
from absl import flags

import tf_lamb
from benchmarks import sharded_memory
from official_models.common import model_parallel, strategies
from official_models.common.checkpoints import Checkpoints
from official_models.common.errors import InputError
from official_models.nlp.albert import layouts as albert_layouts
from official_models.nlp.bert import layouts as bert_layouts
from official_models.nlp.bert import pretrain
from official_models.nlp.bert.model import bert_pretrainer
from official_models.vision.resnet import layouts as resnet_layouts
from official_models.vision.resnet import model as resnet
from official_models.vision.resnet import train
from tests.official_models import scripts
from tests.official_models.nlp.albert import test_model as albert
from tests.official_models.nlp.bert import pretrain_script
from tests.official_models.nlp.bert.small_bert import config_of
from tf_lamb import sharding

FLAGS = flags.FLAGS
on_jax = pytest.mark.skipif(
    keras.config.backend() != "jax", reason="keras.distribution is JAX's"
)
on_tensorflow = pytest.mark.skipif(
    keras.config.backend() != "tensorflow", reason="run once, on TensorFlow"
)
BERT = ("--steps=4", "--save_every=2", "--dropout=0")


@pytest.fixture(autouse=True)
def no_distribution():
    yield
    if keras.config.backend() == "jax":
        keras.distribution.set_distribution(None)


def _bert():
    return bert_pretrainer(config_of(), seed=1)


def _resnet(name="resnet8_cifar"):
    return resnet.build(
        name, image_size=8, num_classes=10, width=8, shortcut="B", seed=1
    )


MODELS = {
    "bert": (_bert, bert_layouts.LAYOUTS),
    "albert": (
        lambda: albert.small(num_layers=2, hidden_size=16, num_heads=4),
        albert_layouts.LAYOUTS,
    ),
    "resnet8": (_resnet, resnet_layouts.LAYOUTS),
    "resnet50": (lambda: _resnet("resnet50"), resnet_layouts.LAYOUTS),
    "davidnet": (lambda: _resnet("davidnet"), resnet_layouts.LAYOUTS),
}


@on_tensorflow
@pytest.mark.parametrize("name", MODELS)
def test_layouts_split_all_that_is_large(name):
    """Each variable has one layout at most, of its rank."""
    make, layouts = MODELS[name]
    model = make()
    layout_map, used = model_parallel.layout_map(None, layouts), set()
    for v in model.variables:
        layout = layout_map[v.path]
        if layout is None:
            small = v.path.endswith(("/bias", "_bias", "gamma", "beta"))
            assert small or "seed" in v.path, v.path
            continue
        assert len(layout.axes) == len(v.shape), v.path
        used |= {p for p in layouts if re.fullmatch(p, v.path)}
    assert used == set(layouts)


def _on(shape, name):
    """Sets a mesh of all devices; None for one device."""
    if shape is None:
        return keras.distribution.set_distribution(None)
    devices = keras.distribution.list_devices()
    mesh = keras.distribution.DeviceMesh(shape, ("batch", "model"), devices)
    layout_map = model_parallel.layout_map(mesh, MODELS[name][1])
    keras.distribution.set_distribution(
        keras.distribution.ModelParallel(layout_map=layout_map)
    )


def _train(name, shape):
    """A model after two steps on one batch."""
    _on(shape, name)
    model = MODELS[name][0]()
    rng = np.random.default_rng(0)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    if name == "albert":
        x = albert.batch()
        y = {
            "masked_lm": rng.integers(0, 50, (2, 3)),
            "sentence_order": rng.integers(0, 2, 2),
        }
        loss = dict.fromkeys(y, loss)
    else:
        x = rng.normal(size=(4, 8, 8, 3)).astype("float32")
        y = rng.integers(0, 10, 4)
    model.compile(tf_lamb.LAMB(1e-2, weight_decay=0.01), loss)
    model.fit(x, y, batch_size=4, epochs=2, verbose=0)
    return model.get_weights()


@on_jax
@pytest.mark.parametrize("name", ["albert", "resnet8"])
def test_a_mesh_equals_one_device(name):
    for a, b in zip(_train(name, (2, 4)), _train(name, None), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-5)


@on_jax
def test_memory_is_measured():
    """What `benchmarks.sharded_memory` finds of BERT-tiny."""

    job = {"size": "tiny", "mesh": [2, 4], "shard_state": True}
    found = sharded_memory.run_job(job)
    parameters = 4 * found["parameters"]
    # But LayerNorms and a few biases, of which the vocabulary's.
    assert parameters / 4 < found["weights"] < parameters / 4 * 1.03
    # Two moments of half a part each.
    assert found["state"] == pytest.approx(found["weights"], rel=0.03)
    held = found["weights"] + found["state"]
    assert held < found["arguments"] < held + 1e5  # the batch
    assert found["temporaries"] > 0


@on_jax
def test_checkpoints_move_between_meshes(tmp_path):
    def checkpoints(shape, split):
        _on(shape, "bert")
        model, optimizer = _bert(), tf_lamb.LAMB(1e-2)
        if split:
            sharding.shard_state(optimizer)
        model.compile(optimizer, "mse")
        return model, Checkpoints(model, tmp_path)

    model, saved = checkpoints((2, 4), True)
    rng = np.random.default_rng(0)
    for v in (*model.variables, *model.optimizer.variables):
        if "float" in v.dtype:
            v.assign(rng.normal(size=v.shape))
    saved.save(3)
    want = [np.asarray(v) for v in _all(model)]
    for shape, split in (((8, 1), True), ((1, 8), False), (None, False)):
        model, restored = checkpoints(shape, split)
        assert restored.restore() == 3
        for a, b in zip(_all(model), want, strict=True):
            np.testing.assert_array_equal(a, b, err_msg=a.path)


def _all(model):
    return [*model.variables, *model.optimizer.variables]


@on_jax
def test_bert_s_script_on_a_mesh_and_then_on_one_device(tmp_path, capsys):
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    pretrain_script.write_corpus(corpus)
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"

    def run(folder, *arguments):
        with scripts.flags_of(pretrain):
            pretrain_script.run(corpus, folder, *BERT, *arguments)

    run(whole, "--strategy=model_parallel", "--shard_state", "--mesh=2x4")
    shutil.copytree(whole, resumed)
    for path in (resumed / "checkpoints").glob("ckpt-4.*"):
        path.unlink()
    keras.distribution.set_distribution(None)
    run(resumed)
    assert "resuming from step 2" in capsys.readouterr().out
    scripts.same_weights(whole, resumed, 4, rtol=1e-4, atol=1e-5)


@on_jax
def test_resnet_s_script_has_layouts(tmp_path):
    with scripts.flags_of(train):
        scripts.refusal(
            lambda: scripts.run(
                train,
                f"--output_dir={tmp_path}",
                *("--strategy=model_parallel", "--mesh=1x8", "--width=4"),
                "--network=resnet8_cifar",
            ),
            "--mesh 1x8: axis 3 of stem/conv/kernel [3, 3, 1, 4]",
        )


@on_jax
@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--mesh=2by4"], ["--mesh 2by4: expected AxB", "such as 2x4"]),
        ([], ["--mesh None: expected AxB"]),
        (["--mesh=0x8"], ["--mesh 0x8: expected AxB"]),
        (["--mesh=2x2"], ["--mesh 2x2: 4 devices, expected all 8"]),
        (["--mesh=2x4", "--job_addresses=a:1"], ["for --strategy data_par"]),
        (
            ["--mesh=2x4", "--optimizer=adamw", "--shard_state"],
            ["--shard_state: for LAMB and LARS, not AdamW"],
        ),
        (
            ["--mesh=8x1", "--global_batch_size=12"],
            ["--global_batch_size 12: expected a multiple of the 8 replicas"],
        ),
        (
            ["--mesh=1x8", "--hidden_size=12"],
            [
                "--mesh 1x8: axis 1 of bert/embeddings/word_embeddings",
                "whose second number divides 12",
            ],
        ),
    ],
)
def test_refused(tmp_path, arguments, parts):
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    pretrain_script.write_corpus(corpus)
    with scripts.flags_of(pretrain):
        scripts.refusal(
            lambda: pretrain_script.run(
                corpus,
                tmp_path / "out",
                *BERT,
                "--strategy=model_parallel",
                *arguments,
            ),
            *parts,
        )
    assert not (tmp_path / "out" / "run.json").exists()


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--mesh=2x4"], "--mesh: for --strategy model_parallel, not none"),
        (["--shard_state"], "--shard_state: for --strategy data_parallel or"),
    ],
)
def test_flags_of_another_strategy(arguments, part):
    with scripts.flags_of(pretrain):
        FLAGS.unparse_flags()
        FLAGS(["test", *arguments])
        scripts.refusal(strategies.from_flags, part)


@on_tensorflow
def test_tensorflow_is_told_of_jax():
    with scripts.flags_of(pretrain):
        FLAGS.unparse_flags()
        FLAGS(["test", "--strategy=model_parallel", "--mesh=2x4"])
        scripts.refusal(strategies.from_flags, "start with KERAS_BACKEND=jax")


@on_jax
def test_a_model_without_layouts():
    with pytest.raises(InputError, match="has no layouts; give data_parallel"):
        model_parallel.make("2x4", None)
