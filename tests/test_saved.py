"""Which saved variable is which, and whose exclusions hold after loading."""

import json

import pytest

from tf_lamb import saved
from tf_lamb.saved import Identity

# Decays, is adapted.
YES, NO = (True, True), (False, False)


def identities(*paths, shape=(2,)):
    return [Identity(path, shape) for path in paths]


@pytest.mark.parametrize(
    "file, now, expected",
    [
        # Reordered: by path.
        (("a/bias", "b/bias"), ("b/bias", "a/bias"), [1, 0]),
        (
            ("dense/bias", "dense_1/bias"),
            ("dense_1/bias", "dense/bias"),
            [1, 0],
        ),
        # Keras 3 drops the model's name, or numbers anew.
        (("net/a/bias", "net/b/bias"), ("a/bias", "b/bias"), [0, 1]),
        (
            ("dense/bias", "dense_1/bias"),
            ("dense_4/bias", "dense_5/bias"),
            [0, 1],
        ),
        (
            ("dense/bias", "dense_1/bias"),
            ("dense_1/bias", "dense_2/bias"),
            [0, 1],
        ),
        # A part was frozen or unfrozen.
        (("a/bias",), ("a/bias", "b/bias"), [0, None]),
        (("a/bias", "b/bias"), ("b/bias",), [1]),
        (("net/a/bias", "net/b/bias"), ("b/bias",), [1]),
        # As many, of the same shapes: but others.
        (("a/bias",), ("b/bias",), [None]),
        (("x/bias", "y/bias"), ("bias",), [None]),  # which one?
        (("bias",), ("x/bias", "y/bias"), [None, None]),
        # Two variables of one path.
        (("a/bias", "a/bias"), ("a/bias", "a/bias"), [0, 1]),
        (("a/bias", "a/bias"), ("a/bias",), [None]),
        ((), ("a/bias",), [None]),
    ],
)
def test_variables_are_known_again(file, now, expected):
    assert saved.match(identities(*file), identities(*now)) == expected


def test_another_shape_is_another_variable():
    file = [Identity("a/bias", (2,)), Identity("b/bias", (3,))]
    now = [Identity("a/bias", (4,)), Identity("b/bias", (3,))]
    assert saved.match(file, now) == [None, 1]


def _resolve(exclusions, now, no_decay=("net/",), no_adapt=None, listed=None):
    now = identities(*now)
    listed = listed or [False] * len(now)
    found = exclusions.resolve("LAMB", now, listed, no_decay, no_adapt)
    assert [t.path for t in found] == [identity.path for identity in now]
    return tuple((t.decay, t.adapt) for t in found)


def _loaded(exclusions):
    record = exclusions.config("LAMB", built=True, listed=False)
    return saved.Exclusions(json.loads(json.dumps(record))[saved.KEY])


def test_a_pattern_that_a_loaded_model_does_not_match_is_kept_with_a_warning():
    exclusions = saved.Exclusions()
    assert _resolve(exclusions, ["net/b", "other/c"]) == (NO, YES)
    loaded = _loaded(exclusions)
    with pytest.warns(UserWarning, match="1 of 2 .*'net/b' is 'b' now") as seen:
        assert _resolve(loaded, ["b", "other/c"]) == (NO, YES)
    assert len(seen) == 1 and "\n" not in str(seen[0].message)


def test_a_pattern_that_matches_another_variable_does_not_move_the_exclusion():
    exclusions = saved.Exclusions()
    _resolve(exclusions, ["dense_1/b", "dense_2/b"], ["dense_1/"])
    with pytest.warns(UserWarning, match="'dense_1/b' is 'dense/b' now"):
        treatments = _resolve(
            _loaded(exclusions), ["dense/b", "dense_1/b"], ["dense_1/"]
        )
    assert treatments == (NO, YES)


def test_nothing_is_said_where_patterns_and_record_agree(recwarn):
    exclusions = saved.Exclusions()
    _resolve(exclusions, ["net/a", "net/b"], ["a$"])
    assert _resolve(_loaded(exclusions), ["a", "b"], ["a$"]) == (NO, YES)
    assert not recwarn


