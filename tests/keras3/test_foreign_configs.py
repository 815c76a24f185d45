"""Configs and arguments of tfa and Keras 2."""

import keras
import pytest

import tf_lamb

# As TensorFlow 2.15 and tfa 0.23 write them (2026-11-26).
OF_KERAS_2 = {
    "module": "keras.optimizers.schedules",
    "class_name": "PolynomialDecay",
    "config": {
        "initial_learning_rate": 0.01,
        "decay_steps": 100,
        "end_learning_rate": 0.0001,
        "power": 1.0,
        "cycle": False,
        "name": None,
    },
    "registered_name": None,
}
ADDONS = {
    "name": "LAMB",
    "learning_rate": 0.02,
    "weight_decay": 0.05,
    "decay": 0.0,
    "beta_1": 0.8,
    "beta_2": 0.99,
    "epsilon": 1e-06,
    "exclude_from_weight_decay": ["bias"],
    "exclude_from_layer_adaptation": ["bias"],
}


def _rate(optimizer, step):
    return float(optimizer._learning_rate(step))


@pytest.mark.parametrize(
    "without", [(), ("module",), ("module", "registered_name")]
)
def test_a_schedule_that_keras_2_serialised(without):
    config = {k: v for k, v in OF_KERAS_2.items() if k not in without}
    given = {**ADDONS, "learning_rate": config}
    for _ in range(2):  # the config is not changed
        optimizer = tf_lamb.LAMB.from_config(given)
        assert _rate(optimizer, 50) == pytest.approx(0.00505)
    again = tf_lamb.LAMB.from_config(optimizer.get_config())
    assert _rate(again, 50) == pytest.approx(0.00505)


def test_our_own_schedules_of_the_other_keras():
    config = {
        "class_name": "WarmupPolynomial",
        "registered_name": "tf_lamb>WarmupPolynomial",
        "module": "tf_lamb.keras2",
        "config": tf_lamb.WarmupPolynomial(0.1, 10, 5).get_config(),
    }
    given = {**ADDONS, "learning_rate": config, "is_legacy_optimizer": False}
    assert _rate(tf_lamb.LAMB.from_config(given), 5) == pytest.approx(0.1)


def _with_lr(**arguments):
    with pytest.warns(FutureWarning, match="^lr is an old name, which tf-"):
        return tf_lamb.LAMB(**arguments)


def test_decay_and_lr_are_what_they_were(recwarn):
    for optimizer in (
        tf_lamb.LAMB.from_config({**ADDONS, "decay": 0.1}),
        tf_lamb.LAMB(0.02, decay=0.1),
        _with_lr(lr=0.02, decay=0.1),
    ):
        for step, expected in ((0, 0.02), (10, 0.01), (30, 0.005)):
            assert _rate(optimizer, step) == pytest.approx(expected)
    assert float(_with_lr(lr=0.25).learning_rate) == 0.25
    assert float(tf_lamb.LAMB.from_config(ADDONS).learning_rate) == (
        pytest.approx(0.02)
    )
    assert not recwarn
    with pytest.raises(
        ValueError, match="decay: expected 0 beside a learning_"
    ):
        tf_lamb.LAMB(tf_lamb.WarmupPolynomial(0.1, 10), decay=0.1)
    with pytest.raises(ValueError, match="decay: expected a number >= 0, got"):
        tf_lamb.LAMB(0.1, decay=-1.0)


def test_a_schedule_of_addons_is_refused_by_name_or_replaced():
    name = "Addons>TriangularCyclicalLearningRate"
    rate = {
        "module": "tensorflow_addons.optimizers.cyclical_learning_rate",
        "class_name": "TriangularCyclicalLearningRate",
        "config": {"initial_learning_rate": 0.5, "decay_steps": 4},
        "registered_name": name,
    }
    given = {**ADDONS, "learning_rate": rate}
    with pytest.raises(
        ValueError, match="'TriangularCyc.*compile=False"
    ) as raised:
        tf_lamb.LAMB.from_config(given)
    assert "\n" not in str(raised.value)
    other = keras.optimizers.schedules.CosineDecay
    optimizer = tf_lamb.LAMB.from_config(given, custom_objects={name: other})
    assert _rate(optimizer, 4) == 0


def test_the_name_of_addons_is_known():
    config = {"class_name": "LAMB", "registered_name": "Addons>LAMB"}
    config.update(module="tensorflow_addons.optimizers.lamb", config=ADDONS)
    optimizer = keras.optimizers.deserialize(config)
    assert type(optimizer) is tf_lamb.LAMB
    assert optimizer.beta_1 == 0.8
    saved = keras.optimizers.serialize(optimizer)
    assert saved["registered_name"] == "tf_lamb>LAMB"


def test_a_config_in_which_0_is_none():
    config = {
        **tf_lamb.LAMB().get_config(),
        "gradient_accumulation_steps": 0,
        "ema_overwrite_frequency": 0,
    }
    optimizer = tf_lamb.LAMB.from_config(config)
    assert optimizer.gradient_accumulation_steps is None
    assert optimizer.ema_overwrite_frequency is None
