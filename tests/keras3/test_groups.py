"""Groups in Keras 3: what is shared by the whole model, and files.

The numbers of every option are in `tests/group_cases.py`.
"""

import keras
import numpy as np
import pytest

import tf_lamb
from tests.keras3 import problems
from tf_lamb import Group, layer_decay

RNG = np.random.default_rng(0)
X = RNG.normal(size=(64, 8)).astype("float32")
BACKEND = keras.config.backend()


def _model(optimizer, **arguments):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((8,)),
            keras.layers.Dense(8, "tanh", name="layer_0"),
            keras.layers.Dense(8, "tanh", name="layer_1"),
            keras.layers.Dense(1, name="out"),
        ],
        name="net",
    )
    model.compile(optimizer, "mse", jit_compile=False, **arguments)
    return model


def _fit(model, x=X):
    model.fit(x, X[:, :1], batch_size=16, shuffle=False, verbose=0)
    return model


def _moves(model, x=X):
    before = model.get_weights()
    _fit(model, x)
    return [np.abs(a - b).max() for a, b in zip(before, model.get_weights())]


@pytest.mark.parametrize("kind", ["LAMB", "LARS"])
def test_one_group_for_all_with_no_option_changes_nothing(kind):
    make = getattr(tf_lamb, kind)
    plain = _fit(_model(make(0.02, weight_decay=0.1)))
    groups = [Group("layer_0"), Group("")]
    grouped = _fit(_model(make(0.02, weight_decay=0.1, groups=groups)))
    for a, b in zip(plain.get_weights(), grouped.get_weights()):
        np.testing.assert_array_equal(a, b)


def test_a_rate_that_is_set_is_that_of_all_but_of_own_rates():
    groups = [
        Group("layer_0", learning_rate_multiplier=0.5),
        Group("layer_1", learning_rate=0.01),
    ]
    model = _model(tf_lamb.LAMB(0.02, groups=groups))
    _fit(model)
    model.optimizer.learning_rate = 0.0
    first, _, own, _, out, _ = _moves(model)
    assert first == out == 0 < own


def test_a_nan_in_one_group_skips_the_step_of_all():
    groups = [Group("layer_0", learning_rate_multiplier=0.5)]
    x = X.copy()
    x[5, 0] = np.nan
    model = _model(tf_lamb.LAMB(0.02, groups=groups))
    moved = _moves(model, x)
    assert model.optimizer.skipped_steps == 1 and min(moved) > 0


def test_the_gradients_of_a_frozen_group_are_not_looked_at():
    values = problems.initial_values()
    frozen = tf_lamb.LAMB(
        0.02, global_clipnorm=0.1, groups=[Group("kernel", frozen=True)]
    )
    variables = problems.make_variables(values)
    others = problems.make_variables({n: values[n] for n in ("bias", "scale")})
    alone = tf_lamb.LAMB(0.02, global_clipnorm=0.1)
    for step in range(3):
        grads = problems.gradients(step)
        problems.apply(alone, others, grads)
        grads["kernel"] = np.full_like(grads["kernel"], np.nan)
        problems.apply(frozen, variables, grads)
    got = problems.values_of(variables)
    np.testing.assert_array_equal(got["kernel"], values["kernel"])
    expected = problems.values_of(others)
    assert problems.distance(got, expected) < 1e-7
    assert frozen.skipped_steps == 0
    assert frozen.trust_ratios["kernel"] == 1.0
    # It has no moments.
    assert [v is None for v in frozen._slots[0]] == [True, False, False]


def test_a_call_with_frozen_variables_only_does_nothing():
    optimizer = tf_lamb.LAMB(groups=[Group("kernel", frozen=True)])
    variables = problems.make_variables(problems.initial_values())
    optimizer.build(variables)
    before = problems.values_of(variables)
    if BACKEND == "jax":
        pytest.skip("stateless_apply takes those of all trainable ones")
    optimizer.apply([keras.ops.ones((5, 7))], variables[:1])
    assert problems.distance(problems.values_of(variables), before) == 0


def test_averages_and_accumulation_of_a_frozen_group():
    optimizer = tf_lamb.LAMB(
        0.02,
        use_ema=True,
        ema_momentum=0.5,
        gradient_accumulation_steps=2,
        groups=[Group("layer_0", frozen=True)],
    )
    model = _model(optimizer)
    before = model.get_weights()
    _fit(model)
    after = model.get_weights()
    np.testing.assert_array_equal(before[0], after[0])
    assert np.abs(before[2] - after[2]).max() > 1e-4
    assert np.all(np.isfinite(after[2]))


