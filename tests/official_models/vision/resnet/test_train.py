"""The training script: what it writes, how it resumes, what it refuses."""

import contextlib
import io
import json
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from absl import flags
from absl.testing import flagsaver

from official_models.common import errors, hours
from official_models.common import flags as run_flags
from official_models.vision.datasets import in_memory
from official_models.vision.datasets.images import LabelledImages
from official_models.vision.resnet import recipes, train
from tests.official_models import scripts
from tests.official_models.scripts import (
    flags_of,
    rows,
    variables,
)
from tests.official_models.vision.datasets.imagenet import small_imagenet

ROOT = Path(__file__).parents[4]
SHORT = (
    "--width=2 --global_batch_size=16 --epochs=2 --save_every=4 --log_every=2 "
    "--eval_every=4"
).split()


def _no_determinism(patch):
    # The switch holds for a process; other tests compile by XLA, which Keras
    # then refuses.
    patch.setattr(tf.config.experimental, "enable_op_determinism", lambda: None)


@pytest.fixture(autouse=True)
def defined_flags(monkeypatch, finished):
    # After `finished`: the flags of a script are defined once at a time.
    _no_determinism(monkeypatch)
    with flags_of(train):
        yield


def _few_digits(patch):
    """64 and 30 digits of 8 x 8: two classes of strokes."""

    def digits(count):
        rng = np.random.default_rng(count)
        labels = np.arange(count) % 2
        images = rng.integers(0, 60, (count, 8, 8, 1))
        images[labels == 0, 3:5] += 190
        images[labels == 1, :, 3:5] += 190
        return LabelledImages(
            images.astype(np.uint8), labels.astype(np.int32), ("-", "|")
        )

    patch.setattr(
        in_memory.digits,
        "load_mnist",
        lambda: (digits(64), digits(30)),
    )


@pytest.fixture(autouse=True)
def few_digits(monkeypatch):
    _few_digits(monkeypatch)


def run(output_dir, *arguments):
    """The script's main, in this process."""
    scripts.run(train, f"--output_dir={output_dir}", *SHORT, *arguments)


def refuses(match, output_dir, *arguments):
    with pytest.raises(errors.InputError, match=match) as caught:
        run(output_dir, *arguments)
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """(folder, what was printed) of a run of eight steps."""
    folder = tmp_path_factory.mktemp("finished")
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, flags_of(train):
        _no_determinism(patch)
        _few_digits(patch)
        with contextlib.redirect_stdout(printed):
            run(folder)
    return folder, printed.getvalue()


@pytest.fixture
def copied(finished, tmp_path):
    """A copy of the finished run, to be changed."""
    return shutil.copytree(finished[0], tmp_path / "copied")


def test_a_run_prints_its_recipe_and_its_files(finished):
    _, printed = finished
    assert "recipe none:" in printed and "by flag: epochs 2" in printed
    assert printed.rstrip().endswith(
        ": report.json, checkpoints, model.keras, curves.png, trust_ratio.png."
    )


def test_its_report_has_figures_and_where_they_were_measured(finished):
    report = json.loads((finished[0] / "report.json").read_text())
    assert report["steps"] == 8
    assert report["wrong"] == round(30 * (1 - report["accuracy"]))
    assert report["settings"]["optimizer"] == "lamb"
    assert "momentum" not in report["settings"]  # LAMB does not read it
    assert {"date", "machine", "tensorflow"} <= set(report["measured"])


def test_its_pictures_and_tensorboard(finished):
    for name in ("curves.png", "trust_ratio.png"):
        assert (finished[0] / name).read_bytes().startswith(b"\x89PNG")
    assert list((finished[0] / "tensorboard").iterdir())


def test_its_metrics_have_rows_of_two_steps(finished):
    metrics = rows(finished[0] / "metrics.csv")
    assert [row["step"] for row in metrics] == ["2", "4", "6", "8"]
    assert [bool(row["val_accuracy"]) for row in metrics] == [
        *(False, True, False, True)
    ]
    assert all(float(row["images_per_second"]) > 0 for row in metrics)


def test_its_trust_ratios_are_1_where_nothing_is_adapted(finished):
    ratios = rows(finished[0] / "trust_ratio.csv")
    assert float(ratios[-1]["stage_1/block_0/conv_1/kernel"]) != 1
    assert float(ratios[-1]["stage_1/block_0/batch_norm_1/gamma"]) == 1
    assert float(ratios[-1]["dense/bias"]) == 1


def test_its_model_file_is_its_last_checkpoint(finished):
    folder, _ = finished
    loaded = keras.saving.load_model(folder / "model.keras")
    assert loaded.optimizer.get_config()["weight_decay"] == 0.01
    checkpoint = variables(folder, 8)
    for i, variable in enumerate(loaded.variables):
        name = f"variables/{i}/.ATTRIBUTES/VARIABLE_VALUE"
        np.testing.assert_array_equal(variable, checkpoint[name])


