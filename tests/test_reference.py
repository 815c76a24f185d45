"""The naive references against optax, against paper arithmetic, by property.

Shapes: variables "kernel" [5, 4], "bias" [4] and "scale" [4].
"""

from itertools import combinations

import numpy as np
import pytest

from tests.reference.clipping import clip
from tests.reference.lamb import ReferenceLAMB, norm_of
from tests.reference.lars import FORMS, ReferenceLARS

NESTEROV_FORMS = [form for form in FORMS if form != "you2020"]
CLIPS = [{}, {"clipnorm": 0.3}, {"clipvalue": 0.1}, {"global_clipnorm": 0.5}]
NAN, INF = float("nan"), float("inf")


def variables(seed=0):
    """A 2-D kernel, a bias that starts at zero, a scale that starts at one."""
    kernel = np.random.default_rng(seed).normal(size=(5, 4))
    return {"kernel": kernel, "bias": np.zeros(4), "scale": np.ones(4)}


def gradients(steps, seed=1):
    """Gradients without a zero element, so that epsilon = 0 is allowed."""
    rng = np.random.default_rng(seed)
    shapes = {name: x.shape for name, x in variables().items()}
    return [
        {
            name: rng.choice([-1.0, 1.0], shape) * rng.uniform(0.1, 2.0, shape)
            for name, shape in shapes.items()
        }
        for _ in range(steps)
    ]


def run(optimizer, grads, params=None):
    params = variables() if params is None else params
    for g in grads:
        params = optimizer.step(params, g)
    return params


def distance(left, right):
    """Largest difference of one variable, relative to that variable."""
    return np.max(
        [
            np.max(np.abs(left[name] - right[name]))
            / np.max(np.abs(left[name]))
            for name in left
        ]
    )


def assert_close(left, right, atol=1e-12):
    assert left.keys() == right.keys()
    for name in left:
        np.testing.assert_allclose(left[name], right[name], rtol=0, atol=atol)


def one_step(optimizer, x, g):
    return optimizer.step({"x": np.array(x)}, {"x": np.array(g)})["x"]


# Parity with optax 0.2.8 in float64.


@pytest.fixture
def optax():
    """optax with 64-bit JAX types, for the length of one test."""
    jax = pytest.importorskip("jax")
    optax = pytest.importorskip("optax")
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    yield optax
    jax.config.update("jax_enable_x64", before)


def run_optax(transform, grads, params):
    import jax
    import optax

    params = jax.tree.map(jax.numpy.asarray, params)
    assert all(x.dtype == np.float64 for x in params.values())
    state = transform.init(params)
    for g in grads:
        updates, state = transform.update(g, state, params)
        params = optax.apply_updates(params, updates)
    return {name: np.asarray(x) for name, x in params.items()}


KERNEL_ONLY = {"kernel": True, "bias": False, "scale": False}
EXCLUDED = ("bias", "scale")


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_lamb_equals_optax_over_30_steps(optax, weight_decay):
    grads = gradients(30)
    ours = ReferenceLAMB(0.01, weight_decay=weight_decay, no_decay=EXCLUDED)
    theirs = optax.lamb(0.01, weight_decay=weight_decay, mask=KERNEL_ONLY)
    assert_close(run(ours, grads), run_optax(theirs, grads, variables()))


def test_lamb_equals_optax_under_a_schedule_and_a_global_clip(optax):
    grads = gradients(30)
    ours = ReferenceLAMB(lambda n: 0.02 / (1 + n), global_clipnorm=2.0)
    theirs = optax.chain(
        optax.clip_by_global_norm(2.0), optax.lamb(lambda n: 0.02 / (1 + n))
    )
    assert_close(run(ours, grads), run_optax(theirs, grads, variables()))


