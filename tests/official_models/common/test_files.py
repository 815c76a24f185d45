"""Files are read with one-line errors and are never half written."""

import json
import os
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
import tensorflow as tf
from matplotlib.figure import Figure

from official_models.common import files
from official_models.common.errors import InputError

ROOT = Path(__file__).parents[3]


@pytest.fixture(params=["local", "text", "remote"])
def folder(request, tmp_path):
    """A function from a name to its path: a Path, a str, a URL."""
    if request.param == "remote":
        url = f"ram://{uuid.uuid4().hex}"
        tf.io.gfile.makedirs(url)
        return lambda name: f"{url}/{name}"
    if request.param == "text":
        return lambda name: str(tmp_path / name)
    return lambda name: tmp_path / name


def _names(path):
    return sorted(tf.io.gfile.listdir(os.fspath(path).rpartition("/")[0]))


def test_a_file_appears_when_it_is_complete(folder):
    path = folder("a.txt")
    files.write_text(path, "old")
    with files.replacing(path) as temporary:
        assert os.fspath(temporary).endswith("-a.txt")
        with tf.io.gfile.GFile(os.fspath(temporary), "w") as file:
            file.write("new")
        assert files.read_text(path) == "old"
        assert len(_names(path)) == 2
    assert files.read_text(path) == "new"
    assert _names(path) == ["a.txt"]


@pytest.mark.parametrize("raised", [ValueError, KeyboardInterrupt])
def test_a_failure_leaves_the_old_file_and_nothing_else(folder, raised):
    path = folder("a.txt")
    files.write_text(path, "old")
    with pytest.raises(raised), files.replacing(path) as temporary:
        with tf.io.gfile.GFile(os.fspath(temporary), "w") as file:
            file.write("half")
        raise raised
    assert files.read_text(path) == "old"
    assert _names(path) == ["a.txt"]


def test_a_block_that_wrote_nothing_is_an_error(folder):
    path = folder("a.txt")
    files.write_text(path, "old")
    with pytest.raises((OSError, tf.errors.OpError)):
        with files.replacing(path):
            pass
    assert files.read_text(path) == "old"


def test_two_writers_use_two_names(tmp_path):
    with files.replacing(tmp_path / "a") as one:
        with files.replacing(tmp_path / "a") as two:
            assert one != two
            two.write_text("two")
        one.write_text("one")
    assert (tmp_path / "a").read_text() == "one"


def test_a_killed_writer_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    files.write_text(path, "old")
    code = (
        "import os, signal, sys\n"
        "from official_models.common import files\n"
        "with files.replacing(sys.argv[1]) as temporary:\n"
        "    temporary.write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    run = subprocess.run([sys.executable, "-c", code, str(path)], cwd=ROOT)
    assert run.returncode == -signal.SIGKILL
    assert path.read_text() == "old"
    left = {p.name for p in tmp_path.iterdir()} - {"a.txt"}
    assert left and all(name.startswith(files.TEMPORARY) for name in left)


def test_local_files_need_no_tensorflow(tmp_path):
    code = (
        "import sys\n"
        "from official_models.common import files\n"
        "files.write_json(sys.argv[1], {'a': 1})\n"
        "assert files.read_json(sys.argv[1]) == {'a': 1}\n"
        "assert not {'tensorflow', 'keras', 'matplotlib'} & set(sys.modules)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "a.json")]
    subprocess.run(command, cwd=ROOT, check=True)


def test_a_folder_appears_when_it_is_complete(tmp_path):
    path = tmp_path / "cache" / "texts"
    for content in ("old", "new"):
        with files.replacing_folder(path) as temporary:
            (temporary / content).write_text(content)
        assert [p.name for p in path.iterdir()] == [content]
    with pytest.raises(KeyboardInterrupt):
        with files.replacing_folder(path) as temporary:
            (temporary / "half").write_text("half")
            raise KeyboardInterrupt
    assert [p.name for p in path.iterdir()] == ["new"]
    assert [p.name for p in path.parent.iterdir()] == ["texts"]


def test_a_folder_that_another_process_made_meanwhile_is_not_lost(
    tmp_path, monkeypatch
):
    path = tmp_path / "texts"
    monkeypatch.setattr(files.shutil, "rmtree", lambda *_, **__: None)
    with pytest.raises(OSError):
        with files.replacing_folder(path) as temporary:
            (temporary / "ours").write_text("")
            path.mkdir()
            (path / "theirs").write_text("")
    assert [p.name for p in path.iterdir()] == ["theirs"]


def test_text_and_json(folder):
    path = folder("a.json")
    value = {"name": "Größe", "numbers": [1, 0.5, None]}
    files.write_json(path, value)
    assert files.read_json(path) == value
    text = files.read_text(path)
    assert text == json.dumps(value, indent=2) + "\n"
    files.write_json(path, value, indent=1, ensure_ascii=False)
    assert "Größe" in files.read_text(path)
    files.write_text(path, "a\r\nb\n")
    assert files.read_text(path) == "a\r\nb\n"
    files.write_text(path, "\ufeff[]")
    assert files.read_json(path) == []


def test_what_is_not_json_is_never_written(folder):
    path = folder("a.json")
    files.write_json(path, "old")
    with pytest.raises(ValueError):
        files.write_json(path, float("nan"), allow_nan=False)
    assert files.read_json(path) == "old"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "cannot be read"),
        (b"", "not JSON: line 1, column 1"),
        (b'{\n"a": 1,}', "not JSON: line 2, column"),
        (
            b'{"a": "\xff"}',
            "not UTF-8 text: byte 0xff (invalid start byte) at byte offset 7",
        ),
        (b"[" * 100_000, "not JSON: nested too deeply"),
        # The first two are no halves.
        (
            rb'{"a\\ud800": "\ud83d\ude00",'
            + b"\n"
            + rb'"b": ["\uD83d\ud83d\ude00"]}',
            "not JSON: line 2, column 8: half of a pair",
        ),
        (b'["a",\n"\\udc00"]', "not JSON: line 2, column 2: half of a pair"),
    ],
)
def test_bad_json_is_named_in_one_line(folder, content, reason):
    path = folder("a.json")
    if content is not None:
        files.write_bytes(path, content)
    with pytest.raises(InputError) as caught:
        files.read_json(path, "write it again")
    message = str(caught.value)
    assert message.startswith(f"{path}: {reason}")
    assert message.endswith("; write it again")
    assert "\n" not in message


def test_pairs_of_escapes_are_characters(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(r'["\ud83d\ude00", "\\ud800"]')
    assert files.read_json(path) == ["\U0001f600", r"\ud800"]
    path.write_text(r'["\udce9"]')  # a file's name in Latin-1
    assert files.read_json(path, parse=json.loads) == ["\udce9"]


def test_a_number_of_too_many_digits_is_named(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("1" * 10_000)
    with pytest.raises(InputError, match=r"a\.json: not JSON: .*digits"):
        files.read_json(path)


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(InputError, match="cannot be read: Is a directory$"):
        files.read_text(tmp_path)


def test_a_figure(folder):
    path = folder("a.png")
    figure = Figure(figsize=(2, 1))
    figure.subplots().plot([1, 2])
    files.save_figure(path, figure, dpi=50)
    with tf.io.gfile.GFile(os.fspath(path), "rb") as file:
        image = tf.io.decode_png(file.read())
    assert image.shape[:2] == (50, 100)
    assert len(set(image.numpy().reshape(-1))) > 2  # something is drawn
    assert _names(path) == ["a.png"]
