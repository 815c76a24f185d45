"""Damaged inputs, by seed: of bytes, and of the values in a JSON file."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from typing import Any

# What stands where another value is expected.
ODD_VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    0.5,
    1e30,
    2**63,
    10**39,
    float("nan"),
    float("inf"),
    "",
    "x",
    "0",
    "\0",
    "\ud800",
    "é" * 300,
    [],
    [[]],
    {},
    {"": None},
)


def _place(content: bytes, rng: random.Random) -> tuple[int, int]:
    """Where a piece of up to an eighth of the bytes begins and ends."""
    begin = rng.randrange(len(content) + 1)
    longest = max(len(content) // 8, 1)
    return begin, min(begin + rng.randint(1, longest), len(content))


def cut(content: bytes, rng: random.Random) -> bytes:
    """Its end is missing."""
    return content[: rng.randrange(len(content))]


def leave_out(content: bytes, rng: random.Random) -> bytes:
    """A piece is missing."""
    begin, end = _place(content, rng)
    return content[:begin] + content[end:]


def repeat(content: bytes, rng: random.Random) -> bytes:
    """A piece is there twice."""
    begin, end = _place(content, rng)
    return content[:end] + content[begin:]


def zeros(content: bytes, rng: random.Random) -> bytes:
    """A piece is zeros, as after a crash."""
    begin, end = _place(content, rng)
    return content[:begin] + bytes(end - begin) + content[end:]


def flip(content: bytes, rng: random.Random) -> bytes:
    """A bit is another one."""
    changed = bytearray(content)
    changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def flip_at_an_end(content: bytes, rng: random.Random) -> bytes:
    """A bit of the first or last 256 bytes, which say how to read the rest."""
    changed = bytearray(content)
    changed[rng.randrange(-256, 256) % len(changed)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def scatter(content: bytes, rng: random.Random, number: int = 8) -> bytes:
    """Bytes here and there are random ones."""
    changed = bytearray(content)
    for _ in range(number):
        changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed)


def overwrite(content: bytes, rng: random.Random) -> bytes:
    """A piece is random bytes."""
    begin, end = _place(content, rng)
    return content[:begin] + rng.randbytes(end - begin) + content[end:]


def insert(content: bytes, rng: random.Random) -> bytes:
    """A word that is not meant to be there."""
    word = rng.choice(
        [b"\0", b"\n", b"\r", b"\t", b"\xff", b"\xef\xbb\xbf", b"-1", b"nan"]
        + [b"9" * 5000, b'"', b"{", b"[" * 2000, "\u2028".encode()]
    )
    at = rng.randrange(len(content) + 1)
    return content[:at] + word + content[at:]


def empty(content: bytes, rng: random.Random) -> bytes:
    """There is nothing in it."""
    return b""


BYTES: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    cut,
    leave_out,
    repeat,
    zeros,
    flip,
    overwrite,
    insert,
)


def certainly(
    one: Callable[[bytes, random.Random], bytes],
    content: bytes,
    rng: random.Random,
) -> bytes:
    """What is damaged by `one` until it is not as it was."""
    while (changed := one(content, rng)) == content:
        pass
    return changed


def of_bytes(content: bytes, rng: random.Random) -> bytes:
    """One or two damages of the bytes, now and then nothing at all."""
    if rng.random() < 0.02:
        return b""
    for _ in range(rng.choice((1, 1, 2))):
        content = rng.choice(BYTES)(content, rng) or b"\0"
    return content


def _places(value: Any, path: tuple = ()) -> list[tuple]:
    """The paths of all values inside of a JSON value."""
    found = [path]
    if isinstance(value, dict):
        for key, item in value.items():
            found += _places(item, (*path, key))
    elif isinstance(value, list):
        for i, item in enumerate(value):
            found += _places(item, (*path, i))
    return found


def of_json(content: bytes, rng: random.Random) -> bytes:
    """A value in a JSON file is another one, is missing or is there twice."""
    value = json.loads(content)
    path = rng.choice(_places(value))
    if not path:
        return json.dumps(rng.choice(ODD_VALUES)).encode()
    owner = value
    for key in path[:-1]:
        owner = owner[key]
    key, kind = path[-1], rng.random()
    if kind < 0.6:
        owner[key] = rng.choice(ODD_VALUES)
    elif kind < 0.8:
        del owner[key]
    elif isinstance(owner, list):
        owner.append(owner[key])
    else:
        owner[f"{key}x"] = owner.pop(key)
    return json.dumps(value).encode()


def of_values(arguments: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    """Arguments, of which one or two are odd values."""
    changed = dict(arguments)
    number = min(rng.choice((1, 1, 2)), len(arguments))
    for name in rng.sample(sorted(arguments), number):
        odd = rng.choice((*ODD_VALUES, (1, 0), object(), b"1", 1j))
        changed[name] = copy.copy(odd)  # Keras wraps a list where it lies.
    return changed
