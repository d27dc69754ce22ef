"""Circuit breaking in Anycast: whoever fails or is slow, unlike the others, is left out for a while."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import count, pairwise

import pytest
from attrs import frozen

from slim_actors import (
    Agent,
    Anycast,
    DeliveryError,
    Expired,
    Limits,
    RemoteError,
    Request,
    Runtime,
    handler,
)
from slim_actors.testing import TestRuntime
from tests.conftest import World, eventually

MOODY = Anycast("test/ns/moody")


@frozen
class Work(Request[str]):
    pass


@frozen
class Load(Request[str]):
    weight: int


@frozen
class Ponder(Request[str]):
    pass


async def nothing() -> None:
    pass


class Moody(Agent, name="test/ns/moody"):
    """Does as the test says."""

    def __init__(self, mood: Callable[[], Awaitable[None]] = nothing) -> None:
        self.mood = mood

    @handler
    async def work(self, message: Work) -> str:
        await self.mood()
        return "done"

    @handler
    async def load(self, message: Load) -> str:
        await self.mood()
        return "done"

    @handler
    async def ponder(self, message: Ponder) -> str:
        await asyncio.sleep(2.0)
        return "done"


async def fails() -> None:
    raise OSError("the disk is gone")


async def dawdles() -> None:
    await asyncio.sleep(1.0)


async def replicas(runtime: Runtime, *moods: Callable[[], Awaitable[None]]) -> list[tuple[Moody, str]]:
    """Spawn replicas, and give each with its instance."""
    agents = [Moody(mood) for mood in moods]
    return [(agent, (await runtime.spawn(lambda agent=agent: agent)).address.instance) for agent in agents]  # type: ignore[misc]


async def ask_many(
    runtime: Runtime, times: int, message: Request[str], timeout: float = 30.0
) -> Counter[str]:
    """Ask one after the other, and count who had the messages; an error counts as the agent's."""
    had: Counter[str] = Counter()
    for _ in range(times):
        call = runtime.ask(MOODY, message, timeout=timeout)
        try:
            await call
        except (RemoteError, Expired):
            had["errors"] += 1
        assert call.peer is not None
        had[call.peer.instance] += 1
    return had


async def test_a_replica_that_fails_is_left_out_and_gets_its_part_again_when_it_is_mended(
    runtime: Runtime, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "slim_actors.routing")
    (broken, instance), *_ = await replicas(runtime, fails, nothing, nothing)
    # It gets less from the third failure on, and none from the seventh.
    assert (await ask_many(runtime, 60, Work()))["errors"] < 15
    (opened,) = [record.message for record in caplog.records if "gets no" in record.message]
    assert instance in opened
    assert "the disk is gone" in opened

    broken.mood = nothing

    async def is_back() -> bool:
        return instance in await ask_many(runtime, 1, Work())

    await eventually(is_back)
    had = await ask_many(runtime, 12, Work())
    assert sorted(had.values()) == [4, 4, 4]
    assert any("again" in record.message and instance in record.message for record in caplog.records)


async def test_a_replica_that_begins_to_fail_gets_half_as_much_as_the_others(memory: Runtime) -> None:
    # On the virtual clock: a stall of this machine would count against whoever was asked in that moment.
    (broken, _), *_ = await replicas(memory, nothing, nothing, nothing)
    # So that all are known, and nobody has anything to catch up with.
    await ask_many(memory, 12, Work())
    broken.mood = fails
    went = [await ask_many(memory, 1, Work()) for _ in range(30)]
    failed = [number for number, had in enumerate(went) if had["errors"]]
    # From the third failure on the others have two turns for each of its own, and from the seventh all.
    assert [later - earlier for earlier, later in pairwise(failed)] == [3, 3, 5, 5, 5, 5]


async def test_what_fails_everywhere_says_nothing_against_anybody(runtime: Runtime) -> None:
    await replicas(runtime, fails, fails, fails)
    had = await ask_many(runtime, 60, Work())
    assert had.pop("errors") == 60
    assert sorted(had.values()) == [20, 20, 20]


async def test_messages_go_even_to_a_replica_that_is_left_out_if_there_is_no_other(world: World) -> None:
    host, other, caller = [await world.runtime() for _ in range(3)]
    ((broken, instance),) = await replicas(host, fails)
    ref = await other.spawn(Moody)
    await ask_many(caller, 40, Work())
    await ref.stop()
    broken.mood = nothing
    assert await ask_many(caller, 3, Work()) == {instance: 3}


async def test_one_type_that_fails_costs_a_replica_no_messages_of_another(runtime: Runtime) -> None:
    await replicas(runtime, fails, nothing)
    await ask_many(runtime, 40, Work())
    calls = [runtime.ask(MOODY, Ponder()) for _ in range(4)]
    await asyncio.gather(*calls)
    assert sorted(Counter(call.peer.instance for call in calls if call.peer).values()) == [2, 2]


