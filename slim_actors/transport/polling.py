"""How a coroutine of Python waits for a future of Rust.

Rust says that a future is ready by a call into Python: at once, in the middle of the poll, or later from a
thread of its own. The generated code of the bindings sends both through the event loop's own pipe, and has
each woken future wait once more in vain; a lone message pays for that with a third of its time. Here what is
ready at once is taken at once. As in `lowering`, what looks otherwise than expected stays as it is.
"""

from __future__ import annotations

import asyncio
import ctypes
import inspect
import itertools
from collections.abc import Awaitable, Callable
from threading import get_ident
from types import ModuleType
from typing import Any

__all__ = ["poll_directly"]

_READY = 0
_PARAMETERS = {
    "_uniffi_rust_call_async": [
        "rust_future",
        "ffi_poll",
        "ffi_complete",
        "ffi_free",
        "lift_func",
        "error_ffi_converter",
    ],
    "_uniffi_rust_call_with_error": ["error_ffi_converter", "fn", "args"],
    "_uniffi_check_call_status": ["error_ffi_converter", "call_status"],
    "_uniffi_get_event_loop": [],
}
_USED = {
    "_uniffi_rust_call_async": {
        "_uniffi_get_event_loop",
        "create_future",
        "_uniffi_continuation_callback",
        "_UniffiContinuationHandleMap",
        "insert",
        "_UNIFFI_RUST_FUTURE_POLL_READY",
        "_uniffi_rust_call_with_error",
    },
    "_uniffi_rust_call_with_error": {
        "_UniffiRustCallStatus",
        "default",
        "ctypes",
        "byref",
        "_uniffi_check_call_status",
    },
}
"""The names that a function goes by: whatever else it did would go by others."""


class _Wait:
    """One poll, and what comes of it."""

    __slots__ = ("code", "future", "is_polling", "loop", "thread")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.thread = get_ident()
        self.future: asyncio.Future[None] | None = None
        self.is_polling = True
        self.code: int | None = None

    def wake(self) -> None:
        if self.future is not None and not self.future.done():
            self.future.set_result(None)


def poll_directly(module: ModuleType) -> bool:
    """Replace how a generated module waits for Rust; tell whether it was replaced.

    The module is left alone if it is not of the shape that is known.
    """
    if not _as_expected(module):
        return False
    target: Any = module
    target._uniffi_rust_call_with_error = _calling(target)  # noqa: SLF001
    target._uniffi_rust_call_async = _waiting(target)  # noqa: SLF001
    return True


def _calling(module: Any) -> Callable[..., Any]:
    status_of: Callable[[], Any] = module._UniffiRustCallStatus  # noqa: SLF001
    check: Callable[[Any, Any], None] = module._uniffi_check_call_status  # noqa: SLF001
    byref = ctypes.byref

    def call(converter: Any, function: Callable[..., Any], *args: Any) -> Any:
        # As it is made it says that all is well; the generated code fills that in field by field.
        status = status_of()
        result = function(*args, byref(status))
        if status.code:
            check(converter, status)
        return result

    return call


def _waiting(module: Any) -> Callable[..., Awaitable[Any]]:
    waits: dict[int, _Wait] = {}
    numbers = itertools.count()
    loop_in_use: Callable[[], asyncio.AbstractEventLoop] = module._uniffi_get_event_loop  # noqa: SLF001
    call = module._uniffi_rust_call_with_error  # noqa: SLF001

    @module._UNIFFI_RUST_FUTURE_CONTINUATION_CALLBACK  # type: ignore[untyped-decorator]  # noqa: SLF001
    def woken(number: int, code: int) -> None:
        wait = waits.pop(number)
        # Only in the thread of the loop: of a thread beside it nobody knows how far the poll is.
        if wait.is_polling and wait.thread == get_ident():
            wait.code = code
        else:
            wait.loop.call_soon_threadsafe(wait.wake)

    async def wait_for(
        rust_future: int,
        poll: Callable[..., None],
        complete: Callable[..., Any],
        free: Callable[[int], None],
        lift: Callable[[Any], Any],
        converter: Any,
    ) -> Any:
        try:
            loop = loop_in_use()
            has_waited = False
            while True:
                wait = _Wait(loop)
                number = next(numbers)
                waits[number] = wait
                poll(rust_future, woken, number)
                wait.is_polling = False
                if wait.code == _READY:
                    break
                if wait.code is None:
                    has_waited = True
                    wait.future = loop.create_future()
                    await wait.future
            if not has_waited:
                # Whoever finds one thing after the other ready must not keep the loop from everything else.
                await asyncio.sleep(0)
            return lift(call(converter, complete, rust_future))
        finally:
            free(rust_future)

    return wait_for


def _as_expected(module: ModuleType) -> bool:
    status = getattr(module, "_UniffiRustCallStatus", None)
    callback = getattr(module, "_UNIFFI_RUST_FUTURE_CONTINUATION_CALLBACK", None)
    constants = (
        getattr(module, "_UNIFFI_RUST_FUTURE_POLL_READY", None) == _READY,
        getattr(status, "CALL_SUCCESS", None) == 0,
        [name for name, _ in getattr(status, "_fields_", ())] == ["code", "error_buf"],
        getattr(callback, "_argtypes_", None) == (ctypes.c_uint64, ctypes.c_int8),
    )
    return all(constants) and all(_is_as_expected(module, name) for name in _PARAMETERS)


def _is_as_expected(module: ModuleType, name: str) -> bool:
    function = getattr(module, name, None)
    if not inspect.isfunction(function):
        return False
    names = set(function.__code__.co_names)
    return list(inspect.signature(function).parameters) == _PARAMETERS[name] and names == _USED.get(
        name, names
    )