def test_a_finished_run_is_not_trained_again(finished, copied):
    run(copied)
    for name in ("metrics.csv", "run.json"):
        assert (copied / name).read_bytes() == (finished[0] / name).read_bytes()
    before, again = (
        json.loads((folder / "report.json").read_text())
        for folder in (finished[0], copied)
    )
    assert again["accuracy"] == before["accuracy"]


def test_the_folder_belongs_to_this_run_and_no_other(copied):
    refuses("learning_rate = 0.0", copied, "--learning_rate=0.5")
    refuses(
        "network = 'resnet8_cifar', this one has 'resnet14_cifar'",
        *(copied, "--network=resnet14_cifar"),
    )
    (copied / "run.json").unlink()
    refuses(
        "checkpoint .*ckpt-8 is of another model",
        *(copied, "--network=resnet14_cifar"),
    )
    refuses("checkpoint .*ckpt-8 is of another model", copied, "--width=3")


def test_it_starts_from_the_weights_of_another_run(finished, tmp_path):
    folder, _ = finished
    weights = f"--init_checkpoint={folder / 'model.keras'}"
    refuses(
        "of another model .resnet8_cifar, this one is resnet14_cifar.: it "
        "lacks 'stage_1/block_1/batch_norm_1/beta', .* and [0-9]+ more",
        *(tmp_path / "deep", weights, "--network=resnet14_cifar", "--width=2"),
    )
    assert not (tmp_path / "deep/run.json").exists()
    # A rate of 0 changes nothing but the norms' statistics.
    frozen = ("--learning_rate=0", "--epochs=0.25")
    run(tmp_path / "same", weights, *frozen)
    started, checkpoint = variables(tmp_path / "same", 1), variables(folder, 8)
    kernel = "variables/0/.ATTRIBUTES/VARIABLE_VALUE"
    np.testing.assert_array_equal(started[kernel], checkpoint[kernel])


def test_an_init_checkpoint_that_is_none(tmp_path):
    given = tmp_path / "given.keras"
    refuses("no such file", tmp_path / "a", f"--init_checkpoint={given}")
    given.write_bytes(b"nothing")
    refuses("no .keras file", tmp_path / "b", f"--init_checkpoint={given}")


def test_it_learns(tmp_path):
    run(tmp_path, "--epochs=10", "--eval_every=100", "--width=4")
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["accuracy"] >= 0.9, "half of them by always saying one"


def test_it_ends_with_its_hours(tmp_path, monkeypatch):
    """Four of its steps, each a second, at a rate that decays in these."""
    clock = {"now": 0}
    whole = hours.Timing.on_train_batch_end

    def tick(self, batch, logs=None):
        clock["now"] += 1
        whole(self, batch, logs)

    monkeypatch.setattr(hours, "_now", lambda: clock["now"])
    monkeypatch.setattr(hours.Timing, "on_train_batch_end", tick)
    run(tmp_path, f"--hours={4 / 3600}")
    metrics = rows(tmp_path / "metrics.csv")
    assert [row["step"] for row in metrics] == ["2", "4"]
    assert [float(row["learning_rate"]) > 0 for row in metrics] == [1, 0]
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["steps"] == 4
    assert report["phases_ended_after_steps"] == [4]


def test_mirrored_on_two_devices_equals_one(tmp_path):
    arguments = ("--sync_batch_norm", "--optimizer=lars")
    run(tmp_path / "one", *arguments)
    two = ("--strategy=mirrored", "--devices=CPU:0,CPU:1")
    run(tmp_path / "two", *arguments, *two)
    a, b = (variables(tmp_path / name, 8) for name in ("one", "two"))
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_allclose(
            a[name], b[name], rtol=2e-3, atol=2e-4, err_msg=name
        )
    for name in ("metrics.csv", "trust_ratio.csv"):
        tables = (rows(tmp_path / run / name) for run in ("one", "two"))
        for one, other in zip(*tables, strict=True):
            for column in one:
                if "per_second" not in column and one[column]:
                    value = pytest.approx(float(one[column]), rel=0.02)
                    assert float(other[column]) == value, column
    refuses(
        "--global_batch_size 15: expected a multiple of the 2 replicas",
        *(tmp_path / "odd", *two, "--global_batch_size=15"),
    )


def test_bfloat16_accumulation_and_l2(tmp_path):
    run(
        tmp_path,
        "--dtype=mixed_bfloat16",
        "--network=davidnet",
        "--width=2",
        "--optimizer=sgd",
        "--nesterov",
        "--gradient_accumulation_steps=2",
        "--epochs=1",
    )
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["steps"] == 4
    assert report["settings"]["l2"] == 1e-4
    (row, last) = rows(tmp_path / "metrics.csv")
    assert float(last["loss"]) > float(last["cross_entropy"])
    assert float(last["learning_rate"]) == pytest.approx(0, abs=1e-6)
    assert not (tmp_path / "trust_ratio.csv").exists()
    model = keras.saving.load_model(tmp_path / "model.keras")
    assert model.get_layer("prep").compute_dtype == "bfloat16"


