"""Printing that whoever prints never waits for: neither who reads it nor how may hold up supervision."""

from __future__ import annotations

import atexit
import io
import sys
import threading
from collections import deque
from typing import Any, TextIO

from slim_actors.replicas.output import write_all

__all__ = ["finish_printing", "print_aside"]

_MOST_BYTES = 256 * 1024
_FINISH_WITHIN = 1.0

_streams: list[_Aside] = []


def print_aside() -> None:
    """Let what is printed from now on, to standard output and error, be written by threads.

    Before the process ends they have a second for what is left.
    """
    sys.stdout, sys.stderr = _moved(sys.stdout), _moved(sys.stderr)
    atexit.register(finish_printing)


def finish_printing() -> None:
    """Wait until all that was printed aside is written, or, where nobody reads it, 1 s."""
    for stream in _streams:
        stream.finish()


def _moved(stream: TextIO) -> TextIO:
    aside = _Aside(stream.fileno(), is_terminal=stream.isatty())
    _streams.append(aside)
    # By lines, so that none is written, or dropped, in part.
    return io.TextIOWrapper(aside, stream.encoding, "backslashreplace", line_buffering=True)  # type: ignore[type-var]


class _Aside(io.RawIOBase):
    """Takes what is printed; a thread writes it. What is too much, because nobody reads, is dropped."""

    def __init__(self, to: int, *, is_terminal: bool) -> None:
        super().__init__()
        self._to = to
        self._is_terminal = is_terminal
        self._waiting: deque[bytes] = deque()
        self._size = self._dropped = 0
        self._changed = threading.Condition()
        # A daemon: who never reads must not hold up the end either.
        self._thread = threading.Thread(target=self._write_on, name=f"printing to {to}", daemon=True)

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return self._is_terminal

    def fileno(self) -> int:
        return self._to

    def write(self, data: Any) -> int:
        line = bytes(data)
        with self._changed:
            if not self._thread.ident:
                self._thread.start()
            if self._size > _MOST_BYTES:
                self._dropped += 1
                return len(line)
            if self._dropped:
                self._put(
                    f"(Of what was printed here, {self._dropped} lines are lost: nobody read.)\n".encode()
                )
                self._dropped = 0
            self._put(line)
        return len(line)

    def finish(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting, _FINISH_WITHIN)

    def _put(self, data: bytes) -> None:
        self._waiting.append(data)
        self._size += len(data)
        self._changed.notify_all()

    def _write_on(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting)
                data = self._waiting[0]
            write_all(self._to, data)
            with self._changed:
                self._waiting.popleft()
                self._size -= len(data)
                self._changed.notify_all()
