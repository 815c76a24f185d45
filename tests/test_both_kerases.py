"""State that one Keras saved and the other one loads."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.keras2 import problems as of_keras2
from tests.keras3 import problems as of_keras3
from tf_lamb import Group, keras2, keras3

ARGUMENTS = {
    "plain": {},
    "EMA": {"use_ema": True},
    "accumulation": {"gradient_accumulation_steps": 3},
    "all": {"use_ema": True, "gradient_accumulation_steps": 3},
    "groups": {
        "use_ema": True,
        "groups": [
            Group("bias", frozen=True),
            Group("kernel", 0.5, trust_ratio_per="filter"),
        ],
    },
}


def _values(problems, variables):
    return {
        k.split("/")[-1]: v for k, v in problems.values_of(variables).items()
    }


@pytest.mark.parametrize("arguments", ARGUMENTS.values(), ids=ARGUMENTS)
@pytest.mark.parametrize("name", ["LAMB", "LARS"])
@pytest.mark.parametrize("schedule", [False, True], ids=["number", "schedule"])
@pytest.mark.parametrize(
    "newer", [True, False], ids=["to_keras3", "to_tf_keras"]
)
def test_a_run_goes_on_in_the_other_keras(name, arguments, schedule, newer):
    roads = [(keras2, of_keras2), (keras3, of_keras3)]
    (old, old_problems), (new, new_problems) = roads if newer else roads[::-1]
    rate = {"learning_rate": 0.1, "total_steps": 20, "warmup_steps": 4}

    def make(module):
        start = module.WarmupPolynomial(**rate) if schedule else 0.05
        return getattr(module, name)(start, weight_decay=0.1, **arguments)

    optimizer = make(old)
    variables = old_problems.run(optimizer, 7)
    state = {}
    optimizer.save_own_variables(state)
    values = {
        k: v.astype("float32")
        for k, v in old_problems.values_of(variables).items()
    }
    resumed = make(new)
    others = new_problems.make_variables(values)
    resumed.load_own_variables(state)  # waits for build
    new_problems.run(resumed, 5, first_step=7, variables=others)
    old_problems.run(optimizer, 5, first_step=7, variables=variables)
    got, expected = (
        _values(new_problems, others),
        _values(old_problems, variables),
    )
    assert of_keras3.distance(got, expected) < 1e-6
    assert int(resumed._iterations) == int(optimizer._iterations) == 12


def test_a_checkpoint_of_keras_2_is_refused_by_keras_3(tmp_path):
    """Nothing of it would be restored, and TensorFlow would only warn."""
    optimizer = keras2.LAMB(0.1)
    variables = of_keras2.run(optimizer, 2)
    checkpoint = tf.train.Checkpoint(optimizer=optimizer, variables=variables)
    path = checkpoint.save(str(tmp_path / "ours"))
    folder = "tests/keras2/addons_checkpoint/addons"
    for name in (path, folder):
        newer = keras3.LAMB(0.1)
        variable = keras.Variable(np.ones(3, "float32"))
        newer.build([variable])
        with pytest.raises(ValueError, match="checkpoint of Keras 2.*h5") as e:
            tf.train.Checkpoint(optimizer=newer).read(name)
        assert "\n" not in str(e.value)
    # Its own are read as ever.
    path = tf.train.Checkpoint(optimizer=newer).save(str(tmp_path / "new"))
    tf.train.Checkpoint(optimizer=newer).restore(path)
