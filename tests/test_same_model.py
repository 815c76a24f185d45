"""A model's description differs between models, not between processes."""

import itertools
import subprocess
import sys

import keras
import pytest
import tf_keras

from tf_lamb import same_model

KERAS = pytest.mark.parametrize(
    "keras", [keras, tf_keras], ids=["keras3", "tf_keras"]
)


# Another one for each model.
_SEEDS = itertools.count()


def _model(keras, order=(0, 0, 1), policy="float32", head="tanh", loss="mse"):
    """Two equal layers, called in some order; the shapes never change."""
    inputs = h = keras.Input((4,))
    layers = [
        keras.layers.Dense(4, "relu", dtype=policy),
        keras.layers.Dense(4, "relu", dtype=policy),
    ]
    for i in order:
        h = layers[i](h)
    h = keras.layers.Dropout(0.1, seed=next(_SEEDS))(h)
    # Named like its activation, as people do.
    outputs = keras.layers.Activation(head, name=head)(h)
    model = keras.Model(inputs, outputs)
    model.compile(keras.optimizers.SGD(0.1), loss)
    return model


@KERAS
@pytest.mark.parametrize(
    "change, named",
    [
        ({"head": "relu"}, "'s activation"),
        ({"policy": "mixed_bfloat16"}, "'s dtype"),
        ({"loss": "mae"}, "loss"),
        ({"order": (0, 1, 1)}, "'s wiring (layers)"),
    ],
)
def test_a_change_is_seen(keras, change, named):
    one, two = (
        same_model.describe(_model(keras, **arguments))
        for arguments in ({}, change)
    )
    different = [n for n in {**one, **two} if one.get(n) != two.get(n)]
    assert any(n.endswith(named) for n in different), different


@KERAS
def test_names_and_seeds_are_none(keras):
    """The second model's layers are `dense_2` and `dense_3`."""
    one, two = (same_model.describe(_model(keras)) for _ in range(2))
    for described in (one, two):
        for name in [n for n in described if n.startswith("variable")]:
            del described[name]
    assert one == two


def test_no_address_of_a_process_is_in_them():
    code = (
        "import json, keras; from tf_lamb import same_model\n"
        "class Odd(keras.layers.Layer):\n"
        "    def get_config(self): return {'function': len, 'odd': object()}\n"
        "model = keras.Sequential([keras.Input((2,)), Odd(),\n"
        "    keras.layers.Lambda(lambda x: 2 * x)])\n"
        "model.compile('sgd', lambda a, b: a - b)\n"
        "print(json.dumps(same_model.describe(model)))\n"
    )
    run = [sys.executable, "-c", code]
    one, two = (subprocess.check_output(run, text=True) for _ in range(2))
    assert one == two
    assert '"len"' in one and "0x" not in one