def test_a_loaded_optimizer_has_the_config_that_was_saved():
    exclusions = saved.Exclusions()
    _resolve(exclusions, ["net/a", "net/b"], ["a$"])
    loaded = _loaded(exclusions)
    before = loaded.record
    _resolve(loaded, ["a", "b"], ["a$"])
    assert loaded.record == before
    _resolve(loaded, ["a", "b", "c"], ["a$"])  # another model
    assert [row[0] for row in loaded.record["variables"]] == ["a", "b", "c"]


def test_patterns_that_were_changed_in_a_config_count():
    exclusions = saved.Exclusions()
    _resolve(exclusions, ["net/a", "net/b"], ["a$"])
    assert _resolve(_loaded(exclusions), ["net/a", "net/b"], ["b$"]) == (
        YES,
        NO,
    )


def test_listed_variables_are_saved_and_follow_the_rule_of_patterns():
    listed = [True, False]
    only_decay = (False, True)
    for no_adapt, treatment in ((None, NO), ((), only_decay)):
        exclusions = saved.Exclusions()
        first = _resolve(exclusions, ["net/a", "net/b"], None, no_adapt, listed)
        again = _resolve(_loaded(exclusions), ["a", "b"], None, no_adapt)
        assert first == again == (treatment, YES)


def test_listed_variables_that_are_not_found_again_are_named():
    exclusions = saved.Exclusions()
    _resolve(exclusions, ["a", "b"], None, None, [True, False])
    with pytest.warns(UserWarning, match="1 variables .* var_list .*: 'a'"):
        assert _resolve(_loaded(exclusions), ["c"], None) == (YES,)


def test_without_a_record_a_config_with_a_stale_pattern_warns():
    exclusions = saved.Exclusions()
    with pytest.raises(ValueError, match="'net/' matches none"):
        _resolve(exclusions, ["a"], ["net/"])
    exclusions.loaded = True
    with pytest.warns(UserWarning, match="'net/' matches none.*loaded all the"):
        assert _resolve(exclusions, ["a"], ["net/"]) == (YES,)
    with pytest.warns(UserWarning, match="'net/' matches none.*loaded all the"):
        assert _resolve(exclusions, ["a"], ["net/", "a"]) == (NO,)


def test_listed_variables_of_an_unbuilt_optimizer_are_not_lost_in_silence():
    exclusions = saved.Exclusions()
    with pytest.warns(UserWarning, match="not built; call optimizer.build"):
        assert exclusions.config("LAMB", built=False, listed=True) == {}


def test_the_policy_for_unmatched_patterns_holds(recwarn):
    """Of a list that matched in part when it was saved, nothing is said."""
    exclusions = saved.Exclusions()
    now, usual = identities("net/a", "net/b"), ["a$", "LayerNorm"]
    no = [False, False]
    exclusions.resolve("LAMB", now, no, usual, None, "ignore")
    assert not recwarn
    with pytest.raises(ValueError, match="'LayerNorm' matches none"):
        saved.Exclusions().resolve("LAMB", now, no, usual, None, "raise")
    loaded = _loaded(exclusions)
    for policy in ("warn", "raise", "ignore"):
        found = loaded.resolve(
            "LAMB", identities("a", "b"), no, usual, None, policy
        )
        assert [t.decay for t in found] == [False, True]
    assert not recwarn


def test_the_preset_by_kind_is_saved_as_its_name(recwarn):
    exclusions = saved.Exclusions()
    now = [Identity("net/kernel", (2, 2)), Identity("net/bias", (2,))]
    no = [False, False]
    exclusions.resolve("LAMB", now, no, "biases_and_norms", None)
    again = [Identity("kernel", (2, 2)), Identity("bias", (2,))]
    found = _loaded(exclusions).resolve(
        "LAMB", again, no, "biases_and_norms", None
    )
    assert [t.adapt for t in found] == [True, False]
    assert not recwarn
