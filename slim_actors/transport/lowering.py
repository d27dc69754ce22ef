"""How values get from Python into the bindings, and out again.

The generated code of the bindings copies payloads one byte at a time: 1.3 ms for 10 KiB, 130 ms for 1 MiB;
and it goes through several calls into Rust and several context managers for each value. Here a value is
gathered in Python and goes over in one allocation and one ``memmove`` a piece, in microseconds. All that sits
in private classes of that code, so their methods are replaced only where they look exactly as expected and,
once replaced, write and read what they should; everywhere else the bindings stay as they are, and slow.
"""

from __future__ import annotations

import ctypes
import inspect
import struct
from collections.abc import Callable
from types import ModuleType
from typing import Any

__all__ = ["copy_in_blocks"]

_SAMPLE = {"name": "value", "long": "0123456789abcdef" * 1024, "": ""}
_HEAD = 4096
"""Bytes of a value that are copied together: whatever stands before a payload, of most messages."""
_JOINED = 64 * 1024
"""Up to so many bytes, one copy more costs less than a call for each piece."""

_METHODS = {
    "_UniffiRustBufferBuilder": {
        "__init__": ["self"],
        "write": ["self", "value"],
        "_pack_into": ["self", "size", "format", "value"],
        "finalize": ["self"],
        "discard": ["self"],
    },
    "_UniffiRustBufferStream": {
        "__init__": ["self", "data", "len"],
        "_unpack_from": ["self", "size", "format"],
        "read": ["self", "size"],
    },
    "_UniffiConverterRustBuffer": {"lower": ["value"], "lift": ["rbuf"]},
}
_FIELDS = ["capacity", "len", "data"]


def copy_in_blocks(module: ModuleType) -> bool:
    """Replace the slow methods of a generated module; tell whether they were replaced.

    The module is left alone if it is not of the shape that is known.
    """
    if not _as_expected(module):
        return False
    before = {(owner, name): vars(owner)[name] for owner, name in _replaced(module)}
    for (owner, name), method in _replaced(module).items():
        setattr(owner, name, method)
    if _works(module):
        return True
    for (owner, name), method in before.items():
        setattr(owner, name, method)
    return False


def _replaced(module: Any) -> dict[tuple[type, str], Any]:
    builder, stream = module._UniffiRustBufferBuilder, module._UniffiRustBufferStream  # noqa: SLF001
    converter = module._UniffiConverterRustBuffer  # noqa: SLF001
    methods = {builder: _writing(module), stream: _reading(module), converter: _converting(builder, stream)}
    return {(owner, name): method for owner, found in methods.items() for name, method in found.items()}


def _writing(module: Any) -> dict[str, Callable[..., Any]]:
    """Give the methods of a builder that keeps the pieces until it knows how long they are together."""
    allocate: Callable[[int], Any] = module._UniffiRustBuffer.alloc  # noqa: SLF001
    pack, memmove, address_of = struct.pack, ctypes.memmove, ctypes.addressof

    def init(self: Any) -> None:
        self.pieces = []

    def write(self: Any, value: Any) -> None:
        self.pieces.append(value if type(value) is bytes else bytes(value))

    def pack_into(self: Any, _size: int, form: str, value: Any) -> None:
        self.pieces.append(pack(form, value))

    def finalize(self: Any) -> Any:
        pieces: list[bytes] = self.pieces
        size = sum(map(len, pieces))
        buffer = allocate(size)
        if 0 < size <= _JOINED:
            memmove(buffer.data, b"".join(pieces), size)
        elif size:
            position = address_of(buffer.data.contents)
            for piece in pieces:
                memmove(position, piece, len(piece))
                position += len(piece)
        buffer.len = size
        return buffer

    def discard(self: Any) -> None:
        self.pieces = []

    return {
        "__init__": init,
        "write": write,
        "_pack_into": pack_into,
        "finalize": finalize,
        "discard": discard,
    }


def _reading(module: Any) -> dict[str, Callable[..., Any]]:
    """Give the methods of a stream that copies what stands at its beginning once, not value by value."""
    failure: type[Exception] = module.InternalError
    unpack_from, string_at = struct.unpack_from, ctypes.string_at

    def init(self: Any, data: Any, len: int) -> None:  # noqa: A002 (so it is called)
        self.data, self.len, self.offset = data, len, 0
        self.head = string_at(data, min(len, _HEAD)) if len else b""

    def take(self: Any, size: int) -> bytes:
        offset: int = self.offset
        end = self.offset = offset + size
        if end <= _HEAD:
            if end > self.len:
                raise failure("read past end of rust buffer")
            return self.head[offset:end]  # type: ignore[no-any-return]
        if end > self.len:
            raise failure("read past end of rust buffer")
        return self.data[offset:end]  # type: ignore[no-any-return]

    def unpack(self: Any, size: int, form: str) -> Any:
        offset: int = self.offset
        if offset + size <= _HEAD and offset + size <= self.len:
            self.offset = offset + size
            return unpack_from(form, self.head, offset)[0]
        return unpack_from(form, take(self, size))[0]

    return {"__init__": init, "read": take, "_unpack_from": unpack}


def _converting(builder: type, stream: type) -> dict[str, Any]:
    """Give what takes a value over: nothing is left behind in Rust by what fails, so nothing need watch."""

    def lower(cls: Any, value: Any) -> Any:
        target: Any = builder()
        cls.write(value, target)
        return target.finalize()

    def lift(cls: Any, rbuf: Any) -> Any:
        try:
            source: Any = stream(rbuf.data, rbuf.len)
            value = cls.read(source)
            if source.offset != source.len:
                raise RuntimeError(f"junk data left in buffer: {source.len - source.offset} bytes")
            return value
        finally:
            rbuf.free()

    return {"lower": classmethod(lower), "lift": classmethod(lift)}


def _works(module: Any) -> bool:
    """Take something over and back, and look at what was written."""
    try:
        converter = module._UniffiFfiConverterMapStringString  # noqa: SLF001
        lowered = converter.lower(_SAMPLE)
        written = bytes(lowered.data[0 : lowered.len])
        back = converter.lift(lowered)
    except Exception:  # noqa: BLE001 (whatever other bindings do here, they are not those that are known)
        return False
    return back == _SAMPLE and written == _written(_SAMPLE)


def _written(texts: dict[str, str]) -> bytes:
    entries = (text.encode() for entry in texts.items() for text in entry)
    return struct.pack(">i", len(texts)) + b"".join(struct.pack(">i", len(one)) + one for one in entries)


def _as_expected(module: ModuleType) -> bool:
    fields = getattr(getattr(module, "_UniffiRustBuffer", None), "_fields_", ())
    if [name for name, _ in fields] != _FIELDS or not hasattr(module, "InternalError"):
        return False
    for owner, methods in _METHODS.items():
        for name, parameters in methods.items():
            method = getattr(getattr(module, owner, None), name, None)
            if not inspect.isroutine(method) or list(inspect.signature(method).parameters) != parameters:
                return False
    return True
