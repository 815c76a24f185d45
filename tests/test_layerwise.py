"""Layer-wise decay of the rate, by the paths of models."""

import pytest

from tf_lamb import Group, exclusion, layer_decay


def _rates(paths, groups):
    """The multiplier of each path; the first group that matches holds."""
    shapes = [(2, 2)] * len(paths)
    patterns = [group.pattern for group in groups]
    places = exclusion.first_matches(patterns, paths, shapes, "raise")
    return [
        1 if i is None else groups[i].learning_rate_multiplier for i in places
    ]


def _decayed(paths, **arguments):
    return _rates(paths, layer_decay(paths, 0.5, **arguments))


def test_numbered_layers_with_what_is_before_between_and_behind_them():
    paths = [
        "bert/embeddings/word_embeddings",
        "bert/embeddings/LayerNorm/gamma",
        "bert/encoder/layer_0/attention/self/query/kernel",
        "bert/encoder/layer_0/output/dense/kernel",
        "bert/encoder/adapter/kernel",
        "bert/encoder/layer_1/output/dense/kernel",
        "bert/encoder/layer_10/output/dense/kernel",
        "bert/pooler/dense/kernel",
        "classifier/kernel",
    ]
    expected = [1 / 16, 1 / 16, 1 / 8, 1 / 8, 1 / 8, 1 / 4, 1 / 2, 1, 1]
    assert _decayed(paths) == expected


def test_blocks_of_stages():
    paths = [
        "stem/kernel",
        "stage_1/block_0/conv_1/kernel",
        "stage_1/block_1/conv_1/kernel",
        "stage_2/block_0/conv_2/kernel",
        "dense/kernel",
    ]
    assert _decayed(paths) == [1 / 16, 1 / 8, 1 / 4, 1 / 2, 1]


def test_the_names_of_keras_applications_and_keras_hub():
    resnet = ["conv1_conv/kernel", "conv2_block1_1_conv/kernel"]
    resnet += ["conv2_block2_1_conv/kernel", "predictions/kernel"]
    assert _decayed(resnet) == [1 / 8, 1 / 4, 1 / 2, 1]
    hub = ["token_and_position_embedding/embeddings"]
    hub += [f"transformer_layer_{i}/self_attention/kernel" for i in range(2)]
    assert _decayed([*hub, "pooled_dense/kernel"]) == [1 / 8, 1 / 4, 1 / 2, 1]


def test_layers_by_regexes():
    paths = ["embed/kernel", "mixer/kernel", "mixer/bias", "top/kernel"]
    rates = _decayed(paths, layers=["embed", "mixer"])
    assert rates == [1 / 4, 1 / 2, 1 / 2, 1]


def test_options_go_to_every_group_and_paths_are_no_regexes():
    paths = ["a.b/x", "layer_0/x", "layer_1/x"]
    groups = layer_decay(paths, 0.9, adapt=False)
    assert all(isinstance(g, Group) and not g.adapt for g in groups)
    assert _rates(["acb/x", *paths], groups)[0] == 1


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"decay": 0}, "decay: expected a number > 0"),
        ({"decay": 1.5}, "decay: expected a number > 0 and at most 1, got 1.5"),
        ({"model": []}, "no trainable variables; build it first"),
        (
            {"model": ["a/kernel"]},
            "no path names a numbered layer .*'a/kernel'",
        ),
        ({"layers": "layer"}, "layers: expected a list of regexes"),
        ({"layers": []}, "layers: expected a list of regexes"),
        ({"model": None}, "model: expected a model, or a list of"),
        ({"model": "bert"}, "model: expected a model, or a list of"),
        ({"frozn": True}, "frozn: expected an argument of tf_lamb.Group"),
        ({"learning_rate_multiplier": 2}, "layer_decay chooses it, got 2"),
        ({"layers": ["("]}, "not a regular expression"),
    ],
)
def test_what_is_refused(arguments, message):
    arguments = {"model": ["layer_0/x"], "decay": 0.9, **arguments}
    with pytest.raises(ValueError, match=message) as error:
        layer_decay(**arguments)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["BERT", "ResNet"])
def test_our_models(name):
    if name == "BERT":
        from official_models.nlp.bert import config, heads

        tiny = config.BertConfig(
            vocab_size=20,
            hidden_size=4,
            num_layers=3,
            num_heads=2,
            intermediate_size=8,
            max_position_embeddings=8,
        )
        model = heads.bert_classifier(tiny, 2)
        first, last, count = "embeddings", "pooler", 4
    else:
        from official_models.vision.resnet import model as resnet

        model = resnet.build("resnet8_cifar", image_size=8, num_classes=2)
        first, last, count = "stem", "dense", 4
    paths = [v.path for v in model.trainable_variables]
    rates = dict(zip(paths, _decayed(paths)))
    assert len(set(rates.values())) == count + 1
    assert {r for p, r in rates.items() if first in p} == {0.5**count}
    assert {r for p, r in rates.items() if last in p} == {1}
    # The deeper, the larger.
    assert list(rates.values()) == sorted(rates.values())
