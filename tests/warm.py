"""Processes of tests that begin with TensorFlow imported.

To import TensorFlow takes a core three seconds and more, half of what a script
under test takes. A server imports it once, and is copied (`os.fork`) for each
process; it has computed nothing by then. For the rest a process is as a new
one: its arguments, environment, folder, pipes, signals and exit status are its
own, and of this repository nothing is imported yet.

WARM=0 begins each process anew, as it is always done on other backends and
where what is imported is itself under test (`subprocess`).
"""

import atexit
import contextlib
import json
import os
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
import types
from pathlib import Path

_ROOT = Path(__file__).parents[1]
# Of the environment, what counts when TensorFlow or Keras is imported.
_AT_IMPORT = (
    *("KERAS_BACKEND", "KERAS_HOME", "TF_USE_LEGACY_KERAS", "XLA_FLAGS"),
    *("TF_CPP_MIN_LOG_LEVEL", "PYTHONPATH", "OMP_NUM_THREADS"),
)
_servers = {}


def run(command, *, timeout=None, check=False, capture_output=False, **options):
    """`subprocess.run` by a warm process, of `python -m` or `-c`."""
    if capture_output:
        options |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = popen(command, **options)
    try:
        out, err = process.communicate(timeout=timeout)
    except BaseException:
        process.kill()
        process.wait()
        raise
    done = subprocess.CompletedProcess(command, process.returncode, out, err)
    if check:
        done.check_returncode()
    return done


def popen(command, **options):
    """`subprocess.Popen` by a warm process, of `python -m` or `-c`.

    Args:
      command: the interpreter's path first.
      **options: cwd, env, stdout, stderr and text.
    """
    environment = dict(options.get("env") or os.environ)
    is_python = command[0] == sys.executable and command[1] in ("-m", "-c")
    if not is_python or not _can_be_warm(environment):
        return subprocess.Popen(command, **options)
    key = tuple(environment.get(name) for name in _AT_IMPORT)
    if key not in _servers:
        _servers[key] = _Server(environment)
    return _Process(_servers[key], command, environment, **options)


def _can_be_warm(environment):
    backend = environment.get("KERAS_BACKEND", "tensorflow")
    return os.environ.get("WARM") != "0" and backend == "tensorflow"


class _Server:
    """The test's end of a server: begins processes, knows how they ended."""

    def __init__(self, environment):
        self._socket, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.warm", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                cwd=_ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
            )
        self._lines = b""
        self._pids, self._ended = [], {}
        atexit.register(self._close)

    def _close(self):
        self._socket.close()
        self._process.wait()

    def begin(self, request, files):
        """Begins a process; gives its number."""
        data = json.dumps(request).encode()
        head = len(data).to_bytes(8, "big")
        socket.send_fds(self._socket, [head], files)
        self._socket.sendall(data)
        while not self._pids:
            self._read(None)
        return self._pids.pop()

    def status(self, pid, timeout):
        """How a process ended: as `returncode`; None if it has not."""
        end = None if timeout is None else time.monotonic() + timeout
        while pid not in self._ended:
            left = None if end is None else max(end - time.monotonic(), 0)
            if not self._read(left):
                break
        return self._ended.get(pid)

    def _read(self, timeout):
        self._socket.settimeout(timeout)
        try:
            data = self._socket.recv(4096)
        except (TimeoutError, BlockingIOError):
            return False
        finally:
            self._socket.settimeout(None)
        if not data:
            raise RuntimeError("tests.warm: its server has ended")
        *lines, self._lines = (self._lines + data).split(b"\n")
        for line in lines:
            pid, status = json.loads(line)
            if status is None:
                self._pids.append(pid)
                self._ended.pop(pid, None)  # an older process had that number
            else:
                self._ended[pid] = os.waitstatus_to_exitcode(status)
        return True


