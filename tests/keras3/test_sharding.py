"""State on a mesh: where it lies, that it is one device's, that it moves."""

import copy
import functools

import keras
import numpy as np
import pytest

import tf_lamb
from tests.support_matrix.features import (
    BATCH,
    Feature,
    data,
    make_model,
    make_optimizer,
)
from tf_lamb import keras3, sharding

BACKEND = keras.config.backend()
on_jax = pytest.mark.skipif(
    BACKEND != "jax", reason="keras.distribution is JAX's"
)
ALL = {
    "global_clipnorm": 1.5,
    "gradient_accumulation_steps": 2,
    "use_ema": True,
    "ema_momentum": 0.5,
    "ema_overwrite_frequency": 3,
}
OPTIMIZERS = {
    "LAMB": keras3.LAMB,
    "LARS": keras3.LARS,
}


def _scope(shape):
    """The context of a mesh; that of one device for None."""
    from tests.support_matrix import stateless

    if shape is None:
        return keras.distribution.DataParallel(
            devices=stateless._devices(1)
        ).scope()
    return stateless.model_parallel(shape).scope()


def _compiled(name, split, feature):
    """Model and optimizer, built; under the distribution of the moment."""
    model = make_model(keras, feature)
    optimizer = make_optimizer(
        keras, OPTIMIZERS[name], feature, feature.arguments
    )
    if split:
        sharding.shard_state(optimizer)
    optimizer.build(model.trainable_variables)
    model.compile(optimizer, "mse", jit_compile=True)
    return model


@functools.cache
def _trained(name, shape, split=False, moment_dtype=None):
    """A model after four batches, one with a NaN, twice."""
    arguments = {
        **ALL,
        **({"moment_dtype": moment_dtype} if moment_dtype else {}),
    }
    feature = Feature(arguments, model="embedding", bad_row=3)
    with _scope(shape):
        model = _compiled(name, split, feature)
        x, y = data(feature)
        model.fit(x, y, batch_size=BATCH, epochs=2, shuffle=False, verbose=0)
    return model


def _state(model):
    """All arrays, by path without the optimizer's name."""
    found = {v.path: v for v in model.trainable_variables}
    found |= {v.path.partition("/")[2]: v for v in model.optimizer.variables}
    return {path: np.asarray(v.value) for path, v in found.items()}


def _assert_same(a, b, atol):
    a, b = _state(a), _state(b)
    assert a.keys() == b.keys()
    for path in a:
        np.testing.assert_allclose(
            a[path], b[path], rtol=10 * atol, atol=atol, err_msg=path
        )


def _split(variable):
    """What splits a variable's axes, such as (None, "model")."""
    return tuple(variable.value.sharding.spec)


def _of(model, name):
    """{variable's path: its state of that name}."""
    return {
        v.path: next(
            s
            for s in model.optimizer.variables
            if s.path.endswith(f"/{v.path.replace('/', '_')}_{name}")
        )
        for v in model.trainable_variables
    }


STATE = {
    "LAMB": ("m", "v", "average", "gradient_accumulator"),
    "LARS": ("momentum", "average", "gradient_accumulator"),
}


@on_jax
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_state_lies_where_its_variable_lies(name):
    with _scope((2, 4)):
        model = _compiled(name, False, Feature(ALL, model="embedding"))
    assert _split(model.get_layer("hidden").kernel) == (None, "model")
    for slot in STATE[name]:
        for v in model.trainable_variables:
            assert _split(_of(model, slot)[v.path]) == _split(v), (slot, v.path)


@on_jax
def test_split_state_equals_one_device_and_stays_split():
    """LARS, all features at once; LAMB's are in the support matrix."""
    one, mesh = _trained("LARS", None), _trained("LARS", (2, 4), split=True)
    assert one.optimizer.skipped_steps == 2
    _assert_same(mesh, one, 1e-6)
    np.testing.assert_allclose(
        list(mesh.optimizer.trust_ratios.values()),
        list(one.optimizer.trust_ratios.values()),
        rtol=1e-5,
    )
    _assert_split(mesh, STATE["LARS"])


def _assert_split(model, slots):
    for slot in slots:
        state = {p: _split(s) for p, s in _of(model, slot).items()}
        assert state == {
            "words/embeddings": (None, "model"),  # [5, 4]
            "hidden/kernel": ("batch", "model"),
            "hidden/bias": (("model", "batch"),),
            "out/kernel": (("model", "batch"), None),
            "out/bias": (None,),
        }
    for v in model.trainable_variables:
        assert "batch" not in _split(v), v.path