def test_norms_per_filter_are_those_of_variables_of_one_filter():
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(3, 3, 2, 4)).astype(np.float32)
    kernel[..., 1] *= 50
    bias = rng.normal(size=4).astype(np.float32)
    arguments = dict(
        learning_rate=0.1, weight_decay=0.01, exclude_from_weight_decay=["bias"]
    )
    whole = problems.make_variables({"k": kernel, "bias": bias})
    filters = np.split(kernel, 4, axis=-1)
    apart = problems.make_variables(
        {**{f"k{i}": f for i, f in enumerate(filters)}, "bias": bias}
    )
    groups = [Group("", trust_ratio_per="filter")]
    ours = tf_lamb.LAMB(**arguments, groups=groups)
    plain = tf_lamb.LAMB(**arguments)
    for step in range(3):
        grads = {v.name: rng.normal(size=v.shape) for v in whole}
        grads = {n: g.astype(np.float32) for n, g in grads.items()}
        if step == 1:
            grads["k"][0, 0, 0, 0] = np.nan
        problems.apply(ours, whole, grads)
        parts = np.split(grads["k"], 4, axis=-1)
        grads.update({f"k{i}": part for i, part in enumerate(parts)})
        problems.apply(plain, apart, grads)
    got, found = problems.values_of(whole), problems.values_of(apart)
    expected = np.concatenate([found[f"k{i}"] for i in range(4)], axis=-1)
    np.testing.assert_allclose(got["k"], expected, 2e-6, 1e-6)
    np.testing.assert_allclose(got["bias"], found["bias"], 1e-6)
    assert ours.skipped_steps == plain.skipped_steps == 1
    *ratios, _ = plain.trust_ratios.values()
    assert max(ratios) > 10 * min(ratios)
    assert ours.trust_ratios["k"] == pytest.approx(np.mean(ratios), rel=1e-5)


@pytest.mark.parametrize(
    "kind, form",
    [("LAMB", "paper"), ("LAMB", "keras"), ("LARS", "you2017")]
    + [("LARS", "optax"), ("LARS", "model_garden")],
)
def test_a_layer_is_one_vector_whose_parts_may_decay_differently(kind, form):
    """One step by hand, where forms add or measure the decay differently."""
    rate, decay = 0.5, 0.3
    sizes = {"kernel": (5, 7), "bias": (7,)}
    rng = np.random.default_rng(0)
    x, g = (
        {n: rng.normal(size=s).astype("float32") for n, s in sizes.items()}
        for _ in range(2)
    )
    optimizer = getattr(tf_lamb, kind)(
        rate,
        form=form,
        weight_decay=decay,
        exclude_from_weight_decay=["bias"],
        exclude_from_layer_adaptation=[],
        groups=[Group("", trust_ratio_per="layer")],
    )
    variables = problems.make_variables(x)
    problems.apply(optimizer, variables, g)

    def flat(arrays):
        return np.concatenate([arrays[n].ravel() for n in sizes]).astype(float)

    x, g, norm = flat(x), flat(g), np.linalg.norm
    decays = np.array([decay] * 35 + [0.0] * 7)
    u = g + decays * x
    if kind == "LAMB":
        adam = g / (np.abs(g) + optimizer.epsilon)
        x = x - rate * decays * x if form == "keras" else x
        u = adam if form == "keras" else adam + decays * x
        ratio = norm(x) / norm(u)
    elif form == "you2017":
        ratio = 0.001 * norm(x) / (norm(g) + norm(decays * x))
    else:
        ratio = 0.001 * norm(x) / norm(u)
    np.testing.assert_allclose(
        flat(problems.values_of(variables)), x - rate * ratio * u, atol=1e-6
    )
    for got in optimizer.trust_ratios.values():
        assert got == pytest.approx(ratio, rel=1e-5)


def test_two_layers_of_one_name_have_a_ratio_each():
    values = [RNG.normal(size=(4, 4)).astype("float32") for _ in range(2)]
    twice = [keras.Variable(v, name="dense") for v in values]
    optimizer = tf_lamb.LAMB(groups=[Group("", trust_ratio_per="layer")])
    optimizer.build(twice)
    grads = [keras.ops.ones((4, 4)), 5 * keras.ops.ones((4, 4))]
    if BACKEND == "jax":
        grads = [keras.ops.convert_to_tensor(g) for g in grads]
    optimizer.apply(grads, twice)
    first, second = optimizer.trust_ratios.values()
    assert first != second


