"""Scripts end with status 2 and one line when their input is wrong."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from official_models.common import errors, interrupts

ROOT = Path(__file__).parents[3]
SCRIPT = """
import errno, os, signal
from absl import flags
from official_models.common.errors import InputError, run

flags.DEFINE_integer("steps", 1, "Steps.")
flags.DEFINE_float("rate", 1.0, "Rate.")
flags.DEFINE_string("input", None, "Input.")
flags.mark_flag_as_required("input")

def main(argv):
    print(argv[1:], flags.FLAGS.steps)
    if flags.FLAGS.input == "bad":
        raise InputError("bad: this is\\nno input")
    if flags.FLAGS.input == "full":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "a/ckpt-3")
    if flags.FLAGS.input == "full of TensorFlow":
        path = 200 * "x" + "/ckpt-3"
        raise RuntimeError(f"{path}; No space left on device [Op:SaveV2]")
    if flags.FLAGS.input == "interrupted":
        signal.raise_signal(signal.SIGINT)
    if flags.FLAGS.input == "defect":
        raise ValueError("a defect")
    if flags.FLAGS.input == "broken":
        raise BrokenPipeError("of a worker")

run(main)
"""
WITH_COMMANDS = SCRIPT.replace("run(main)", "run(main, ('export', 'show'))")


@pytest.fixture(autouse=True)
def interrupts_arrive():
    """A shell's background ignores SIGINT, and so would its processes."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def _run(*arguments, script=SCRIPT):
    return subprocess.run(
        [sys.executable, "-c", script, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )


def test_good_input():
    result = _run("--input=good", "--steps=3")
    assert (result.returncode, result.stdout) == (0, "[] 3\n")
    assert not result.stderr


@pytest.mark.parametrize("flag", ["--help", "--helpshort", "--helpfull"])
def test_help_is_no_failure(flag):
    result = _run(flag)
    assert result.returncode == 0 and not result.stderr
    assert "--steps" in result.stdout


def test_a_command():
    result = _run("show", "--input=good", script=WITH_COMMANDS)
    assert (result.returncode, result.stdout) == (0, "['show'] 1\n")
    for words, part in (
        ([], "command: got 'none', expected export or show"),
        (["hide"], "command: got 'hide', expected export or show"),
        (["show", "more"], "unexpected argument 'more'"),
    ):
        result = _run(*words, "--input=good", script=WITH_COMMANDS)
        assert result.returncode == 2
        (line,) = result.stderr.splitlines()
        assert line.startswith("error: ") and part in line


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--input=bad"], ["bad: this is no input"]),
        ([], ["--input", "--help"]),
        (["--input=good", "--steps=many"], ["--steps=many", "--help"]),
        (["--input=good", f"--steps={10**12}"], ["--steps: ", "got 1000000"]),
        (["--input=good", "--steps=" + "9" * 5000], ["--steps", "--help"]),
        (["--input=good", "--rate=nan"], ["--rate: ", "finite", "got nan"]),
        (["--input=good", "--rate=1e999"], ["--rate: ", "finite", "got inf"]),
        (["--input=good", "--stepz=1"], ["'stepz'", "steps"]),
        (["--input=a.txt", "b.txt"], ["'b.txt'", "quote"]),
    ],
)
def test_bad_input(arguments, parts):
    result = _run(*arguments)
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    assert all(part in line for part in parts)


def test_what_follows_two_dashes():
    taking = SCRIPT.replace("run(main)", "run(main, takes_rest=True)")
    rest = ["--input=good", "--", "--runner", "x"]
    result = _run(*rest, script=taking)
    assert (result.returncode, result.stdout) == (0, "['--runner', 'x'] 1\n")
    for arguments, script in ((rest, SCRIPT), (["--input=a", "b"], taking)):
        result = _run(*arguments, script=script)
        assert result.returncode == 2
        assert "error: unexpected argument" in result.stderr


def test_a_full_disk_and_an_interrupt():
    result = _run("--input=full")
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert "No space left on device: 'a/ckpt-3'" in line and "again" in line
    result = _run("--input=full of TensorFlow")
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert "error: No space left on device: xxx" in line and "again" in line
    result = _run("--input=interrupted")
    assert (result.returncode, result.stderr) == (130, "interrupted\n")


SCRIPTS = ["official_models.nlp.bert.pretrain", "tpu.plan"]


@pytest.mark.parametrize("script", SCRIPTS)
def test_an_interrupt_between_imports_has_no_traceback(script):
    process = subprocess.Popen(
        [sys.executable, "-m", script],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    maps = Path(f"/proc/{process.pid}/maps")
    # Our package is imported before NumPy is.
    while process.poll() is None and "numpy" not in maps.read_text():
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=100)[1]
    assert process.returncode == -signal.SIGINT
    assert "Traceback" not in said


def test_who_imports_our_models_keeps_the_interrupt_of_python():
    program = (
        "import signal, official_models, tpu\n"
        "assert signal.getsignal(signal.SIGINT) is signal.default_int_handler"
    )
    command = [sys.executable, "-c", program]
    assert subprocess.run(command, cwd=ROOT).returncode == 0


def test_python_s_handler_is_put_back_where_it_was_taken_away(monkeypatch):
    before = signal.getsignal(signal.SIGINT)
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        monkeypatch.setattr(sys, "argv", ["-m"])
        interrupts.end_at_once()
        interrupts.raise_again()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        signal.signal(signal.SIGINT, signal.default_int_handler)
        interrupts.end_at_once()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL
        interrupts.raise_again()
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        monkeypatch.setattr(sys, "argv", ["a_script.py"])
        interrupts.end_at_once()
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("words", [["--help"], ["--input=good"]])
def test_who_stops_reading_sees_no_traceback(words, unbuffered):
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, *words],
        cwd=ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == 141


def test_the_pipe_of_a_worker_keeps_its_traceback():
    result = _run("--input=broken")
    assert result.returncode == 1
    assert "BrokenPipeError: of a worker" in result.stderr


def test_a_defect_keeps_its_traceback():
    result = _run("--input=defect")
    assert result.returncode == 1
    assert "Traceback" in result.stderr and "a defect" in result.stderr


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("short.\nmore", "short"),
        ("{{function_node __wrapped__A_device_/CPU:0}} it is cut [Op:A]", 0),
        ("", "ValueError"),
    ],
)
def test_the_first_line_of_an_exception(text, expected):
    found = errors.first_line(ValueError(text))
    assert found == (expected or "it is cut [Op:A]")
