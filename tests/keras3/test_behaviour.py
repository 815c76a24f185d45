"""What users rely on beside the equations, on every backend."""

import inspect

import keras
import numpy as np
import pytest

import tf_lamb
from tests.keras3 import problems

OPTIMIZERS = ("LAMB", "LARS")


def _fit_model(optimizer, epochs=2, dtype=None, seed=0, **compile_arguments):
    """A small classifier with an embedding, fitted on fixed data."""
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((4,), dtype="int32")
    x = keras.layers.Embedding(20, 8, name="embedding", dtype=dtype)(inputs)
    x = keras.layers.Flatten()(x)
    x = keras.layers.Dense(16, activation="relu", name="hidden", dtype=dtype)(x)
    x = keras.layers.BatchNormalization(name="norm", dtype=dtype)(x)
    x = keras.layers.Dense(3, name="logits", dtype="float32")(x)
    model = keras.Model(inputs, x)
    model.compile(
        optimizer,
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        **compile_arguments,
    )
    x, y = _data()
    history = model.fit(
        x, y, batch_size=16, epochs=epochs, shuffle=False, verbose=0
    )
    return model, history.history["loss"]


def _data():
    rng = np.random.default_rng(0)
    x = rng.integers(0, 20, size=(96, 4)).astype("int32")
    return x, (x.sum(1) % 3).astype("int32")


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_fit_learns(name):
    rate = {"LAMB": 0.03, "LARS": 5.0}[name]
    optimizer = getattr(tf_lamb, name)(
        rate,
        weight_decay=1e-4,
        exclude_from_weight_decay=["bias", "gamma", "beta"],
    )
    _, losses = _fit_model(optimizer, epochs=30)
    assert losses[-1] < 0.5 * losses[0]


def test_is_a_keras_optimizer():
    for name in OPTIMIZERS:
        optimizer = getattr(tf_lamb, name)()
        assert isinstance(optimizer, keras.optimizers.Optimizer)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_docstring_names_every_argument(name):
    optimizer = getattr(tf_lamb, name)
    lines = inspect.getdoc(optimizer).splitlines()
    documented = {
        line.strip().split(":")[0]
        for line in lines
        if line.startswith("  ") and not line.startswith("   ")
    }
    arguments = set(inspect.signature(optimizer).parameters) - {"kwargs"}
    assert arguments <= documented
    assert "{" not in inspect.getdoc(optimizer).split("Args:")[1]


def test_tfa_positional_arguments():
    optimizer = tf_lamb.LAMB(
        0.002, 0.8, 0.99, 1e-5, 0.1, ["bias"], ["kernel"], "lamb"
    )
    config = optimizer.get_config()
    assert config["learning_rate"] == pytest.approx(0.002)
    assert (config["beta_1"], config["beta_2"]) == (0.8, 0.99)
    assert (config["epsilon"], config["weight_decay"]) == (1e-5, 0.1)
    assert config["exclude_from_weight_decay"] == ["bias"]
    assert config["exclude_from_layer_adaptation"] == ["kernel"]
    assert config["name"] == "lamb"
    with pytest.warns(FutureWarning, match="0.4.0 removes; write weight_d"):
        assert tf_lamb.LAMB(weight_decay_rate=0.3).weight_decay == 0.3


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_config_round_trip_keeps_everything(name):
    schedule = tf_lamb.WarmupPolynomial(0.01, 100, 10, decay_from="start")
    arguments = dict(
        learning_rate=schedule,
        weight_decay=0.02,
        exclude_from_weight_decay=["bias"],
        exclude_from_layer_adaptation=[],
        norm="l1",
        phi_bounds=(0.1, 5.0),
        trust_ratio_bounds=(0.01, 10.0),
        skip_nonfinite=False,
        jit_compile=False,
        global_clipnorm=1.0,
        use_ema=True,
        ema_momentum=0.5,
        ema_overwrite_frequency=7,
        loss_scale_factor=8.0,
        gradient_accumulation_steps=2,
    )
    if name == "LAMB":
        arguments.update(
            beta_1=0.7,
            beta_2=0.8,
            epsilon=1e-4,
            bias_correction=False,
            nesterov="nadam",
        )
    else:
        arguments.update(
            momentum=0.5,
            trust_coefficient=0.01,
            epsilon=0.1,
            form="timm",
            nesterov=True,
        )
    optimizer = getattr(tf_lamb, name)(**arguments)
    config = optimizer.get_config()
    # Every argument of the constructor has to be in the config.
    for argument, value in arguments.items():
        if argument != "learning_rate":
            expected = list(value) if isinstance(value, tuple) else value
            assert config[argument] == expected, argument
    serialized = keras.optimizers.serialize(optimizer)
    again = keras.optimizers.deserialize(serialized)
    assert type(again) is type(optimizer)
    assert again.get_config() == config


