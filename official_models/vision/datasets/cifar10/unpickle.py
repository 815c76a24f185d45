"""Unpickles CIFAR-10's python version, and nothing else.

A pickle is a program that may import and call whatever it names. Here
`pickle.Unpickler` runs it with three limits: a name is looked up in `_NAMES`
and nowhere else, an opcode that the published files do not need is refused
beforehand, and so is a tuple that is used twice. `_NAMES` gives neither
NumPy's nor Python's own functions, so that no file chooses their arguments.
"""

from __future__ import annotations

import io
import pickle
import pickletools

import numpy as np

_DTYPES = ("u1", "i4", "i8")
# Opcodes of lists, dicts, tuples, texts, integers and arrays, by Python 2 and
# 3: those that put something new on the stack, and those that do not.
_TUPLES = {"TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"}
_MAKERS = _TUPLES | {
    *("NONE", "NEWTRUE", "NEWFALSE"),
    *("BININT", "BININT1", "BININT2", "LONG1"),
    *("BINSTRING", "SHORT_BINSTRING", "BINUNICODE", "SHORT_BINUNICODE"),
    *("BINBYTES", "BINBYTES8", "SHORT_BINBYTES", "BYTEARRAY8"),
    *("EMPTY_DICT", "EMPTY_LIST", "EMPTY_TUPLE"),
    *("GLOBAL", "STACK_GLOBAL", "REDUCE"),
}
_STORES = {"BINPUT", "LONG_BINPUT", "MEMOIZE"}
_LOADS = {"BINGET", "LONG_BINGET"}
_OTHERS = {
    *("PROTO", "FRAME", "STOP", "MARK", "BUILD"),
    *("APPEND", "APPENDS", "SETITEM", "SETITEMS"),
}
_OPCODES = _MAKERS | _STORES | _LOADS | _OTHERS
# An array takes six.
_MAX_TUPLES = 100


def _text(value: object) -> str:
    """A text of either Python; never what takes long to print."""
    if isinstance(value, bytes):
        value = value.decode("latin-1")
    if not isinstance(value, str):
        raise ValueError(f"{type(value).__name__} where a text is expected")
    return value[:80]


class _Dtype:
    """What stands for `numpy.dtype`: of integers only."""

    def __init__(self, code, *_):
        self.code, self.order = _text(code), "<"
        if self.code not in _DTYPES:
            raise ValueError(f"array of {self.code!r}, expected {_DTYPES}")

    def __setstate__(self, state):
        self.order, descriptor = _text(state[1]), state[2:5]
        if self.order not in ("<", ">", "|") or descriptor != (None,) * 3:
            raise ValueError("an array of something other than integers")


class _Array:
    """What stands for an array: its content comes with the state."""

    value: np.ndarray | None = None

    def __init__(self, *_):
        pass

    def __setstate__(self, state):
        _, shape, dtype, is_fortran, buffer = state
        self._fill(buffer, dtype, shape, "F" if is_fortran else "C")

    def _fill(self, buffer, dtype, shape, order):
        if not isinstance(buffer, (bytes, bytearray)):
            raise ValueError("an array without bytes")
        if not isinstance(dtype, _Dtype) or not isinstance(shape, tuple):
            raise ValueError("an array without a dtype or a shape")
        if not all(type(n) is int and n >= 0 for n in shape):
            raise ValueError("an array with a shape of no lengths")
        if order not in ("C", "F"):
            raise ValueError("an array of neither order C nor F")
        array = np.frombuffer(buffer, np.dtype(dtype.order + dtype.code))
        self.value = array.reshape(shape, order=order)


class _Buffer(_Array):
    """The same as protocol 5 calls it, `_frombuffer`."""

    def __init__(self, buffer, dtype, shape, order):
        self._fill(buffer, dtype, shape, order)


class _Encoded:
    """Bytes as Python 3 writes them in protocol 2: `_codecs.encode`."""

    def __new__(cls, text, encoding):
        if encoding != "latin1" or not isinstance(text, str):
            raise ValueError("bytes written in another way than latin1")
        return text.encode("latin-1")

    def __setstate__(self, state):
        raise ValueError("a state for bytes")


class _Ndarray:
    """An argument of `_reconstruct`; never made."""

    def __new__(cls, *_):
        raise ValueError("a call of numpy.ndarray")

    def __setstate__(self, state):
        raise ValueError("a state for numpy.ndarray")


# NumPy 1 and NumPy 2; protocols up to 4, and from 5 on.
_NAMES = {
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy.core.numeric", "_frombuffer"): _Buffer,
    ("numpy._core.numeric", "_frombuffer"): _Buffer,
    ("numpy", "ndarray"): _Ndarray,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _Encoded,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module, name):
        if (module, name) not in _NAMES:
            raise ValueError(f"the file asks for {f'{module}.{name}'[:80]!r}")
        return _NAMES[module, name]


def read_pickle(content: bytes) -> dict:
    """The dict that a batch file of CIFAR-10 holds.

    Args:
        content: Of the file. Text of Python 2 becomes bytes.

    Returns:
        The dict: lists, texts, integers, and `numpy` arrays of integers. Only
        its first level is checked to hold no stand-in of this module.

    Raises:
        ValueError: It is no pickle, or one that is more than data.
    """
    try:
        _check_opcodes(content)
        value = _Unpickler(io.BytesIO(content), encoding="bytes").load()
    # What a program that makes no sense runs into.
    except (
        ValueError,
        TypeError,
        AttributeError,
        LookupError,
        EOFError,
        OverflowError,
        MemoryError,
        pickle.UnpicklingError,
    ) as error:
        reason = " ".join(str(error).split())[:150] or type(error).__name__
        raise ValueError(reason) from error
    if not isinstance(value, dict):
        raise ValueError(f"holds a {type(value).__name__}, expected a dict")
    return {
        key: item.value if isinstance(item, _Array) else item
        for key, item in value.items()
    }


def _check_opcodes(content: bytes) -> None:
    """Refuses what could hang or exhaust the memory, and what is cut short.

    Tuples that hold one tuple twice, level after level, are small until they
    are hashed as keys, which takes 2**levels steps; deep ones exhaust the C
    stack. A number of the memo is the size of a table that is filled.
    """
    is_tuple: dict[int, bool] = {}  # by number of the memo
    tuples, before, at = 0, "", -1
    for opcode, argument, at in pickletools.genops(content):
        name = opcode.name
        if name not in _OPCODES:
            raise ValueError(
                f"byte {at}: opcode {name} is not among those of lists, "
                "dicts, integers and arrays"
            )
        if name == "FRAME":  # changes nothing on the stack
            continue
        if name in _STORES:
            number = len(is_tuple) if argument is None else argument
            # A store of something older would hide what it is.
            if before not in _MAKERS or number > len(content):
                raise ValueError(f"byte {at}: no use of the memo by a pickler")
            is_tuple[number] = before in _TUPLES
        elif name in _LOADS and is_tuple.get(argument):
            raise ValueError(f"byte {at}: a tuple is used twice")
        tuples += name in _TUPLES
        if tuples > _MAX_TUPLES:
            raise ValueError(f"byte {at}: more than {_MAX_TUPLES} tuples")
        before = name
    if at + 1 != len(content):
        raise ValueError(f"{len(content) - at - 1} bytes after the end")