def test_describe_shows_groups_what_they_change_and_overlaps():
    optimizer = tf_lamb.LAMB(
        exclude_from_weight_decay="biases_and_norms",
        groups=[
            Group("kernel$", learning_rate_multiplier=0.1),
            Group("layer_1", frozen=True),
            Group("net/layer_0|out", adapt=False, learning_rate=lambda: 0.1),
        ],
    )
    _model(optimizer).optimizer.build(_model("sgd").trainable_variables)
    head, *lines = optimizer.describe().splitlines()
    assert head.split() == ("variable shape decay adapt group changes".split())
    rows = {line.split()[0]: line for line in lines}
    assert "0 (2)  learning_rate_multiplier=0.1" in rows["net/layer_0/kernel"]
    assert "0 (1)  learning_rate_multiplier=0.1" in rows["net/layer_1/kernel"]
    assert "no     no     1      frozen=True" in rows["net/layer_1/bias"]
    assert "adapt=False" in rows["net/out/bias"]
    assert optimizer.treatments["net/out/bias"].group == 2


def _groups():
    schedule = tf_lamb.WarmupPolynomial(0.05, 20, 4)
    return [
        Group(
            "layer_1",
            0.5,
            learning_rate=schedule,
            weight_decay=schedule,
            trust_ratio_per=(-1, 2),
            phi_bounds=(0.1, 5.0),
        ),
        Group("out/kernel", frozen=True),
        Group("layer_0", 0.3, beta_1=0.8),
    ]


def test_a_config_has_the_groups():
    import json

    optimizer = tf_lamb.LAMB(groups=_groups())
    config = optimizer.get_config()
    json.dumps(config)
    copy = tf_lamb.LAMB.from_config(config)
    again = copy.get_config()
    assert again["groups"] == config["groups"]
    assert [g.pattern for g in copy.groups] == [
        "layer_1",
        "out/kernel",
        "layer_0",
    ]
    assert copy.groups[0].trust_ratio_per == (-1, 2)
    assert float(copy.groups[0].learning_rate(2)) == pytest.approx(0.025)
    # A config of a version without groups.
    del config["groups"]
    assert tf_lamb.LAMB.from_config(config).groups == ()


def test_a_function_in_a_group_is_saved_as_its_value_and_that_is_said():
    optimizer = tf_lamb.LAMB(groups=[Group("a", weight_decay=lambda: 0.25)])
    with pytest.warns(UserWarning, match="Group.weight_decay.*0.25"):
        config = optimizer.get_config()
    assert tf_lamb.LAMB.from_config(config).groups[0].weight_decay == 0.25


def test_a_model_file_has_the_groups_of_its_variables(tmp_path):
    """Paths lose `net/` when a model is loaded; the groups stay."""
    groups = [Group("^net/layer_0", 0.1), *_groups()[:2]]
    whole = _fit(_fit(_model(tf_lamb.LAMB(0.02, groups=groups))))
    part = _fit(_model(tf_lamb.LAMB(0.02, groups=groups)))
    path = str(tmp_path / "model.keras")
    part.save(path)
    loaded = keras.models.load_model(path)
    assert "net/layer_0/bias" not in loaded.optimizer.treatments
    assert [t.group for t in loaded.optimizer.treatments.values()] == (
        [t.group for t in part.optimizer.treatments.values()]
    )
    _fit(loaded)
    for a, b in zip(whole.get_weights(), loaded.get_weights()):
        np.testing.assert_allclose(a, b, rtol=0, atol=2e-7)


def test_groups_are_fixed_once_the_optimizer_is_built():
    optimizer = tf_lamb.LAMB(groups=[Group("w")])
    optimizer.build([keras.Variable(np.ones(3, "float32"), name="w")])
    with pytest.raises(AttributeError, match="groups: it stays"):
        optimizer.groups = ()


def test_an_axis_is_not_asked_of_variables_without_a_ratio():
    optimizer = tf_lamb.LAMB(
        exclude_from_weight_decay="biases_and_norms",
        groups=[Group("", trust_ratio_per=1)],
    )
    variables = problems.make_variables(problems.initial_values())
    problems.apply(optimizer, variables, problems.gradients(0))
    assert optimizer.trust_ratios["bias"] == 1


def test_layer_decay_of_a_model():
    model = _model("sgd")
    groups = layer_decay(model, 0.5, trust_ratio_per="filter")
    optimizer = tf_lamb.LAMB(0.02, groups=groups, unmatched="raise")
    optimizer.build(model.trainable_variables)
    rates = [
        1
        if t.group is None
        else optimizer.groups[t.group].learning_rate_multiplier
        for t in optimizer.treatments.values()
    ]
    assert rates == [0.25, 0.25, 0.5, 0.5, 1, 1]
    assert groups[0].trust_ratio_per == "filter"
