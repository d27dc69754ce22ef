"""Ctrl-C and SIGTERM: both ask for a clean end."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from slim_actors.cli.aside import finish_printing
from slim_actors.exits import Exit

__all__ = ["on_stop_signal", "run_until_done", "run_until_stopped"]

T = TypeVar("T")


def on_stop_signal(callback: Callable[[], None]) -> None:
    """Call back at every Ctrl-C or SIGTERM that reaches the running event loop."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, callback)


def run_until_stopped(work: Coroutine[Any, Any, T]) -> T | None:
    """Run what a signal ends; Ctrl-C just before its handler is in place ends it as well, with None."""
    try:
        return _run(work)
    except KeyboardInterrupt:
        return None
    finally:
        # Whatever is said of its end comes last, also where that goes to another stream.
        finish_printing()


def run_until_done(work: Coroutine[Any, Any, int]) -> int:
    """Run what ends by itself; give its exit code, or `Exit.INTERRUPTED` after Ctrl-C."""
    try:
        return _run(_interruptible(work))
    except KeyboardInterrupt:
        return Exit.INTERRUPTED


async def _interruptible(work: Coroutine[Any, Any, int]) -> int:
    """End the work at the first Ctrl-C; another one must not break into its tidying up."""
    task = asyncio.ensure_future(work)
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, task.cancel)
    await asyncio.wait([task])
    return Exit.INTERRUPTED if task.cancelled() else task.result()


def _run(work: Coroutine[Any, Any, T]) -> T:
    try:
        return asyncio.run(work)
    finally:
        # A command that is ending already would only end with a traceback.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
