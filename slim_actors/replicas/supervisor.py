"""The supervisor of replica processes: keeps so many running, and replaces them without a gap."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from functools import partial
from typing import Any

from slim_actors.assignment import Report, Task
from slim_actors.backoff import Backoff
from slim_actors.exits import Exit
from slim_actors.replicas.deaths import Deaths
from slim_actors.replicas.events import Event, EventKind, ReplicaFailed
from slim_actors.replicas.latest import Latest
from slim_actors.replicas.memory import in_mebibytes, resident
from slim_actors.replicas.process import End, Plan, Process, ReplicaLimits

__all__ = ["ReplicaLimits", "Supervisor"]

_AWAY = Backoff(2.0, 2.0, jitter=0.25)
"""How long a replica is left alone that found no node."""
_MEMORY_EVERY = 1.0
_MEMORY_AGAIN = Backoff(2.0, 60.0)
"""How long a replica that uses too much is kept after a replacement that did not start."""


class _Slot:
    """The place of one replica: one process after another is in it."""

    keeper: asyncio.Task[None]

    def __init__(self, number: int, process: Process) -> None:
        self.number = number
        self.process = process
        self.deaths = Deaths(number)
        self.kept = 0
        """How often in a row a replacement for too much memory came to nothing."""
        self.kept_until = 0.0


async def _nothing() -> None:
    """Do nothing."""


class Supervisor:
    """Keeps a number of replica processes of one agent running.

    A replica that dies, or whose agent stops itself, is started again, after a pause that doubles with each
    death (with jitter, so that many do not come back at once); after more than 5 restarts within 30 s the
    supervisor gives up. A replica that finds no node does not count: once any replica was ready, it is tried
    until the node is back. Nor does a mistake in the agent's file, made while others run, end those at once:
    it counts as a death.

    A replica that is replaced (`restart`, or more memory than it may use) is drained only when the new one is
    ready; when that cannot start, the old one stays.

    Args:
        task: What each replica runs.
        count: How many replicas.
        variables: The settings of their connection, for their environment, where other users cannot read.
        on_event: Called with everything that happens.
        limits: What a replica may do before it is replaced.
        prepare: Waited for once, when the first replica has imported the agent's file.
    """

    def __init__(
        self,
        task: Task,
        count: int,
        variables: Mapping[str, str],
        on_event: Callable[[Event], None],
        limits: ReplicaLimits | None = None,
        prepare: Callable[[], Awaitable[None]] = _nothing,
    ) -> None:
        self.name = ""
        """The agent's SLIM name, once its file is imported."""
        self.on_files: Callable[[], None] = lambda: None
        """Called when `files` may have grown."""
        self.was_cut_short = False
        """Whether `stop_now` ended it."""
        self._limits = limits or ReplicaLimits()
        self._plan = Plan(task, variables, self._limits.hang_after, self._loaded)
        self._count = count
        self._on_event = on_event
        self._prepare = prepare
        self._preparing = asyncio.Lock()
        self._slots: dict[int, _Slot] = {}
        self._live: set[Process] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._over = asyncio.Event()
        self._failure: BaseException | None = None
        self._was_ready = False
        self._replacements = Latest("restart")
        self._scalings = Latest("scale")

    @property
    def replicas(self) -> list[Process]:
        """The process of each replica, in the order of their numbers."""
        return [self._slots[number].process for number in sorted(self._slots)]

    @property
    def files(self) -> set[str]:
        """The user's files that the replicas have imported, if the task asks for them."""
        return set().union(*(process.files for process in self._live))

    async def run(self) -> None:
        """Run until `stop` is called, then drain and end every replica.

        Raises:
            ReplicaFailed: A replica cannot start, or keeps dying; the others have been stopped.
        """
        try:
            if not self._over.is_set():
                for number in range(1, self._count + 1):
                    self._open(number, self._launch(number), EventKind.JOINED)
                if self._limits.max_memory:
                    self._spawn(self._watch_memory(self._limits.max_memory))
            await self._over.wait()
        finally:
            self._over.set()
            for operations in (self._replacements, self._scalings):
                await operations.close()
            for task in self._tasks:
                task.cancel()
            # Whatever becomes of telling about it, each has its time to drain.
            retiring = (self._retire(process) for process in list(self._live))
            await asyncio.gather(*retiring, return_exceptions=True)
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """Begin to stop: every replica drains."""
        self._over.set()

    def stop_now(self) -> None:
        """Stop without a drain, also one that is under way."""
        self.was_cut_short = True
        self._over.set()
        for process in self._live:
            process.kill()

    @property
    def is_stopping(self) -> bool:
        """Whether it has begun to stop."""
        return self._over.is_set()

    async def restart(self, why: str = "restart") -> int:
        """Replace all replicas, one at a time: each new one is ready before the old one is drained.

        Gives how many were replaced. A newer call takes over from one that is under way.

        Raises:
            ReplicaFailed: A new one did not become ready: that replica and those after it are as they were.
                Or the supervisor is stopping, or another restart has taken over.
        """
        return await self._replacements.run(lambda: self._roll(why))

    def restart_soon(self, why: str) -> None:
        """Begin to `restart`; what becomes of it is told as events alone."""

        async def restart() -> None:
            with contextlib.suppress(ReplicaFailed):
                await self.restart(why)

        self._spawn(restart())

    async def scale(self, count: int) -> None:
        """Run so many replicas from now on; returns when the new ones are ready, or the others drained.

        Raises:
            ReplicaFailed: A new one did not become ready: it is not tried again. Or the supervisor is
                stopping, or another call has taken over.
        """
        await self._scalings.run(lambda: self._scale(count))

    async def _roll(self, why: str) -> int:
        replaced = 0
        for slot in list(self._slots.values()):
            if self._is_current(slot):
                await self._replace(slot, why)
                replaced += 1
        return replaced

    def _is_current(self, slot: _Slot) -> bool:
        """Tell whether a slot is there still: after a `scale`, its number may be that of another one."""
        return self._slots.get(slot.number) is slot

    async def _scale(self, count: int) -> None:
        surplus = [self._slots.pop(number) for number in sorted(self._slots)[count:]]
        if surplus:
            for slot in surplus:
                slot.keeper.cancel()
            await asyncio.wait([self._spawn(self._retire(slot.process)) for slot in surplus])
        # Above the numbers in use, so that the numbers say who was there first.
        first = max(self._slots, default=0) + 1
        added = range(first, first + count - len(self._slots))
        # One that fails leaves the others to the end: whatever becomes of them, somebody has to see it.
        outcomes = await asyncio.gather(*(self._add(number) for number in added), return_exceptions=True)
        for error in filter(None, outcomes):
            raise error

    async def _add(self, number: int) -> None:
        # What had the number before may be draining still, and have the state.
        process = self._launch(number, self._vacate)
        end = await self._ready(process)
        if end is not None:
            raise _failed(f"Replica {number} did not start", end)
        self._open(number, process, EventKind.JOINED)

    async def _replace(self, slot: _Slot, why: str) -> None:
        """Put a new process into a slot; drain the old one, or let it drain first if it keeps a state.

        Raises:
            ReplicaFailed: The new one did not become ready; the old one is still there, unless it had to make
                room. Then the new one is started again.
        """
        old = slot.process
        has_room = False

        async def make_room(new: Process) -> None:
            nonlocal has_room
            if not self._is_current(slot):
                new.kill()
                return
            has_room = True
            slot.keeper.cancel()
            await self._vacate(new)

        new = self._launch(slot.number, make_room)
        try:
            end = await self._ready(new)
        except asyncio.CancelledError:
            if has_room and self._is_current(slot) and not self.is_stopping:
                # The old one drains, and who takes over may fail: nobody would be there, and none to come.
                another = self._launch(slot.number, self._vacate)
                self._open(slot.number, another, EventKind.RESTARTED)
            raise
        if not self._is_current(slot):
            # There are to be fewer now.
            await asyncio.shield(self._spawn(self._retire(new)))
            return
        if has_room:
            self._open(slot.number, new, EventKind.REPLACED, f"; {why}")
            if end is not None:
                raise _failed(f"Replica {slot.number} is not replaced", end)
            return
        if end is not None:
            why = f"its replacement did not start: {end.cause}"
            self._on_event(Event(EventKind.KEPT, slot.number, old.address, why, end.log))
            raise _failed(f"Replica {slot.number} is not replaced", end)
        old = slot.process
        slot.keeper.cancel()
        self._open(slot.number, new, EventKind.REPLACED, f"; {why}")
        # Whatever becomes of the restart, this one has begun to drain.
        await asyncio.shield(self._spawn(self._retire(old)))

    async def _ready(self, process: Process) -> End | None:
        """Wait until a process is ready; give its end if that comes before."""
        try:
            return None if await process.ready() else await process.ended
        except asyncio.CancelledError:
            process.kill()
            raise

    async def _vacate(self, new: Process) -> None:
        """Retire whoever else is in the place of a new process."""
        others = [one for one in self._live if one.number == new.number and one is not new]
        await asyncio.gather(*(self._retire(one) for one in others))

    def _launch(self, number: int, make_room: Callable[[Process], Awaitable[None]] | None = None) -> Process:
        process = Process(number, self._plan, make_room)
        self._live.add(process)
        process.ended.add_done_callback(lambda _: self._live.discard(process))
        return process

    def _open(self, number: int, process: Process, kind: EventKind, detail: str = "") -> None:
        slot = self._slots.get(number)
        if slot is None:
            slot = self._slots[number] = _Slot(number, process)
        slot.process = process
        slot.keeper = self._spawn(self._keep(slot, kind, detail))

    async def _keep(self, slot: _Slot, kind: EventKind, detail: str) -> None:
        """Tell of the process in a slot, and put a new one there whenever it dies."""
        is_waiting = False
        while True:
            process = slot.process
            if await process.ready():
                self._was_ready = True
                slot.deaths.began()
                self._on_event(Event(kind, slot.number, process.address, f"pid {process.pid}{detail}"))
                self.on_files()
            end = await asyncio.shield(process.ended)
            was_waiting = is_waiting
            is_waiting = end.failure is not None and end.failure.exit == Exit.NO_NODE
            pause = self._pause(slot, end)
            if not (is_waiting and was_waiting):
                ended = EventKind.STOPPED if end.was_wanted else EventKind.LOST
                why = f"{end.cause.rstrip('.')}; starting it again in {pause:.1f} s"
                # Who could still say why has just printed it all.
                log = end.log if end.failure is None else ()
                self._on_event(Event(ended, slot.number, process.address, why, log))
            await asyncio.sleep(pause)
            slot.process = self._launch(slot.number)
            kind, detail = EventKind.RESTARTED, ""

    def _pause(self, slot: _Slot, end: End) -> float:
        """Give the seconds until the next start.

        Raises:
            ReplicaFailed: There is no next start.
        """
        failure = end.failure
        if failure is None:
            return slot.deaths.add(end.cause)
        # Once a replica was ready, what it needs was there, and may come back.
        if not self._was_ready and failure.exit in (Exit.USAGE, Exit.NO_NODE, Exit.STORE):
            raise ReplicaFailed(failure.message, failure.exit)
        if failure.exit == Exit.NO_NODE:
            return _AWAY.pause(0)
        return slot.deaths.add(end.cause)

    async def _retire(self, process: Process) -> None:
        if process.ended.done():
            return
        end = await process.stop()
        if process.is_ready and not process.is_told_of:
            process.is_told_of = True
            detail = end.reason if end.reason.startswith("killed") else ""
            self._on_event(Event(EventKind.STOPPED, process.number, process.address, detail))

    async def _watch_memory(self, most: int) -> None:
        while True:
            await asyncio.sleep(_MEMORY_EVERY)
            for slot in list(self._slots.values()):
                is_due = slot.process.is_ready and asyncio.get_running_loop().time() >= slot.kept_until
                if is_due and self._is_current(slot) and not self._replacements.is_busy:
                    await self._limit_memory(slot, most)

    async def _limit_memory(self, slot: _Slot, most: int) -> None:
        """Replace a replica that uses more.

        Raises:
            ReplicaFailed: It is the limit that no replica can keep: that must not be tried for ever.
        """
        used = resident(slot.process.pid)
        if used <= most:
            return
        why = f"it used {in_mebibytes(used)} of {in_mebibytes(most)}"
        try:
            await self._replacements.run(partial(self._replace, slot, why))
        except ReplicaFailed:
            slot.kept_until = asyncio.get_running_loop().time() + _MEMORY_AGAIN.pause(slot.kept)
            slot.kept += 1
        else:
            slot.kept = 0
            slot.deaths.add(why)
            slot.deaths.began()

    async def _loaded(self, report: Report) -> None:
        self.name = report.address
        try:
            async with self._preparing:
                await self._prepare()
                self._prepare = _nothing
        except Exception as error:  # noqa: BLE001 (lost in a task of the process, it would wait for ever)
            self._fail(error)
            await asyncio.Event().wait()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run something as long as the supervisor runs; its failure ends everything."""
        task = asyncio.create_task(work)
        self._tasks.add(task)

        def done(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            error = None if task.cancelled() else task.exception()
            if error is not None:
                self._fail(error)

        task.add_done_callback(done)
        return task

    def _fail(self, error: BaseException) -> None:
        self._failure = self._failure or error
        self.stop()


def _failed(what: str, end: End) -> ReplicaFailed:
    code = (end.failure and end.failure.exit) or Exit.GAVE_UP
    return ReplicaFailed(f"{what}: {end.cause.rstrip('.')}.", code)