def test_lamb_nadam_equals_optax_nadam_with_a_trust_ratio(optax):
    grads = gradients(30)
    ours = ReferenceLAMB(0.01, weight_decay=0.1, nesterov="nadam")
    theirs = optax.chain(
        optax.scale_by_adam(eps=1e-6, nesterov=True),
        optax.add_decayed_weights(0.1),
        optax.scale_by_trust_ratio(),
        optax.scale_by_learning_rate(0.01),
    )
    assert_close(run(ours, grads), run_optax(theirs, grads, variables()))


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("epsilon", [0.0, 0.1])
def test_lars_equals_optax_over_30_steps(optax, nesterov, epsilon):
    grads = gradients(30)
    ours = ReferenceLARS(
        lambda n: 1.0 / (1 + n),
        weight_decay=0.1,
        trust_coefficient=0.02,
        epsilon=epsilon,
        form="optax",
        nesterov=nesterov,
        no_decay=EXCLUDED,
        no_adapt=["scale"],
    )
    theirs = optax.lars(
        lambda n: 1.0 / (1 + n),
        weight_decay=0.1,
        weight_decay_mask=KERNEL_ONLY,
        trust_coefficient=0.02,
        eps=epsilon,
        trust_ratio_mask={"kernel": True, "bias": True, "scale": False},
        nesterov=nesterov,
    )
    assert_close(run(ours, grads), run_optax(theirs, grads, variables()))


# LAMB on paper.


def test_lamb_first_step_on_paper():
    # r = sign(g) = (1, -1); u = r + (6, 8) / 2 = (4, 3); ratio 10 / 5.
    lamb = ReferenceLAMB(0.1, epsilon=0.0, weight_decay=0.5)
    x = one_step(lamb, [6.0, 8.0], [7.0, -2.0])
    np.testing.assert_allclose(x, [5.2, 7.4], rtol=1e-14)
    assert lamb.trust_ratios["x"] == pytest.approx(2.0, rel=1e-14)
    np.testing.assert_allclose(lamb.m["x"], [0.7, -0.2], rtol=1e-14)
    np.testing.assert_allclose(lamb.v["x"], [0.049, 0.004], rtol=1e-12)


@pytest.mark.parametrize(
    "arguments, x",
    [
        # phi(10) = 5, 10, 20: ratio 1, 2, 4.
        ({"phi_bounds": (1.0, 5.0)}, [5.6, 7.7]),
        ({"phi_bounds": (1.0, 50.0)}, [5.2, 7.4]),
        ({"phi_bounds": (20.0, 50.0)}, [4.4, 6.8]),
        # The ratio 2 is bounded: 1.5, 2, 3; then phi(10) = 5 and ratio 1.
        ({"trust_ratio_bounds": (0.5, 1.5)}, [5.4, 7.55]),
        ({"trust_ratio_bounds": (0.5, 2.5)}, [5.2, 7.4]),
        ({"trust_ratio_bounds": (3.0, 4.0)}, [4.8, 7.1]),
        (
            {"phi_bounds": (1.0, 5.0), "trust_ratio_bounds": (1.5, 4.0)},
            [5.4, 7.55],
        ),
        # Ratio 1; then u = r and ratio 10 / sqrt(2).
        ({"no_adapt": ["x"]}, [5.6, 7.7]),
        ({"no_decay": ["x"]}, [6 - 0.5**0.5, 8 + 0.5**0.5]),
    ],
)
def test_lamb_options_on_paper(arguments, x):
    lamb = ReferenceLAMB(0.1, epsilon=0.0, weight_decay=0.5, **arguments)
    found = one_step(lamb, [6.0, 8.0], [7.0, -2.0])
    np.testing.assert_allclose(found, x, rtol=1e-14)


def test_lamb_norms_of_the_ratio_on_paper():
    # x = (6, 8), u = r = (1, -1): ratio 10 / sqrt(2), 14 / 2, 8 / 1.
    for norm, ratio in [("l2", 50**0.5), ("l1", 7.0), ("linf", 8.0)]:
        lamb = ReferenceLAMB(epsilon=0.0, norm=norm)
        one_step(lamb, [6.0, 8.0], [7.0, -2.0])
        assert lamb.trust_ratios["x"] == pytest.approx(ratio, rel=1e-14)


