"""Passes on what a replica prints, and remembers the last lines of it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import selectors
import threading
from collections import deque

__all__ = ["Output", "write_all", "write_nowhere"]

_LAST_LINES = 20
_MOST_LINE_BYTES = 8 * 1024
_MOST_SHOWN = 500
_READ_BYTES = 64 * 1024
_LAST_READS = 32
"""More than a pipe holds: what a dead replica's children go on printing is not waited for."""

_FINISH_WITHIN = 1.0


class Output:
    """Copies the output of one replica to that of this process, at once and unchanged.

    On a terminal each line says which replica it is from. This has a thread of its own: while whoever reads
    our output stalls, only the replicas that print are held up, as they would be without us, and nothing is
    gathered in memory.

    Args:
        replica: Its number.
        output: The pipe with its standard output, to be closed here.
        errors: The pipe with its standard error, to be closed here.
    """

    def __init__(self, replica: int, output: int, errors: int) -> None:
        self._last: deque[str] = deque(maxlen=_LAST_LINES)
        self._streams = {
            output: _Stream(replica, 1, self._last),
            errors: _Stream(replica, 2, self._last),
        }
        self._end, self._wake = os.pipe()
        # A daemon: nothing that it could still be waiting for may hold up the end of the command.
        self._thread = threading.Thread(target=self._copy, name=f"output of replica {replica}", daemon=True)
        self._thread.start()

    async def finish(self) -> tuple[str, ...]:
        """Copy what the replica has printed before its death, and give the last lines."""
        os.close(self._wake)
        await asyncio.to_thread(self._thread.join, _FINISH_WITHIN)
        return tuple(self._last.copy())

    def _copy(self) -> None:
        with contextlib.ExitStack() as stack, selectors.DefaultSelector() as selector:
            for descriptor in (self._end, *self._streams):
                stack.callback(os.close, descriptor)
                selector.register(descriptor, selectors.EVENT_READ)
            while self._end in selector.get_map():
                self._copy_some(selector, None)
            for _ in range(_LAST_READS):
                if not self._copy_some(selector, 0):
                    break
            for stream in self._streams.values():
                stream.finish()

    def _copy_some(self, selector: selectors.BaseSelector, wait: float | None) -> bool:
        ready = selector.select(wait) if selector.get_map() else []
        for key, _ in ready:
            data = os.read(key.fd, _READ_BYTES)
            if data:
                self._streams[key.fd].take(data)
            else:
                selector.unregister(key.fd)
        return bool(ready)


class _Stream:
    def __init__(self, replica: int, to: int, last: deque[str]) -> None:
        self._to = to
        self._prefix = f"replica {replica} | ".encode() if os.isatty(to) else b""
        self._last = last
        self._rest = b""

    def take(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > _MOST_LINE_BYTES:
            lines.append(self._rest)
            self._rest = b""
        # So that the lines are known when what a reader of ours sees of them makes it ask.
        self._last.extend(line[:_MOST_SHOWN].decode(errors="replace") for line in lines[-_LAST_LINES:])
        if self._prefix:
            data = b"".join(self._prefix + line + b"\n" for line in lines)
        write_all(self._to, data)

    def finish(self) -> None:
        # What comes next is somebody else's, and begins a line.
        if self._rest:
            self.take(b"\n")


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of it, however long that takes; without anybody who reads it, or a place, it is lost."""
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(descriptor, rest) :]
        except BlockingIOError:
            with selectors.DefaultSelector() as selector:
                selector.register(descriptor, selectors.EVENT_WRITE)
                selector.select()
        except OSError:
            # The replicas have their work to do all the same.
            return


def write_nowhere(*descriptors: int) -> None:
    """Let what is written to these go nowhere from now on."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in descriptors:
        os.dup2(nowhere, descriptor)
    os.close(nowhere)
