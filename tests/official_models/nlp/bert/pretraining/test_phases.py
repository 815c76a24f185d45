"""Phases of the flags, their optimizers, what one hands to the next."""

import contextlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from absl import flags
from absl.testing import flagsaver

import tf_lamb
from official_models.common import script
from official_models.common.hours import Times
from official_models.nlp.albert.config import AlbertConfig
from official_models.nlp.bert import pretrain
from official_models.nlp.bert.pretraining import families, phases, presets
from tests.official_models.scripts import flags_of, refusal

FLAGS = flags.FLAGS
TWO = ("--steps=40", "--phase2_steps=10")


@pytest.fixture(autouse=True)
def defined_flags():
    with flags_of(pretrain):
        yield


@contextlib.contextmanager
def planned(*arguments, replicas=1):
    """The phases of flags on so many devices, while the flags hold."""
    devices = [f"CPU:{i}" for i in range(replicas)]
    strategy = tf.distribute.get_strategy()
    if replicas > 1:
        strategy = tf.distribute.MirroredStrategy(devices)
    FLAGS.unparse_flags()
    with flagsaver.flagsaver():
        FLAGS(["pretrain", *arguments])
        presets.apply()
        yield phases.from_flags(script.Training(strategy))


def plan(*arguments, **options):
    with planned(*arguments, **options) as found:
        return found


def test_without_its_flag_there_is_one_phase():
    (only,) = plan("--steps=40")
    assert (only.begin, only.end, only.shape.max_seq_length) == (0, 40, 32)
    assert FLAGS.phase2_moments is None


def test_the_second_phase_has_longer_sequences_and_half_the_batch():
    first, second = plan(*TWO)
    assert (first.begin, first.end) == (0, 30)
    assert (second.begin, second.end) == (30, 40)
    assert second.shape == (128, 20, 2)
    assert second.global_batch_size == 128 == first.global_batch_size // 2
    assert second.learning_rate == pytest.approx(0.02 / 2**0.5)
    assert (first.warmup_steps, second.warmup_steps) == (3, 1)


def test_the_accumulation_follows_from_what_a_device_holds():
    first, second = plan(*TWO, "--per_device_batch_size=16", replicas=2)
    assert first.micro_batches == 256 // (2 * 16)
    assert second.micro_batches == 128 // (2 * 4)
    assert str(first) == (
        "phase 1: steps 1 to 30, 256 sequences of 32 tokens, 5 masked; rate "
        "0.02, 3 steps of warmup; 256 = 8 micro-batches x 2 devices x 16"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--phase2_steps=1600"], "--phase2_steps 1600: expected fewer than"),
        (["--phase2_moments=keep"], "--phase2_moments: expected together with"),
        (
            ["--per_device_batch_size=24"],
            "--per_device_batch_size 24: expected",
        ),
        (
            [
                "--per_device_batch_size=8",
                "--gradient_accumulation_steps=32",
            ],
            "--gradient_accumulation_steps: expected without",
        ),
        (
            [*TWO, "--phase2_gradient_accumulation_steps=3"],
            "--phase2_gradient_accumulation_steps 3: expected a divisor of "
            "--phase2_global_batch_size 128",
        ),
    ],
)
def test_refused(arguments, message):
    refusal(lambda: plan(*arguments), message)


def test_a_rate_that_is_refused_is_that_of_its_phase():
    with planned(*TWO, "--phase2_learning_rate=-1") as found:
        refusal(lambda: phases.optimizer(found, 1), "--phase2_learning_rate: ")


def models(found):
    """A small model for each phase; the first has made two updates."""
    made = []
    for i in range(2):
        keras.utils.set_random_seed(i)
        dense = keras.layers.Dense(1, name="dense")
        model = keras.Sequential([keras.Input((3,)), dense])
        optimizer = phases.optimizer(found, i)
        optimizer.build(model.trainable_variables)
        model.compile(optimizer, "mse")
        made.append(model)
    x = np.random.default_rng(0).normal(size=(8, 3))
    for _ in range(2 * found[0].micro_batches):
        made[0].train_on_batch(x, x.sum(1, keepdims=True))
    return made


def moments(model):
    """{end of the path: value}"""
    return {
        v.path.rpartition("dense_")[2]: keras.ops.convert_to_numpy(v)
        for v in model.optimizer.variables
        if v.path.endswith(("_m", "_v"))
    }


