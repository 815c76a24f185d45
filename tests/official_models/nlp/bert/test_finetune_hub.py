"""A Hub module of BERT: exported, loaded by tf_keras, fine-tuned, reloaded."""

import json
import os
import sys

import numpy as np
import pytest
import tensorflow as tf

from official_models.common.errors import InputError
from official_models.nlp.datasets import glue
from official_models.nlp.text.wordpiece import SPECIAL_TOKENS
from tests import warm
from tests.official_models.scripts import rows

# In a process with tf_keras: does the module compute what the model does?
CHECK = """
import sys, numpy as np, tensorflow as tf, tensorflow_hub as hub
folder = sys.argv[1]
want = np.load(folder + '/expected.npz')
layer = hub.KerasLayer(folder + '/module', trainable=True)
inputs = dict(input_word_ids=tf.constant(want['ids']),
              input_mask=tf.constant(want['mask']),
              input_type_ids=tf.zeros_like(want['ids']))
got = layer(inputs)
for name in ('sequence_output', 'pooled_output'):
    np.testing.assert_allclose(got[name], want[name], rtol=0, atol=1e-5)
m = want['mask'][..., None]
mean = (want['sequence_output'] * m).sum(1) / m.sum(1)
np.testing.assert_allclose(got['default'], mean, rtol=0, atol=1e-5)
a, b = (layer(inputs, training=True)['default'] for _ in range(2))
assert np.abs(a - b).max() > 1e-3, 'dropout draws anew'
names = [v.name for v in layer.trainable_variables]
assert 'bert/encoder/layer_1/attention/self/query/kernel:0' in names, names
assert all(v.trainable for v in layer.trainable_variables)
"""


