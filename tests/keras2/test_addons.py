"""What a user of tfa.optimizers.LAMB brings along: numbers, configs, state."""

import json
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from tests.keras2 import problems
from tests.keras3.problems import initial_values
from tf_lamb import keras2

tfa = pytest.importorskip(
    "tensorflow_addons", reason="tensorflow-addons ends with TensorFlow 2.15"
)

# tfa searches `name:0`, we search the path without `:0`.
CASES = {
    "plain": {},
    "decay": {"weight_decay": 0.05},
    "exclusions": {
        "weight_decay": 0.05,
        "exclude_from_weight_decay": ["bias", "scale"],
    },
    "excluded_from_adaptation": {
        "weight_decay": 0.05,
        "exclude_from_weight_decay": ["bias"],
        "exclude_from_layer_adaptation": ["scale"],
    },
    "betas": {"beta_1": 0.8, "beta_2": 0.95, "epsilon": 1e-3},
}


def _distance(a, b):
    # `max` of Python would drop a NaN that is not the first.
    return np.max([np.abs(a[name] - b[name]).max() for name in b])


@pytest.mark.parametrize("arguments", CASES.values(), ids=CASES)
def test_equals_addons_over_30_steps(arguments):
    runs = [
        problems.values_of(problems.run(cls(0.02, **arguments), 30))
        for cls in (keras2.LAMB, tfa.optimizers.LAMB)
    ]
    assert _distance(*runs) < 1e-6


# Model Garden, the pages of tfa, Hugging Face; names as TensorFlow has them.
LISTS = (
    ["LayerNorm", "layer_norm", "bias"],
    ["layer_normalization", "bias"],
    ["layer_norm", "layernorm", "LayerNorm", "bias"],
    ["bn", "batch_normalization", "bias"],
    ["bias", "LayerNorm.weight", "beta", "gamma"],
    ["bias:0", "gamma:0$", "beta:0$"],
    ["^hidden/bias:0$", "out"],
)


@pytest.mark.filterwarnings("ignore:.*matche? none of:UserWarning")
@pytest.mark.parametrize("patterns", LISTS, ids=lambda x: x[0])
def test_the_lists_that_people_use_do_what_they_did(patterns):
    """One import is changed, nothing else: a whole `fit` is the same."""

    def fit(optimizer_class):
        tf.keras.utils.set_random_seed(0)
        layers = [
            tf.keras.layers.Dense(8, name="hidden", input_shape=(5,)),
            tf.keras.layers.LayerNormalization(name="layer_norm"),
            tf.keras.layers.Dense(1, name="out"),
        ]
        model = tf.keras.Sequential(layers)
        arguments = dict(weight_decay=0.1, exclude_from_weight_decay=patterns)
        model.compile(optimizer_class(0.05, **arguments), "mse")
        x, y = problems.data()
        model.fit(x, y, batch_size=16, epochs=2, shuffle=False, verbose=0)
        return model

    ours, theirs = (fit(cls) for cls in (keras2.LAMB, tfa.optimizers.LAMB))
    assert not all(t.decay for t in ours.optimizer.treatments.values())
    for a, b in zip(ours.get_weights(), theirs.get_weights()):
        np.testing.assert_allclose(a, b, rtol=0, atol=2e-6)


def test_arguments_of_the_older_optimizers():
    for arguments in ({"lr": 0.1}, {"lr": 0.1, "decay": 0.5}):
        runs = [
            problems.values_of(problems.run(cls(**arguments), 5))
            for cls in (keras2.LAMB, tfa.optimizers.LAMB)
        ]
        assert _distance(*runs) < 1e-6


def test_takes_a_config_of_addons():
    theirs = tfa.optimizers.LAMB(
        0.02,
        beta_1=0.8,
        weight_decay=0.05,
        exclude_from_weight_decay=["bias"],
        decay=0.1,
        clipnorm=0.5,
    )
    ours = keras2.LAMB.from_config(theirs.get_config())
    # `decay` of the old optimizers is this schedule.
    assert float(ours._learning_rate(10)) == pytest.approx(0.02 / 2)
    assert (ours.beta_1, ours.weight_decay, ours.clipnorm) == (0.8, 0.05, 0.5)
    variables = problems.make_variables(initial_values())
    ours.build(variables)
    assert not ours.treatments["bias"].decay
    assert not ours.treatments["bias"].adapt


def test_a_saved_config_that_names_addons_is_read_with_ours():
    """As a reader does who has no tensorflow-addons."""
    config = tf.keras.optimizers.serialize(
        tfa.optimizers.LAMB(0.5, weight_decay=0.25)
    )
    assert config["registered_name"] == "Addons>LAMB"
    code = (
        "import json, sys; from tf_lamb import keras2\n"
        "ours = keras2.keras.optimizers.deserialize(json.loads(sys.argv[1]),"
        " custom_objects={'Addons>LAMB': keras2.LAMB})\n"
        "assert type(ours) is keras2.LAMB, ours\n"
        "assert ours.weight_decay == .25 and float(ours.learning_rate) == .5"
    )
    run = [sys.executable, "-c", code, json.dumps(config, default=float)]
    subprocess.run(run, check=True)


@pytest.mark.parametrize("built", [True, False], ids=["built", "unbuilt"])
def test_continues_from_a_checkpoint_of_addons(tmp_path, built):
    """10 steps by tfa and 10 by ours are 20 by tfa."""
    arguments = dict(weight_decay=0.05, exclude_from_weight_decay=["bias"])
    whole = problems.run(tfa.optimizers.LAMB(0.02, **arguments), 20)

    theirs = tfa.optimizers.LAMB(0.02, **arguments)
    variables = problems.run(theirs, 10)
    path = tf.train.Checkpoint(optimizer=theirs, variables=variables).save(
        str(tmp_path / "addons")
    )

    ours = keras2.LAMB(0.5, **arguments)  # the checkpoint has the rate
    variables = problems.make_variables(initial_values())
    if built:
        ours.build(variables)
    checkpoint = tf.train.Checkpoint(optimizer=ours, variables=variables)
    checkpoint.restore(path)
    assert int(ours.iterations) == 10
    problems.run(ours, 10, first_step=10, variables=variables)
    distance = _distance(
        problems.values_of(variables), problems.values_of(whole)
    )
    assert distance < 1e-6


def test_continues_from_model_weights_saved_with_addons(tmp_path):
    def make(optimizer):
        tf.keras.utils.set_random_seed(3)
        model = tf.keras.Sequential([tf.keras.layers.Dense(3)])
        model.compile(optimizer(0.02, weight_decay=0.01), "mse")
        model.build((None, 4))
        return model

    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 64, 4)).astype("float32"), None
    x, y = x[0], x[1][:, :3]

    def fit(model):
        model.fit(x, y, batch_size=16, shuffle=False, verbose=0)

    whole = make(tfa.optimizers.LAMB)
    fit(whole), fit(whole)
    half = make(tfa.optimizers.LAMB)
    fit(half)
    half.save_weights(tmp_path / "half")
    ours = make(keras2.LAMB)
    ours.load_weights(tmp_path / "half")
    fit(ours)
    assert ours.optimizer.iterations == 8
    for a, b in zip(ours.get_weights(), whole.get_weights()):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)