async def test_a_replica_that_is_slow_unlike_the_others_is_left_out(memory: Runtime) -> None:
    (slow, instance), *_ = await replicas(memory, dawdles, nothing, nothing)
    assert (await ask_many(memory, 60, Work()))[instance] < 15
    assert instance not in await ask_many(memory, 30, Work())
    # One probe after each pause, and each pause is about twice as long as the one before.
    probes = []
    for _ in range(1000):
        await asyncio.sleep(0.05)
        if instance in await ask_many(memory, 1, Work()):
            probes.append(asyncio.get_running_loop().time())
    pauses = [later - earlier for earlier, later in pairwise(probes)]
    assert len(pauses) >= 3
    assert pauses == sorted(pauses)
    slow.mood = nothing
    await asyncio.sleep(60)
    assert len(await ask_many(memory, 9, Work())) == 3


async def test_a_stall_that_holds_up_many_messages_counts_once(memory: Runtime) -> None:
    (stalled, instance), *_ = await replicas(memory, nothing, nothing, nothing)
    await ask_many(memory, 30, Work())

    async def stalls_once() -> None:
        stalled.mood = nothing
        await asyncio.sleep(0.3)

    stalled.mood = stalls_once
    calls = [memory.ask(MOODY, Work()) for _ in range(60)]
    await asyncio.gather(*calls)
    had = Counter(call.peer.instance for call in calls if call.peer)
    # Who had some more of those that were sent together gets some fewer of the next ones.
    had += await ask_many(memory, 30, Work())
    assert had[instance] >= 29


async def test_replicas_that_get_the_long_work_by_chance_are_not_slow(memory: Runtime) -> None:
    await replicas(memory, nothing, nothing)
    had: Counter[str] = Counter()
    for _ in range(40):
        # Two replicas and two kinds of messages in turn: one of them gets all the long ones.
        had += await ask_many(memory, 1, Work())
        had += await ask_many(memory, 1, Ponder())
    assert sorted(had.values()) == [40, 40]


async def test_a_replica_where_deadlines_pass_is_left_out(memory: Runtime) -> None:
    async def hangs() -> None:
        await asyncio.Event().wait()

    await replicas(memory, hangs, nothing, nothing)
    had = await ask_many(memory, 60, Work(), timeout=0.2)
    assert had["errors"] < 15


async def test_a_caller_that_gives_up_soon_says_nothing_against_anybody(memory: Runtime) -> None:
    (_, instance), *_ = await replicas(memory, dawdles, dawdles)
    for _ in range(40):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await memory.ask(MOODY, Work())
    assert instance in await ask_many(memory, 2, Work())


async def test_a_probe_that_is_cancelled_is_followed_by_another(memory: Runtime) -> None:
    (broken, instance), *_ = await replicas(memory, fails, nothing)
    await ask_many(memory, 40, Work())

    async def hangs() -> None:
        await asyncio.Event().wait()

    broken.mood = hangs
    await asyncio.sleep(2)
    probe = memory.ask(MOODY, Work())
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await probe
    assert probe.peer is not None
    assert probe.peer.instance == instance
    broken.mood = nothing
    assert instance in await ask_many(memory, 2, Work())


async def test_a_probe_among_many_tells_that_comes_to_nothing_is_followed_by_another(memory: Runtime) -> None:
    (broken, instance), *_ = await replicas(memory, fails, nothing)
    for wrong in (Load(10**30), Load(1)):
        broken.mood = fails
        await ask_many(memory, 40, Load(1))
        broken.mood = nothing
        await asyncio.sleep(60)
        telling = asyncio.create_task(memory.tell_many(MOODY, [wrong]))
        await asyncio.sleep(0)
        telling.cancel()
        await asyncio.wait([telling])
        assert instance in await ask_many(memory, 2, Load(1))


async def test_a_replica_that_has_no_room_for_its_probe_is_probed_when_it_has() -> None:
    # Room for one message at a time.
    async with TestRuntime(limits=Limits(max_waiting=1)) as runtime:
        (broken, instance), *_ = await replicas(runtime, fails, nothing)
        await ask_many(runtime, 40, Work())
        broken.mood = nothing
        await asyncio.sleep(2)
        held = [asyncio.ensure_future(runtime.ask(MOODY, Ponder())) for _ in range(2)]
        await asyncio.sleep(0.1)
        await ask_many(runtime, 1, Work())
        await asyncio.gather(*held)
        await asyncio.sleep(60)
        assert instance in await ask_many(runtime, 1, Work())
        assert sorted((await ask_many(runtime, 12, Work())).values()) == [6, 6]


async def test_under_load_no_message_fails_because_a_circuit_is_open(memory: Runtime) -> None:
    chances = count()

    async def sometimes() -> None:
        await asyncio.sleep(0.01)
        if next(chances) % 2:
            raise OSError("by halves")

    await replicas(memory, sometimes, nothing, fails)
    results = await asyncio.gather(*(memory.ask(MOODY, Work()) for _ in range(2000)), return_exceptions=True)
    assert all(not isinstance(one, DeliveryError) or isinstance(one, RemoteError) for one in results)


@pytest.fixture
async def memory() -> AsyncIterator[TestRuntime]:
    async with TestRuntime() as runtime:
        yield runtime
