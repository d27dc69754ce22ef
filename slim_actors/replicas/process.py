"""One process of a replica, from its start to its end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import threading
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any

import msgspec
from msgspec import structs

from slim_actors.assignment import KILL_AFTER, Assignment, Report, Task
from slim_actors.launch import Launched, launch
from slim_actors.logs import FORMAT_VARIABLE, LEVEL_VARIABLE
from slim_actors.replicas.output import Output
from slim_actors.replicas.reports import Reports

__all__ = ["End", "Plan", "Process", "ReplicaLimits"]

_ABORT_WITHIN = 1.0
_BEATS_MISSED = 4
_LONG = 10.0
"""Seconds after which whoever waits for a replica is told what it does: nothing else of it can be seen."""

_logger = logging.getLogger("slim_actors.replicas")


class ReplicaLimits(msgspec.Struct, frozen=True):
    """What a replica may do before it is replaced.

    Attributes:
        hang_after: Seconds that its event loop may stand still; 0 for any time.
        max_memory: Bytes of resident memory that it may use; 0 for any number.
    """

    hang_after: float = 30.0
    max_memory: int = 0


class Plan(msgspec.Struct, frozen=True):
    """How every process of a run is started.

    Attributes:
        task: What it runs.
        variables: The settings of its connection, for its environment, where other users cannot read.
        hang_after: Seconds without a sign of its event loop after which it is killed; 0 for never.
        loaded: Waited for once the agent's file is imported, before anything is connected to.
    """

    task: Task
    variables: Mapping[str, str]
    hang_after: float
    loaded: Callable[[Report], Awaitable[None]]

    def __repr__(self) -> str:
        """Leave the settings out: secrets may be among them."""
        return f"Plan({self.task}, hang_after={self.hang_after})"


class End(msgspec.Struct, frozen=True):
    """How a process ended.

    Attributes:
        reason: Said to a person: an exit code, a signal, or what was done to it.
        failure: Its own report of why it could not start or go on, or that its agent stopped itself.
        log: The last lines that it printed.
    """

    reason: str
    failure: Report | None = None
    log: tuple[str, ...] = ()

    @property
    def was_wanted(self) -> bool:
        """Whether the agent stopped itself."""
        return self.failure is not None and self.failure.event == "stopped"

    @property
    def cause(self) -> str:
        """What is said of it: the process's own words, if it had any."""
        return self.reason if self.failure is None else self.failure.message


