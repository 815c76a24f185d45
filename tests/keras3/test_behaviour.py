"""What users rely on beside the equations, on every backend."""

import inspect

import keras
import numpy as np
import pytest

import tf_lamb
from tests.keras3 import problems
from tests.reference.lamb import ReferenceLAMB
from tests.reference.lars import ReferenceLARS

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


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e20])
def test_nonfinite_gradient_skips_the_whole_update(name, bad):
    optimizer = getattr(tf_lamb, name)(0.1, use_ema=True, weight_decay=0.1)
    variables = problems.run(optimizer, 3)
    state = [*variables, *optimizer._slots[0], *optimizer._slots[-1]]
    state += optimizer._model_variables_moving_average
    before = [np.array(keras.ops.convert_to_numpy(v)) for v in state]
    ratios = optimizer.trust_ratios
    grads = problems.gradients(3)
    grads["bias"][2] = bad  # one value of one variable
    problems.apply(optimizer, variables, grads)
    for variable, value in zip(state, before):
        np.testing.assert_array_equal(
            keras.ops.convert_to_numpy(variable), value
        )
    assert optimizer.skipped_steps == 1
    assert optimizer.trust_ratios == ratios
    # From here on it goes as if the step had never been.
    problems.run(optimizer, 2, first_step=4, variables=variables)
    other = getattr(tf_lamb, name)(0.1, use_ema=True, weight_decay=0.1)
    expected = problems.run(other, 3)
    problems.run(other, 2, first_step=4, variables=expected)
    problems.assert_equal(variables, expected)


CLIPPING = [{"clipnorm": 0.5}, {"global_clipnorm": 0.5}, {"clipvalue": 0.5}]


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("clip", CLIPPING, ids=lambda clip: next(iter(clip)))
@pytest.mark.parametrize("factor", [1e19, 1e25, 1e35])
@pytest.mark.parametrize("of", ["bias", "all"])
def test_whatever_is_finite_is_clipped(name, clip, factor, of):
    """Squares of these gradients are infinite in float32."""
    arguments = dict(weight_decay=0.1, **clip)
    if name == "LARS":
        arguments.update(trust_coefficient=0.1)
    optimizer = getattr(tf_lamb, name)(0.1, **arguments)
    reference = {"LAMB": ReferenceLAMB, "LARS": ReferenceLARS}[name](
        0.1, **arguments
    )
    variables = problems.make_variables(problems.initial_values())
    params = problems.values_of(variables)
    for step in range(3):
        grads = problems.gradients(step)
        if step:  # the first one is in the normal range
            for variable in [of] if of != "all" else list(grads):
                grads[variable] *= np.float32(factor)
        problems.apply(optimizer, variables, grads)
        wide = {n: g.astype("float64") for n, g in grads.items()}
        params = reference.step(params, wide)
    assert optimizer.skipped_steps == 0
    assert problems.distance(problems.values_of(variables), params) < 3e-6


@pytest.mark.parametrize("clip", CLIPPING, ids=lambda clip: next(iter(clip)))
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_skipped_with_clipping_too(clip, bad):
    optimizer = tf_lamb.LAMB(0.1, **clip)
    variables = problems.run(optimizer, 2)
    before = problems.values_of(variables)
    grads = problems.gradients(2)
    grads["bias"][2] = bad
    problems.apply(optimizer, variables, grads)
    assert optimizer.skipped_steps == 1
    assert problems.distance(problems.values_of(variables), before) == 0


@pytest.mark.parametrize("clip", ["clipnorm", "global_clipnorm"])
def test_a_factor_that_no_normal_float32_holds_is_a_skip(clip):
    optimizer = tf_lamb.LAMB(0.1, **{clip: 1e-4})
    variables = problems.run(optimizer, 1)
    grads = problems.gradients(1)
    grads["kernel"][:] = 3e38
    problems.apply(optimizer, variables, grads)
    assert optimizer.skipped_steps == 1


def test_first_step_may_be_skipped():
    optimizer = tf_lamb.LAMB(0.1)
    variables = problems.make_variables(problems.initial_values())
    problems.apply(
        optimizer,
        variables,
        {n: np.full_like(g, np.nan) for n, g in problems.gradients(0).items()},
    )
    problems.run(optimizer, 2, variables=variables)
    expected = problems.run(tf_lamb.LAMB(0.1), 2)
    problems.assert_equal(variables, expected)


def test_without_skipping_a_nan_reaches_the_weights():
    optimizer = tf_lamb.LAMB(0.1, skip_nonfinite=False)
    variables = problems.make_variables(problems.initial_values())
    grads = problems.gradients(0)
    grads["kernel"][0, 0] = np.nan
    problems.apply(optimizer, variables, grads)
    assert np.isnan(problems.values_of(variables)["kernel"]).any()