def test_lamb_bias_correction_on_paper():
    # g = 1, then 11: m_hat = (1 + 22) / 3, v_hat = (1 + 242) / 3 = 81.
    lamb = ReferenceLAMB(0.27, 0.5, 0.5, 0.0, no_adapt=["x"])
    params = {"x": np.array([1.0])}
    params = lamb.step(params, {"x": np.array([1.0])})
    assert params["x"] == pytest.approx(0.73, rel=1e-14)
    params = lamb.step(params, {"x": np.array([11.0])})
    assert params["x"] == pytest.approx(0.73 - 0.27 * 23 / 27, rel=1e-14)


@pytest.mark.parametrize(
    "bias_correction, nesterov, beta_2, r",
    [
        # m = g / 2; undone by the correction at t = 1.
        (True, None, 0.75, 1.0),
        # (1/2) / sqrt(1/16).
        (False, None, 15 / 16, 2.0),
        # m_hat = (1/4) / (3/4) + 1 = 4/3.
        (True, "nadam", 0.75, 4 / 3),
        # v_hat = (1 + 2 beta_2) / (1 + beta_2) = 36/25.
        (True, "nadam_both", 11 / 14, 10 / 9),
        # m_hat = 1/4 + 1/2; sqrt(v_hat) = sqrt(1/4).
        (False, "nadam", 0.75, 1.5),
        # v_hat = 1 - beta_2^2 = 9/25.
        (False, "nadam_both", 0.8, 1.25),
    ],
)
def test_lamb_nesterov_on_paper(bias_correction, nesterov, beta_2, r):
    lamb = ReferenceLAMB(
        0.1,
        0.5,
        beta_2,
        0.0,
        bias_correction=bias_correction,
        nesterov=nesterov,
        no_adapt=["x"],
    )
    x = one_step(lamb, [1.0, 1.0], [3.0, -4.0])
    np.testing.assert_allclose(x, [1 - 0.1 * r, 1 + 0.1 * r], rtol=1e-14)


def test_lamb_counts_updates_of_all_variables_on_paper():
    # x first moves at t = 2: m_hat = (g / 2) / (3 / 4), v_hat = g^2.
    lamb = ReferenceLAMB(0.3, 0.5, 0.0, 0.0, no_adapt=["x"])
    params = {"x": np.ones(1), "y": np.ones(1)}
    params = lamb.step(params, {"x": None, "y": np.ones(1)})
    assert params["x"] == 1.0
    assert lamb.m["x"] == lamb.v["x"] == 0.0
    params = lamb.step(params, {"x": np.full(1, 5.0), "y": None})
    assert params["x"] == pytest.approx(1 - 0.3 * 2 / 3, rel=1e-14)


# LAMB by property: the acceptance items of the algorithm.


@pytest.mark.parametrize("norm", ["l2", "l1", "linf"])
@pytest.mark.parametrize("bounds", [None, (3.0, 3.5), (0.1, 0.2)])
def test_lamb_moves_each_adapted_tensor_by_lr_phi(norm, bounds):
    lamb = ReferenceLAMB(0.01, weight_decay=0.1, norm=norm, phi_bounds=bounds)
    before = variables()
    for number, g in enumerate(gradients(5)):
        after = lamb.step(before, g)
        for name in before:
            size = norm_of(before[name], norm)
            if number > 0 or name != "bias":
                low, high = bounds or (0.0, INF)
                moved = norm_of(after[name] - before[name], norm)
                expected = 0.01 * min(max(size, low), high)
                assert moved == pytest.approx(expected, rel=1e-12)
        before = after


def test_lamb_without_moments_is_a_sign_step():
    params, (g,) = variables(), gradients(1)
    after = ReferenceLAMB(0.1, 0.0, 0.0, 0.0).step(params, g)
    for name in ("kernel", "scale"):
        x, d = params[name], params[name].size
        step = 0.1 * norm_of(x, "l2") * np.sign(g[name]) / np.sqrt(d)
        np.testing.assert_allclose(after[name], x - step, rtol=0, atol=1e-14)


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("nesterov", [None, "nadam", "nadam_both"])
def test_lamb_gradient_times_1000_changes_only_epsilon_effects(
    weight_decay, nesterov
):
    grads = gradients(20)
    large = [{name: 1000 * x for name, x in g.items()} for g in grads]

    def gap(epsilon):
        left, right = (
            run(
                ReferenceLAMB(
                    0.01,
                    epsilon=epsilon,
                    weight_decay=weight_decay,
                    nesterov=nesterov,
                ),
                given,
            )
            for given in (grads, large)
        )
        return distance(left, right)

    assert gap(0.0) < 1e-12
    assert 1e-12 < gap(1e-6) < 1e-5
    assert gap(0.1) > 1e-4