@pytest.mark.parametrize(
    "arguments",
    # 12 batches: saved in the middle of an accumulation.
    [{}, {"use_ema": True, "gradient_accumulation_steps": 5}],
    ids=["plain", "EMA-accumulation"],
)
def test_save_and_load_keep_weights_slots_and_exclusions(tmp_path, arguments):
    optimizer = tf_lamb.LAMB(
        0.01,
        weight_decay=0.1,
        exclude_from_weight_decay=["bias", "norm/"],
        **arguments,
    )
    model, _ = _fit_model(optimizer)
    path = tmp_path / "model.keras"
    model.save(path)
    loaded = keras.saving.load_model(path)
    assert loaded.optimizer.treatments == optimizer.treatments
    assert not loaded.optimizer.treatments["hidden/bias"].adapt
    for a, b in zip(optimizer.variables, loaded.optimizer.variables):
        np.testing.assert_array_equal(
            keras.ops.convert_to_numpy(a), keras.ops.convert_to_numpy(b)
        )
    x, y = _data()
    for each in (model, loaded):
        each.fit(x, y, batch_size=16, epochs=1, shuffle=False, verbose=0)
    for a, b in zip(model.get_weights(), loaded.get_weights()):
        np.testing.assert_array_equal(a, b)


def test_apply_outside_fit():
    """The stateful `apply` of custom loops, on JAX too."""
    variables = problems.make_variables(problems.initial_values())
    optimizer = tf_lamb.LAMB(0.1, gradient_accumulation_steps=2)
    for step in range(4):
        grads = problems.gradients(step)
        optimizer.apply(
            [keras.ops.convert_to_tensor(grads[v.name]) for v in variables],
            variables,
        )
    expected = problems.run(tf_lamb.LAMB(0.1, gradient_accumulation_steps=2), 4)
    problems.assert_equal(variables, expected)


def test_missing_gradient_leaves_its_variable_alone():
    optimizer = tf_lamb.LAMB(0.1, weight_decay=0.1)
    variables = problems.make_variables(problems.initial_values())
    for step in range(3):
        grads = problems.gradients(step)
        grads["kernel"] = None
        problems.apply(optimizer, variables, grads)
    values = problems.values_of(variables)
    initial = problems.initial_values()
    np.testing.assert_array_equal(values["kernel"], initial["kernel"])
    assert np.abs(values["bias"]).min() > 0
    assert optimizer.trust_ratios["kernel"] == 1


def test_ema_overwrite_and_finalize():
    plain = tf_lamb.LAMB(0.1, use_ema=True, ema_momentum=0.5)
    variables = problems.run(plain, 3)
    average = [
        keras.ops.convert_to_numpy(a)
        for a in plain._model_variables_moving_average
    ]
    overwriting = tf_lamb.LAMB(
        0.1, use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=3
    )
    overwritten = problems.run(overwriting, 3)
    plain.finalize_variable_values(variables)
    for a, b, mean in zip(variables, overwritten, average):
        np.testing.assert_allclose(
            keras.ops.convert_to_numpy(a), mean, rtol=1e-6
        )
        np.testing.assert_allclose(
            keras.ops.convert_to_numpy(b), mean, rtol=1e-6
        )


def test_constraint_is_applied():
    variable = keras.Variable(np.full((4,), 0.5, "float32"), name="positive")
    variable.constraint = keras.constraints.NonNeg()
    optimizer = tf_lamb.LAMB(2.0)
    optimizer.apply(
        [keras.ops.convert_to_tensor(np.array([1, 1, -1, -1], "float32"))],
        [variable],
    )
    value = keras.ops.convert_to_numpy(variable)
    assert (value[:2] == 0).all()
    assert (value[2:] > 0.5).all()


def test_overwrite_with_gradient():
    """Float8's scales arrive as gradients and are written as they are."""
    kernel, scale = problems.make_variables(
        {k: v for k, v in problems.initial_values().items() if k != "bias"}
    )
    scale.overwrite_with_gradient = True
    optimizer = tf_lamb.LAMB(0.1)
    grads = problems.gradients(0)
    grads["scale"][:] = 42
    problems.apply(optimizer, [kernel, scale], grads)
    assert keras.ops.convert_to_numpy(scale)[0] == 42


