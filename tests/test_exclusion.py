"""Regexes on variable paths."""

import re

import pytest

from tf_lamb import exclusion

PATHS = (
    "bert/encoder/layer_0/attention/self/query/kernel",
    "bert/encoder/layer_0/attention/self/query/bias",
    "bert/encoder/layer_0/attention/output/LayerNorm/gamma:0",
    "bert/embeddings/word_embeddings",
)


def _flags(decay, adapt):
    treatments = exclusion.resolve(PATHS, decay, adapt)
    return [t.decay for t in treatments], [t.adapt for t in treatments]


def test_patterns_are_searched_in_the_full_path_without_output_number():
    assert _flags([r"LayerNorm/gamma$", "bias$"], ["^bert/emb"]) == (
        [True, False, False, True],
        [True, True, True, False],
    )


def test_none_means_the_same_and_an_empty_list_means_none():
    decay, adapt = _flags(["LayerNorm", "bias"], None)
    assert decay == adapt == [True, False, False, True]
    decay, adapt = _flags(["LayerNorm", "bias"], [])
    assert decay == [True, False, False, True]
    assert adapt == [True] * 4
    assert _flags(None, None) == ([True] * 4, [True] * 4)
    assert _flags([], None) == ([True] * 4, [True] * 4)


@pytest.mark.parametrize(
    "argument, other",
    [
        ("exclude_from_weight_decay", "exclude_from_layer_adaptation"),
        ("exclude_from_layer_adaptation", "exclude_from_weight_decay"),
    ],
)
def test_a_pattern_without_a_match_warns_or_raises(argument, other):
    arguments = {argument: ["bias", "layernorm"], other: None}
    with pytest.raises(ValueError) as caught:
        exclusion.resolve(PATHS, **arguments, unmatched="raise")
    message = str(caught.value)
    with pytest.warns(UserWarning) as warned:
        treatments = exclusion.resolve(PATHS, **arguments)
    assert [str(w.message) for w in warned] == [message]
    # The one that matches holds.
    flag = "decay" if "weight_decay" in argument else "adapt"
    assert [getattr(t, flag) for t in treatments] == [True, False, True, True]
    assert message.startswith(
        f"{argument}: pattern 'layernorm' matches none of 4 variables"
    )
    # The likeliest path is the one with LayerNorm in it, without its `:0`.
    nearest = message.split("nearest paths: ")[1]
    assert nearest.startswith(
        "'bert/encoder/layer_0/attention/output/LayerNorm/gamma'"
    )


def test_a_list_that_matches_nothing_raises_unless_ignored():
    patterns = ["layernorm", "Bias"]
    with pytest.raises(ValueError, match="patterns 'layernorm', 'Bias' match"):
        exclusion.resolve(PATHS, patterns, None)
    ignored = exclusion.resolve(PATHS, patterns, None, unmatched="ignore")
    assert all(t.decay and t.adapt for t in ignored)


@pytest.mark.parametrize(
    "pattern, added",
    [
        ("user/", True),
        ("^net/dense/bias$", True),
        ("(^|/)user/proj", True),
        ("MobilenetV2|mobilenet", True),
        ("bert/encodr", False),  # some path begins so
        ("layernorm", False),  # some path has almost that
        ("layer_7/attention", False),
        ("^$", False),
    ],
)
def test_where_a_pattern_may_name_a_model_the_message_says_so(pattern, added):
    for resolve in (
        lambda: exclusion.resolve(PATHS, [pattern], None),
        lambda: exclusion.first_matches(
            [pattern], PATHS, [(1, 1)] * len(PATHS), "raise"
        ),
    ):
        with pytest.raises(ValueError) as caught:
            resolve()
        message = str(caught.value)
        said = "; names of functional models are no part of a path. Patt"
        assert (said in message) == added


@pytest.mark.parametrize(
    "given, todo",
    [
        ("biases_and_norm", "did you mean 'biases_and_norms'?"),
        ("BiasesAndNorms", "did you mean 'biases_and_norms'?"),
        ("bias|norm", "write ['bias|norm']."),
        ("bias", "write ['bias']."),
    ],
)
def test_a_string_in_place_of_a_list(given, todo):
    with pytest.raises(ValueError) as caught:
        exclusion.resolve(PATHS, given, None)
    assert str(caught.value) == (
        "exclude_from_weight_decay: expected a list of regexes or "
        f"'biases_and_norms', got the string '{given}'; {todo}"
    )


def test_no_variables_are_no_error():
    assert exclusion.resolve([], ["bias"], None, unmatched="raise") == ()