def test_lamb_bias_correction_cancels_only_in_adapted_tensors():
    left, right = (
        run(
            ReferenceLAMB(
                0.01,
                epsilon=0.0,
                bias_correction=corrected,
                no_adapt=["bias"],
            ),
            gradients(30),
        )
        for corrected in (True, False)
    )
    for name in ("kernel", "scale"):
        np.testing.assert_allclose(left[name], right[name], rtol=1e-10)
    assert np.max(np.abs(left["bias"] - right["bias"])) > 0.01


@pytest.mark.parametrize("zero", ["x", "u"])
def test_lamb_ratio_of_a_zero_norm_is_1_whatever_phi(zero):
    lamb = ReferenceLAMB(0.1, epsilon=1e-3, phi_bounds=(5.0, 10.0))
    x = np.zeros(2) if zero == "x" else np.ones(2)
    g = np.ones(2) if zero == "x" else np.zeros(2)
    after = one_step(lamb, x, g)
    assert lamb.trust_ratios["x"] == 1.0
    expected = x - 0.1 / 1.001 if zero == "x" else x
    np.testing.assert_allclose(after, expected, rtol=1e-12)


# LARS on paper: w = (3, 4), g = (4, -3), lambda = 3/4, so d = (6.25, 0),
# |w| = |g| = 5 and |g| + lambda |w| = 8.75; eta = .35, mu = lr = .5.


@pytest.mark.parametrize(
    "form, nesterov, local, first",
    [
        # local = .35 * 5 / 8.75 = .2; the step is .5 * .2 * 6.25 = .625.
        ("you2017", False, 0.2, 2.375),
        ("timm", False, 0.2, 2.375),
        # Nesterov: 1.5 times that.
        ("you2017", True, 0.2, 2.0625),
        ("timm", True, 0.2, 2.0625),
        # local = .35 * 5 / 6.25 = .28; the step is .875.
        ("optax", False, 0.28, 2.125),
        ("optax", True, 0.28, 1.6875),
        ("model_garden", False, 0.28, 2.125),
        # u = 1.5 d: the local rate falls by what u gains.
        ("model_garden", True, 0.28 / 1.5, 2.125),
        # buf = d / 2, local = 5 / 3.125; the step is .5 * 5.
        ("you2020", False, 1.6, 0.5),
    ],
)
def test_lars_first_step_on_paper(form, nesterov, local, first):
    lars = ReferenceLARS(
        0.5, 0.5, 0.75, trust_coefficient=0.35, form=form, nesterov=nesterov
    )
    w = one_step(lars, [3.0, 4.0], [4.0, -3.0])
    np.testing.assert_allclose(w, [first, 4.0], rtol=1e-14)
    assert lars.trust_ratios["x"] == pytest.approx(local, rel=1e-14)


@pytest.mark.parametrize(
    "form, nesterov, w",
    [
        # lr inside: buf = 1, then .5 + .5 = 1.
        ("you2017", False, -2.0),
        ("optax", False, -2.0),
        # Steps 1 + .5, then .5 + .5.
        ("you2017", True, -2.5),
        ("optax", True, -2.5),
        # lr outside: buf = 1, then 1.5 at half the rate.
        ("timm", False, -1.75),
        ("model_garden", False, -1.75),
        # Steps 1 + .5, then (1 + .75) / 2.
        ("timm", True, -2.375),
        ("model_garden", True, -2.375),
        # buf = .5, then .75 at half the rate.
        ("you2020", False, -0.875),
    ],
)
def test_lars_momentum_on_paper(form, nesterov, w):
    lars = ReferenceLARS(
        lambda n: 1.0 / (1 + n),
        0.5,
        form=form,
        nesterov=nesterov,
        no_adapt=["x"],
    )
    params = {"x": np.zeros(1)}
    for _ in range(2):
        params = lars.step(params, {"x": np.ones(1)})
    assert params["x"] == pytest.approx(w, rel=1e-14)
    assert lars.trust_ratios["x"] == 1.0


