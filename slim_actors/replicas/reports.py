"""The supervisor's end of the pipe through which a replica reports."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

import msgspec

from slim_actors.assignment import Report

__all__ = ["Reports"]

_MOST_BYTES = 64 * 1024


class Reports:
    """What comes through a pipe from a replica.

    Args:
        descriptor: The pipe; it stays the caller's to close.
        take: Called with each report.
        broken: Called once, when something else than reports has come.
    """

    def __init__(self, descriptor: int, take: Callable[[Report], None], broken: Callable[[], None]) -> None:
        self._descriptor = descriptor
        self._take_report = take
        self._on_broken = broken
        self._rest = b""
        self._loop = asyncio.get_running_loop()
        self.is_broken = False
        os.set_blocking(descriptor, False)
        self._loop.add_reader(descriptor, self._read)

    def finish(self) -> None:
        """Take what is in the pipe, and nothing more."""
        while self._read():
            pass
        self._loop.remove_reader(self._descriptor)

    def _read(self) -> bool:
        try:
            data = os.read(self._descriptor, _MOST_BYTES)
        except BlockingIOError:
            return False
        if not data or self.is_broken:
            self._loop.remove_reader(self._descriptor)
            return False
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._take(line)
        if len(self._rest) >= _MOST_BYTES:
            self._break()
        return True

    def _take(self, line: bytes) -> None:
        try:
            report = msgspec.json.decode(line, type=Report)
        except (msgspec.DecodeError, UnicodeDecodeError):
            self._break()
            return
        self._take_report(report)

    def _break(self) -> None:
        if not self.is_broken:
            self.is_broken = True
            self._on_broken()
