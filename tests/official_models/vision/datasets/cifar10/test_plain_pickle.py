"""Pickles read as data: what is refused, and that nothing is executed."""

import os
import pickle
import re

import pytest

from official_models.vision.datasets.cifar10.plain_pickle import read_pickle


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


@pytest.mark.parametrize(
    "content, reason",
    [
        (b"", "byte 0"),
        (b"\x80\x02]q\x01.", "expected a dict"),
        (b"\x80\x02}q\x01.x", "1 bytes after the end"),
        (b"\x80\x02}q\x01", "byte 3"),
        (b"\x80\x02}}.", "2 objects left"),
        (b"\x80\x02.", "0 objects left"),
        (b"\x80\x02}(K\x01u.", "key without a value"),
        (b"\x80\x02}(]K\x01u.", "unhashable"),
        (b"\x80\x02h\x05.", "byte 2"),
        (b"\x80\x02K\x01a.", "byte 4"),
        (b"\x80\x02K\x01K\x02a.", "int where a list"),
        (b"\x80\x02K\x01K\x02R.", "no function"),
        (b"\x80\x02cnumpy\nndarray\n)R.", "call of 'numpy ndarray'"),
        (b"\x80\x02cnumpy\ndtype\nU\x02O8\x85R.", "array of 'O8'"),
        (b"\x80\x02(\x85.", "a mark in place"),
        (b"\x80\x02(q\x01.", "_Mark where"),
        (b"\x80\x02t.", "byte 2"),
        (b"\x80\x02}K\x01b.", "a state for a dict"),
        (b"\x80\x02cos\nsystem\n.", "'os system'"),
        (b"(ios\nsystem\n.", "INST"),
        (b"\x80\x02U\xffabc.", "expected 255 bytes"),
    ],
)
def test_senseless_pickles(content, reason):
    with pytest.raises(ValueError, match=re.escape(reason)) as caught:
        read_pickle(content)
    assert re.match(r"byte \d+: .", str(caught.value))