@pytest.mark.parametrize(
    "arguments, local",
    [
        # |w| = 7, |g| = 7: 7 / (7 + 5.25); |w| = 4: 4 / (4 + 3).
        ({"norm": "l1"}, 0.35 * 7 / 12.25),
        ({"norm": "linf"}, 0.35 * 4 / 7),
        # phi acts above the line only.
        ({"phi_bounds": (1.0, 2.5)}, 0.1),
        ({"phi_bounds": (10.0, 20.0)}, 0.4),
        ({"trust_ratio_bounds": (0.0, 0.1)}, 0.1),
        ({"trust_ratio_bounds": (0.1, 0.3)}, 0.2),
        ({"trust_ratio_bounds": (0.3, 0.4)}, 0.3),
        ({"no_decay": ["x"]}, 0.35),
        ({"no_adapt": ["x"]}, 1.0),
        ({"epsilon": 8.75}, 0.1),
    ],
)
def test_lars_options_on_paper(arguments, local):
    lars = ReferenceLARS(0.5, 0.5, 0.75, trust_coefficient=0.35, **arguments)
    w = one_step(lars, [3.0, 4.0], [4.0, -3.0])
    d = np.array([4.0, -3.0] if "no_decay" in arguments else [6.25, 0.0])
    assert lars.trust_ratios["x"] == pytest.approx(local, rel=1e-14)
    np.testing.assert_allclose(w, [3.0, 4.0] - 0.5 * local * d, rtol=1e-14)


@pytest.mark.parametrize("form", FORMS)
def test_lars_local_rate_of_a_zero_norm_is_1_whatever_phi(form):
    arguments = {"form": form, "phi_bounds": (5.0, 10.0)}
    lars = ReferenceLARS(0.1, 0.0, **arguments)
    np.testing.assert_allclose(one_step(lars, [0.0], [2.0]), [-0.2])
    assert lars.trust_ratios["x"] == 1.0
    # g = 0 but d = .5: zero for the forms that divide by |g|, not for others.
    lars = ReferenceLARS(0.1, 0.0, 0.5, **arguments)
    one_step(lars, [1.0], [0.0])
    assert (lars.trust_ratios["x"] == 1.0) == (form in ("you2017", "timm"))


# How the forms of LARS relate.


def of_form(form, grads, *, rate, momentum=0.9, weight_decay=0.1, **arguments):
    """A run with eta = 1, so that no form differs by eta alone."""
    lars = ReferenceLARS(
        rate,
        momentum,
        weight_decay,
        trust_coefficient=1.0,
        form=form,
        no_adapt=["bias"],
        **arguments,
    )
    return run(lars, grads)


def decaying(n):
    return 0.02 * 0.8**n


@pytest.mark.parametrize(
    "rate, weight_decay, equal",
    [
        (0.01, 0.1, {("you2017", "timm")}),
        (0.01, 0.0, set(combinations(("you2017", "optax", "timm"), 2))),
        (decaying, 0.1, set()),
        (decaying, 0.0, {("you2017", "optax")}),
    ],
)
@pytest.mark.parametrize("nesterov", [False, True])
def test_lars_forms_agree_only_where_they_should(
    rate, weight_decay, equal, nesterov
):
    forms = NESTEROV_FORMS if nesterov else FORMS
    found = {
        form: of_form(
            form,
            gradients(10),
            rate=rate,
            weight_decay=weight_decay,
            nesterov=nesterov,
        )
        for form in forms
    }
    for pair in combinations(forms, 2):
        gap = distance(found[pair[0]], found[pair[1]])
        assert gap < 1e-12 if pair in equal else gap > 1e-3, pair


