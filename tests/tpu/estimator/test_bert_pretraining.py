"""BERT's pretraining job on this machine: trained, killed, resumed, served."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from absl import flags

from official_models.nlp.albert import config as albert_config_file
from official_models.nlp.albert import model as albert
from official_models.nlp.bert import config as bert_config
from official_models.nlp.bert import model
from official_models.nlp.bert.pretraining import records
from tests import warm
from tests.official_models.scripts import flags_of, refusal
from tests.official_models.scripts import run as run_here
from tests.tpu.estimator import bert_job, job_process
from tpu import bert_pretraining

STEPS = 40
KERAS_3 = Path(__file__).parents[3] / ".venv/bin/python"
TRAINING = (
    *("--do_train", "--do_eval", f"--num_train_steps={STEPS}"),
    *("--max_eval_steps=5", "--save_checkpoints_steps=5", "--log_every=10"),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bert")
    bert_job.write_inputs(folder)
    bert_job.write_checkpoint(folder / "published.ckpt", moments=True)
    bert_job.write_checkpoint(
        folder / "albert.ckpt", of=bert_job.albert_shapes()
    )
    return folder


@pytest.fixture(scope="module")
def whole(folder):
    """A run with dropout, to its end; what it printed."""
    return bert_job.run(
        folder, "whole", *TRAINING, "--export_dir", folder / "export"
    )


@pytest.fixture
def refused():
    """Asserts that a command, run in this process, is refused in one line."""

    def check(command, *parts):
        with flags_of(bert_pretraining):
            refusal(lambda: run_here(bert_pretraining, *command[3:]), *parts)

    return check


def test_a_killed_run_goes_on_to_the_same_weights(folder, whole):
    command = bert_job.command(folder, "killed", *TRAINING)
    last = job_process.kill_once_saved(command, folder / "killed", 10)
    (folder / "killed/checkpoint").unlink()  # The files are enough.
    assert 10 <= last < STEPS
    found, printed = bert_job.run(folder, "killed", *TRAINING).split("\n", 1)
    assert "found by its files" in found
    job_process.assert_same_end(folder / "whole", folder / "killed", STEPS)
    assert printed in whole  # the same metrics, without the SavedModel's path


def _eval_batches(folder):
    return records.read_records(
        [folder / "records"],
        batch_size=10,
        max_seq_length=bert_job.T,
        max_predictions=bert_job.P,
        vocab_size=bert_job.V,
        first_step=0,
        last_step=5,
        seed=0,
        shuffle=False,
    )


def test_the_served_model_is_the_trained_one_and_its_metrics_are_right(
    folder, whole
):
    served = tf.saved_model.load(whole.strip().split("\n")[-1])
    served = served.signatures["serving_default"]
    bert = model.bert_pretrainer(
        bert_config.read_config(str(folder / "config.json"))
    )
    weights = job_process.weights(folder / "whole")
    for variable in bert.trainable_variables:
        variable.assign(weights[variable.name.split(":")[0]])
    nll, right, weight = [], [], []
    for x, y, w in _eval_batches(folder):
        expected = bert(x)
        for name, logits in served(**x).items():
            np.testing.assert_allclose(logits, expected[name], atol=1e-5)
        logits = expected["masked_lm"].numpy()
        label = y["masked_lm"].numpy()[..., None]
        top = logits.max(-1)
        picked = np.take_along_axis(logits, label, -1)[..., 0]
        total = np.exp(logits - top[..., None]).sum(-1)
        nll.append(np.log(total) + top - picked)
        right.append(picked == top)
        weight.append(w["masked_lm"].numpy())
    text = (folder / "whole/eval_results.txt").read_text()
    metrics = dict(line.split(" = ") for line in text.splitlines())
    for name, values in (("loss", nll), ("accuracy", right)):
        expected = np.average(values, weights=weight)
        assert float(metrics[f"masked_lm_{name}"]) == pytest.approx(
            expected, abs=1e-5
        )
    assert {"next_sentence_loss", "next_sentence_accuracy"} <= metrics.keys()


def test_summaries(folder, whole):
    found = job_process.summaries(folder / "whole")
    for values in found.values():
        assert list(values) == [10, 20, 30, 40]
    rates = found["learning_rate"]
    # Of the step that the summary ends: number s - 1, after 4 of warmup.
    for step, rate in rates.items():
        assert rate == pytest.approx(0.02 * (STEPS - (step - 1)) / 36)
    parts = [found["masked_lm_loss"], found["next_sentence_loss"]]
    for step, loss in found["loss"].items():
        assert loss == pytest.approx(sum(p[step] for p in parts), rel=1e-5)
    assert min(found["gradient_norm"].values()) > 0
    ratios = {n.split("/", 1)[1] for n in found if n.startswith("trust_ratio/")}
    assert ratios == {
        name
        for name in bert_job.shapes()
        if "LayerNorm" not in name and "bias" not in name
    }


@pytest.mark.parametrize(
    "flag, config, checkpoint",
    [
        ("--bert_config_file", "no_dropout.json", "published.ckpt"),
        ("--albert_config_file", "albert_no_dropout.json", "albert.ckpt"),
    ],
    ids=["bert", "albert"],
)
def test_losses_are_those_of_keras_fit(folder, flag, config, checkpoint):
    """Keras 3 on TensorFlow 2.21, on the same records and first weights."""
    if not KERAS_3.exists():
        pytest.skip("no .venv with Keras 3: make .venv")
    steps, run = 20, f"same-{checkpoint}"
    bert_job.run(
        folder,
        run,
        *("--do_train", f"--num_train_steps={steps}", "--log_every=1"),
        *(flag, folder / config),
        *("--init_checkpoint", folder / checkpoint),
    )
    done = warm.run(
        [
            *(KERAS_3, "-m", "tests.tpu.estimator.keras_fit"),
            *(str(folder), str(steps), config, checkpoint),
        ],
        cwd=job_process.ROOT,
        env={**job_process.environment(), "KERAS_BACKEND": "tensorflow"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    expected = json.loads(done.stdout)
    losses = job_process.summaries(folder / run)["loss"]
    assert list(losses) == list(range(1, steps + 1))
    np.testing.assert_allclose(list(losses.values()), expected, atol=1e-5)
    assert np.std(expected) > 0.01


def test_albert_s_evaluation_and_its_served_model(folder):
    """Sentence order in the place of next sentence."""
    config = ["--albert_config_file", folder / "albert.json"]
    printed = bert_job.run(
        folder,
        "albert",
        *("--do_train", "--do_eval", "--num_train_steps=5", *config),
        *("--max_eval_steps=5", "--export_dir", folder / "export_albert"),
    )
    *metrics, path = printed.strip().split("\n")
    assert {line.split(" = ")[0] for line in metrics} >= {
        *("masked_lm_loss", "masked_lm_accuracy"),
        *("sentence_order_loss", "sentence_order_accuracy"),
    }
    model = albert.albert_pretrainer(
        albert_config_file.read_config(str(folder / "albert.json"))
    )
    weights = job_process.weights(folder / "albert")
    for variable in model.trainable_variables:
        variable.assign(weights[variable.name.split(":")[0]])
    served = tf.saved_model.load(path).signatures["serving_default"]
    x, *_ = next(iter(_eval_batches(folder)))
    expected = model(x)
    for name, logits in served(**x).items():
        np.testing.assert_allclose(logits, expected[name], atol=1e-5)


@pytest.mark.parametrize(
    "arguments, parts",
    [
        ((), ["nothing to do", "--do_train"]),
        (["--do_eval"], ["no checkpoint to evaluate"]),
        (["--do_train", "--max_seq_length=25"], ["25", "24 positions"]),
        (["--do_train", "--max_seq_length=12"], ["input_ids", "16", "12"]),
        (["--do_train", "--input_file=none"], ["no record file", "none"]),
        (["--do_train", "--bert_config_file=none"], ["none", "bert_config"]),
        (["--do_train", "--tpu_name=t"], ["--tpu_name t", "--use_tpu"]),
        (["--do_train", "--use_tpu"], ["--tpu_name or --master"]),
        (
            ["--do_train", "--use_tpu", "--tpu=t", "--train_batch_size=12"],
            ["--train_batch_size 12", "--num_tpu_cores 8"],
        ),
    ],
    ids=lambda value: value[-1].lstrip("-") if value else "nothing",
)
def test_refusals(folder, refused, arguments, parts):
    refused(bert_job.command(folder, "refused", *arguments), *parts)


def _damage(data, how):
    content = bytearray(data.read_bytes())
    middle = len(content) // 2
    if how == "cut":
        del content[middle:]
    else:
        content[middle : middle + 64] = bytes(64)
    data.write_bytes(content)


@pytest.mark.parametrize(
    "case, parts",
    [
        ("hidden_size", ["LayerNorm/beta", "(16,)", "(32,)"]),
        ("--optimizer=lars", ["lacks", "LARSOptimizer"]),
        ("cut", ["damaged"]),
        ("overwritten", ["damaged"]),
    ],
)
def test_a_run_that_cannot_go_on(folder, whole, refused, tmp_path, case, parts):
    """Another model's folder, another optimizer's, a damaged checkpoint."""
    shutil.copytree(folder / "records", tmp_path / "records")
    config = bert_job.CONFIG
    if case in config:
        config = {**config, case: 2 * config[case]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    shutil.copytree(folder / "whole", tmp_path / "run")
    # It holds the paths in the other folder.
    (tmp_path / "run/checkpoint").write_text(
        f'model_checkpoint_path: "model.ckpt-{STEPS}"'
    )
    if case in ("cut", "overwritten"):
        data = f"run/model.ckpt-{STEPS}.data-00000-of-00001"
        _damage(tmp_path / data, case)
    arguments = ["--do_train", f"--num_train_steps={STEPS + 1}"]
    if case.startswith("--"):
        arguments.append(case)
    parts = [*parts, tmp_path / "run", "name another folder"]
    refused(bert_job.command(tmp_path, "run", *arguments), *parts)


def test_a_refusal_ends_with_status_2(folder):
    done = warm.run(
        bert_job.command(folder, "refused", "--optimizer=sgdd"),
        cwd=job_process.ROOT,
        env={**job_process.environment(), "PYTHONUNBUFFERED": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2
    assert done.stderr.strip().split("\n")[-1].startswith("error: ")
    assert os.linesep not in done.stdout


def test_readme_names_every_flag():
    text = (job_process.ROOT / "tpu/README.md").read_text()
    before = set(flags.FLAGS)
    with flags_of(bert_pretraining):
        ours = set(flags.FLAGS) - before
    assert {"use_tpu", "optimizer"} <= ours
    assert [name for name in sorted(ours) if f"`--{name}`" not in text] == []
