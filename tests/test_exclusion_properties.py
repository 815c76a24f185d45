"""Exclusions, whatever the paths and the patterns are."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.properties import QUICK
from tf_lamb import exclusion

PARTS = st.sampled_from(
    ["bert", "layer_0", "layer_1", "Dense", "dense", "a.b", "w+", "norm", "µ"]
)
LEAVES = st.sampled_from(["kernel", "bias", "gamma", "beta", "bias_2"])
PATHS = st.lists(
    st.tuples(st.lists(PARTS, max_size=3), LEAVES).map(
        lambda parts: "/".join([*parts[0], parts[1]])
    ),
    min_size=1,
    max_size=8,
    unique=True,
)


@st.composite
def patterns_of(draw, paths, min_size=0):
    """Regexes that match one of the paths at least: parts of them."""

    def part(path):
        begin = draw(st.integers(0, len(path) - 1))
        end = draw(st.integers(begin + 1, len(path)))
        text = re.escape(path[begin:end])
        return draw(st.sampled_from([text, f"({text})+", f".{{0}}{text}"]))

    count = draw(st.integers(min_size, 4))
    return [part(draw(st.sampled_from(paths))) for _ in range(count)]


@st.composite
def cases(draw):
    """`paths, decay patterns, adaptation patterns` (None among the last)."""
    paths = draw(PATHS)
    adapt = draw(st.one_of(st.none(), patterns_of(paths)))
    return paths, draw(patterns_of(paths)), adapt


def _excluded(patterns, path):
    return any(re.search(pattern, path) for pattern in patterns)


@QUICK
@given(cases())
def test_a_variable_is_excluded_if_a_pattern_is_found_in_its_path(case):
    paths, decay, adapt = case
    treatments = exclusion.resolve(paths, decay, adapt)
    for path, treatment in zip(paths, treatments, strict=True):
        assert treatment.decay != _excluded(decay, path)
        adapt_ = decay if adapt is None else adapt
        assert treatment.adapt != _excluded(adapt_, path)


@QUICK
@given(cases(), st.data())
def test_neither_order_nor_repetition_matters(case, data):
    paths, decay, adapt = case
    expected = set(exclusion.resolve(paths, decay, adapt))
    mixed = data.draw(st.permutations(paths))
    twice = data.draw(st.permutations(decay + decay))
    again = adapt and data.draw(st.permutations(adapt + adapt[:1]))
    adapt = adapt if adapt is None else list(again)
    got = exclusion.resolve(mixed, tuple(twice), adapt)
    assert [treatment.path for treatment in got] == mixed
    assert set(got) == expected


@QUICK
@given(cases(), st.integers(0, 99))
def test_the_number_of_an_output_does_not_matter(case, number):
    paths, decay, adapt = case
    expected = exclusion.resolve(paths, decay, adapt)
    numbered = [f"{path}:{number}" for path in paths]
    assert exclusion.resolve(numbered, decay, adapt) == expected
    assert list(map(exclusion.normalize_path, numbered)) == paths
    assert list(map(exclusion.normalize_path, paths)) == paths


@QUICK
@given(cases())
def test_the_two_lists_are_independent(case):
    """None is the same list again, and an empty one excludes nothing."""
    paths, decay, adapt = case
    both = exclusion.resolve(paths, decay, decay)
    assert exclusion.resolve(paths, decay, None) == both
    assert exclusion.resolve(paths, None, None) == (
        exclusion.resolve(paths, [], ())
    )
    if adapt is not None:
        alone = exclusion.resolve(paths, None, adapt)
        got = exclusion.resolve(paths, decay, adapt)
        assert [t.adapt for t in got] == [t.adapt for t in alone]
        assert [t.decay for t in got] == [t.decay for t in both]


@QUICK
@given(PATHS.flatmap(lambda p: st.tuples(*[st.just(p)] + 2 * [patterns_of(p)])))
def test_lists_add_up(case):
    paths, some, more = case
    one, two, both = (
        exclusion.resolve(paths, patterns, [])
        for patterns in (some, more, some + more)
    )
    for a, b, c in zip(one, two, both, strict=True):
        assert c.decay == (a.decay and b.decay)


@QUICK
@given(PATHS, st.data())
def test_a_path_that_is_escaped_and_anchored_excludes_itself_alone(paths, data):
    path = data.draw(st.sampled_from(paths))
    pattern = f"^{re.escape(path)}$"
    treatments = exclusion.resolve(paths, [pattern], None)
    excluded = [p for p, t in zip(paths, treatments) if not t.decay]
    assert excluded == [path]


@QUICK
@given(PATHS, st.sampled_from(["Kernel$", "xyz", "^/"]), st.booleans())
def test_a_list_that_matches_nothing_raises_one_line(paths, pattern, decays):
    lists = ([pattern], None) if decays else (None, [pattern])
    argument = "weight_decay" if decays else "layer_adaptation"
    with pytest.raises(ValueError) as caught:
        exclusion.resolve(paths, *lists)
    message = str(caught.value)
    assert message.startswith(f"exclude_from_{argument}: ")
    assert repr(pattern) in message and "\n" not in message


@QUICK
@given(cases(), st.sampled_from(["Kernel$", "xyz"]), st.sampled_from([0, 1]))
def test_a_pattern_too_many_changes_nothing(case, pattern, place):
    """By default it warns; a list that excludes something stays that list."""
    paths, decay, adapt = case
    if not decay:
        return  # A list of this pattern alone raises.
    expected = exclusion.resolve(paths, decay, adapt)
    more = [pattern, *decay] if place else [*decay, pattern]
    with pytest.warns(UserWarning, match=re.escape(repr(pattern))):
        assert exclusion.resolve(paths, more, adapt) == expected
    got = exclusion.resolve(paths, more, adapt, unmatched="ignore")
    assert got == expected
    with pytest.raises(ValueError, match=re.escape(repr(pattern))):
        exclusion.resolve(paths, more, adapt, unmatched="raise")


@QUICK
@given(PATHS, st.data())
def test_the_preset_goes_by_rank_and_by_a_variables_own_name(paths, data):
    ranks = [data.draw(st.integers(0, 4)) for _ in paths]
    kind = exclusion.BIASES_AND_NORMS
    treatments = exclusion.resolve(
        paths, kind, None, shapes=[(2,) * rank for rank in ranks]
    )
    for path, rank, treatment in zip(paths, ranks, treatments, strict=True):
        small = rank < 2 or path.split("/")[-1] in ("bias", "gamma", "beta")
        assert treatment == (path, not small, not small, None)


@QUICK
@given(cases(), st.data())
def test_describe_can_be_read_back(case, data):
    paths, decay, adapt = case
    treatments = exclusion.resolve(paths, decay, adapt)
    shapes = [
        data.draw(st.lists(st.integers(0, 999), max_size=4)) for _ in paths
    ]
    head, *lines = exclusion.describe(shapes, treatments).splitlines()
    assert head.split() == ["variable", "shape", "decay", "adapt"]
    for path, shape, treatment, line in zip(
        paths, shapes, treatments, lines, strict=True
    ):
        words = line.split()
        text = [] if words[1] == "scalar" else words[1].split("x")
        assert words[0] == path and list(map(int, text)) == shape
        answers = tuple({"yes": True, "no": False}[w] for w in words[2:])
        assert answers == treatment[1:3]