def test_lars_forms_differ_only_by_the_norm_without_momentum():
    for weight_decay in (0.0, 0.1):
        found = {
            form: of_form(
                form,
                gradients(10),
                rate=decaying,
                momentum=0.0,
                weight_decay=weight_decay,
            )
            for form in FORMS
        }
        assert_close(found["you2017"], found["timm"])
        assert_close(found["optax"], found["model_garden"])
        assert_close(found["optax"], found["you2020"])
        gap = distance(found["optax"], found["you2017"])
        assert (gap > 1e-3) == (weight_decay > 0.0)


def test_lars_you2020_is_model_garden_without_eta_in_adapted_tensors():
    # Its buffer is 1 - mu times the other's, and dividing by |buf| undoes it.
    left, right = (
        of_form(form, gradients(10), rate=decaying)
        for form in ("you2020", "model_garden")
    )
    for name in ("kernel", "scale"):
        np.testing.assert_allclose(left[name], right[name], rtol=1e-12)
    assert np.max(np.abs(left["bias"] - right["bias"])) > 1e-3


# What both optimizers do with gradients: clip, accumulate, skip, average.

BOTH = [
    pytest.param(ReferenceLAMB, {"weight_decay": 0.1}, id="lamb"),
    *(
        pytest.param(
            ReferenceLARS, {"weight_decay": 0.1, "form": form}, id=form
        )
        for form in FORMS
    ),
]
both = pytest.mark.parametrize("optimizer, arguments", BOTH)


def test_clip_on_paper():
    grads = {
        "a": np.array([3.0, -4.0]),
        "b": np.array([12.0]),
        "c": None,
        "d": np.zeros(2),
    }
    for arguments, a, b in [
        ({}, [3.0, -4.0], [12.0]),
        ({"clipnorm": 6.0}, [3.0, -4.0], [6.0]),
        ({"clipnorm": 1.0}, [0.6, -0.8], [1.0]),
        ({"clipvalue": 3.5}, [3.0, -3.5], [3.5]),
        ({"global_clipnorm": 6.5}, [1.5, -2.0], [6.0]),
        ({"global_clipnorm": 13.5}, [3.0, -4.0], [12.0]),
    ]:
        clipped = clip(grads, **arguments)
        np.testing.assert_allclose(clipped["a"], a, rtol=1e-15)
        np.testing.assert_allclose(clipped["b"], b, rtol=1e-15)
        assert clipped["c"] is None
        np.testing.assert_array_equal(clipped["d"], np.zeros(2))


@both
@pytest.mark.parametrize("clips", CLIPS, ids=str)
def test_k_accumulated_micro_batches_equal_one_large_batch(
    optimizer, arguments, clips
):
    micro = gradients(12)
    large = [
        {
            name: np.mean([g[name] for g in micro[i : i + 4]], axis=0)
            for name in variables()
        }
        for i in range(0, 12, 4)
    ]
    one = run(optimizer(0.1, **arguments, **clips), large)
    k = run(optimizer(0.1, **arguments, **clips, accumulation_steps=4), micro)
    assert_close(one, k, atol=1e-14)


@both
def test_incomplete_accumulation_changes_nothing(optimizer, arguments):
    params, given = variables(), gradients(2)
    accumulating = optimizer(0.1, accumulation_steps=3, **arguments)
    assert_close(run(accumulating, given), params, atol=0)
    assert accumulating.average == {}


@both
def test_the_rate_counts_calls(optimizer, arguments):
    asked = []

    def rate(n):
        asked.append(n)
        return 0.1 * (n + 1)

    k = run(optimizer(rate, accumulation_steps=2, **arguments), gradients(2))
    assert asked[-1] == 1
    mean = {name: sum(g[name] for g in gradients(2)) / 2 for name in k}
    assert_close(k, run(optimizer(0.2, **arguments), [mean]), atol=1e-14)