@on_jax
def test_bfloat16_moments_on_a_mesh():
    one = _trained("LAMB", None, moment_dtype="bfloat16")
    mesh = _trained("LAMB", (2, 4), split=True, moment_dtype="bfloat16")
    # A moment that lies between two values of bfloat16 is rounded either way.
    for a, b in zip(mesh.get_weights(), one.get_weights()):
        np.testing.assert_allclose(a, b, atol=1e-3)
    assert _of(mesh, "m")["hidden/kernel"].dtype == "bfloat16"
    _assert_split(mesh, STATE["LAMB"])


@on_jax
def test_files_move_between_meshes(tmp_path):
    file = tmp_path / "all.weights.h5"
    saved = _trained("LARS", (2, 4), split=True)
    saved.save_weights(file)
    for shape, split in ((None, False), ((8, 1), True), ((2, 2), False)):
        with _scope(shape):
            model = _compiled("LARS", split, Feature(ALL, model="embedding"))
            model.load_weights(file)
        assert int(model.optimizer.iterations) == 4
        _assert_same(model, saved, 0)
        m = _of(model, "momentum")["hidden/kernel"]
        held = m.value.addressable_shards[0].data.size
        assert m.value.size // held == {None: 1, (8, 1): 8, (2, 2): 2}[shape]


@on_jax
def test_data_parallel_state_is_an_eighth_a_device():
    names = keras.distribution.list_devices("cpu")[:8]
    sizes = {}
    with keras.distribution.DataParallel(devices=names).scope():
        layer = keras.layers.Dense(64)
        layer.build((None, 32))
        for split in (False, True):
            optimizer = tf_lamb.LAMB(1e-2)
            if split:
                optimizer = sharding.shard_state(optimizer)
            optimizer.build(layer.trainable_variables)
            m = [v for v in optimizer.variables if v.path.endswith("_m")]
            sizes[split] = sharding.bytes_per_device(m)
    assert sizes == {False: 4 * (32 * 64 + 64), True: 4 * (32 * 64 + 64) // 8}


def test_how_an_axis_is_split():
    sizes = {"batch": 2, "model": 4}

    def split(shape, axes):
        return sharding.split_axes(shape, axes, "batch", sizes)

    assert split((6, 8), (None, None)) == ("batch", None)
    assert split((5, 8), (None, None)) == (None, "batch")
    assert split((5, 8), (None, "model")) == (None, ("model", "batch"))
    assert split((5, 4), (None, "model")) == (None, "model")
    assert split((5, 3), (None, None)) == (None, None)
    assert split((), ()) == ()
    assert split((0,), (None,)) == (None,)
    assert split((8, 2), ("batch", None)) == ("batch", None)
    alone = {"batch": 1, "model": 8}
    axes = (None, "model")
    assert sharding.split_axes((8, 8), axes, "batch", alone) == axes


def test_refused():
    with pytest.raises(TypeError, match="expected LAMB or LARS.*got SGD"):
        sharding.shard_state(keras.optimizers.SGD())
    if BACKEND != "jax":
        with pytest.raises(RuntimeError, match="start with KERAS_BACKEND=jax"):
            sharding.shard_state(tf_lamb.LAMB(1e-2))
        with pytest.raises(RuntimeError, match="start with KERAS_BACKEND=jax"):
            sharding.bytes_per_device([])
        return
    layer = keras.layers.Dense(8)
    layer.build((None, 8))
    optimizer = sharding.shard_state(tf_lamb.LAMB(1e-2))
    with pytest.raises(ValueError, match="no distribution is set"):
        optimizer.build(layer.trainable_variables)
    with _scope((2, 4)), pytest.raises(ValueError, match="made before the"):
        sharding.shard_state(tf_lamb.LAMB(1e-2)).build(
            layer.trainable_variables
        )
    optimizer = tf_lamb.LAMB(1e-2)
    optimizer.build(layer.trainable_variables)
    with pytest.raises(ValueError, match="is built.*before compile"):
        sharding.shard_state(optimizer)


@on_jax
def test_a_copy_is_asked_again():
    optimizer = sharding.shard_state(tf_lamb.LAMB(1e-2))
    plain = tf_lamb.LAMB(1e-2)
    assert optimizer.get_config().keys() == plain.get_config().keys()
    again = copy.deepcopy(optimizer)
    layer = keras.layers.Dense(8)
    layer.build((None, 8))
    again.build(layer.trainable_variables)
    assert again.built
