"""The supervisor of replica processes: starts them, tells of them, restarts those that die."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable
from enum import Enum

import msgspec
from attrs import frozen
from msgspec import structs

from slim_actors.errors import SlimActorsError
from slim_actors.exits import Exit
from slim_actors.replica import CONFIG, Report, Task
from slim_actors.settings import SECRET_VARIABLE

__all__ = ["Event", "EventKind", "ReplicaFailed", "Supervisor"]

_RESTARTS, _WITHIN = 5, 30.0
_BACKOFF_FIRST, _BACKOFF_MOST = 0.1, 5.0
_KILL_AFTER = 1.0


class EventKind(Enum):
    """What can happen to a replica."""

    JOINED = "joined"
    LOST = "lost"
    RESTARTED = "restarted"
    STOPPED = "stopped"


@frozen
class Event:
    """Something that happened to a replica.

    Attributes:
        kind: What.
        replica: Which one, counted from 1.
        address: Its name and id; empty where it has none.
        detail: More, for a person.
    """

    kind: EventKind
    replica: int
    address: str = ""
    detail: str = ""


class ReplicaFailed(SlimActorsError):
    """A replica cannot run. Its text says why.

    Attributes:
        exit: The exit code that a command should end with.
    """

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.exit = code


class Supervisor:
    """Keeps a number of replica processes of one agent running.

    A replica that dies is started again, after a pause that doubles with each death (with jitter, so that
    many do not come back at once); after more than 5 restarts within 30 s the supervisor gives up.

    Args:
        task: What each replica runs.
        count: How many replicas.
        secret: Handed to them in their environment, where other users cannot read it.
        on_event: Called with everything that happens.
    """

    def __init__(self, task: Task, count: int, secret: str, on_event: Callable[[Event], None]) -> None:
        self._task = task
        self._count = count
        self._secret = secret
        self._on_event = on_event
        self._processes: set[asyncio.subprocess.Process] = set()
        self._stopping = asyncio.Event()
        self._was_ready = False

    async def run(self) -> None:
        """Run until `stop` is called, then drain and end every replica.

        Raises:
            ReplicaFailed: A replica cannot start, or keeps dying; the others have been stopped.
        """
        replicas = [asyncio.create_task(self._keep(number)) for number in range(1, self._count + 1)]
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait([stopping, *replicas], return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._stopping.set()
            await self._end()
            results = await asyncio.gather(*replicas, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    def stop(self) -> None:
        """Begin to stop."""
        self._stopping.set()

    async def _end(self) -> None:
        processes = set(self._processes)
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
        exits = [asyncio.create_task(process.wait()) for process in processes]
        if not exits:
            return
        await asyncio.wait(exits, timeout=self._task.drain + _KILL_AFTER)
        for process in processes:
            if process.returncode is None:
                process.kill()
        await asyncio.wait(exits)

    async def _keep(self, number: int) -> None:
        deaths: deque[float] = deque(maxlen=_RESTARTS + 1)
        loop = asyncio.get_running_loop()
        kind = EventKind.JOINED
        while not self._stopping.is_set():
            report, reason = await self._once(number, kind)
            if self._stopping.is_set():
                if report is not None and report.event == "ready":
                    self._on_event(Event(EventKind.STOPPED, number, report.address))
                return
            if report is not None and report.event == "failed":
                hopeless = report.exit == Exit.USAGE or (report.exit == Exit.NO_NODE and not self._was_ready)
                if hopeless:
                    raise ReplicaFailed(report.message, report.exit)
                reason = report.message
            deaths.append(loop.time())
            if len(deaths) > _RESTARTS and deaths[-1] - deaths[0] < _WITHIN:
                raise ReplicaFailed(
                    f"Replica {number} ended {len(deaths)} times within {_WITHIN:.0f} s, last: {reason}. "
                    "It is not started again.",
                    Exit.GAVE_UP,
                )
            pause = self._pause(sum(1 for death in deaths if loop.time() - death < _WITHIN))
            address = report.address if report else ""
            self._on_event(
                Event(EventKind.LOST, number, address, f"{reason}; starting it again in {pause:.1f} s")
            )
            kind = EventKind.RESTARTED
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._stopping.wait()

    async def _once(self, number: int, kind: EventKind) -> tuple[Report | None, str]:
        """Run a replica to its end; give the last thing that it said, and how it ended."""
        receiving, sending = os.pipe()
        environment = {
            **os.environ,
            SECRET_VARIABLE: self._secret,
            CONFIG: msgspec.json.encode(structs.replace(self._task, reports=sending)).decode(),
        }
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",  # a user's random.py in the current folder is not ours to import
                "-m",
                "slim_actors.replica",
                stdin=asyncio.subprocess.PIPE,
                env=environment,
                pass_fds=(sending,),
            )
        finally:
            os.close(sending)
        self._processes.add(process)
        last: Report | None = None
        try:
            async for report in _reports(receiving):
                last = report
                if report.event == "ready":
                    self._was_ready = True
                    self._on_event(Event(kind, number, report.address, f"pid {process.pid}"))
            code = await process.wait()
        finally:
            self._processes.discard(process)
        return last, _reason(code)

    @staticmethod
    def _pause(deaths: int) -> float:
        longest = min(_BACKOFF_MOST, _BACKOFF_FIRST * 2.0**deaths)
        return longest * random.uniform(0.5, 1.0)  # noqa: S311 (jitter is no secret)


async def _reports(descriptor: int) -> AsyncIterator[Report]:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    transport, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(descriptor, "rb")
    )
    try:
        async for line in reader:
            yield msgspec.json.decode(line, type=Report)
    finally:
        transport.close()


def _reason(code: int) -> str:
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"