@both
def test_a_missing_gradient_leaves_its_variable_alone(optimizer, arguments):
    first, second, third = gradients(3)
    second["kernel"] = None
    told = optimizer(0.1, **arguments)
    before = run(told, [first])
    states = [told.m, told.v] if optimizer is ReferenceLAMB else [told.buf]
    held = [state["kernel"].copy() for state in states]
    ratio = told.trust_ratios["kernel"]
    after = told.step(before, second)
    np.testing.assert_array_equal(after["kernel"], before["kernel"])
    for state, kernel in zip(states, held):
        np.testing.assert_array_equal(state["kernel"], kernel)
    assert told.trust_ratios["kernel"] == ratio
    assert np.all(after["scale"] != before["scale"])
    assert np.all(told.step(after, third)["kernel"] != after["kernel"])


@pytest.mark.parametrize("value", [NAN, INF, -INF])
@both
def test_a_step_that_is_not_finite_is_skipped(optimizer, arguments, value):
    first, second, third = gradients(3)
    bad = {name: x.copy() for name, x in second.items()}
    bad["bias"][1] = value
    kept = {"clipvalue": 1.0, "ema_momentum": 0.9, **arguments}
    one, other = optimizer(0.1, **kept), optimizer(0.1, **kept)
    without = run(one, [first, third])
    assert_close(run(other, [first, bad, third]), without, atol=0)
    assert_close(one.average, other.average, atol=0)
    assert (one.skipped_steps, other.skipped_steps) == (0, 1)
    let_through = optimizer(0.1, skip_nonfinite=False, **arguments)
    with np.errstate(invalid="ignore"):
        after = run(let_through, [bad])
    assert not np.all(np.isfinite(after["bias"]))
    assert let_through.skipped_steps == 0


@both
def test_one_bad_micro_batch_costs_its_own_update_only(optimizer, arguments):
    grads = gradients(4)
    bad = [{name: x.copy() for name, x in g.items()} for g in grads]
    bad[0]["kernel"][0, 0] = NAN
    told = optimizer(0.1, accumulation_steps=2, **arguments)
    expected = optimizer(0.1, accumulation_steps=2, **arguments)
    assert_close(run(told, bad), run(expected, grads[2:]), atol=0)
    assert told.skipped_steps == 1


def test_a_gradient_missing_in_one_micro_batch_counts_as_zero():
    grads = gradients(2)
    zeros = {**grads[1], "kernel": np.zeros((5, 4))}
    missing = {**grads[1], "kernel": None}
    left, right = (
        run(ReferenceLAMB(0.1, accumulation_steps=2), [grads[0], second])
        for second in (zeros, missing)
    )
    assert_close(left, right, atol=0)


@both
def test_the_average_starts_at_the_first_update(optimizer, arguments):
    grads = gradients(4)
    told = optimizer(0.1, ema_momentum=0.75, accumulation_steps=2, **arguments)
    first = run(told, grads[:2])
    assert_close(told.average, first, atol=0)
    second = run(told, grads[2:], first)
    expected = {n: 0.75 * first[n] + 0.25 * second[n] for n in first}
    assert_close(told.average, expected, atol=1e-15)


@both
def test_arguments_are_not_written_to(optimizer, arguments):
    params, grads = variables(), gradients(3)
    run(optimizer(0.1, **arguments), grads, params)
    assert_close(params, variables(), atol=0)
    for given, fresh in zip(grads, gradients(3)):
        assert_close(given, fresh, atol=0)


@pytest.mark.parametrize(
    "optimizer, arguments, word",
    [
        (ReferenceLAMB, {"nesterov": True}, "nesterov"),
        (ReferenceLAMB, {"norm": "l3"}, "norm"),
        (ReferenceLAMB, {"accumulation_steps": 0}, "accumulation_steps"),
        (ReferenceLAMB, {"clipnorm": 1.0, "clipvalue": 1.0}, "clipnorm"),
        (ReferenceLARS, {"form": "you"}, "form"),
        (ReferenceLARS, {"norm": "l3"}, "norm"),
        (ReferenceLARS, {"form": "you2020", "nesterov": True}, "nesterov"),
    ],
)
def test_wrong_arguments_are_named(optimizer, arguments, word):
    with pytest.raises(ValueError, match=word):
        optimizer(**arguments)