def test_loss_scaling_by_a_factor_and_by_the_wrapper():
    plain = problems.run(tf_lamb.LAMB(0.1), 3)
    fixed = tf_lamb.LAMB(0.1, loss_scale_factor=1024.0)
    wrapped = keras.optimizers.LossScaleOptimizer(
        tf_lamb.LAMB(0.1), initial_scale=1024.0
    )
    for optimizer in (fixed, wrapped):
        variables = problems.make_variables(problems.initial_values())
        for step in range(3):
            scaled = {n: 1024 * g for n, g in problems.gradients(step).items()}
            problems.apply(optimizer, variables, scaled)
        assert (
            problems.distance(
                problems.values_of(variables), problems.values_of(plain)
            )
            < 1e-6
        )


def test_what_a_loss_scale_keeps_from_0_is_not_lost_again():
    """2e-5 / 1024 is 0 in float16, the variable's dtype."""
    variable = keras.Variable(np.ones(4), dtype="float16", name="w")
    optimizer = tf_lamb.LAMB(0.01, loss_scale_factor=1024.0)
    optimizer.build([variable])
    grad = keras.ops.convert_to_tensor(np.full(4, 2e-5, "float16"))
    optimizer.apply([grad], [variable])
    m = keras.ops.convert_to_numpy(optimizer._slots[0][0])
    np.testing.assert_allclose(m, 0.1 * 2e-5 / 1024, rtol=2e-2)
    assert (keras.ops.convert_to_numpy(variable) < 1).all()


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_fit(policy):
    _, losses = _fit_model(tf_lamb.LAMB(0.03), epochs=15, dtype=policy)
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0]


def test_describe_and_exclude_method():
    optimizer = tf_lamb.LAMB(
        weight_decay=0.1, exclude_from_weight_decay=["bias"]
    )
    with pytest.raises(ValueError, match="build"):
        optimizer.describe()
    kernel, bias, scale = problems.make_variables(problems.initial_values())
    optimizer.exclude_from_weight_decay(var_list=[scale], var_names=["kern"])
    optimizer.build([kernel, bias, scale])
    lines = optimizer.describe().splitlines()
    assert [line.split() for line in lines] == [
        ["variable", "shape", "decay", "adapt"],
        ["kernel", "5x7", "no", "no"],
        ["bias", "7", "no", "no"],
        ["scale", "1", "no", "no"],
    ]
    with pytest.raises(ValueError, match="built already"):
        optimizer.exclude_from_weight_decay(var_names=["x"])


def test_schedules_in_fit_and_serialised():
    schedule = tf_lamb.Rewarmup(
        [
            tf_lamb.WarmupPolynomial(0.1, 10, 5),
            tf_lamb.WarmupPolynomial(0.05, 6, 3, power=2.0),
        ],
        [10, 6],
    )
    rates = [float(schedule(step)) for step in range(16)]
    assert rates[0] == 0 and rates[5] == pytest.approx(0.1)
    assert rates[10] == 0 and rates[13] == pytest.approx(0.05)
    again = keras.optimizers.schedules.deserialize(
        keras.optimizers.schedules.serialize(schedule)
    )
    assert [float(again(step)) for step in range(16)] == rates
    optimizer = tf_lamb.LAMB(schedule)
    _fit_model(optimizer, epochs=1)
    assert float(optimizer.learning_rate) == pytest.approx(rates[6])


def test_schedules_of_more_steps_than_an_int32_counts():
    """On JAX a Python number above 2^31 overflows."""
    many = 2**40
    schedule = tf_lamb.WarmupPolynomial(0.5, many, warmup_steps=many // 2)
    assert float(schedule(2**30)) == pytest.approx(0.5 / 2**9)
    both = tf_lamb.Rewarmup([schedule, schedule], [many, many])
    assert float(both(2**30)) == pytest.approx(0.5 / 2**9)


def test_rate_can_be_set_and_read():
    optimizer = tf_lamb.LAMB(0.1)
    variables = problems.run(optimizer, 1)
    optimizer.learning_rate = 0.0
    before = problems.values_of(variables)
    problems.run(optimizer, 1, first_step=1, variables=variables)
    assert problems.distance(problems.values_of(variables), before) == 0


def test_an_error_in_a_step_of_fit_is_the_one_that_is_seen():
    """On JAX `fit` holds the variables then, and finalizes all the same."""

    def error_of(optimizer):
        model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(1)])
        model.compile(optimizer, "mse", jit_compile=False)
        y = np.zeros((4, 1), "float32")
        model.fit(np.zeros((4, 8), "float32"), y, verbose=0)
        with pytest.raises(Exception) as raised:
            model.fit(np.zeros((4, 5), "float32"), y, verbose=0)
        return raised.type

    expected = error_of(keras.optimizers.SGD(0.01))
    assert expected is not TypeError
    assert error_of(tf_lamb.LAMB(0.01)) is expected
    assert error_of(tf_lamb.LAMB(0.01, use_ema=True)) is expected
