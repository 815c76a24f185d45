"""Pickles with a whitelist: nothing else is called, nothing hangs."""

import os
import pickle
import re
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from official_models.vision.datasets.cifar10.unpickle import read_pickle


class _Malicious:
    """What unpickles into a call of `os.mkdir`."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (self.folder,)


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_is_not_executed(tmp_path, protocol):
    folder = str(tmp_path / "made")
    content = pickle.dumps({"data": _Malicious(folder)}, protocol)
    with pytest.raises(ValueError, match="the file asks for|is not among"):
        read_pickle(content)
    assert not os.path.exists(folder)
    pickle.loads(content)
    assert os.path.exists(folder)


ROOT = Path(__file__).parents[5]


def _doubled(levels, behind=b"", memoize=False):
    """A dict that has as key a tuple of 2**levels places, in few bytes.

    Each tuple holds the one before twice; all are values of the dict first.

    Args:
        levels: of tuples.
        behind: opcodes that come before a tuple is stored.
        memoize: let the reader count the memo's numbers, of which one is
            stored twice.
    """

    def level(i, content):
        store = b"\x94" if memoize else b"q" + bytes([i])
        return b"K" + bytes([i]) + content + behind + store + b"s"

    begin = b"\x80\x04}" + b"K\xfeNq\x00s" + b"K\xffNq\x00s" * memoize
    tuples = [level(1, b"K\x00K\x01\x86")] + [
        level(i, 2 * (b"h" + bytes([i - 1])) + b"\x86")
        for i in range(2, levels + 1)
    ]
    key = b"h" + bytes([levels]) + b"K\x01s."
    return begin + b"".join(tuples) + key


def _printed():
    """Lists that double, where a message would show them: a dtype's name."""
    lists = [b"K\x01]q\x01s"] + [
        b"K%c]q%c(h%ch%ces" % (i, i, i - 1, i - 1) for i in range(2, 42)
    ]
    name = b"K\xffcnumpy\ndtype\nh\x29\x85Rs."
    return b"\x80\x02}" + b"".join(lists) + name


BOMBS = {
    "tuples": (_doubled(40), "a tuple is used twice"),
    "memoize": (_doubled(40, memoize=True), "a tuple is used twice"),
    "appends": (_doubled(40, b"(e"), "no use of the memo"),
    "setitems": (_doubled(40, b"(u"), "no use of the memo"),
    "build": (_doubled(40, b"Nb"), "no use of the memo"),
    "stored twice": (_doubled(40, b"q\xff"), "no use of the memo"),
    "depth": (b"\x80\x02})" + b"\x85" * 10**6 + b"K\x01s.", "100 tuples"),
    "printed": (_printed(), "list where a text"),
    "memo": (b"\x80\x02}r" + struct.pack("<I", 2**32 - 1) + b".", "the memo"),
    "bytes": (b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b".", str(2**40)),
}


@pytest.mark.parametrize("name", BOMBS)
def test_no_pickle_hangs_or_fills_the_memory(name, tmp_path):
    """In a process of its own, which a hang in C would not leave."""
    content, reason = BOMBS[name]
    path = tmp_path / "file"
    path.write_bytes(content)
    code = (
        "import resource, sys\n"
        "from official_models.vision.datasets.cifar10 import unpickle\n"
        "content = open(sys.argv[1], 'rb').read()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))\n"
        "try:\n"
        "    unpickle.read_pickle(content)\n"
        "except ValueError as error:\n"
        "    print(error)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        cwd=ROOT,
        timeout=20,
        check=True,
        capture_output=True,
        text=True,
    )
    assert reason in run.stdout and len(run.stdout) < 300


@pytest.mark.parametrize(
    "behind, memoize",
    [(b"", False), (b"", True), (b"(e", False), (b"(u", False),
     (b"Nb", False), (b"q\xff", False)],
)  # fmt: skip
def test_small_ones_are_pickles_that_python_reads(behind, memoize):
    """So that it is their size alone that the test above is about."""
    pair = (0, 1)
    for _ in range(3):
        pair = (pair, pair)
    assert pickle.loads(_doubled(4, behind, memoize))[pair] == 1


@pytest.mark.parametrize(
    "content, reason",
    [
        (b"", "exhausted"),
        (b"\x80\x02]q\x01.", "expected a dict"),
        (b"\x80\x02}q\x01.x", "1 bytes after the end"),
        (b"\x80\x02}q\x01", "exhausted"),
        (b"\x80\x02.", "stack underflow"),
        (b"\x80\x02}(K\x01u.", "odd number of items"),
        (b"\x80\x02}(]K\x01u.", "unhashable"),
        (b"\x80\x02h\x05.", "5"),
        (b"\x80\x02K\x01a.", "stack underflow"),
        (b"\x80\x02K\x01K\x02a.", "'append'"),
        (b"\x80\x02K\x01)R.", "not callable"),
        (b"\x80\x02cnumpy\nndarray\n)R.", "a call of numpy.ndarray"),
        (b"\x80\x02cnumpy\nndarray\nNb.", "missing 1 required"),
        (b"\x80\x02cnumpy\ndtype\n}b.", "missing 1 required"),
        (b"\x80\x02cnumpy\ndtype\nU\x02O8\x85R.", "array of 'O8'"),
        (b"\x80\x02(\x85.", "unexpected MARK"),
        (b"\x80\x02(q\x01.", "no use of the memo"),
        (b"\x80\x02t.", "could not find MARK"),
        (b"\x80\x02}K\x01b.", "state is not a dictionary"),
        (b"\x80\x02cos\nsystem\n.", "'os.system'"),
        (b"\x80\x02c_codecs\nencode\nX\x01\0\0\0xX\x05\0\0\0rot13\x86R.",
         "another way than latin1"),
        (b"(ios\nsystem\n.", "opcode INST is not among"),
        (b"\x80\x02U\xffabc.", "expected 255 bytes"),
    ],
)  # fmt: skip
def test_senseless_pickles(content, reason):
    with pytest.raises(ValueError, match=re.escape(reason)):
        read_pickle(content)


def test_only_the_last_of_two_objects_is_looked_at():
    """Python's own rule; the file is no batch file either way."""
    assert read_pickle(b"\x80\x02]}.") == {}


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("dtype", ["u1", "<i4", ">i4", "<i8"])
def test_arrays_are_what_pickle_reads(protocol, dtype):
    array = np.arange(6).reshape(2, 3).astype(dtype)
    for order in "CF":
        content = pickle.dumps({"x": np.array(array, order=order)}, protocol)
        found = read_pickle(content)["x"]
        expected = pickle.loads(content)["x"]
        # NumPy may have swapped the bytes.
        native = found.dtype.newbyteorder("=")
        assert native == expected.dtype.newbyteorder("=")
        np.testing.assert_array_equal(found, expected)
