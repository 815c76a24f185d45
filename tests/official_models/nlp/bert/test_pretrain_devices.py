"""The pretraining script stopped and resumed, and on other devices."""

import shutil
import signal

import pytest
import tensorflow as tf

from official_models.common import run_folder
from official_models.nlp.bert import pretrain
from tests.official_models.nlp.bert.pretrain_script import (
    refuses,
    run,
    script,
    write_corpus,
)
from tests.official_models.scripts import (
    flags_of,
    rows,
    same_weights,
    signal_once_there,
)

LONG = ("--steps=40", "--save_every=8", "--eval_every=8")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def undisturbed(corpus, defined_flags, tmp_path_factory):
    """The folder of a run of 8 steps; a test that writes copies it."""
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    run(corpus, folder)
    return folder


@pytest.fixture(scope="module", autouse=True)
def defined_flags():
    with flags_of(pretrain):
        yield


@pytest.fixture(scope="module")
def whole(corpus, defined_flags, tmp_path_factory):
    """The folder of a run of 40 steps, to which stopped ones are compared."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    run(corpus, folder, *LONG)
    return folder


def test_killed_and_started_again_it_ends_with_the_same_weights(
    corpus, whole, tmp_path, capsys
):
    folder = tmp_path / "killed"
    killed = script(corpus, folder, *LONG)
    saved = folder / "checkpoints/checkpoint"
    signal_once_there(killed, saved, signal.SIGKILL)
    assert killed.returncode == -signal.SIGKILL, "it ended before the kill"
    run(corpus, folder, *LONG)
    assert "resuming from step" in capsys.readouterr().out
    same_weights(whole, folder, 40)
    for name in ("metrics.csv", "trust_ratio.csv"):
        tables = [rows(one / name) for one in (whole, folder)]
        for table in tables:
            for row in table:
                row.pop("tokens_per_second", None)
        assert tables[0] == tables[1]


def test_preempted_it_saves_ends_well_and_resumes(corpus, whole, tmp_path):
    """SIGTERM between two rows and two checkpoints."""
    arguments = ["--steps=40", "--save_every=40", "--log_every=20"]
    arguments += ["--eval_every=40"]
    stopped = script(corpus, tmp_path / "stopped", *arguments)
    begun = tmp_path / "stopped/tensorboard"
    out, err = signal_once_there(stopped, begun, signal.SIGTERM)
    assert stopped.returncode == 0, err
    (line,) = [x for x in out.splitlines() if "told to stop" in x]
    step = int(line.split("after step ")[1].split()[0])
    assert 0 < step < 40
    assert (tmp_path / f"stopped/checkpoints/ckpt-{step}.index").exists()
    assert not (tmp_path / "stopped/report.json").exists()

    run(corpus, tmp_path / "stopped", *arguments)
    same_weights(tmp_path / "stopped", whole, 40)
    steps = [row["step"] for row in rows(tmp_path / "stopped/metrics.csv")]
    assert steps == ["20", "40"]


def test_several_steps_an_execution(corpus, undisturbed, tmp_path):
    run(corpus, tmp_path / "four", "--steps_per_execution=4")
    same_weights(undisturbed, tmp_path / "four", 8, rtol=1e-6, atol=1e-7)
    four = rows(tmp_path / "four/metrics.csv")
    assert [row["step"] for row in four] == ["4", "8"]
    refuses(
        "--steps_per_execution 3: expected a divisor of the 8 batches",
        *(corpus, tmp_path / "three", "--steps_per_execution=3"),
    )


def test_mirrored_on_two_devices_equals_one(corpus, tmp_path):
    # Without dropout, whose masks each replica draws by itself.
    plain = ("--dropout=0", "--nojit_compile", "--eval_every=8")
    run(corpus, tmp_path / "one", *plain)
    two = ("--strategy=mirrored", "--devices=CPU:0,CPU:1")
    run(corpus, tmp_path / "two", *plain, *two)
    one, two = (
        rows(tmp_path / name / "metrics.csv") for name in ("one", "two")
    )
    for a, b in zip(one, two, strict=True):
        assert float(a["masked_lm_loss"]) == pytest.approx(
            float(b["masked_lm_loss"]), rel=1e-4
        )
    assert float(two[-1]["val_masked_lm_loss"]) == pytest.approx(
        float(one[-1]["val_masked_lm_loss"]), rel=1e-4
    )
    refuses(
        "--global_batch_size 9: expected a multiple of the 2 replicas",
        *(corpus, tmp_path / "odd", "--global_batch_size=9"),
        *("--strategy=mirrored", "--devices=CPU:0,CPU:1"),
    )


def test_output_on_a_file_system_of_tensorflow(
    corpus, undisturbed, tmp_path, monkeypatch
):
    """ram://, as gs:// would be: files, checkpoints, resuming from there."""
    monkeypatch.chdir(tmp_path)
    url = "ram://runs/one"
    run(corpus, url)
    names = {*tf.io.gfile.listdir(url)}
    assert {"run.json", "vocab.txt", "metrics.csv", "model.keras"} <= names
    assert not [name for name in names if name.endswith(".tmp")]
    assert tf.io.gfile.glob(f"{url}/tensorboard/*")
    assert not list(tmp_path.iterdir()), "ram: as a folder here"
    with tf.io.gfile.GFile(f"{url}/metrics.csv") as file:
        assert len(file.read().splitlines()) == 5

    for path in tf.io.gfile.glob(f"{url}/checkpoints/ckpt-8.*"):
        tf.io.gfile.remove(path)
    run_folder.local_folder.cache_clear()
    run(corpus, url)
    # load_checkpoint finds nothing on ram://.
    copy = tmp_path / "one/checkpoints"
    copy.mkdir(parents=True)
    for path in tf.io.gfile.glob(f"{url}/checkpoints/ckpt-8.*"):
        tf.io.gfile.copy(path, str(copy / path.rpartition("/")[2]))
    same_weights(tmp_path / "one", undisturbed, 8, rtol=0, atol=0)
    refuses("learning_rate = 0.02", corpus, url, "--learning_rate=0.5")


def test_damaged_checkpoint(corpus, undisturbed, tmp_path):
    shutil.copytree(undisturbed, tmp_path, dirs_exist_ok=True)
    data = tmp_path / "checkpoints/ckpt-8.data-00000-of-00001"
    content = data.read_bytes()
    data.write_bytes(content[: len(content) // 2])
    refuses("ckpt-8 cannot be read", corpus, tmp_path)
    # Without the last one the run resumes from the one before.
    for path in (tmp_path / "checkpoints").glob("ckpt-8.*"):
        path.unlink()
    run(corpus, tmp_path)
    data.write_bytes(content)
    assert (tmp_path / "checkpoints/ckpt-8.index").exists()
