"""Replica processes of the suite itself.

``slim-actors run`` gives up on a replica that dies more than 5 times within 30 s, after pauses that grow.
That is as it should be, and not what is tested where replicas are killed twice a second. So these are started
again at once, as often as it takes, and quickly: each is forked from a process that has imported everything.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from slim_actors import Agent, NodeUnreachable, Runtime, SharedSecret

__all__ = ["SECRET", "Replicas", "child"]

SECRET = "a secret of the fault suite, long enough"  # noqa: S105 (of this suite alone)

_forking = multiprocessing.get_context("forkserver")
_forking.set_forkserver_preload(["faults.agents", "faults.load", "slim_actors.transport.slim"])


class Replicas:
    """Keeps a number of replicas of an agent running, whatever kills them.

    Args:
        endpoint: Their node.
        factory: Makes the agent; it travels to the processes.
        count: How many.
        store: The file of their store, if they need one.
    """

    def __init__(
        self, endpoint: str, factory: Callable[[], Agent], count: int, store: Path | None = None
    ) -> None:
        self._words = (endpoint, factory, store)
        self.serving: dict[int, int] = {}
        """The process of each replica that is ready."""
        self._keepers = [asyncio.create_task(self._keep(number)) for number in range(count)]
        self._count = count

    async def ready(self) -> None:
        """Wait until all of them are there."""
        while len(self.serving) < self._count:
            for keeper in self._keepers:
                if keeper.done():
                    keeper.result()
            await asyncio.sleep(0.01)

    def kill(self, number: int) -> bool:
        """Kill one with -9; tell whether it was there."""
        pid = self.serving.pop(number, 0)
        if pid:
            os.kill(pid, signal.SIGKILL)
        return bool(pid)

    async def close(self) -> None:
        """Kill them all."""
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)

    async def _keep(self, number: int) -> None:
        while True:
            process, channel = child(play, *self._words)
            try:
                with suppress(EOFError):
                    await readable(channel.fileno())
                    self.serving[number] = channel.recv()
                await readable(process.sentinel)
            finally:
                self.serving.pop(number, None)
                process.kill()
                process.join()
                channel.close()


def child(target: Callable[..., None], *words: object) -> tuple[ForkServerProcess, Connection]:
    """Start a process; its last argument is its end of the connection that is given here."""
    ours, theirs = _forking.Pipe()
    process = _forking.Process(target=target, args=(*words, theirs), daemon=True)
    process.start()
    theirs.close()
    return process, ours


async def readable(descriptor: int) -> None:
    """Wait until a descriptor can be read, or has been closed at the other end."""
    loop = asyncio.get_running_loop()
    event = asyncio.Event()
    loop.add_reader(descriptor, event.set)
    try:
        await event.wait()
    finally:
        loop.remove_reader(descriptor)


def play(endpoint: str, factory: Callable[[], Agent], store: Path | None, channel: Connection) -> None:
    """Be a replica until whoever started it is gone, or end at once where there is no node."""
    with suppress(NodeUnreachable):
        asyncio.run(_play(endpoint, factory, store, channel))


async def _play(endpoint: str, factory: Callable[[], Agent], store: Path | None, channel: Connection) -> None:
    async with Runtime(endpoint, identity=SharedSecret(SECRET), store=store) as runtime:
        await runtime.spawn(factory)
        channel.send(os.getpid())
        await readable(channel.fileno())