class Process:
    """A running process; `ended` is its end, and never fails.

    Args:
        number: Which replica it is.
        plan: What it is to do.
        make_room: Called with it, and waited for, before it starts an agent with a state, which its
            predecessor has until then.
    """

    def __init__(
        self, number: int, plan: Plan, make_room: Callable[[Process], Awaitable[None]] | None = None
    ) -> None:
        self.number = number
        self.address = ""
        """Its name and id, once it is ready."""
        self.pid = 0
        self.files: set[str] = set()
        """The files of the user that it has imported, if the task asks for them."""
        self.is_told_of = False
        """Whether its stop has been told of."""
        self._plan = plan
        self._make_room = make_room
        self._process: Launched | None = None
        self._lifeline = -1
        self._ready = asyncio.Event()
        self._failure: Report | None = None
        self._fate = ""
        self._is_alive = True
        self._signalled: signal.Signals | None = None
        self._work: set[asyncio.Task[None]] = set()
        self._is_long: asyncio.TimerHandle | None = None
        self.ended = asyncio.create_task(self._run(), name=f"replica {number}")

    @property
    def is_ready(self) -> bool:
        """Whether it can be found by its name, or could before it ended."""
        return bool(self.address)

    async def ready(self) -> bool:
        """Wait until it is ready, or has ended before; tell which."""
        waiting = asyncio.create_task(self._ready.wait())
        try:
            await asyncio.wait([waiting, self.ended], return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
        return self.is_ready

    async def stop(self) -> End:
        """Let it drain and end; kill it if that takes longer than it may."""
        if self._signalled is None:
            self._signal(signal.SIGTERM)
        await asyncio.wait([self.ended], timeout=self._plan.task.drain + KILL_AFTER)
        if not self.ended.done():
            self._fate = self._fate or f"killed: it did not end within {self._plan.task.drain:g} s of drain"
            self.kill()
        return await self.ended

    def kill(self) -> None:
        """End it now."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        # One that is just being started gets it as soon as it exists.
        self._signalled = number
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, number)

    async def _run(self) -> End:
        with contextlib.ExitStack() as stack:
            try:
                process = launch()
            except OSError as error:
                return End(f"its process could not be started: {error.strerror}")
            stack.callback(os.close, process.reports)
            stack.callback(os.close, process.lifeline)
            self._lifeline = process.lifeline
            output = Output(self.number, process.output, process.errors)
            self._process, self.pid = process, process.pid
            if self._signalled is not None:
                self._signal(self._signalled)
            reports = Reports(process.reports, self._take, self._cannot_be_read)
            self._tell(msgspec.json.encode(self._assignment(process.report_to)))
            self._begin(f"importing {self._plan.task.target}")
            stack.callback(self._done)
            # Not for the end of a pipe: a child of the replica may hold that open for ever.
            code = await _exit_code(process)
            reports.finish()
            # After its last reports, which may have begun something too.
            for task in self._work:
                task.cancel()
            return End(self._fate or _reason(code), self._failure, await output.finish())

    def _assignment(self, report_to: int) -> Assignment:
        logs = {name: os.environ[name] for name in (FORMAT_VARIABLE, LEVEL_VARIABLE) if name in os.environ}
        if _logs_to_a_person():
            # Its own standard error is a pipe, but who reads that is a person all the same.
            logs[FORMAT_VARIABLE] = "text"
        task = structs.replace(
            self._plan.task, reports=report_to, beat=self._plan.hang_after / (2 * _BEATS_MISSED)
        )
        return Assignment(task, self.number - 1, {**logs, **self._plan.variables})

    def _tell(self, line: bytes) -> None:
        with contextlib.suppress(BrokenPipeError):
            os.write(self._lifeline, line + b"\n")

    def _take(self, report: Report) -> None:
        self._is_alive = True
        match report.event:
            case "loaded":
                self._done()
                self._later(self._go(report))
            case "ready":
                self._done()
                self.address = report.address
                self._ready.set()
                if self._plan.hang_after:
                    self._later(self._watch())
            case "failed" | "stopped":
                self._failure = report
            case "imported":
                self.files.add(report.message)
            case "beat":
                pass

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._work.add(task)
        task.add_done_callback(self._work.discard)

    async def _go(self, report: Report) -> None:
        await self._plan.loaded(report)
        if report.stateful and self._make_room is not None:
            await self._make_room(self)
        self._tell(b"")
        self._begin("starting its agent, whose started may wait for something,")

    def _begin(self, what: str) -> None:
        text = "Replica %d (pid %d) has been %s for %g s."
        loop = asyncio.get_running_loop()
        self._is_long = loop.call_later(_LONG, _logger.warning, text, self.number, self.pid, what, _LONG)

    def _done(self) -> None:
        if self._is_long is not None:
            self._is_long.cancel()

    async def _watch(self) -> None:
        """Kill the process when its event loop stands still."""
        missed = 0
        while missed < _BEATS_MISSED:
            # Counted in rounds of our own: when this process was frozen itself, only one has passed.
            await asyncio.sleep(self._plan.hang_after / _BEATS_MISSED)
            missed = 0 if self._is_alive else missed + 1
            self._is_alive = False
        self._fate = f"hung: its event loop did not run for {self._plan.hang_after:g} s"
        # It shows where it hangs, if it still can.
        self._signal(signal.SIGABRT)
        await asyncio.sleep(_ABORT_WITHIN)
        self._signal(signal.SIGKILL)

    def _cannot_be_read(self) -> None:
        self._fate = "it sent a report that cannot be read"
        self.kill()


def _exit_code(process: Launched) -> asyncio.Future[int]:
    """Wait for the end in a thread, which works on every system, and for one that was not started here."""
    loop = asyncio.get_running_loop()
    code: asyncio.Future[int] = loop.create_future()

    def tell(number: int) -> None:
        if not code.done():
            code.set_result(number)

    def wait() -> None:
        number = process.wait()
        with contextlib.suppress(RuntimeError):  # the loop is closed, and nobody waits any more
            loop.call_soon_threadsafe(tell, number)

    threading.Thread(target=wait, name=f"end of {process.pid}", daemon=True).start()
    return code


def _logs_to_a_person() -> bool:
    return os.isatty(2) and os.environ.get(FORMAT_VARIABLE, "auto").lower() == "auto"


def _reason(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        # The real-time signals have no names.
        return f"killed by signal {-code}"
