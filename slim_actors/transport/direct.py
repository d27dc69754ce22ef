"""The two calls that every payload makes, without the generated code between.

The generated code of the bindings copies payloads one byte at a time (1.3 ms for 10 KiB, 130 ms for 1 MiB),
makes an object of everything that comes with a payload, and sends each future of Rust that is ready round the
event loop once more. Here Rust's functions are called as that code calls them (UniFFI's calling convention),
but a payload goes over in one copy, what nobody looks at is let go as it comes, and what is ready is taken at
once. That halves the processor time of Python for a payload. All else that Rust is waited for goes the same
way (`Direct.take_over`), so that nothing of Rust's calls an interpreter that is ending (`Direct.leave`).

This knows what the generated code knows, so it is used only for a library that has the same functions and
the same records, and waits in the same way (`fits`); others get `Generated`.
"""

from __future__ import annotations

import asyncio
import ctypes
import itertools
import struct
from collections.abc import Callable
from functools import lru_cache
from threading import RLock, get_ident
from time import monotonic, sleep
from types import ModuleType
from typing import Any

from slim_actors.transport.calls import Received

__all__ = ["Direct", "fits"]

_READY = 0
_AT_ONCE = 64 * 1024
"""Bytes up to which one copy more costs less than a call for each piece."""
_TOGETHER = 8 * 1024
"""Bytes of messages that are there already and are taken in one turn of the loop: what small ones bring about
leaves together then, and each payload less saves as much as dozens of messages cost."""
_LEAVE_WITHIN = 2.0
_CONTRACT = 30
"""The version of UniFFI's calling convention."""
_CHECKSUMS = {
    "session_get_message_async": 47142,
    "session_publish_async": 43054,
    "completionhandle_wait_async": 16218,
}
"""What the library says of its methods' parameters and results, as UniFFI computes it."""
_RECORDS = {
    "ReceivedMessage": {"context": "MessageContext", "payload": "bytes"},
    "MessageContext": {
        "source_name": "Name",
        "destination_name": "typing.Optional[Name]",
        "payload_type": "str",
        "metadata": "dict[str, str]",
        "input_connection": "int",
        "identity": "str",
    },
}
"""The fields of what comes with a payload, and their types, in the order in which they come over."""
_STRUCTS = {
    "_UniffiForeignBytes": ["len", "data"],
    "_UniffiRustBuffer": ["capacity", "len", "data"],
    "_UniffiRustCallStatus": ["code", "error_buf"],
}

_WAITS = ("rust_future", "ffi_poll", "ffi_complete", "ffi_free", "lift_func", "error_ffi_converter")
"""What the generated code's own way to wait for a future of Rust is given."""

_source = struct.Struct(">QB").unpack_from
_size = struct.Struct(">I").unpack_from

_Future = tuple[Callable[..., None], Callable[..., Any], Callable[[int], None], Callable[[int], None]]
"""How a future of Rust is polled, completed, cancelled and freed."""


class _Bytes(ctypes.Structure):
    """What Rust copies from, as in the generated code, but made of bytes at once."""

    _fields_ = (("len", ctypes.c_int32), ("data", ctypes.c_char_p))


class _Wait:
    """Waits for one future of Rust."""

    __slots__ = ("cancel", "code", "future", "is_polling", "loop", "rust", "thread")

    def __init__(self, rust: int, cancel: Callable[[int], None]) -> None:
        self.rust = rust
        self.cancel = cancel
        self.loop = asyncio.get_running_loop()
        self.thread = get_ident()
        self.future: asyncio.Future[None] | None = None
        self.is_polling = False
        self.code: int | None = None

    def wake(self) -> None:
        if self.future is not None and not self.future.done():
            self.future.set_result(None)


