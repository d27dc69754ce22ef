"""The shape of MessagePack before it is decoded: how deep it goes, and how many lists and maps are in it.

A byte of MessagePack can become an empty map of a hundred bytes, and each level of nesting costs the reader
a call. So both are looked at while the bytes are still bytes.
"""

from __future__ import annotations

import re

__all__ = ["Misshapen", "check_shape", "has_few_containers"]

_MOST_CONTAINERS = 200_000
_PIECE = 64 * 1024

_CONTAINERS = bytes((*range(0x80, 0xA0), *range(0xDC, 0xE0)))
_OTHERS = bytes(set(range(256)) - set(_CONTAINERS))

_FIXED = {
    0xCA: 5, 0xCB: 9, 0xCC: 2, 0xCD: 3, 0xCE: 5, 0xCF: 9, 0xD0: 2, 0xD1: 3, 0xD2: 5, 0xD3: 9,
    0xD4: 3, 0xD5: 4, 0xD6: 6, 0xD7: 10, 0xD8: 18,
}  # fmt: skip
"""Values of a fixed size, with their head."""
_SIZED = {0xC4: (1, 0), 0xC5: (2, 0), 0xC6: (4, 0), 0xD9: (1, 0), 0xDA: (2, 0), 0xDB: (4, 0),
          0xC7: (1, 1), 0xC8: (2, 1), 0xC9: (4, 1)}  # fmt: skip
"""Values that say how long they are: the bytes of the length, and what stands between it and the value."""
_NESTING = {0xDC: (2, 1), 0xDD: (4, 1), 0xDE: (2, 2), 0xDF: (4, 2)}
"""Lists and maps that say how long they are: the bytes of the length, and the values of an entry."""

_ONE_BYTE = re.compile(rb"[\x00-\x7f\xe0-\xff\xc0\xc2\xc3]+")
_RUNS = {
    head: re.compile(b"(?:" + re.escape(bytes((head,))) + b".{%d})+" % (size - 1), re.DOTALL)
    for head, size in _FIXED.items()
}
_FIX_MAP, _FIX_ARRAY, _FIX_STR, _NIL, _NEGATIVE = 0x80, 0x90, 0xA0, 0xC0, 0xE0


class Misshapen(ValueError):
    """The bytes are deeper or fuller than they may be."""


def has_few_containers(data: bytes | memoryview, most: int) -> bool:
    """Tell, quickly, whether valid MessagePack of these bytes cannot have more lists and maps than so many.

    False may be wrong: the bytes of a text can look like those of lists.
    """
    if len(data) <= _PIECE:
        return len(bytes(data).translate(None, _OTHERS)) <= most
    found = 0
    # In pieces, so that neither the time nor the memory for large ones is more than it takes to say no.
    for start in range(0, len(data), _PIECE):
        found += len(bytes(data[start : start + _PIECE]).translate(None, _OTHERS))
        if found > most:
            return False
    return True


def check_shape(data: bytes | memoryview, max_depth: int) -> None:
    """Check one valid value; a text, bytes, or what has few lists and maps, costs nearly nothing.

    Raises:
        Misshapen: It goes deeper than it may, or holds more lists and maps than one message may have.
    """
    if len(data) <= max_depth or data[0] not in _CONTAINERS or has_few_containers(data, max_depth):
        return
    position, containers = 0, 0
    left = [1]
    while True:
        while not left[-1]:
            left.pop()
            if not left:
                return
        head = data[position]
        count, size = _nesting(data, position, head)
        if size:
            containers += 1
            if len(left) > max_depth:
                raise Misshapen(f"it goes deeper than {max_depth} lists and maps")
            if containers > _MOST_CONTAINERS:
                raise Misshapen(f"it holds more than {_MOST_CONTAINERS} lists and maps")
            left[-1] -= 1
            left.append(count)
            position += size
            continue
        run = _ONE_BYTE if head < _FIX_MAP or head >= _NEGATIVE else _RUNS.get(head)
        if run is None and head not in (0xC0, 0xC2, 0xC3):
            left[-1] -= 1
            position += _length(data, position, head)
            continue
        # Many of one kind stand together, as in a list of numbers: they are passed in one step.
        each = _FIXED.get(head, 1)
        match = (run or _ONE_BYTE).match(data, position, position + left[-1] * each)
        assert match is not None, "the run begins with this head"
        left[-1] -= (match.end() - position) // each
        position = match.end()


def _nesting(data: bytes | memoryview, position: int, head: int) -> tuple[int, int]:
    """Give how many values a list or map has, and the size of its head; no size for anything else."""
    if _FIX_MAP <= head < _FIX_ARRAY:
        return 2 * (head - _FIX_MAP), 1
    if _FIX_ARRAY <= head < _FIX_STR:
        return head - _FIX_ARRAY, 1
    sized = _NESTING.get(head)
    if sized is None:
        return 0, 0
    width, values = sized
    return values * int.from_bytes(data[position + 1 : position + 1 + width], "big"), 1 + width


def _length(data: bytes | memoryview, position: int, head: int) -> int:
    """Give how many bytes a text, bytes or an extension has, with its head."""
    if _FIX_STR <= head < _NIL:
        return 1 + head - _FIX_STR
    width, between = _SIZED[head]
    return 1 + width + between + int.from_bytes(data[position + 1 : position + 1 + width], "big")