def _python(*arguments, legacy):
    environment = {**os.environ, "TF_USE_LEGACY_KERAS": str(int(legacy))}
    return warm.run(
        [sys.executable, *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hub")
    result = _python(
        "-m", "tests.official_models.nlp.bert.hub_run", folder, legacy=False
    )
    assert result.returncode == 0, result.stderr[-3000:]
    rows = ["good film\t1", "bad film\t0", "good\t1", "bad\t0"] * 8
    data = folder / "SST-2"
    data.mkdir()
    for name in ("train", "dev", "test"):
        text = "\n".join(["sentence\tlabel", *rows]) + "\n"
        (data / f"{name}.tsv").write_text(text)
    return folder


def _finetune(folder, output, *more):
    return _python(
        "-m",
        "official_models.nlp.bert.finetune_hub",
        f"--data_dir={folder}",
        f"--hub_module={folder / 'module'}",
        f"--output_dir={output}",
        "--global_batch_size=8",
        "--max_length=8",
        *more,
        legacy=True,
    )


def test_module_computes_what_the_model_does(folder):
    result = _python("-c", CHECK, folder, legacy=True)
    assert result.returncode == 0, result.stderr[-3000:]


def test_fine_tunes_saves_reloads_and_refuses_other_flags(folder):
    output = folder / "run"
    run = ("--epochs=15", "--learning_rate=0.02")
    result = _finetune(folder, output, *run)
    assert result.returncode == 0, result.stderr[-3000:]
    report = json.loads((output / "report.json").read_text())
    assert report["steps"] == 60
    assert report["test_accuracy"] == 1.0
    assert report["reloaded_difference"] == 0
    ratios = report["trust_ratios"]
    excluded = {n for n in ratios if "LayerNorm" in n or "bias" in n}
    assert excluded and all(ratios[n] == 1 for n in excluded)
    assert ratios["bert/encoder/layer_0/attention/self/query/kernel"] != 1
    for name in ("trust_ratios.png", "curves.png"):
        assert (output / name).read_bytes().startswith(b"\x89PNG")
    metrics = rows(output / "metrics.csv")
    assert [int(row["step"]) for row in metrics] == list(range(6, 61, 6))
    assert float(metrics[-1]["val_accuracy"]) == report["dev_accuracy"]
    table = rows(output / "trust_ratio.csv")
    for name, ratio in ratios.items():
        assert float(table[-1][name]) == pytest.approx(ratio), name

    # From the checkpoint before the end is reached once more.
    (output / "report.json").unlink()
    for path in (output / "checkpoints").glob("ckpt-60.*"):
        path.unlink()
    result = _finetune(folder, output, *run)
    assert result.returncode == 0, result.stderr[-3000:]
    assert "resuming from step 54" in result.stdout
    again = json.loads((output / "report.json").read_text())
    assert again["trust_ratios"] == pytest.approx(ratios, rel=1e-4)

    other = ("--epochs=15", "--learning_rate=0.5")
    line = _refused(folder, output, *other)
    assert "learning_rate = 0.02, this one has 0.5" in line
    assert "name another --output_dir" in line


def _refused(folder, output, *more):
    """The one line with which a run is refused."""
    result = _finetune(folder, output, *more)
    assert result.returncode == 2, result.stderr[-3000:]
    assert "Traceback" not in result.stderr
    (line,) = [n for n in result.stderr.splitlines() if n.startswith("error:")]
    return line


def test_output_folders_that_cannot_be_used(folder, tmp_path):
    given = tmp_path / "file"
    given.write_text("not a folder")
    assert f"--output_dir {given}: " in _refused(folder, given)
    other = tmp_path / "other"
    other.mkdir()
    (other / "run.json").write_text('{"learning_rate": 0.001, "seed"')
    assert "run.json: not JSON" in _refused(folder, other)
    line = _refused(folder, "gs://bucket/run")
    assert "--output_dir gs://bucket/run: " in line


def test_frozen_encoder_trains_the_head_alone_by_adamw(folder):
    output = folder / "frozen"
    run = ("--optimizer=adamw", "--freeze_encoder", "--learning_rate=0.5")
    result = _finetune(folder, output, "--epochs=4", *run)
    assert result.returncode == 0, result.stderr[-3000:]
    report = json.loads((output / "report.json").read_text())
    assert report["steps"] == 16
    assert "trust_ratios" not in report
    assert report["reloaded_difference"] == 0
    assert report["test_accuracy"] == 1.0
    trained = _arrays(output / "model")
    for value in _arrays(folder / "module"):
        assert any(np.array_equal(value, other) for other in trained)


def _arrays(saved_model):
    """Values of a SavedModel's float variables."""
    reader = tf.train.load_checkpoint(
        str(saved_model / "variables" / "variables")
    )
    values = map(reader.get_tensor, reader.get_variable_to_shape_map())
    arrays = [v for v in values if getattr(v, "dtype", None) == "float32"]
    assert arrays
    return arrays


@pytest.mark.parametrize(
    "text, message",
    [
        ("a\tb\nx\t1\n", "line 1: no column 'label'"),
        ("sentence\tlabel\ngood\t1\nbad\t2\n", "line 3: label '2'"),
        ("sentence\tlabel\ngood film\n", "line 2: got 'good film'"),
        ("sentence\tlabel\n", "no example"),
    ],
)
def test_bad_tables_are_named_with_their_line(tmp_path, text, message):
    (tmp_path / "dev.tsv").write_text(text)
    with pytest.raises(InputError, match=message):
        glue.read_split(tmp_path, glue.TASKS["sst-2"], "dev")


def test_missing_files_end_with_status_2(tmp_path):
    with pytest.raises(InputError, match="no dev.tsv"):
        glue.read_split(tmp_path, glue.TASKS["sst-2"], "dev")
    result = _finetune(tmp_path, tmp_path / "run")
    assert result.returncode == 2
    lines = [n for n in result.stderr.splitlines() if n.startswith("error:")]
    assert lines == [
        f"error: --data_dir {tmp_path}: no dev.tsv; expected GLUE's SST-2, "
        "unpacked"
    ]


def test_encoder_s_folder_is_checked(tmp_path):
    from official_models.nlp.bert import hub

    with pytest.raises(InputError, match="has no config.json"):
        hub.read_encoder(tmp_path)
    for name in hub.FILES:
        (tmp_path / name).write_text("{}")
    with pytest.raises(InputError, match=r"vocab.txt: lacks \[PAD\]"):
        hub.read_encoder(tmp_path)
    (tmp_path / "vocab.txt").write_text("\n".join(SPECIAL_TOKENS))
    with pytest.raises(
        InputError, match="config.json: lacks vocab_size, hidden_size"
    ):
        hub.read_encoder(tmp_path)