class Direct:
    """`Calls` by Rust's own functions.

    Args:
        module: The generated module, for which `fits` is true.
    """

    def __init__(self, module: Any) -> None:
        self._module = module
        self._library = library = module._UniffiLib  # noqa: SLF001
        # What only touches memory keeps the interpreter's lock: to let go of it costs more than that does,
        # and a thread of Rust's may take it just then. Polls let go: Rust may hold a lock there while one of
        # its threads, with that same lock, waits for the interpreter's.
        quick = ctypes.PyDLL(library._name, handle=library._handle)  # noqa: SLF001

        def of_memory(name: str) -> Any:
            known, function = getattr(library, name), getattr(quick, name)
            function.argtypes, function.restype = known.argtypes, known.restype
            return function

        def future(of: str) -> _Future:
            poll, complete, cancel, free = (
                getattr(library, f"ffi_slim_bindings_rust_future_{what}_{of}")
                for what in ("poll", "complete", "cancel", "free")
            )
            return poll, complete, cancel, free

        self._copy = of_memory("ffi_slim_bindings_rustbuffer_from_bytes")
        self._copy.argtypes = (_Bytes, self._copy.argtypes[1])
        self._allocate = of_memory("ffi_slim_bindings_rustbuffer_alloc")
        self._release = of_memory("ffi_slim_bindings_rustbuffer_free")
        self._clone = of_memory("uniffi_slim_bindings_fn_clone_session")
        self._free_name = of_memory("uniffi_slim_bindings_fn_free_name")
        self._receive = of_memory("uniffi_slim_bindings_fn_method_session_get_message_async")
        self._publish = of_memory("uniffi_slim_bindings_fn_method_session_publish_async")
        self._acknowledged = of_memory("uniffi_slim_bindings_fn_method_completionhandle_wait_async")
        self._clone_handle = of_memory("uniffi_slim_bindings_fn_clone_completionhandle")
        self._free_handle = library.uniffi_slim_bindings_fn_free_completionhandle
        self._handle, self._buffer, self._nothing = future("u64"), future("rust_buffer"), future("void")
        self._status = module._UniffiRustCallStatus  # noqa: SLF001
        self._check = module._uniffi_check_call_status  # noqa: SLF001
        self._error = module._UniffiFfiConverterTypeSlimError  # noqa: SLF001
        self._lift_handle = module._UniffiFfiConverterTypeCompletionHandle.lift  # noqa: SLF001
        self._waits: dict[int, _Wait] = {}
        self._threads: set[int] = set()
        """Those of Rust's that the interpreter knows."""
        self._gate = RLock()
        """Held by who is in Rust where that may call Python; from `leave` on by its thread for ever."""
        self._inside: set[int] = set()
        """The threads of Rust's that are in Python."""
        self._numbers = itertools.count()
        self._in_a_row = 0
        """Bytes that came without a turn for anybody else between them."""
        # Kept here, for Rust keeps nothing of it alive.
        self._woken = module._UNIFFI_RUST_FUTURE_CONTINUATION_CALLBACK(self._ready)  # noqa: SLF001

    async def publish(
        self, session: Any, data: bytes, payload_type: str | None, *, tracked: bool = False
    ) -> Any:
        """See `Calls.publish`."""
        status = self._status()
        reference = ctypes.byref(status)
        future = self._publish(
            self._clone(session._handle, reference),  # noqa: SLF001
            self._lower(data, reference),
            self._copy(_optional(payload_type), reference),
            self._copy(_ABSENT, reference),
        )
        handle = await self._outcome(future, self._handle, status, self._error)
        if tracked:
            return self._lift_handle(handle)
        self._free_handle(handle, reference)
        return None

    async def receive(self, session: Any) -> Received:
        """See `Calls.receive`."""
        status = self._status()
        reference = ctypes.byref(status)
        whole = self._clone(session._handle, reference)  # noqa: SLF001
        future = self._receive(whole, self._copy(_ABSENT, reference))
        # Whoever finds one message after the other there must not keep the loop from everything else.
        buffer = await self._outcome(future, self._buffer, status, self._error, gives_way=True)
        self._in_a_row += buffer.len
        try:
            return self._lift(buffer, reference)
        finally:
            self._release(buffer, reference)

    async def acknowledged(self, handle: Any) -> None:
        """See `Calls.acknowledged`."""
        status = self._status()
        future = self._acknowledged(self._clone_handle(handle._handle, ctypes.byref(status)))  # noqa: SLF001
        await self._outcome(future, self._nothing, status, self._error)

    def take_over(self) -> None:
        """Wait for all futures of Rust's as for these two, so that `leave` knows of them too."""
        self._module._uniffi_rust_call_async = self._call  # noqa: SLF001

    async def _call(
        self,
        future: int,
        poll: Callable[..., None],
        complete: Callable[..., Any],
        free: Callable[[int], None],
        lift: Callable[[Any], Any],
        error: Any,
    ) -> Any:
        cancel = getattr(self._library, poll.__name__.replace("_poll_", "_cancel_"))
        return lift(await self._outcome(future, (poll, complete, cancel, free), self._status(), error))

    def leave(self) -> None:
        """Let nothing of Rust call Python any more, for the interpreter is about to end.

        Before 3.14 it then ends each thread that comes in, and where that has Rust's functions on its stack,
        the whole process dies of it. Other threads that call again wait for ever.
        """
        self._gate.acquire()
        for wait in list(self._waits.values()):
            wait.cancel(wait.rust)
        # Each that was waited for calls once more. One that does so now may not be in Python yet: it is until
        # then that the interpreter must live.
        until = monotonic() + _LEAVE_WITHIN
        while (self._waits or self._inside - {get_ident()}) and monotonic() < until:
            sleep(0.001)

    async def _outcome(
        self, future: int, calls: _Future, status: Any, error: Any, *, gives_way: bool = False
    ) -> Any:
        poll, complete, cancel, free = calls
        wait: Any = _Wait(future, cancel)
        try:
            while True:
                number = next(self._numbers)
                wait.code = None
                wait.is_polling = True
                with self._gate:
                    self._waits[number] = wait
                    poll(future, self._woken, number)
                wait.is_polling = False
                if wait.code == _READY:
                    break
                if wait.code is None:
                    gives_way = False
                    wait.future = wait.loop.create_future()
                    await wait.future
                    self._in_a_row = 0
            if gives_way and self._in_a_row >= _TOGETHER:
                self._in_a_row = 0
                await asyncio.sleep(0)
            result = complete(future, ctypes.byref(status))
            if status.code:
                self._check(error, status)
            return result
        finally:
            # The garbage collector may do this in a thread of Rust's, which must not wait for one that polls.
            if wait.code == _READY or wait.thread != get_ident():
                free(future)
            else:
                with self._gate:
                    free(future)

    def _ready(self, number: int, code: int) -> None:
        """Take note that a future is worth another poll: in the middle of one, or in a thread of Rust's."""
        thread = get_ident()
        self._inside.add(thread)
        try:
            wait = self._waits.pop(number)
            # Only in the thread of the loop: of a thread beside it nobody knows how far the poll is.
            if thread == wait.thread and wait.is_polling:
                wait.code = code
            else:
                self._wake(wait, thread)
        finally:
            self._inside.discard(thread)

    def _wake(self, wait: _Wait, thread: int) -> None:
        if thread not in self._threads:
            # Else the interpreter makes all that it keeps for a thread, and drops it, for each such call.
            self._threads.add(thread)
            ctypes.pythonapi.PyGILState_Ensure()
        if not wait.loop.is_closed():
            wait.loop.call_soon_threadsafe(wait.wake)

    def _lower(self, data: bytes, reference: Any) -> Any:
        size = len(data)
        length = size.to_bytes(4, "big")
        if size <= _AT_ONCE:
            return self._copy(_Bytes(4 + size, length + data), reference)
        buffer = self._allocate(4 + size, reference)
        address = ctypes.addressof(buffer.data.contents)
        ctypes.memmove(address, length, 4)
        ctypes.memmove(address + 4, data, size)
        buffer.len = 4 + size
        return buffer

    def _lift(self, buffer: Any, reference: Any) -> Received:
        size = buffer.len
        address = ctypes.addressof(buffer.data.contents)
        head = ctypes.string_at(address, min(size, _AT_ONCE))
        for name in _names(head):
            self._free_name(name, reference)
        try:
            context, begin, end = _context(head)
        except struct.error:
            # Whoever sends a message may put as much as he likes before its payload.
            head = ctypes.string_at(address, size)
            context, begin, end = _context(head)
        payload = head[begin:end] if end <= len(head) else ctypes.string_at(address + begin, end - begin)
        return Received(payload, *context)


