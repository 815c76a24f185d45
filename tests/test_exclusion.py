"""Regexes on variable paths."""

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
def test_a_pattern_without_a_match_raises(argument, other):
    arguments = {argument: ["bias", "layernorm"], other: None}
    with pytest.raises(ValueError) as caught:
        exclusion.resolve(PATHS, **arguments)
    message = str(caught.value)
    assert message.startswith(
        f"{argument}: pattern 'layernorm' matches none of 4 variables"
    )
    # The likeliest path is the one with LayerNorm in it, without its `:0`.
    nearest = message.split("nearest paths: ")[1]
    assert nearest.startswith(
        "'bert/encoder/layer_0/attention/output/LayerNorm/gamma'"
    )


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
