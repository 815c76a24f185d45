"""Plain data out of a pickle, without unpickling it.

CIFAR-10's python version is pickles, and unpickling runs whatever a file asks
for. Here the opcodes are read as data: dicts, lists, tuples, strings, integers
and arrays of integers, as Python 2 and Python 3 write them. Nothing that a
file names is imported or called, and any other opcode or name is refused.
"""

from __future__ import annotations

import pickletools

import numpy as np

# How an array of integers is spelled: by NumPy 1 and NumPy 2, by protocols up
# to 4 (_reconstruct) and from 5 on (_frombuffer).
_ARRAY = {
    "numpy.core.multiarray _reconstruct",
    "numpy._core.multiarray _reconstruct",
}
_BUFFER = {
    "numpy.core.numeric _frombuffer",
    "numpy._core.numeric _frombuffer",
}
_NDARRAY = "numpy ndarray"
_DTYPE = "numpy dtype"
# Python 3 spells bytes as text in protocol 2.
_ENCODE = "_codecs encode"
_NAMES = _ARRAY | _BUFFER | {_NDARRAY, _DTYPE, _ENCODE}
_DTYPES = ("u1", "i4", "i8")

_VALUES = {
    "BININT",
    "BININT1",
    "BININT2",
    "LONG1",
    "BINSTRING",
    "SHORT_BINSTRING",
    "BINBYTES",
    "BINBYTES8",
    "SHORT_BINBYTES",
    "BYTEARRAY8",
    "BINUNICODE",
    "SHORT_BINUNICODE",
}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class _Mark:
    """Where a list, tuple or dict begins on the stack."""


class _Name(str):
    """A name that a pickle would import."""


class _Dtype:
    def __init__(self, code):
        if code not in _DTYPES:
            raise ValueError(f"array of {code!r}, expected {_DTYPES}")
        self.code = code
        self.order = "<"

    def numpy(self) -> np.dtype:
        return np.dtype(self.order + self.code)


class _Array:
    """An array whose content is still to come."""

    value: np.ndarray | None = None


def read_pickle(content: bytes) -> dict:
    """The dict of plain data that a pickle of protocol 2 to 5 holds.

    Args:
        content: The file. Bytes after the pickle's end are refused.

    Returns:
        What the pickle says. Arrays that are values of the dict are NumPy's,
        of uint8, int32 or int64; any others are left unread. A string of
        Python 2 becomes a str in latin-1.

    Raises:
        ValueError: For anything else; the message gives the place.
    """
    machine = _Machine()
    place = 0
    try:
        for opcode, argument, at in pickletools.genops(content):
            place = at
            machine.step(opcode.name, argument)
        if place + 1 != len(content):
            raise ValueError(f"{len(content) - place - 1} bytes after the end")
        return _finished(machine.result())
    # What a stack machine runs into when a program makes no sense.
    except (
        ValueError,
        TypeError,
        IndexError,
        KeyError,
        AttributeError,
        OverflowError,
        MemoryError,
    ) as error:
        reason = " ".join(str(error).split())[:150] or type(error).__name__
        raise ValueError(f"byte {place}: {reason}") from error


