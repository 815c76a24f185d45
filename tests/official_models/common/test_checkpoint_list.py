"""Checkpoints whose list is missing, damaged or of an earlier time."""

import shutil

import pytest
import tensorflow as tf

from official_models.common import checkpoint_list


@pytest.fixture
def folder(tmp_path):
    """Checkpoints of steps 3, 6 and 9."""
    value = tf.Variable(0.0)
    checkpoint = tf.train.Checkpoint(value=value)
    manager = tf.train.CheckpointManager(checkpoint, str(tmp_path), None)
    for step in (3, 6, 9):
        value.assign(step)
        manager.save(step)
    return tmp_path


def cut(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


@pytest.mark.parametrize(
    "content",
    [None, b"", b"\0" * 40, b"\xff\xfe\xfa", b"garbage", b"model_check"],
    ids=["missing", "empty", "zeros", "not UTF-8", "garbage", "cut"],
)
def test_the_list_is_mended_from_the_files(folder, content, tmp_path):
    path = tmp_path / "checkpoint"
    path.unlink() if content is None else path.write_bytes(content)
    assert [*checkpoint_list.saved_steps(folder)] == [3, 6, 9]
    line = checkpoint_list.mend(folder)
    assert str(path) in line and "ckpt-9" in line
    assert "\n" not in line
    assert tf.train.latest_checkpoint(folder).endswith("ckpt-9")
    assert checkpoint_list.mend(folder) == ""


def test_a_list_of_an_earlier_time(folder, tmp_path):
    lines = (tmp_path / "checkpoint").read_text()
    (tmp_path / "checkpoint").write_text(lines.replace("ckpt-9", "ckpt-6"))
    assert [*checkpoint_list.saved_steps(folder)][-1] == 9
    assert "lacks the newest" in checkpoint_list.mend(folder)
    assert tf.train.latest_checkpoint(folder).endswith("ckpt-9")


@pytest.mark.parametrize("suffix", ["index", "data-00000-of-00001"])
def test_a_save_that_was_killed_is_left_out(folder, tmp_path, suffix):
    for file in tmp_path.glob("ckpt-9.*"):
        shutil.copyfile(file, str(file).replace("ckpt-9", "ckpt-12"))
    cut(tmp_path / f"ckpt-12.{suffix}")
    assert [*checkpoint_list.saved_steps(folder)] == [3, 6, 9]
    assert checkpoint_list.mend(folder) == ""


def test_where_no_checkpoint_is_whole(folder, tmp_path):
    for file in tmp_path.glob("*.index"):
        cut(file)
    (tmp_path / "checkpoint").write_bytes(b"")
    assert "no checkpoint beside it is whole" in checkpoint_list.mend(folder)
    assert tf.train.latest_checkpoint(folder) is None


def test_a_folder_that_is_not_there(tmp_path):
    assert checkpoint_list.saved_steps(tmp_path / "none") == {}
    assert checkpoint_list.mend(tmp_path / "none") == ""
