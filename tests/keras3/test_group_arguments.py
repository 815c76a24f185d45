"""What a group, and an optimizer of groups, refuses: one line each."""

import pytest

import tf_lamb
from tests.keras3 import problems
from tf_lamb import Group


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"pattern": "("}, r"'\(' is not a regular expression"),
        ({"pattern": 5}, "expected one regex, such as 'a|b', got 5"),
        ({"pattern": b"x"}, "expected one regex"),
        ({"pattern": ["a", "b"]}, "expected one regex"),
        ({"frozen": True, "beta_1": 0.5}, "beta_1 has no effect beside frozen"),
        (
            {"adapt": False, "norm": "l1", "trust_ratio_per": 0},
            "norm, trust_ratio_per has no effect beside adapt=False",
        ),
        ({"learning_rate_multiplier": -1}, "learning_rate_multiplier"),
        ({"learning_rate_multiplier": "2"}, "learning_rate_multiplier"),
        ({"adapt": 1}, "adapt"),
        ({"frozen": None}, "frozen"),
        ({"trust_ratio_per": "head"}, "'variable', 'filter', 'layer'"),
        ({"trust_ratio_per": (0, 0)}, "number of parts"),
        ({"trust_ratio_per": 1.5}, "an axis"),
        ({"trust_ratio_per": True}, "an axis"),
    ],
)
def test_what_a_group_refuses(arguments, message):
    with pytest.raises(ValueError, match=message) as error:
        Group(**{"pattern": "x", **arguments})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "optimizer, arguments, group, message",
    [
        ("LAMB", {}, {"momentum": 0.9}, "LAMB has none, got 0.9; leave it out"),
        ("LARS", {}, {"beta_1": 0.9}, "LARS has none"),
        ("LAMB", {}, {"beta_1": 1.5}, r"Group\('x'\).beta_1: expected"),
        ("LAMB", {}, {"phi_bounds": (2, 1)}, r"Group\('x'\).phi_bounds"),
        ("LAMB", {}, {"learning_rate": -1}, r"Group\('x'\).learning_rate"),
        ("LAMB", {}, {"weight_decay": "1"}, r"Group\('x'\).weight_decay"),
        (
            "LAMB",
            {"form": "lambc"},
            {"trust_ratio_bounds": (0, 5)},
            r"form='lambc' has \(0.0, 1.0\)",
        ),
        (
            "LARS",
            {"form": "you2020"},
            {"trust_coefficient": 0.1},
            "form='you2020' has none",
        ),
    ],
)
def test_what_an_optimizer_refuses_of_a_group(
    optimizer, arguments, group, message
):
    with pytest.raises(ValueError, match=message):
        getattr(tf_lamb, optimizer)(groups=[Group("x", **group)], **arguments)


@pytest.mark.parametrize(
    "groups, message",
    [
        ("embeddings", "groups: expected a list of tf_lamb.Group"),
        (Group("x"), "groups: expected a list of tf_lamb.Group"),
        ({"x": 1}, "groups: expected a list of tf_lamb.Group"),
        ([Group("x"), ("x", 1)], r"groups\[1\]: expected a tf_lamb.Group, got"),
        ([[Group("x")]], r"groups\[0\]: .* \(\*layer_decay"),
    ],
)
def test_groups_are_a_list_of_groups(groups, message):
    with pytest.raises(ValueError, match=message):
        tf_lamb.LAMB(groups=groups)


def _build(unmatched, *patterns):
    optimizer = tf_lamb.LAMB(
        groups=[Group(p, 0.5) for p in patterns], unmatched=unmatched
    )
    optimizer.build(problems.make_variables(problems.initial_values()))
    return optimizer


def test_a_group_without_variables(recwarn):
    with pytest.warns(
        UserWarning, match="groups: pattern 'kernl' matches none"
    ):
        _build("warn", "kernl", "bias")
    with pytest.raises(ValueError, match="'kernl', 'b1s' match none"):
        _build("warn", "kernl", "b1s")
    with pytest.raises(ValueError, match="nearest paths: 'kernel'"):
        _build("raise", "kernl", "bias")
    with pytest.warns(
        UserWarning, match="group 1, '.*', has no variable, since"
    ):
        _build("warn", "bias|scale", "scale")
    recwarn.clear()
    _build("ignore", "kernl", "b1s")
    assert not recwarn
    with pytest.raises(ValueError, match="'kernl' matches none"):
        _build("ignore", "kernl", "bias").describe(strict=True)


def _frozen(unmatched, *groups):
    optimizer = tf_lamb.LAMB(groups=groups, unmatched=unmatched)
    optimizer.build(problems.make_variables(problems.initial_values()))
    return optimizer


def test_a_frozen_group_without_variables_raises(recwarn):
    """A warning would leave what it was to freeze to be trained."""
    typo, other = Group("kernl", frozen=True), Group("bias", 0.5)

    def ours():  # NumPy warns of the arrays of some backends
        return [w.message for w in recwarn if w.category is UserWarning]

    for policy in ("warn", "raise"):
        for groups in ([typo, other], [other, typo], [Group("b1s"), typo]):
            with pytest.raises(
                ValueError,
                match="pattern 'kernl' matches none .*nearest paths: 'kernel'",
            ):
                _frozen(policy, *groups)
        with pytest.raises(ValueError, match="group 1, 'bias', has no var"):
            _frozen(policy, other, Group("bias", frozen=True))
    assert not ours()
    config = _frozen("ignore", typo, other).get_config()
    assert not ours()
    # To load does not fail, whatever its patterns match.
    loaded = tf_lamb.LAMB.from_config({**config, "unmatched": "warn"})
    loaded.build(problems.make_variables(problems.initial_values()))


@pytest.mark.parametrize("per", [2, (0, 3), -3])
def test_parts_that_a_variable_does_not_have(per):
    optimizer = tf_lamb.LAMB(groups=[Group("", trust_ratio_per=per)])
    with pytest.raises(ValueError, match=r"'kernel', whose shape is \(5, 7\)"):
        optimizer.build(problems.make_variables(problems.initial_values()))