class _Machine:
    """The stack and the memo of a pickle, over plain data."""

    def __init__(self):
        self.stack = []
        self.memo = {}

    def step(self, name: str, argument: object) -> None:
        """Takes one opcode."""
        if name in _VALUES:
            self.stack.append(argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name])
        elif name in ("PROTO", "FRAME", "STOP"):
            pass
        elif name == "MARK":
            self.stack.append(_Mark())
        elif name in ("EMPTY_DICT", "EMPTY_LIST", "EMPTY_TUPLE"):
            empty = {"EMPTY_DICT": {}, "EMPTY_LIST": [], "EMPTY_TUPLE": ()}
            self.stack.append(empty[name])
        elif name in _TUPLES:
            self.stack.append(tuple(self._pop(_TUPLES[name])))
        elif name == "TUPLE":
            self.stack.append(tuple(self._pop_to_mark()))
        elif name in ("BINPUT", "LONG_BINPUT"):
            self.memo[argument] = self._top(object)
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = self._top(object)
        elif name in ("BINGET", "LONG_BINGET"):
            self.stack.append(self.memo[argument])
        else:
            self._build(name, argument)

    def result(self) -> object:
        """What is left when the program is over."""
        if len(self.stack) != 1:
            raise ValueError(f"{len(self.stack)} objects left, expected 1")
        return self.stack[0]

    def _build(self, name: str, argument: object) -> None:
        """The opcodes that change what is below, or that name something."""
        if name == "APPEND":
            (item,) = self._pop(1)
            self._top(list).append(item)
        elif name == "APPENDS":
            items = self._pop_to_mark()
            self._top(list).extend(items)
        elif name in ("SETITEM", "SETITEMS"):
            single = name == "SETITEM"
            items = self._pop(2) if single else self._pop_to_mark()
            if len(items) % 2:
                raise ValueError("a key without a value")
            self._top(dict).update(zip(items[::2], items[1::2]))
        elif name == "GLOBAL":
            self.stack.append(_known(argument))
        elif name == "STACK_GLOBAL":
            self.stack.append(_known(" ".join(self._pop(2))))
        elif name == "REDUCE":
            function, arguments = self._pop(2)
            self.stack.append(_reduce(function, arguments))
        elif name == "BUILD":
            (state,) = self._pop(1)
            _set_state(self._top(object), state)
        else:
            raise ValueError(
                f"opcode {name} is not among those of lists, dicts, numbers "
                "and arrays"
            )

    def _pop(self, count: int) -> list:
        if len(self.stack) < count:
            raise ValueError("nothing left on the stack")
        items = self.stack[-count:]
        del self.stack[-count:]
        if any(isinstance(item, _Mark) for item in items):
            raise ValueError("a mark in place of a value")
        return items

    def _pop_to_mark(self) -> list:
        items = []
        while not isinstance(self.stack[-1], _Mark):
            items.append(self.stack.pop())
        self.stack.pop()
        return items[::-1]

    def _top(self, kind: type) -> object:
        top = self.stack[-1]
        if not isinstance(top, kind) or isinstance(top, _Mark):
            raise ValueError(
                f"{type(top).__name__} where a {kind.__name__} is expected"
            )
        return top


def _known(name: str) -> _Name:
    if name not in _NAMES:
        raise ValueError(f"the file asks for {name[:80]!r}")
    return _Name(name)


def _reduce(function: object, arguments: object) -> object:
    """What calling one of the known names would have given."""
    if not isinstance(function, _Name) or not isinstance(arguments, tuple):
        raise ValueError("a call of something that is no function")
    if function in _ARRAY:
        return _Array()
    if function == _DTYPE:
        return _Dtype(arguments[0])
    if function == _ENCODE:
        text, encoding = arguments
        if encoding != "latin1":
            raise ValueError(f"bytes written as {encoding!r}")
        return text.encode("latin-1")
    if function in _BUFFER:
        buffer, dtype, shape, order = arguments
        array = _Array()
        array.value = _as_array(buffer, dtype, shape, order)
        return array
    raise ValueError(f"a call of {function!r}")


def _set_state(target: object, state: tuple) -> None:
    if isinstance(target, _Dtype):
        order, descriptor = state[1], state[2:5]
        if order not in ("<", ">", "|") or descriptor != (None,) * 3:
            raise ValueError("an array of something other than integers")
        target.order = order
    elif isinstance(target, _Array):
        _, shape, dtype, is_fortran, buffer = state
        order = "F" if is_fortran else "C"
        target.value = _as_array(buffer, dtype, shape, order)
    else:
        raise ValueError(f"a state for a {type(target).__name__}")


def _as_array(buffer, dtype, shape, order) -> np.ndarray:
    if isinstance(buffer, str):  # of Python 2
        buffer = buffer.encode("latin-1")
    if not isinstance(dtype, _Dtype) or not isinstance(shape, tuple):
        raise ValueError("an array without a dtype or a shape")
    if any(not isinstance(n, int) or n < 0 for n in shape):
        raise ValueError(f"an array of shape {str(shape)[:60]}")
    return np.frombuffer(buffer, dtype.numpy()).reshape(shape, order=order)


def _finished(value: object) -> dict:
    """The dict that a pickle holds, with arrays for what stood for them."""
    if not isinstance(value, dict):
        raise ValueError(f"holds a {type(value).__name__}, expected a dict")
    return {
        key: item.value if isinstance(item, _Array) else item
        for key, item in value.items()
    }
