"""The supervisor's own decisions, with processes that do what a test says, and a clock that jumps."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest

from slim_actors.assignment import Report, Task
from slim_actors.exits import Exit
from slim_actors.replicas import supervisor
from slim_actors.replicas.events import Event, EventKind, ReplicaFailed
from slim_actors.replicas.process import End, Plan, ReplicaLimits
from slim_actors.replicas.supervisor import Supervisor
from slim_actors.testing import VirtualClock
from tests.conftest import eventually

DRAIN = 1.0


class FakeProcess:
    """What the supervisor sees of a process: it is ready, or fails, when the test says so."""

    def __init__(
        self, number: int, plan: Plan, make_room: Callable[[FakeProcess], Awaitable[None]] | None = None
    ) -> None:
        self.number = number
        self.pid = self.memory = 0
        self.address = ""
        self.files: set[str] = set()
        self.is_told_of = False
        self.is_draining = False
        self.make_room = make_room
        self.ended: asyncio.Future[End] = asyncio.get_running_loop().create_future()
        self._ready = asyncio.Event()
        made.append(self)

    @property
    def is_ready(self) -> bool:
        return bool(self.address)

    async def ready(self) -> bool:
        waiting = asyncio.create_task(self._ready.wait())
        futures: list[asyncio.Future[Any]] = [waiting, self.ended]
        await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        return self.is_ready

    async def stop(self) -> End:
        self.is_draining = True
        await asyncio.wait([self.ended], timeout=DRAIN)
        self.end("drained")
        return await self.ended

    def kill(self) -> None:
        self.end("killed")

    async def load_a_state(self) -> None:
        """Say that the agent keeps a state, and wait until there is room for it."""
        if self.make_room is not None:
            await self.make_room(self)

    def become_ready(self) -> None:
        self.address = f"a/b/c/{made.index(self)}"
        self._ready.set()

    def end(self, reason: str, failure: Report | None = None) -> None:
        if not self.ended.done():
            self.ended.set_result(End(reason, failure))

    @property
    def is_over(self) -> bool:
        return self.ended.done()


made: list[FakeProcess] = []
"""Every process that was started, in order."""


@pytest.fixture(autouse=True)
def _fakes(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(supervisor, "Process", FakeProcess)
    monkeypatch.setattr(supervisor, "resident", lambda pid: made[pid].memory)
    made.clear()
    yield
    made.clear()


@contextlib.asynccontextmanager
async def running(
    count: int, events: list[Event] | None = None, max_memory: int = 0
) -> AsyncIterator[Supervisor]:
    """Run a supervisor of so many replicas, which are ready."""
    tell = (lambda _: None) if events is None else events.append
    with VirtualClock():
        one = Supervisor(Task("", -1), count, {}, tell, ReplicaLimits(max_memory=max_memory))
        task = asyncio.create_task(one.run())
        await started(count)
        for number, process in enumerate(made):
            process.pid = number
            process.become_ready()
        try:
            yield one
        finally:
            one.stop()
            await task


async def started(count: int) -> None:
    """Wait until so many processes were started in all."""
    await eventually(lambda: len(made) >= count, within=1000)


def serving(one: Supervisor) -> list[int]:
    """Give which of the processes have a place."""
    return [made.index(process) for process in one.replicas]  # type: ignore[arg-type]


def alive() -> list[int]:
    return [number for number, process in enumerate(made) if not process.is_over]


async def scaled_down_and_up(one: Supervisor) -> None:
    """Take the place of replica 2, for which process 3 is being started, and give it to process 4."""
    await one.scale(1)
    scaling = asyncio.create_task(one.scale(2))
    await started(5)
    made[4].become_ready()
    await scaling


async def test_a_restart_and_two_scalings_leave_as_many_replicas_as_were_asked_for() -> None:
    async with running(2) as one:
        restarting = asyncio.create_task(one.restart())
        await started(3)
        made[2].become_ready()
        await started(4)
        # The restart waits for the new replica 2, of which there is none any more, and then another one.
        await scaled_down_and_up(one)
        made[3].become_ready()
        await restarting
        assert serving(one) == alive() == [2, 4]


async def test_a_restart_makes_no_room_in_a_place_that_another_has_taken() -> None:
    async with running(2) as one:
        restarting = asyncio.create_task(one.restart())
        await started(3)
        await made[2].load_a_state()
        made[2].become_ready()
        await started(4)
        await scaled_down_and_up(one)
        await made[3].load_a_state()
        await restarting
        assert serving(one) == alive() == [2, 4]


async def test_a_scaling_that_fails_in_part_answers_when_all_of_it_has_its_end() -> None:
    async with running(1) as one:
        scaling = asyncio.create_task(one.scale(3))
        await started(3)
        made[1].end("no", Report("failed", message="It does not start.", exit=Exit.USAGE))
        await asyncio.sleep(1)
        assert not scaling.done()
        made[2].become_ready()
        with pytest.raises(ReplicaFailed, match=r"Replica 2 did not start: It does not start\."):
            await scaling
        assert serving(one) == alive() == [0, 2]


async def test_a_scaling_that_another_takes_over_from_leaves_none_that_is_being_started() -> None:
    async with running(1) as one:
        first = asyncio.create_task(one.scale(3))
        await started(3)
        made[1].end("no")
        await asyncio.sleep(1)
        second = asyncio.create_task(one.scale(1))
        with pytest.raises(ReplicaFailed, match="Another scale has taken over"):
            await first
        await second
        assert serving(one) == alive() == [0]


async def test_a_replica_with_a_state_waits_until_the_one_with_its_number_has_drained() -> None:
    events: list[Event] = []
    async with running(2, events) as one:
        down = asyncio.create_task(one.scale(1))
        await eventually(lambda: made[1].is_draining)
        up = asyncio.create_task(one.scale(2))
        await started(3)
        assert alive() == [0, 1, 2]
        await made[2].load_a_state()
        assert alive() == [0, 2]
        made[2].become_ready()
        await up
        with pytest.raises(ReplicaFailed):
            await down
        assert serving(one) == alive() == [0, 2]
    stopped = [event.replica for event in events if event.kind is EventKind.STOPPED]
    assert sorted(stopped) == [1, 2, 2], "of each it is told once"


async def test_a_failure_that_names_no_exit_code_is_a_failure_all_the_same() -> None:
    async with running(1) as one:
        restarting = asyncio.create_task(one.restart())
        await started(2)
        made[1].end("no", Report("failed", message="The agent failed."))
        with pytest.raises(ReplicaFailed) as caught:
            await restarting
        assert caught.value.exit == Exit.GAVE_UP


async def test_a_replica_over_its_limit_stays_as_long_as_its_replacement_cannot_start() -> None:
    events: list[Event] = []
    async with running(1, events, max_memory=100) as one:
        loop = asyncio.get_running_loop()
        made[0].memory = 200
        tries: list[float] = []
        for number in range(1, 11):
            await started(number + 1)
            tries.append(loop.time())
            made[number].end("no", Report("failed", message="It does not parse.", exit=Exit.USAGE))
        assert serving(one) == alive() == [0]
        # Seldom, for each costs the start of a process: ten of them took some minutes.
        pauses = [after - before for before, after in itertools.pairwise(tries)]
        assert pauses[-1] > 40
        assert sum(pauses) > 120
        await started(12)
        made[11].become_ready()
        await eventually(lambda: serving(one) == alive() == [11])
    assert [event.kind for event in events if event.kind is EventKind.KEPT] == [EventKind.KEPT] * 10


async def test_whatever_prevents_a_run_is_no_reason_to_wait_for_ever() -> None:
    async def fails() -> None:
        raise RuntimeError("nobody thought of it")

    one = Supervisor(Task("", -1), 1, {}, lambda _: None, prepare=fails)
    task = asyncio.create_task(one.run())
    await started(1)
    loading = asyncio.create_task(one._loaded(Report("loaded", address="a/b/c")))
    made[0].ended.add_done_callback(lambda _: loading.cancel())
    with pytest.raises(RuntimeError, match="nobody thought of it"):
        await asyncio.wait_for(task, 10)
