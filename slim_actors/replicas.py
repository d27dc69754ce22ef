"""The supervisor of replica processes: starts them, tells of them, restarts those that die."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sys
from collections import deque
from collections.abc import Callable, Mapping
from enum import Enum

import msgspec
from attrs import frozen
from msgspec import structs

from slim_actors.errors import SlimActorsError
from slim_actors.exits import Exit
from slim_actors.replica import CONFIG, Report, Task
from slim_actors.state import SLOT_VARIABLE

__all__ = ["Event", "EventKind", "ReplicaFailed", "Supervisor"]

_RESTARTS, _WITHIN = 5, 30.0
_BACKOFF_FIRST, _BACKOFF_MOST = 0.1, 5.0
_AWAY_PAUSE = 2.0
_KILL_AFTER = 1.0
_MOST_REPORT_BYTES = 64 * 1024


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
    many do not come back at once); after more than 5 restarts within 30 s the supervisor gives up. A replica
    that finds no node does not count: once any replica was ready, it is tried until the node is back. Nor
    does a mistake in the agent's file, made while others run, end those at once: it counts as a death.

    Args:
        task: What each replica runs.
        count: How many replicas.
        variables: The settings of their connection, for their environment, where other users cannot read.
        on_event: Called with everything that happens.
    """

    def __init__(
        self, task: Task, count: int, variables: Mapping[str, str], on_event: Callable[[Event], None]
    ) -> None:
        self._task = task
        self._count = count
        self._variables = variables
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
            await self._end(replicas)
            results = await asyncio.gather(*replicas, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    def stop(self) -> None:
        """Begin to stop."""
        self._stopping.set()

    async def _end(self, replicas: list[asyncio.Task[None]]) -> None:
        for process in self._processes:
            _signal(process, signal.SIGTERM)
        _, late = await asyncio.wait(replicas, timeout=self._task.drain + _KILL_AFTER)
        while late:
            for process in self._processes:
                _signal(process, signal.SIGKILL)
            _, late = await asyncio.wait(late, timeout=_KILL_AFTER)

    async def _keep(self, number: int) -> None:
        deaths: deque[float] = deque(maxlen=_RESTARTS + 1)
        kind = EventKind.JOINED
        is_waiting = False
        while not self._stopping.is_set():
            last, reason = await self._once(number, kind)
            if self._stopping.is_set():
                if last is not None and last.event == "ready":
                    self._on_event(Event(EventKind.STOPPED, number, last.address))
                return
            failure = last if last is not None and last.event == "failed" else None
            was_waiting, is_waiting = is_waiting, failure is not None and failure.exit == Exit.NO_NODE
            if failure is not None:
                self._raise_if_hopeless(failure)
                reason = failure.message
            if is_waiting:
                pause = _AWAY_PAUSE * random.uniform(0.75, 1.25)  # noqa: S311 (jitter is no secret)
            else:
                pause = self._died(number, deaths, reason)
            if not (is_waiting and was_waiting):
                self._lost(number, last, f"{reason}; starting it again in {pause:.1f} s")
            kind = EventKind.RESTARTED
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._stopping.wait()

    def _raise_if_hopeless(self, failure: Report) -> None:
        # Once a replica was ready, what it needs was there, and may come back.
        if not self._was_ready and failure.exit in (Exit.USAGE, Exit.NO_NODE, Exit.STORE):
            raise ReplicaFailed(failure.message, failure.exit)

    def _died(self, number: int, deaths: deque[float], reason: str) -> float:
        """Count a death; give the pause before the next start."""
        now = asyncio.get_running_loop().time()
        deaths.append(now)
        if len(deaths) > _RESTARTS and deaths[-1] - deaths[0] < _WITHIN:
            raise ReplicaFailed(
                f"Replica {number} ended {len(deaths)} times within {_WITHIN:.0f} s, last: {reason}. "
                "It is not started again.",
                Exit.GAVE_UP,
            )
        return self._pause(sum(1 for death in deaths if now - death < _WITHIN))

    def _lost(self, number: int, last: Report | None, detail: str) -> None:
        self._on_event(Event(EventKind.LOST, number, last.address if last else "", detail))

    async def _once(self, number: int, kind: EventKind) -> tuple[Report | None, str]:
        """Run a replica to its end; give the last thing that it said, and how it ended."""
        with contextlib.ExitStack() as stack:
            try:
                process, receiving = await self._launch(stack, number)
            except OSError as error:
                return None, f"its process could not be started: {error.strerror}"
            self._processes.add(process)
            stack.callback(self._processes.discard, process)
            if self._stopping.is_set():
                # Whoever ended the others has not seen this one.
                _signal(process, signal.SIGTERM)

            def ready(report: Report) -> None:
                self._was_ready = True
                self._on_event(Event(kind, number, report.address, f"pid {process.pid}"))

            def unreadable() -> None:
                _signal(process, signal.SIGKILL)

            reports = _Reports(receiving, ready, unreadable)
            stack.callback(reports.close)
            # Not for the end of the pipe: a child of the replica may hold that open for ever.
            code = await process.wait()
            reports.read()
            return reports.last, "it sent a report that cannot be read" if reports.broken else _reason(code)

    async def _launch(
        self, stack: contextlib.ExitStack, number: int
    ) -> tuple[asyncio.subprocess.Process, int]:
        """Start a process; what it leaves open here is closed with the stack."""
        with contextlib.ExitStack() as theirs:
            receiving, sending = os.pipe()
            stack.callback(os.close, receiving)
            theirs.callback(os.close, sending)
            # A pipe of our own: with asyncio's, the wait for a process may also wait for who inherited it.
            listening, lifeline = os.pipe()
            stack.callback(os.close, lifeline)
            theirs.callback(os.close, listening)
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",  # a user's random.py in the current folder is not ours to import
                "-m",
                "slim_actors.replica",
                stdin=listening,
                env={
                    **os.environ,
                    **self._variables,
                    SLOT_VARIABLE: str(number - 1),
                    CONFIG: msgspec.json.encode(structs.replace(self._task, reports=sending)).decode(),
                },
                pass_fds=(sending,),
                # Ctrl-C in a terminal is for the supervisor alone, also before a replica can ignore it.
                start_new_session=True,
            )
            return process, receiving

    @staticmethod
    def _pause(deaths: int) -> float:
        longest = min(_BACKOFF_MOST, _BACKOFF_FIRST * 2.0**deaths)
        return longest * random.uniform(0.5, 1.0)  # noqa: S311 (jitter is no secret)


