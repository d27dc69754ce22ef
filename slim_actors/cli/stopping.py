"""Ctrl-C and SIGTERM: both ask for a clean end."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable

__all__ = ["on_stop_signal"]


def on_stop_signal(callback: Callable[[], None]) -> None:
    """Call back at the first Ctrl-C or SIGTERM that reaches the running event loop."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, callback)
