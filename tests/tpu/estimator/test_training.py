"""What all jobs share: rate, optimizers, clipping of the whole gradient."""

import types

import numpy as np
import pytest
import tensorflow as tf
from absl import flags
from absl.testing import flagsaver
from tensorflow.python.tpu import tpu_function, tpu_optimizer

from tests.official_models.scripts import flags_of, refusal
from tf_lamb import hyperparameters, schedule_checks, schedules
from tpu import bert_pretraining, job, job_flags, training

tf1 = tf.compat.v1
CORES = 8


@pytest.fixture
def set_flags():
    """Parses flags that a job with an output folder would have."""
    defaults = {
        "folder": "output_dir",
        "train_batch_size": 16,
        "eval_batch_size": 8,
        "learning_rate": 0.5,
        "weight_decay": 0.1,
        "exclusions": ("bias",),
        "global_clipnorm": 1.0,
    }
    script = types.SimpleNamespace(
        define_flags=lambda: job_flags.define_flags(**defaults)
    )

    def parse(*arguments):
        flags.FLAGS.unparse_flags()
        flags.FLAGS(["job", "--output_dir=none", *arguments])

    with flags_of(script), flagsaver.flagsaver():
        yield parse


def _updated(optimizer, loss_scale, steps=2):
    """Variables after updates along a gradient of (1, 2) * `loss_scale`."""
    with tf.Graph().as_default(), tf1.Session() as session:
        w = tf1.get_variable("w/kernel", initializer=[1.0, -1.0])
        b = tf1.get_variable("w/bias", initializer=[0.5])
        step = tf1.train.create_global_step()
        made = optimizer()
        loss = loss_scale * (w[0] + 2 * w[1] + b[0])
        operation = made.minimize(loss, step)
        session.run(tf1.global_variables_initializer())
        for _ in range(steps):
            session.run(operation)
        return np.concatenate(session.run([w, b]))


def test_the_gradient_is_clipped_after_the_sum_over_cores(monkeypatch):
    """Each core's part is shorter than the bound, their sum longer."""
    clipnorm, scale = 1.0, 2.0
    length = scale * np.sqrt(1 + 4 + 1)
    assert length / CORES < clipnorm < length

    def plain():
        return training.ClippedOptimizer(
            tf1.train.GradientDescentOptimizer(0.1), clipnorm
        )

    monkeypatch.setattr(
        tpu_optimizer.tpu_ops,
        "cross_replica_sum",
        lambda x, groups=None: CORES * x,
    )
    with tpu_function.tpu_shard_context(CORES):
        sharded = _updated(lambda: tf1.tpu.CrossShardOptimizer(plain()), scale)
    expected = np.array([1.0, -1.0, 0.5])
    expected -= 2 * 0.1 * clipnorm * scale / length * np.array([1, 2, 1])
    np.testing.assert_allclose(sharded, expected, rtol=1e-6)
    np.testing.assert_allclose(_updated(plain, scale), expected, rtol=1e-6)


def test_a_short_gradient_stays_and_none_clips_nothing():
    for clipnorm in (10.0, None):
        moved = _updated(
            lambda clipnorm=clipnorm: training.ClippedOptimizer(
                tf1.train.GradientDescentOptimizer(0.1), clipnorm
            ),
            1.0,
            steps=1,
        )
        np.testing.assert_allclose(moved, [0.9, -1.2, 0.4], rtol=1e-6)


def test_sparse_gradients_arrive_dense():
    with tf.Graph().as_default():
        table = tf1.get_variable("table", (5, 2))
        loss = tf.reduce_sum(tf.gather(table, [1, 1, 3]))
        optimizer = training.ClippedOptimizer(
            tf1.train.GradientDescentOptimizer(0.1)
        )
        ((grad, _),) = optimizer.compute_gradients(loss, [table])
        assert isinstance(grad, tf.Tensor)


@pytest.mark.parametrize("decay_from", schedule_checks.DECAY_FROM)
def test_rate(set_flags, decay_from):
    set_flags(f"--decay_from={decay_from}", "--power=2")
    steps = np.arange(12)
    rates = [
        training.learning_rate(tf.constant(s, tf.int64), 10, 4) for s in steps
    ]
    expected = schedules.warmup_polynomial(
        np,
        steps.astype("float64"),
        learning_rate=0.5,
        total_steps=10,
        warmup_steps=4,
        power=2.0,
        decay_from=decay_from,
    )
    np.testing.assert_allclose(rates, expected, atol=1e-6)


