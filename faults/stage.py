"""What every scenario has: a node, a seed, a folder, processes that all end with it."""

from __future__ import annotations

import asyncio
import os
import random
import re
import signal
import socket
import sys
import tempfile
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Self

from faults.replicas import SECRET, Replicas
from slim_actors import Agent, Runtime, SharedSecret

__all__ = ["Command", "Stage"]

_ROOT = Path(__file__).resolve().parent.parent
_PATIENCE = 60.0


class Command:
    """A running ``slim-actors …``, and the lines that it has printed."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.lines: list[str] = []
        self._printed = asyncio.Event()
        self._reader = asyncio.create_task(self._read())

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    async def until(self, pattern: str, times: int = 1) -> list[str]:
        """Wait until so many lines match, and give what their first group matched.

        Raises:
            TimeoutError: They do not come.
        """
        async with asyncio.timeout(_PATIENCE):
            while True:
                self._printed.clear()
                found = [match[1] for line in self.lines if (match := re.search(pattern, line))]
                if len(found) >= times:
                    return found
                await self._printed.wait()

    async def wait(self) -> int:
        """Wait for its end, and give its exit code."""
        async with asyncio.timeout(_PATIENCE):
            await self._reader
            return await self._process.wait()

    async def stop(self, number: int = signal.SIGTERM) -> int:
        """End it, and give its exit code."""
        if self._process.returncode is None:
            self._process.send_signal(number)
        return await self.wait()

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            self.lines.append(line.decode().rstrip())
            self._printed.set()


class Stage:
    """Where a scenario takes place. Use it with ``async with``.

    Args:
        seed: Of everything that is left to chance.
        show: Told how much of the scenario is done, from 0 to 1.
    """

    def __init__(self, seed: int, show: Callable[[float], None] = lambda _: None) -> None:
        self.chance = random.Random(seed)  # noqa: S311 (a run that can be repeated)
        self.seed = seed
        self.show = show
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.endpoint = f"http://127.0.0.1:{probe.getsockname()[1]}"
        self.folder = Path()
        self.node: Command
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        self.folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        await self.start_node()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def start_node(self) -> None:
        """Start the node; it listens when this returns."""
        self.node = await self.command("node")
        await self.node.until("(listening at)")

    async def command(self, *words: str, **variables: str) -> Command:
        """Start ``slim-actors …`` on the node."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",
            "-m",
            "slim_actors",
            *words,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            limit=2**24,
            env={
                **os.environ,
                "SLIM_ENDPOINT": self.endpoint,
                "SLIM_SHARED_SECRET": SECRET,
                # For files elsewhere that import the agents of the suite.
                "PYTHONPATH": str(_ROOT),
                # Where runs are found by their name: only those of this stage.
                "XDG_RUNTIME_DIR": str(self.folder),
                **variables,
            },
        )
        command = Command(process)
        self._stack.push_async_callback(
            command.stop, signal.SIGKILL if words[0] == "node" else signal.SIGTERM
        )
        return command

    async def replicas(self, factory: Callable[[], Agent], count: int = 3, store: str = "") -> Replicas:
        """Start replicas that are kept running, with a store of that name; they serve when this returns."""
        replicas = Replicas(self.endpoint, factory, count, self.folder / store if store else None)
        self._stack.push_async_callback(replicas.close)
        async with asyncio.timeout(_PATIENCE):
            await replicas.ready()
        return replicas

    async def runtime(self) -> Runtime:
        """Give somebody who asks."""
        return await self._stack.enter_async_context(Runtime(self.endpoint, identity=SharedSecret(SECRET)))