class _Reports:
    """What comes through a pipe from a replica.

    Args:
        descriptor: The pipe; it stays the caller's to close.
        ready: Called with each report that the replica is ready.
        broken: Called once, when something else than reports has come.
    """

    def __init__(self, descriptor: int, ready: Callable[[Report], None], broken: Callable[[], None]) -> None:
        self._descriptor = descriptor
        self._ready = ready
        self._on_broken = broken
        self._rest = b""
        self._loop = asyncio.get_running_loop()
        self.last: Report | None = None
        self.broken = False
        os.set_blocking(descriptor, False)
        self._loop.add_reader(descriptor, self.read)

    def read(self) -> None:
        """Take what is in the pipe now."""
        try:
            data = os.read(self._descriptor, _MOST_REPORT_BYTES)
        except BlockingIOError:
            return
        if not data or self.broken:
            self.close()
            return
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._take(line)
        if len(self._rest) >= _MOST_REPORT_BYTES:
            self._break()

    def close(self) -> None:
        """Take nothing more."""
        self._loop.remove_reader(self._descriptor)

    def _take(self, line: bytes) -> None:
        try:
            report = msgspec.json.decode(line, type=Report)
        except (msgspec.DecodeError, UnicodeDecodeError):
            self._break()
            return
        self.last = report
        if report.event == "ready":
            self._ready(report)

    def _break(self) -> None:
        if not self.broken:
            self.broken = True
            self._on_broken()


def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(number)


def _reason(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        # The real-time signals have no names.
        return f"killed by signal {-code}"