def test_each_optimizer(set_flags):
    """Whom decay and adaptation reach."""
    moved = {}
    for name in ("lamb", "lars", "adamw", "momentum"):
        decay = ["--weight_decay=0"] if name == "momentum" else []
        set_flags(f"--optimizer={name}", *decay)
        moved[name] = _updated(lambda: training.make_optimizer(0.1), 1.0, 1)
    first = np.array([1.0, -1.0, 0.5])
    moved = {name: value - first for name, value in moved.items()}
    # LAMB: a step as long as rate times weights; the bias as Adam has it.
    assert np.linalg.norm(moved["lamb"][:2]) == pytest.approx(0.1 * 2**0.5)
    assert moved["lamb"][2] == pytest.approx(-0.1, rel=1e-4)
    # BERT's AdamW: m / sqrt(v) of the first step without correction.
    adam = 0.1 / np.sqrt(0.001)
    np.testing.assert_allclose(
        moved["adamw"],
        -0.1 * (np.array([adam] * 3) + [0.1, -0.1, 0]),
        rtol=1e-4,
    )
    np.testing.assert_allclose(moved["momentum"], [-0.1, -0.2, -0.1], rtol=1e-6)
    # LARS: .001 |w| / (|g| + .1 |w|), in the direction g + .1 w.
    ratio = 0.001 * 2**0.5 / (5**0.5 + 0.1 * 2**0.5)
    np.testing.assert_allclose(
        moved["lars"], [-0.11 * ratio, -0.19 * ratio, -0.1], atol=1e-7
    )


def test_forms_of_lamb_and_of_lars(set_flags):
    for form, own in hyperparameters.LAMB_FORMS.items():
        set_flags(f"--form={form}")
        optimizer = training.make_optimizer(0.1)
        assert optimizer.form == form
        assert optimizer.epsilon == own.epsilon
        assert optimizer.bias_correction == own.bias_correction
    set_flags("--form=deepspeed", "--epsilon=1e-4", "--nobias_correction")
    optimizer = training.make_optimizer(0.1)
    assert (optimizer.epsilon, optimizer.bias_correction) == (1e-4, False)
    set_flags("--optimizer=lars", "--form=timm", "--clip_by_unit=0.01")
    optimizer = training.make_optimizer(0.1)
    assert (optimizer.form, optimizer.clip_by_unit) == ("timm", 0.01)
    set_flags("--cautious", "--clip_by_unit=0.1")
    optimizer = training.make_optimizer(0.1)
    assert (optimizer.form, optimizer.cautious) == ("paper", True)
    assert optimizer.clip_by_unit == 0.1


@pytest.mark.parametrize(
    "arguments, parts",
    [
        (["--form=you2017"], ["form: expected one of"]),
        (["--optimizer=lars", "--form=lans"], ["form: expected one of"]),
        (["--form=lans", "--cautious"], ["cautious: not defined"]),
        (["--form=albert", "--bias_correction"], ["bias_correction: form="]),
        (["--clip_by_unit=-1"], ["clip_by_unit: expected a number > 0"]),
        (["--optimizer=momentum"], ["weight_decay", "L2"]),
        (["--beta_1=1"], ["beta_1"]),
        (["--exclude_from_weight_decay=("], ["exclude_from_weight_decay"]),
    ],
)
def test_refused_optimizers(set_flags, arguments, parts):
    set_flags(*arguments)
    refusal(lambda: training.make_optimizer(0.1), "--", *parts)


def test_refused_warmup(set_flags):
    set_flags()
    step = tf.constant(0)
    refusal(lambda: training.learning_rate(step, 5, 6), "--warmup_steps", 6)


def test_no_such_tpu(set_flags):
    set_flags("--use_tpu", "--tpu_name=none", "--tpu_zone=z", "--gcp_project=p")
    refusal(job.resolver, "--tpu_name none", "--tpu_zone", "grpc://")


def test_files_of_hosts():
    files = list("abcde")
    assert job.files_of_host({}, files) == (0, files)

    def of(index, count):
        context = types.SimpleNamespace(
            current_input_fn_deployment=lambda: ("", index, count, 8)
        )
        return job.files_of_host({"context": context}, files)

    parts = [of(index, 2) for index in (0, 1)]
    assert parts == [(0, ["a", "c", "e"]), (1, ["b", "d"])]
    refusal(lambda: of(0, 6), "5 files for 6 hosts")


def test_a_folder_that_is_a_file_is_refused(tmp_path):
    job.make_folder(str(tmp_path / "a/b"))
    assert (tmp_path / "a/b").is_dir()
    path = tmp_path / "file"
    path.write_text("")
    refusal(lambda: job.make_folder(str(path)), path, "name a folder")


_NEEDED = ("bert_config_file", "output_dir", "input_file")


def test_bert_s_warmup_follows_the_updates():
    with flags_of(bert_pretraining), flagsaver.flagsaver():
        needed = [f"--{n}=x" for n in _NEEDED]
        for given, steps in (([], 10_000), (["--num_train_steps=25"], 2)):
            flags.FLAGS.unparse_flags()
            flags.FLAGS(["job", *needed, *given])
            assert bert_pretraining.warmup_steps() == steps