@pytest.mark.parametrize("iterations", [0, 1, -3, 2**31 - 100])
def test_iterations_set_by_hand_after_skipped_steps(iterations):
    """From 0 on, the steps are those that count from 1 with these moments."""
    optimizer = tf_lamb.LAMB(0.1, weight_decay=0.1, use_ema=True)
    variables = problems.run(optimizer, 2)
    for _ in range(3):
        grads = problems.gradients(2)
        grads["kernel"][:] = np.nan
        problems.apply(optimizer, variables, grads)
    assert optimizer.skipped_steps == 3
    optimizer.iterations.assign(iterations)
    expected = ReferenceLAMB(0.1, weight_decay=0.1)
    params = problems.values_of(variables)
    for name, slot in zip(("m", "v"), optimizer._slots):
        values = {
            x.name: keras.ops.convert_to_numpy(s).astype("float64")
            for x, s in zip(variables, slot)
        }
        setattr(expected, name, values)
    for step in range(3, 6):
        grads = problems.gradients(step)
        problems.apply(optimizer, variables, grads)
        params = expected.step(params, grads)
    got = problems.values_of(variables)
    assert all(np.isfinite(x).all() for x in got.values())
    if iterations == 0:
        assert problems.distance(got, params) < 1e-6
        assert optimizer.skipped_steps == 0


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


@pytest.mark.parametrize("clip", CLIPPING, ids=lambda clip: next(iter(clip)))
@pytest.mark.parametrize("floatx", ["float16", "bfloat16", "float64"])
def test_clipping_whatever_keras_makes_of_numbers(floatx, clip):
    before = keras.config.floatx()
    keras.config.set_floatx(floatx)
    try:
        variable = keras.Variable(np.ones(4), dtype="float32", name="w")
        optimizer = tf_lamb.LARS(
            0.1, momentum=0.0, exclude_from_layer_adaptation=[""], **clip
        )
        optimizer.build([variable])
        grad = np.full(4, 1e25, "float32")
        optimizer.apply([keras.ops.convert_to_tensor(grad)], [variable])
        found = keras.ops.convert_to_numpy(variable)
    finally:
        keras.config.set_floatx(before)
    # The norm of the clipped gradient is 0.5, or each element is.
    moved = 0.05 if "clipvalue" in clip else 0.025
    np.testing.assert_allclose(found, 1 - moved, rtol=2e-3)
    assert optimizer.skipped_steps == 0


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


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("dtype", ["int32", "uint8", "bool", "complex64"])
def test_variables_that_are_not_floating_are_refused_by_name(name, dtype):
    weight = keras.Variable(np.ones(3, "float32"), name="weight")
    try:
        other = keras.Variable(
            np.ones(3, dtype), dtype=dtype, name="other", trainable=False
        )
    except ValueError as error:
        # Keras has no complex variables then, nor could anyone pass one.
        assert dtype in str(error)
        return
    optimizer = getattr(tf_lamb, name)(0.1)
    with pytest.raises(ValueError, match=f"variable 'other' is {dtype}; exp"):
        optimizer.build([weight, other])
    assert not optimizer.built and not hasattr(optimizer, "_slots")


def test_pattern_without_a_match_names_the_nearest_and_changes_nothing():
    optimizer = tf_lamb.LAMB(exclude_from_weight_decay=["Bais"])
    variables = problems.make_variables(problems.initial_values())
    with pytest.raises(ValueError, match="'Bais' matches none of 3.*'bias'"):
        optimizer.build(variables)
    assert not optimizer.built


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"learning_rate": -1.0}, "learning_rate: expected a number >= 0"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"beta_1": 1.0}, r"beta_1: expected a number in \[0, 1\), got 1.0"),
        ({"beta_2": -0.1}, "beta_2"),
        ({"epsilon": 0}, "epsilon: expected a number > 0"),
        ({"weight_decay": -0.1}, "weight_decay"),
        ({"norm": "l3"}, "norm: expected one of 'l2', 'l1', 'linf'"),
        ({"nesterov": "yes"}, "nesterov: expected one of None, 'nadam'"),
        ({"phi_bounds": (2, 1)}, "phi_bounds: expected a pair"),
        ({"phi_bounds": 3}, "phi_bounds"),
        (
            {"trust_ratio_bounds": (10, 0.01)},
            r"trust_ratio_bounds: expected a pair .* got \(10, 0.01\)",
        ),
        ({"trust_ratio_bounds": (0, float("nan"))}, "trust_ratio_bounds"),
        ({"clipnorm": -1}, "clipnorm: expected a number > 0"),
        ({"exclude_from_weight_decay": "bias"}, r"write \['bias'\]"),
        ({"exclude_from_weight_decay": ["("]}, "not a regular expression"),
        ({"exclude_from_layer_adaptation": [3]}, "not a regular expression"),
        ({"clipnorm": 1.0, "clipvalue": 1.0}, "Only one of"),
        ({"momentun": 1.0}, "not recognized"),
    ],
)
def test_bad_lamb_arguments(arguments, message):
    with pytest.raises(ValueError, match=message) as caught:
        tf_lamb.LAMB(**arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"momentum": 1.0}, "momentum"),
        ({"form": "lars"}, "form: expected one of 'you2017', 'optax'"),
        ({"trust_coefficient": 0}, "trust_coefficient"),
        ({"form": "you2020", "nesterov": True}, "not defined"),
    ],
)
def test_bad_lars_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        tf_lamb.LARS(**arguments)


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
