"""From flags to optimizers."""

import keras
import numpy as np
import pytest
from absl import flags

import tf_lamb
from official_models.common import optimizers
from official_models.common.schedules import ByUpdate
from tests.official_models.scripts import refusal

FLAGS = flags.FLAGS


@pytest.fixture(params=["warmup_ratio", "warmup_epochs"])
def make(request):
    """Gives the optimizer of flags, over 100 steps, 10 an epoch."""
    before = {*FLAGS}
    optimizers.define_flags(
        learning_rate=0.1,
        weight_decay=0.01,
        exclusions=("bias",),
        global_clipnorm=1.0,
        **{
            request.param: {"warmup_ratio": 0.2, "warmup_epochs": 2}[
                request.param
            ]
        },
    )

    def parse(*arguments):
        FLAGS.unparse_flags()
        FLAGS(["test", *arguments])
        return optimizers.from_flags(100, 10)

    yield parse
    for name in {*FLAGS} - before:
        delattr(FLAGS, name)


def test_the_default_is_lamb_with_its_schedule(make):
    optimizer = make()
    assert type(optimizer) is tf_lamb.LAMB
    config = optimizer.get_config()
    assert config["exclude_from_weight_decay"] == ["bias"]
    assert (config["weight_decay"], config["global_clipnorm"]) == (0.01, 1.0)
    rate = optimizer._learning_rate
    assert float(rate(20)) == pytest.approx(0.1)
    assert float(rate(10)) == pytest.approx(0.05)
    assert float(rate(60)) == pytest.approx(0.05)
    assert float(rate(100)) == pytest.approx(0, abs=1e-8)


def test_accumulation_stretches_the_schedule_over_micro_batches(make):
    optimizer = make("--gradient_accumulation_steps=4")
    assert optimizer.gradient_accumulation_steps == 4
    assert float(optimizer._learning_rate(80)) == pytest.approx(0.1)
    assert float(optimizer._learning_rate(400)) == pytest.approx(0, abs=1e-8)


@pytest.mark.parametrize("name", ["lamb", "sgd"])
def test_an_accumulated_update_has_the_rate_of_its_step(make, name):
    """The micro-batch that ends a step is the last of k, not the first."""
    rates = []
    for k in (1, 3):
        optimizer = make(
            f"--optimizer={name}", f"--gradient_accumulation_steps={k}"
        )
        weight = keras.Variable(np.ones(3, "float32"), name="bias")
        optimizer.build([weight])
        rates.append([])
        for i in range(8 * k):
            if i % k == k - 1:
                rates[-1].append(float(optimizer.learning_rate))
            optimizer.apply([keras.ops.ones(3)], [weight])
    assert rates[0] == rates[1]
    assert rates[0] == pytest.approx([0.005 * i for i in range(8)])


def test_a_schedule_by_update_is_saved(make):
    schedule = make("--gradient_accumulation_steps=4")._learning_rate
    again = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(schedule)
    )
    assert isinstance(again, ByUpdate)
    for step in (0, 3, 4, 83, 399):
        assert float(again(step)) == float(schedule(step))
    assert float(again(83)) == pytest.approx(0.1)


@pytest.mark.parametrize("name", ["lars", "sgd"])
def test_momentum_is_that_of_lars_and_sgd(make, name):
    assert make(f"--optimizer={name}").momentum == 0.9
    assert make(f"--optimizer={name}", "--momentum=0.8").momentum == 0.8
    refusal(
        lambda: make(f"--optimizer={name}", "--beta_1=0.8"),
        f"--beta_1: for --optimizer lamb or adamw, not {name}",
    )


@pytest.mark.parametrize("name", ["lamb", "adamw"])
def test_beta_1_is_that_of_lamb_and_adamw(make, name):
    assert make(f"--optimizer={name}", "--beta_1=0.8").beta_1 == 0.8
    refusal(
        lambda: make(f"--optimizer={name}", "--momentum=0.8"),
        f"--momentum: for --optimizer lars or sgd, not {name}",
    )


def test_forms(make):
    assert make().form == "paper"
    assert make("--optimizer=lars").form == "you2017"
    assert make("--optimizer=lars", "--form=timm").form == "timm"
    for form, own in tf_lamb.hyperparameters.LAMB_FORMS.items():
        optimizer = make(f"--form={form}")
        assert (optimizer.form, optimizer.epsilon) == (form, own.epsilon)
        # The decay and the clipping are those of the flags.
        assert optimizer.weight_decay == 0.01
        assert optimizer.global_clipnorm == 1.0
    given = make("--form=deepspeed", "--epsilon=1e-6", "--global_clipnorm=0")
    assert (given.epsilon, given.global_clipnorm) == (1e-6, None)
    refusal(
        lambda: make("--optimizer=adamw", "--form=lans"),
        "--form: for --optimizer lamb or lars, not adamw",
    )
    refusal(lambda: make("--form=you2017"), "--form: expected one of 'paper', ")


