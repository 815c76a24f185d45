"""Processes with TensorFlow imported are as new ones for the rest."""

import os
import signal
import subprocess
import sys
import textwrap

import pytest

from tests import warm

pytestmark = pytest.mark.skipif(
    not warm._can_be_warm(os.environ),
    reason="WARM=0, or a backend that is not TensorFlow",
)


def _command(code, *arguments):
    return [sys.executable, "-c", textwrap.dedent(code), *arguments]


def _both(code, *arguments, **options):
    """What `subprocess.run` gives, and what a warm process does."""
    options = {"capture_output": True, "text": True, **options}
    command = _command(code, *arguments)
    return subprocess.run(command, **options), warm.run(command, **options)


def test_arguments_folder_environment_streams_and_status(tmp_path):
    one, other = _both(
        """
        import os, sys
        print(__name__, sys.argv, os.getcwd(), sys.path[0], os.getenv("A"))
        print("told", file=sys.stderr)
        sys.exit(3)
        """,
        *("--flag", "value"),
        cwd=tmp_path,
        env={**os.environ, "A": "b"},
    )
    assert other.returncode == one.returncode == 3
    assert other.stdout == one.stdout
    assert other.stderr == one.stderr == "told\n"


def test_a_module_is_run_as_main():
    command = [sys.executable, "-m", "json.tool", "--help"]
    one = subprocess.run(command, capture_output=True, text=True)
    other = warm.run(command, capture_output=True, text=True)
    assert (other.returncode, other.stdout) == (0, one.stdout)
    missing = _command("import json.missing")
    done = warm.run(missing, capture_output=True, text=True)
    assert done.returncode == 1
    assert "ModuleNotFoundError" in done.stderr


def test_nothing_of_ours_is_imported_and_tensorflow_computes():
    done = warm.run(
        _command(
            """
            import sys
            assert "tensorflow" in sys.modules
            ours = [m for m in sys.modules if m.startswith("tf_lamb")]
            assert not ours, ours
            import tensorflow as tf
            print(int(tf.function(lambda x: x + 1, jit_compile=True)(1)))
            """
        ),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert done.stdout == "2\n"


def test_signals_and_time_limits():
    sleeping = _command(
        "import time; print('begun', flush=True); time.sleep(60)"
    )
    process = warm.popen(sleeping, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "begun\n"
    assert process.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=10) == -signal.SIGTERM
    process.stdout.close()
    with pytest.raises(subprocess.TimeoutExpired):
        warm.run(sleeping, capture_output=True, timeout=0.05)


def test_several_at_once_end_with_their_own_status():
    commands = [_command(f"import sys; sys.exit({n})") for n in range(4)]
    processes = [warm.popen(command) for command in commands]
    assert [process.wait() for process in processes] == [0, 1, 2, 3]
