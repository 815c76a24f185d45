"""What each recipe chooses."""

import pytest

from official_models.common.errors import InputError
from official_models.vision.resnet import recipes
from official_models.vision.resnet.model import NETWORKS


@pytest.mark.parametrize(
    ("batch", "rate", "warmup"),
    [  # Table of You et al. 2020: .04 / 2^k and its warmup epochs.
        (512, 0.04 / 2**3, 0.3125),
        (1024, 0.04 / 2**2.5, 0.625),
        (2048, 0.04 / 2**2, 1.25),
        (4096, 0.04 / 2**1.5, 2.5),
        (8192, 0.04 / 2, 5),
        (16384, 0.04 / 2**0.5, 10),
        (32768, 0.04, 20),
    ],
)
def test_untuned_lamb_on_imagenet(batch, rate, warmup):
    chosen = recipes.choose("untuned", "imagenet", global_batch_size=batch)
    assert chosen["optimizer"] == "lamb"
    assert chosen["learning_rate"] == pytest.approx(rate)
    assert chosen["warmup_epochs"] == pytest.approx(warmup)
    assert (chosen["network"], chosen["epochs"]) == ("resnet50", 90)
    assert chosen["label_smoothing"] == 0.1


@pytest.mark.parametrize("optimizer", ["lamb", "lars", "sgd", "adamw"])
@pytest.mark.parametrize("data", ["mnist", "cifar10"])
def test_untuned_on_small_sets_scales_from_the_base(data, optimizer):
    base = recipes.choose("none", data, optimizer=optimizer)
    same = recipes.choose("untuned", data, optimizer=optimizer)
    assert same == base
    large = recipes.choose(
        "untuned",
        data,
        optimizer=optimizer,
        global_batch_size=16 * base["global_batch_size"],
    )
    assert large["learning_rate"] == pytest.approx(4 * base["learning_rate"])
    assert large["warmup_epochs"] == pytest.approx(16 * base["warmup_epochs"])
    changed = {name for name in base if base[name] != large[name]}
    assert changed == {"learning_rate", "warmup_epochs", "global_batch_size"}


@pytest.mark.parametrize(
    ("batch", "rate", "warmup"),
    [
        *((256, 10, 5), (8192, 10, 5), (16383, 10, 5)),
        *((16384, 25, 5), (32767, 25, 5), (32768, 31.2, 25)),
    ],
)
def test_mlperf_lars(batch, rate, warmup):
    chosen = recipes.choose("mlperf-lars", "imagenet", global_batch_size=batch)
    expected = {
        "optimizer": "lars",
        "learning_rate": rate,
        "warmup_epochs": warmup,
        "power": 2,
        "end_learning_rate": 1e-4,
        "label_smoothing": 0.1,
        "momentum": 0.9,
        "weight_decay": 5e-5,
        "l2": 0,  # left out of the loss: LARS decays
        "network": "resnet50",
    }
    assert expected.items() <= chosen.items()


def test_no_recipe_keeps_the_rate_at_any_batch():
    small, large = (
        recipes.choose("none", "mnist", global_batch_size=n) for n in (32, 2048)
    )
    assert {**small, "global_batch_size": 2048} == large


@pytest.mark.parametrize("data", list(recipes.DATA))
def test_every_choice_is_whole_and_penalises_weights_once(data):
    keys = set(recipes.choose("none", data))
    for optimizer in ("lamb", "lars", "sgd", "adamw"):
        chosen = recipes.choose("none", data, optimizer=optimizer)
        assert set(chosen) == keys
        assert chosen["network"] in NETWORKS
        assert not (chosen["l2"] and chosen["weight_decay"])
        assert (chosen["l2"] > 0) == (optimizer == "sgd")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"optimizer": "lamb"}, "--optimizer lamb: .* is for lars"),
        ({"global_batch_size": 255}, "--global_batch_size 255: .*256 to 32768"),
        ({"global_batch_size": 32769}, "--global_batch_size 32769"),
    ],
)
def test_mlperf_lars_refuses(arguments, message):
    with pytest.raises(InputError, match=message):
        recipes.choose("mlperf-lars", "imagenet", **arguments)