def test_masks_and_units(make):
    plain = make()
    assert (plain.cautious, plain.clip_by_unit) == (False, None)
    optimizer = make("--cautious", "--clip_by_unit=0.01")
    assert (optimizer.cautious, optimizer.clip_by_unit) == (True, 0.01)
    assert make("--optimizer=lars", "--clip_by_unit=0.1").clip_by_unit == 0.1
    refusal(
        lambda: make("--optimizer=lars", "--cautious"),
        "--cautious: for --optimizer lamb, not lars",
    )
    refusal(
        lambda: make("--optimizer=sgd", "--clip_by_unit=0.1"),
        "--clip_by_unit: for --optimizer lamb or lars, not sgd",
    )
    refusal(
        lambda: make("--form=lans", "--cautious"),
        "--cautious: not defined for form='lans'",
    )
    refusal(
        lambda: make("--clip_by_unit=-1"), "--clip_by_unit: expected a number"
    )


def test_nesterov(make):
    lamb = make("--nesterov")
    assert lamb.get_config()["nesterov"] == "nadam"
    for name in ("lars", "sgd"):
        assert make(f"--optimizer={name}", "--nesterov").nesterov
    refusal(
        lambda: make("--optimizer=adamw", "--nesterov"),
        "--nesterov: for --optimizer lamb or lars or sgd, not adamw",
    )


def test_stock_optimizers_exclude_from_decay_too(make):
    for name, kind in (
        ("adamw", keras.optimizers.AdamW),
        ("sgd", keras.optimizers.SGD),
    ):
        for flag in (
            "--exclude_from_weight_decay=LayerNorm,bias",
            "--exclude_from_weight_decay=biases_and_norms",
        ):
            optimizer = make(f"--optimizer={name}", flag)
            assert type(optimizer) is kind
            assert optimizer.weight_decay == 0.01
            model = keras.Sequential(
                [
                    keras.Input((2,)),
                    keras.layers.Dense(2),
                    keras.layers.LayerNormalization(name="LayerNorm"),
                ]
            )
            optimizers.build(optimizer, model.trainable_variables)
            decay = map(optimizer._use_weight_decay, model.trainable_variables)
            assert list(decay) == [True, False, False, False]


@pytest.mark.parametrize("name", ["lamb", "adamw"])
def test_a_pattern_that_matches_nothing_is_named(make, name):
    optimizer = make(
        f"--optimizer={name}", "--exclude_from_weight_decay=bias,layernorm"
    )
    dense = keras.layers.Dense(2)
    dense.build((None, 2))
    refusal(
        lambda: optimizers.build(optimizer, dense.trainable_variables),
        "--exclude_from_weight_decay: pattern 'layernorm' matches none of 2",
    )


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--learning_rate=-1"], ["--learning_rate: expected a number >= 0"]),
        (["--beta_2=1"], ["--beta_2: expected a number in [0, 1)"]),
        (["--norm=l3"], ["--norm: expected one of"]),
        (["--optimizer=lars", "--form=x"], ["--form: expected one of"]),
        (
            ["--optimizer=sgd", "--exclude_from_weight_decay=("],
            ["--exclude_from_weight_decay", "'('", "not a regular expression"],
        ),
        *(
            ([f"--optimizer={name}", flag], [flag.partition("=")[0], "got"])
            for name, flag in (
                ("adamw", "--beta_1=5"),
                ("adamw", "--beta_2=1e400"),
                ("adamw", "--epsilon=-1"),
                ("adamw", "--weight_decay=nan"),
                ("adamw", "--global_clipnorm=nan"),
                ("sgd", "--momentum=1"),
                ("sgd", "--weight_decay=-1"),
                ("sgd", "--global_clipnorm=-1"),
            )
        ),
    ],
)
def test_wrong_values_are_named(make, arguments, parts):
    refusal(lambda: make(*arguments), *parts)


def test_a_warmup_that_is_too_long_or_no_number(make):
    if "warmup_epochs" in FLAGS:
        refusal(
            lambda: make("--warmup_epochs=11"),
            "--warmup_epochs 11: 110 steps, expected at most the 100",
        )
        for value in ("nan", "-0.001"):
            refusal(
                lambda v=value: make(f"--warmup_epochs={v}"),
                "--warmup_epochs: expected a number >= 0",
            )
    else:
        refusal(lambda: make("--warmup_ratio=2"), "--warmup_steps")
        for value in ("inf", "-0.001"):
            refusal(
                lambda v=value: make(f"--warmup_ratio={v}"),
                "--warmup_ratio: expected a number >= 0",
            )


def test_groups_are_those_of_lamb_and_lars(make):
    make("--optimizer=lars")
    groups = [tf_lamb.Group("head", learning_rate_multiplier=2.0)]
    optimizer = optimizers.from_flags(100, 10, groups)
    config = optimizer.get_config()["groups"]
    assert [group["pattern"] for group in config] == ["head"]
    make("--optimizer=adamw")
    with pytest.raises(ValueError, match="groups: for LAMB or LARS, not adamw"):
        optimizers.from_flags(100, 10, groups)