# What people write: Model Garden, users of tfa, Hugging Face.
LISTS = (
    ["LayerNorm", "layer_norm", "bias"],
    ["layer_norm", "layernorm", "LayerNorm", "bias"],
    ["bn", "batch_normalization", "bias"],
    ["bias", "LayerNorm.weight", "beta", "gamma"],
)


@pytest.mark.parametrize("patterns", LISTS)
def test_the_lists_that_people_use_build_with_one_warning(patterns):
    paths = ["net/hidden/kernel", "net/hidden/bias", "net/norm/gamma"]
    with pytest.warns(UserWarning, match="match") as warned:
        treatments = exclusion.resolve(paths, patterns, None)
    assert len(warned) == 1
    assert [t.decay for t in treatments][:2] == [True, False]


def test_biases_and_norms_by_kind():
    variables = {
        "vit/patches/kernel": ((16, 16, 3, 8), True),
        "vit/ln_1/gamma": ((8,), False),
        "vit/attention/query/kernel": ((8, 2, 4), True),
        "vit/attention/query/bias": ((2, 4), False),
        "gemma/norm/scale": ((8,), False),
        "gru/bias": ((2, 12), False),
        "image_norm/gamma": ((8, 8), False),
        "variable_1": ((8,), False),
        "logit_scale": ((), False),
        "rescale/kernel": ((8, 8), True),
        "scaled_embeddings": ((30, 8), True),
        "BERT/LayerNorm/beta:0": ((8,), False),
    }
    for patterns in (
        ("biases_and_norms", None),
        (["kernel"], "biases_and_norms"),
    ):
        treatments = exclusion.resolve(
            list(variables), *patterns, [s for s, _ in variables.values()]
        )
        found = [
            t.decay if patterns[1] is None else t.adapt for t in treatments
        ]
        assert found == [kept for _, kept in variables.values()]


def test_what_unmatched_may_be():
    with pytest.raises(ValueError, match="unmatched: expected one of 'warn'"):
        exclusion.resolve(PATHS, None, None, unmatched="raises")


@pytest.mark.parametrize("patterns", ["bias", ["("], [None], 5])
def test_what_is_no_list_of_regexes_raises(patterns):
    with pytest.raises(ValueError, match="exclude_from_weight_decay"):
        exclusion.resolve(PATHS, patterns, None)


def test_describe_lines_up():
    treatments = exclusion.resolve(PATHS, ["bias"], [])
    text = exclusion.describe([(4, 4), (4,), (4,), ()], treatments)
    head, *lines = text.splitlines()
    assert head.split() == ["variable", "shape", "decay", "adapt"]
    assert lines[1].split() == [PATHS[1], "4", "no", "yes"]
    assert lines[2].split()[0] == PATHS[2].removesuffix(":0")
    assert lines[3].split() == [PATHS[3], "scalar", "yes", "yes"]
    assert len({line.index("yes", len(PATHS[0])) for line in lines}) <= 2


def test_repeated_paths_are_numbered():
    paths = ["a/w:0", "b", "a/w", "b", "a/w", "a/w#2"]
    keys = exclusion.unique_keys(paths)
    assert keys == ("a/w", "b", "a/w#3", "b#2", "a/w#4", "a/w#2")
    assert exclusion.unique_keys(["x", "y:0"]) == ("x", "y")
    assert exclusion.unique_keys([]) == ()


def test_describe_numbers_repeated_paths():
    treatments = exclusion.resolve(["w", "w"], ["^w$"], [])
    assert treatments == (("w", False, True, None), ("w", False, True, None))
    rows = exclusion.describe([(2,), (3,)], treatments).split("\n")
    assert [row.split()[:2] for row in rows[1:]] == [["w", "2"], ["w#2", "3"]]


def test_patterns_with_the_number_of_an_output_match():
    """In tfa, names ended in `:0`; other patterns do not see that number."""
    paths = ["net/hidden/kernel", "net/hidden/bias", "layer_0/kernel"]
    for pattern, expected in (
        ("bias:0", [True, False, True]),
        ("bias:0$", [True, False, True]),
        ("bias$", [True, False, True]),
        ("0", [True, True, False]),
        (":0", [False] * 3),
    ):
        treatments = exclusion.resolve(paths, [pattern], None)
        assert [t.decay for t in treatments] == expected, pattern
    with pytest.raises(ValueError, match="'0\\$' matches none"):
        exclusion.resolve(paths, ["0$"], None)


@pytest.mark.parametrize("pattern", [re.compile("bias"), b"bias", None, 3])
def test_a_pattern_that_is_no_string_is_refused(pattern):
    with pytest.raises(ValueError, match="expected a string") as caught:
        exclusion.check_patterns("exclude", ["norm", pattern])
    assert str(caught.value).startswith("exclude: ")
