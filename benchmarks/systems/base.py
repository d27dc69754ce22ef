"""The interface of a system under measurement, and what the systems share.

A system is a module with ``open_client(setup)``, an asynchronous context manager that starts everything and
gives a `Client`. Started as a program, the module is an agent, or whatever else it needs in another process.

Nothing here imports slim_actors: bare slim-bindings are measured as they are.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile

from attrs import frozen

__all__ = [
    "MESSAGE",
    "Client",
    "NotSupported",
    "Setup",
    "address",
    "folder",
    "free_endpoint",
    "program",
    "resident",
    "say_ready",
    "until_stopped",
]

MESSAGE = {"number": 1, "text": "x" * 78}
"""What is sent: 100 characters as JSON."""
READY = r"^ready (\d+)"
_STOP_WITHIN = 10.0


@frozen
class Setup:
    """What has to run before something can be measured.

    Attributes:
        transport: ``unix`` or ``tcp`` to processes of their own, or ``process``: everything in this one.
        mls: Encrypted end to end.
        replicas: How many processes serve the name.
        requesters: How many clients there are, each with a connection of its own.
        agents: How many agents there are in one process.
    """

    transport: str = "unix"
    mls: bool = False
    replicas: int = 1
    requesters: int = 1
    agents: int = 1


class NotSupported(Exception):
    """The system has nothing of the kind."""


class Client:
    """Sends to the agents of one system. What it leaves out, the system cannot do.

    Attributes:
        first_reply: Seconds from the start of the agent's process to the first reply.
        memory: MiB that the agent's process holds after that reply.
        start_each: Seconds that each of several agents in one process took to start.
        memory_each: MiB that each of them takes.
    """

    first_reply: float | None = None
    memory: float | None = None
    start_each: float | None = None
    memory_each: float | None = None

    async def ask(self) -> None:
        """Send `MESSAGE` and wait for it to come back."""
        raise NotSupported

    def requester(self) -> Callable[[], Awaitable[None]]:
        """Give what asks as `ask` does, always by the same one of several requesters."""
        return self.ask

    async def send(self, count: int) -> None:
        """Send so many messages that have no reply; returns when the agent has had them all."""
        raise NotSupported

    async def stream(self, count: int) -> None:
        """Have so many items sent by the agent, and read them all."""
        raise NotSupported

    async def echo(self, data: bytes) -> bytes:
        """Send bytes and give them as they come back."""
        raise NotSupported


def address(transport: str, folder: Path) -> str:
    """Give an endpoint at which nothing listens: ``unix://`` or ``http://``."""
    return f"unix://{folder}/bench.sock" if transport == "unix" else free_endpoint()


def free_endpoint() -> str:
    """Give an ``http://`` endpoint at which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


@asynccontextmanager
async def folder() -> AsyncIterator[Path]:
    """Give a directory for sockets, with a short name."""
    with TemporaryDirectory(prefix="bench-", dir="/tmp") as name:
        yield Path(name)


@asynccontextmanager
async def program(
    *words: str, until: str = READY, times: int = 1, env: dict[str, str] | None = None
) -> AsyncIterator[list[re.Match[str]]]:
    """Run a Python program for a while; give the lines that say that it is ready.

    Raises:
        RuntimeError: It ended without saying so; with what it printed.
    """
    with TemporaryFile() as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, *words, stdin=DEVNULL, stdout=PIPE, stderr=log, env={**os.environ, **(env or {})}
        )
        try:
            found = await _ready(process, until, times)
            if len(found) < times:
                log.seek(0)
                raise RuntimeError(f"{' '.join(words)} did not start: {log.read().decode()[-2000:]}")
            drain = asyncio.create_task(_drain(process))
            yield found
            drain.cancel()
        finally:
            await _stop(process)


def resident(pid: int) -> float:
    """Give the memory of a process that is in RAM, in MiB."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    found = re.search(r"^VmRSS:\s+(\d+) kB", status, re.MULTILINE)
    assert found, "a living process has memory"
    return int(found[1]) / 1024


def say_ready() -> None:
    """Say, in a program, that it can be used."""
    print("ready", os.getpid(), flush=True)  # noqa: T201 (the parent reads it)


async def until_stopped() -> None:
    """Wait for SIGTERM."""
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    await stopped.wait()


async def _ready(process: Process, until: str, times: int) -> list[re.Match[str]]:
    assert process.stdout is not None, "it is a pipe"
    found: list[re.Match[str]] = []
    async for line in process.stdout:
        match = re.search(until, line.decode(errors="replace"))
        if match:
            found.append(match)
        if len(found) == times:
            break
    return found


async def _drain(process: Process) -> None:
    assert process.stdout is not None, "it is a pipe"
    while await process.stdout.read(65536):
        pass


async def _stop(process: Process) -> None:
    if process.returncode is None:
        process.terminate()
    try:
        async with asyncio.timeout(_STOP_WITHIN):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