def fits(module: ModuleType) -> bool:
    """Tell whether a generated module and its library are of the shape that `Direct` knows."""
    try:
        return _has_functions(module._UniffiLib) and _has_records(module) and _waits_alike(module)  # noqa: SLF001
    except AttributeError:
        return False


def _has_functions(library: Any) -> bool:
    return library.ffi_slim_bindings_uniffi_contract_version() == _CONTRACT and all(
        getattr(library, f"uniffi_slim_bindings_checksum_method_{method}")() == known
        for method, known in _CHECKSUMS.items()
    )


def _has_records(module: Any) -> bool:
    for record, known in _RECORDS.items():
        fields = getattr(module, record).__init__.__annotations__
        # Compared as lists: a record comes over field by field, in this order.
        if list(fields.items()) != list(known.items()):
            return False
    return all(
        [field for field, _ in getattr(module, of)._fields_] == known for of, known in _STRUCTS.items()
    )


def _waits_alike(module: Any) -> bool:
    waits = module._uniffi_rust_call_async.__code__  # noqa: SLF001
    return bool(waits.co_varnames[: waits.co_argcount] == _WAITS)


def _names(data: bytes) -> tuple[int, ...]:
    source, has_destination = _source(data)
    return (source, int.from_bytes(data[9:17], "big")) if has_destination else (source,)


def _context(data: bytes) -> tuple[tuple[str, str, dict[str, str]], int, int]:
    """Give the payload type, the identity and the metadata, and where the payload begins and ends.

    Raises:
        struct.error: There is not enough of it.
    """
    payload_type, at = _text(data, 17 if data[8] else 9)
    metadata = {}
    (entries,) = _size(data, at)
    at += 4
    for _ in range(entries):
        key, at = _text(data, at)
        metadata[key], at = _text(data, at)
    # The number of the connection stands between.
    identity, at = _text(data, at + 8)
    begin = at + 4
    return (payload_type, identity, metadata), begin, begin + _size(data, at)[0]


def _text(data: bytes, at: int) -> tuple[str, int]:
    begin = at + 4
    end = begin + _size(data, at)[0]
    if end > len(data):
        raise struct.error
    return data[begin:end].decode(), end


_ABSENT = _Bytes(1, b"\0")


@lru_cache(maxsize=16)
def _optional(text: str | None) -> _Bytes:
    if text is None:
        return _ABSENT
    encoded = text.encode()
    return _Bytes(5 + len(encoded), b"\1" + len(encoded).to_bytes(4, "big") + encoded)
