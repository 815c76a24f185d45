"""The naive LARS against paper arithmetic, and how its forms relate."""

from itertools import combinations

import numpy as np
import pytest

from tests.reference.lars import FORMS, ReferenceLARS
from tests.reference_steps import (
    assert_close,
    distance,
    gradients,
    one_step,
    run,
)

NESTEROV_FORMS = [form for form in FORMS if form != "you2020"]

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