def test_flags_win_over_the_recipe():
    given = ("--recipe=mlperf-lars", "--power=1", "--label_smoothing=0.2")
    flags.FLAGS.unparse_flags()
    with flagsaver.flagsaver():
        flags.FLAGS(["train", "--global_batch_size=256", *given])
        settings = recipes.apply()
        assert settings["optimizer"] == flags.FLAGS.optimizer == "lars"
        assert settings["power"] == flags.FLAGS.power == 1
        assert flags.FLAGS.learning_rate == 10
        assert flags.FLAGS.end_learning_rate == 1e-4
        assert settings["given"] == [
            *("global_batch_size", "label_smoothing", "power")
        ]
        shown = recipes.show(settings)
    assert shown.startswith("recipe mlperf-lars: end_learning_rate 0.0001, ")
    assert "; by flag: global_batch_size 256, label_smoothing 0.2" in shown


def test_imagenet_shards_and_a_corrupt_image(tmp_path):
    shards = small_imagenet.write(tmp_path / "shards")
    path = shards / "train-00001-of-00004"
    first, *rest = small_imagenet.records(path)
    small_imagenet.rewrite(
        path, [small_imagenet.example(b"no image", 2), *rest]
    )
    arguments = (
        "--data=imagenet",
        f"--data_dir={shards}",
        "--network=resnet8_cifar",
        "--image_size=16",
        "--global_batch_size=8",
        "--epochs=1",
        "--recipe=untuned",
    )
    folder = tmp_path / "run"
    refuses("train-00001-of-00004.* record 0", folder, *arguments)
    run(tmp_path / "allowed", *arguments, "--max_corrupt=1", "--cache")
    report = json.loads((tmp_path / "allowed/report.json").read_text())
    assert (report["num_evaluation"], report["steps"]) == (10, 3)
    rate = report["settings"]["learning_rate"]
    assert rate == pytest.approx(0.04 * (8 / 32768) ** 0.5)
    found = (tmp_path / "allowed/corrupt_0.txt").read_text()
    assert "train-00001-of-00004" in found


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--learning_rate=-1", "--learning_rate: expected a number >= 0"),
        ("--epochs=0", "--epochs 0.0: expected more than 0"),
        ("--warmup_epochs=3", "--warmup_epochs 3: 12 steps, expected at most"),
        ("--warmup_epochs=nan", "--warmup_epochs: expected a number >= 0"),
        ("--label_smoothing=1", "--label_smoothing: got 1.0"),
        ("--l2=0.1", "--l2 0.1: the optimizer decays weights already"),
        ("--norm_momentum=1", "--norm_momentum: .* got 1.0"),
        ("--norm_epsilon=0", "--norm_epsilon: .* got 0.0"),
        ("--exclude_from_weight_decay=batchnorm", "nearest paths.*batch_norm"),
        ("--global_batch_size=65", "global_batch_size 65: expected 1 to 64"),
        ("--gradient_accumulation_steps=3", "expected a divisor of"),
        ("--data_dir=x", "--data_dir x: the digits of --data mnist"),
        ("--data=imagenet", "--data imagenet: --data_dir is missing"),
        ("--image_size=64", "--image_size: for --data imagenet, not mnist"),
        ("--label_offset=1", "--label_offset: for --data imagenet"),
        ("--resize=bicubic", "--resize: for --data imagenet, not mnist"),
        ("--cache", "--cache: for --data imagenet, not mnist"),
        ("--shuffle_buffer=9", "--shuffle_buffer: for --data imagenet"),
        ("--max_corrupt=1", "--max_corrupt: for --data cifar10 or imagenet"),
        ("--version=v1", "--version v1: for networks of bottlenecks"),
        ("--devices=CPU:0", "--devices: for --strategy mirrored, not none"),
        ("--strategy=multi_worker", "--strategy multi_worker: TF_CONFIG"),
        ("--strategy=tpu", "--tpu '': no TPU there"),
    ],
)
def test_refused(argument, message, tmp_path):
    refuses(message, tmp_path, argument)


def test_davidnet_has_no_gamma_of_zero(tmp_path):
    davidnet = ("--network=davidnet", "--nozero_gamma")
    refuses("--nozero_gamma: not for davidnet", tmp_path, *davidnet)


def test_nesterov_is_not_for_adamw(tmp_path):
    adamw = ("--optimizer=adamw", "--nesterov")
    refuses(
        "--nesterov: for --optimizer lamb or lars or sgd, not adamw",
        tmp_path,
        *adamw,
    )


def test_help_explains_every_flag():
    shown = flags.FLAGS.main_module_help()
    key_flags = flags.FLAGS.get_key_flags_for_module(train.__name__)
    names = {flag.name for flag in key_flags}
    assert {"data", "recipe", "strategy", "output_dir"} <= names
    assert {*run_flags.defined()} == names
    assert all(flag.help for flag in key_flags), shown