@pytest.mark.parametrize("keeps", [True, False])
def test_moments_are_kept_or_reset(keeps):
    choice = f"--phase2_moments={'keep' if keeps else 'reset'}"
    more = "--phase2_gradient_accumulation_steps=4"
    small = "--exclude_from_weight_decay=bias"
    with planned(*TWO, choice, more, small) as found:
        before, after = models(found)
        phases.hand_over(before, after, tuple(found))
        schedule = after.optimizer._learning_rate
    for old, new in zip(before.variables, after.variables, strict=True):
        np.testing.assert_array_equal(old, new)
    assert len(moments(before)) == 4
    for name, value in moments(before).items():
        assert value.any()
        expected = value if keeps else 0 * value
        np.testing.assert_array_equal(moments(after)[name], expected)
    # Two updates, of four micro-batches each now.
    assert int(after.optimizer._iterations) == (8 if keeps else 0)
    # The peak comes one update after the phase's begin.
    begin = 30 * 4 if keeps else 0
    for micro_batch in range(4):
        rate = float(schedule(begin + micro_batch))
        assert rate == pytest.approx(0, abs=1e-8)
        rate = float(schedule(begin + 4 + micro_batch))
        assert rate == pytest.approx(0.02 / 2**0.5)


def test_preset_of_the_76_minutes():
    first, second = plan("--preset=lamb-65536")
    assert second.end == 8599
    assert (first.global_batch_size, first.shape) == (65536, (128, 20, 1))
    assert (second.global_batch_size, second.shape) == (32768, (512, 80, 2))
    short = first.steps * first.global_batch_size
    share = short / (short + second.steps * second.global_batch_size)
    assert share == pytest.approx(0.9, abs=1e-3)
    assert second.learning_rate == 5e-3
    assert second.warmup_steps == round(second.steps / 5)


def test_presets_of_the_paper_have_its_table():
    for k, batch in enumerate([32768, 16384, 8192, 4096, 2048, 1024, 512]):
        for phase in (found := plan(f"--preset=lamb-{batch}")):
            assert phase.global_batch_size == batch
            assert phase.learning_rate == pytest.approx(5e-3 / 2 ** (k / 2))
            ratio = phase.warmup_steps / phase.steps
            assert ratio == pytest.approx(1 / 5 / 2**k, rel=1e-2)
        assert found[-1].end == 1_000_000 * 512 // batch


def test_presets_of_mlperf():
    """Two rows of rcps_bert.json, and a flag that is given as well."""
    with planned("--preset=mlperf-4096") as (only,):
        assert (only.steps, only.warmup_steps) == (855, 0)
        assert (only.learning_rate, FLAGS.beta_1, FLAGS.beta_2) == (
            *(0.0024, 0.66, 0.998),
        )
    arguments = ("--preset=mlperf-16384", "--per_device_batch_size=64")
    with planned(*arguments, "--learning_rate=0.01") as (only,):
        assert only.warmup_steps == 290 - 100
        assert only.learning_rate == 0.01
        assert FLAGS.weight_decay == 0.0166629
        assert only.micro_batches == 256
    assert FLAGS.beta_2 == 0.999


def test_preset_of_albert():
    """Lan et al. 2019, section 4.1, and what the model decides."""
    with planned("--preset=albert") as (only,):
        families.apply()
        assert (only.steps, only.warmup_steps) == (125_000, 3_125)
        assert (only.global_batch_size, only.shape) == (4096, (512, 20, 1))
        assert (only.learning_rate, FLAGS.global_clipnorm) == (0.00176, 1.0)
        assert not phases.optimizer([only], 0).bias_correction
        assert (FLAGS.sentence_order, FLAGS.max_ngram) == (True, 3)
        config = families.make_config(30_000)
        assert config == AlbertConfig.of_size("base")
    assert FLAGS.model == "bert"


def test_every_preset_gives_phases_and_an_optimizer():
    for name in presets.PRESETS:
        with planned(f"--preset={name}") as found:
            for i in range(len(found)):
                assert type(phases.optimizer(found, i)) is tf_lamb.LAMB


def test_phases_share_a_time_as_they_share_tokens(tmp_path):
    # 30 steps of 256 x 32 tokens, 10 of 128 x 128.
    with planned(*TWO, "--hours=1") as both:
        times = Times(tmp_path, 1.0, lambda: 0.0)
        first, second = (phases.limit(both, i, times) for i in (0, 1))
        optimizer = phases.optimizer(both, 1)
    assert first.seconds == pytest.approx(3600 * 3 / 5)
    assert second.seconds == 3600
    assert (first.pace.steps, second.pace.steps) == (30, 10)
    # The warmup's last step: a tenth of the phase.
    assert second.rate(1) == pytest.approx(0.02 / 2**0.5)
    # A number, and no schedule of the optimizer's own steps.
    assert not isinstance(
        optimizer._learning_rate,
        keras.optimizers.schedules.LearningRateSchedule,
    )


def test_a_phase_begins_where_the_one_before_it_ended(tmp_path):
    first, second = plan(*TWO)
    times = Times(tmp_path, 1.0, lambda: 0.0)
    assert phases.place(first, 0, times, 0) == first
    times.write(0, [], end=8)
    assert phases.place(first, 0, times, 0)[:2] == (0, 8)
    assert phases.place(second, 1, times, 8)[:2] == (8, 18)
    times.write(1, [], end=12)
    assert phases.place(second, 1, times, 8)[:2] == (8, 12)