class _Process:
    """What the tests use of `subprocess.Popen`."""

    def __init__(
        self,
        server,
        command,
        environment,
        *,
        cwd=None,
        env=None,
        stdout=None,
        stderr=None,
        text=False,
    ):
        self.args, self.returncode = command, None
        self._server = server
        with contextlib.ExitStack() as opened:
            self.stdout, out = _stream(stdout, 1, opened, text)
            if stderr == subprocess.STDOUT:
                self.stderr, err = None, out
            else:
                self.stderr, err = _stream(stderr, 2, opened, text)
            request = {
                "argv": [str(x) for x in command[1:]],
                "cwd": str(cwd or os.getcwd()),
                "env": environment,
            }
            self.pid = server.begin(request, [out, err])

    def poll(self):
        return self._ended(0)

    def wait(self, timeout=None):
        if self._ended(timeout) is None:
            raise subprocess.TimeoutExpired(self.args, timeout)
        return self.returncode

    def _ended(self, timeout):
        if self.returncode is None:
            self.returncode = self._server.status(self.pid, timeout)
        return self.returncode

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self):
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout=None):
        end = None if timeout is None else time.monotonic() + timeout
        found = {}

        def read(stream):
            with stream:
                found[stream] = stream.read()

        streams = [s for s in (self.stdout, self.stderr) if s is not None]
        threads = [
            threading.Thread(target=read, args=[s], daemon=True)
            for s in streams
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(None if end is None else max(end - time.monotonic(), 0))
        if any(thread.is_alive() for thread in threads):
            raise subprocess.TimeoutExpired(self.args, timeout)
        self.wait(None if end is None else max(end - time.monotonic(), 1))
        return found.get(self.stdout), found.get(self.stderr)


def _stream(given, inherited, opened, text):
    """The end that is read, None without a pipe, and the one for writing."""
    if given == subprocess.PIPE:
        ours, theirs = os.pipe()
        opened.callback(os.close, theirs)
        return open(ours, "r" if text else "rb"), theirs
    if given == subprocess.DEVNULL:
        return None, opened.enter_context(open(os.devnull, "wb")).fileno()
    return None, inherited if given is None else given.fileno()


# The server.


def _serve(connection):
    """Begins processes until the test has ended.

    Returns:
      In a new process: its request.
    """
    woken, wake = socket.socketpair()
    wake.setblocking(False)
    woken.setblocking(False)
    signal.set_wakeup_fd(wake.fileno())
    signal.signal(signal.SIGCHLD, lambda *_: None)
    with selectors.DefaultSelector() as selector:
        selector.register(connection, selectors.EVENT_READ)
        selector.register(woken, selectors.EVENT_READ)
        while True:
            ready = [key.fileobj for key, _ in selector.select()]
            if woken in ready:
                woken.recv(4096)
                _tell_ended(connection)
            if connection not in ready:
                continue
            head, files, *_ = socket.recv_fds(connection, 8, 2)
            if not head:
                sys.exit()
            data = bytearray()
            while len(data) < int.from_bytes(head, "big"):
                data += connection.recv(int.from_bytes(head, "big") - len(data))
            pid = os.fork()
            if not pid:
                break
            for file in files:
                os.close(file)
            connection.sendall(json.dumps([pid, None]).encode() + b"\n")
    # A new process, whose own the descriptors and signals are.
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for one in (woken, wake, connection):
        one.close()
    for number, file in enumerate(files, 1):
        os.dup2(file, number)
        os.close(file)
    return json.loads(data)


def _tell_ended(connection):
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not pid:
            return
        connection.sendall(json.dumps([pid, status]).encode() + b"\n")


def _become(request):
    """Runs a module or code as `python` would."""
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    how, what, *arguments = request["argv"]
    sys.path[0] = request["cwd"] if how == "-m" else ""
    if how == "-m":
        sys.argv = [what, *arguments]
        runpy.run_module(what, run_name="__main__", alter_sys=True)
        return
    sys.argv = ["-c", *arguments]
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    exec(compile(what, "<string>", "exec"), main.__dict__)


if __name__ == "__main__":
    import tensorflow  # noqa: F401

    if os.environ.get("TF_USE_LEGACY_KERAS") == "1":
        import tf_keras  # noqa: F401
    else:
        import keras  # noqa: F401
    _become(_serve(socket.socket(fileno=int(sys.argv[1]))))
