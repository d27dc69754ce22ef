"""What the tests share: real nodes and real processes, waited for by what they say and never by the clock."""

from __future__ import annotations

import asyncio
import os
import queue
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import pytest

from slim_actors import Runtime, wire
from slim_actors.batches import decode_batch
from slim_actors.endpoints import Endpoint
from slim_actors.testing import MemoryNetwork, TestRuntime, VirtualClock
from slim_actors.throttle import Throttle
from slim_actors.transport import introduction
from slim_actors.transport.base import Session
from slim_actors.transport.node import SlimNode
from tests.pki import Pki

ROOT = Path(__file__).resolve().parent.parent
SECRET = "a secret for tests that is long enough"
OTHER_SECRET = "another secret for tests, long enough too"
PATIENCE = 30.0


class Command:
    """A running command, and everything that it has printed."""

    def __init__(self, *words: str, env: dict[str, str], cwd: Path = ROOT) -> None:
        self.process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=env,
            cwd=cwd,
        )
        self.output = ""
        self._lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def until(self, pattern: str, times: int = 1) -> list[re.Match[str]]:
        """Wait until so many new lines match, and give the matches."""
        found: list[re.Match[str]] = []
        ends = time.monotonic() + PATIENCE
        while len(found) < times:
            try:
                line = self._lines.get(timeout=max(0.0, ends - time.monotonic()))
            except queue.Empty:
                line = None
            assert line is not None, f"{pattern!r} did not come {times} times:\n{self.output}"
            match = re.search(pattern, line)
            if match:
                found.append(match)
        return found

    def wait(self) -> int:
        """Wait for the end, and give the exit code."""
        code = self.process.wait(PATIENCE)
        while self._lines.get(timeout=PATIENCE) is not None:
            pass
        return code

    def stop(self, number: int = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(PATIENCE)
        finally:
            self.process.kill()
            self.process.wait()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.output += line
            self._lines.put(line)
        self.process.stdout.close()
        self._lines.put(None)


Starter = Callable[..., Command]


def free_endpoint() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


@pytest.fixture(scope="session", autouse=True)
def _own_settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the tests away from the settings of whoever runs them."""
    with pytest.MonkeyPatch.context() as patch:
        for variable in list(os.environ):
            if variable.startswith(("SLIM_", "BOB_", "OTEL_")):
                patch.delenv(variable)
        patch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))
        patch.setenv("SLIM_SHARED_SECRET", SECRET)
        yield


@pytest.fixture
def start() -> Iterator[Starter]:
    """Start commands: ``slim-actors …`` by default, other programs with ``python=True``."""
    running: list[Command] = []

    def start(*words: str, python: bool = False, cwd: Path = ROOT, **env: str | None) -> Command:
        program = [sys.executable] if python else [sys.executable, "-P", "-m", "slim_actors"]
        merged = {**os.environ, **env}
        command = Command(
            *program, *words, env={key: value for key, value in merged.items() if value is not None}, cwd=cwd
        )
        running.append(command)
        return command

    yield start
    for command in reversed(running):
        command.stop()


@pytest.fixture
async def endpoint() -> AsyncIterator[str]:
    """A node in this process, and where it is."""
    where = free_endpoint()
    node = SlimNode(Endpoint.parse(where))
    await node.start()
    yield where
    await node.stop()


class World:
    """Somewhere that runtimes meet: a real node, or a network in memory with a virtual clock."""

    def __init__(self, stack: AsyncExitStack, endpoint: str | None) -> None:
        self.endpoint = endpoint
        self.network = MemoryNetwork()
        self._stack = stack

    async def runtime(self, **options: Any) -> Runtime:
        """Join the world."""
        if self.endpoint is None:
            return await self._stack.enter_async_context(TestRuntime(network=self.network, **options))
        return await self._stack.enter_async_context(Runtime(self.endpoint, **options))


@pytest.fixture(params=["memory", "slim"])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    """Both kinds of world, one after the other: what holds in one must hold in the other."""
    async with AsyncExitStack() as stack:
        if request.param == "memory":
            stack.enter_context(VirtualClock())
            yield World(stack, None)
        else:
            where = free_endpoint()
            node = SlimNode(Endpoint.parse(where))
            await node.start()
            stack.push_async_callback(node.stop)
            yield World(stack, where)


@pytest.fixture
def stores(world: World, tmp_path: Path) -> Any:
    """The `Stores` of that world."""
    # Here, not at the top: what is there needs what is here.
    from tests.storing import Stores

    return Stores(world, tmp_path)


@pytest.fixture
async def runtime(world: World) -> Runtime:
    return await world.runtime()


async def eventually(condition: Callable[[], bool | Awaitable[bool]], within: float = PATIENCE) -> None:
    """Wait until the condition holds."""
    async with asyncio.timeout(within):
        while True:
            result = condition()
            if result if isinstance(result, bool) else await result:
                return
            await asyncio.sleep(0.01)


async def say(session: Session, *frames: wire.Frame) -> None:
    """Send frames in one payload."""
    await session.send(wire.join([wire.encode(frame) for frame in frames]), wire.PAYLOAD_TYPE)


_left: WeakKeyDictionary[Session, deque[wire.Frame]] = WeakKeyDictionary()
"""What came with a frame that was waited for."""


async def next_of(session: Session, *kinds: type[wire.Frame]) -> Any:
    """Wait for the next frame of these kinds; what else comes before it is dropped."""
    left = _left.setdefault(session, deque())
    while True:
        while left:
            frame = left.popleft()
            if isinstance(frame, kinds):
                return frame
        left.extend(decode_batch((await session.receive()).data).frames)


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki.make(tmp_path_factory.mktemp("pki"))


@pytest.fixture
def every_refusal_is_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each test log anew, though all of them are about the same names within one minute."""
    monkeypatch.setattr(introduction, "_time_to_log", Throttle())
