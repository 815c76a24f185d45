"""The folder of a run: whose it is, what is refused, URLs."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import tensorflow as tf

from official_models.common import run_folder
from official_models.common.errors import InputError
from tests.official_models.scripts import refusal

IDENTITY = {"learning_rate": 0.1, "names": ["a", "b"], "size": None}


def _refused(folder, identity=IDENTITY):
    with pytest.raises(InputError) as refused:
        run_folder.open_run(str(folder), identity)
    message = str(refused.value)
    assert "\n" not in message and len(message) < 500
    return message


def test_a_url_where_a_script_writes_here(tmp_path):
    run_folder.need_local(str(tmp_path / "new"))
    refusal(
        lambda: run_folder.need_local("gs://a/b"),
        "--output_dir gs://a/b: ",
        "name a local folder",
    )


def test_flags_alone_are_compared_before_data_are_read(tmp_path):
    path = str(tmp_path)
    run_folder.check_flags(path, {"learning_rate": 0.1})
    run_folder.record_run(tmp_path, {**IDENTITY, "data": "a digest"})
    run_folder.check_flags(path, IDENTITY)
    run_folder.check_flags(path, {**IDENTITY, "learning_rate": None})
    refusal(
        lambda: run_folder.check_flags(path, {**IDENTITY, "new": 1}),
        "holds a run with new = None, this one has 1",
    )
    assert [x.name for x in tmp_path.iterdir()] == ["run.json"]


def test_a_new_folder_belongs_to_nobody_until_it_is_recorded(tmp_path):
    folder = run_folder.open_run(str(tmp_path / "a/b"), IDENTITY)
    assert [path.name for path in folder.iterdir()] == [".lock"]
    run_folder.open_run(str(folder), {**IDENTITY, "learning_rate": 0.2})
    run_folder.record_run(folder, IDENTITY)
    assert json.loads((folder / "run.json").read_text()) == IDENTITY
    assert run_folder.open_run(str(folder), IDENTITY) == folder


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"learning_rate": 0.2}, "learning_rate = 0.1, this one has 0.2"),
        ({"names": ["a"]}, "names = ['a', 'b'], this one has ['a']"),
        ({"new": 1}, "new = None, this one has 1"),
        ({"names": ["x" * 9999]}, "names = ['a', 'b'], this one has ['xxx"),
    ],
)
def test_another_run_is_refused_by_what_differs(tmp_path, change, message):
    run_folder.record_run(tmp_path, IDENTITY)
    assert message in _refused(tmp_path, {**IDENTITY, **change})


def test_what_a_run_has_no_more_is_named_too(tmp_path):
    run_folder.record_run(tmp_path, {**IDENTITY, "old": 1})
    assert "old = 1, this one has None" in _refused(tmp_path)


def test_a_rate_that_is_no_number_equals_itself(tmp_path):
    run_folder.record_run(tmp_path, {"rate": float("nan")})
    run_folder.open_run(str(tmp_path), {"rate": float("nan")})
    assert "rate = nan" in _refused(tmp_path, {"rate": 1.0})


@pytest.mark.parametrize(
    "content", [b"{", b"null", b"[]", b"3", b"\xff", b"[" * 100_000]
)
def test_a_record_that_is_none(tmp_path, content):
    (tmp_path / "run.json").write_bytes(content)
    message = _refused(tmp_path)
    assert "run.json" in message and "not the record of a run" in message


def test_folders_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    assert "--output_dir" in _refused(tmp_path / "file")
    assert "--output_dir" in _refused(tmp_path / "file" / "run")


def test_a_url_is_worked_on_in_a_scratch_folder():
    url = "ram://run_folder/one"
    folder = run_folder.open_run(url, IDENTITY)
    run_folder.record_run(folder, IDENTITY)
    (folder / "checkpoints").mkdir()
    run_folder.push(folder, url)
    assert {*tf.io.gfile.listdir(url)} == {"run.json"}

    run_folder.local_folder.cache_clear()  # as in another process
    again = run_folder.open_run(url, IDENTITY)
    assert again != folder and (again / "run.json").exists()
    assert "learning_rate = 0.1" in _refused(url, {"learning_rate": 1})


def test_a_local_folder_is_not_copied_anywhere(tmp_path):
    (tmp_path / "a").write_text("")
    run_folder.push(tmp_path, str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_folder_that_another_process_writes(tmp_path):
    code = f"""
from official_models.common import run_folder
run_folder.open_run({str(tmp_path)!r}, {{}})
print("open", flush=True)
input()
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[3],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout.readline() == "open\n"
        assert f"process {process.pid} writes this run" in _refused(tmp_path)
        # One that only takes part does not write.
        run_folder.open_run(str(tmp_path), IDENTITY, writes=False)
    finally:
        process.communicate("\n")
    run_folder.open_run(str(tmp_path), IDENTITY)
    run_folder.release()
