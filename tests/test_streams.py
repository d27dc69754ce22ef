"""Streams of replies and into agents: in order, held back by slow readers, ended by whoever leaves."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from aiostream import pipe, stream
from attrs import frozen
from msgspec import Raw

from slim_actors import (
    Agent,
    Anycast,
    Context,
    DeclarationError,
    Expired,
    MalformedMessage,
    PeerLost,
    RemoteError,
    Request,
    Runtime,
    StreamRequest,
    UnhandledMessage,
    Unicast,
    handler,
    wire,
)
from slim_actors.messages import Body
from slim_actors.streams import ITEMS_AHEAD, Inlet
from slim_actors.testing import TestRuntime
from tests.conftest import World, eventually


@frozen
class Count(StreamRequest[int]):
    up_to: int


@frozen
class Wrong(StreamRequest[str]):
    pass


@frozen
class WrongAmongMany(StreamRequest[int]):
    at: int


@frozen
class Growing(StreamRequest[list[int]]):
    times: int


@frozen
class Point:
    x: int


@frozen
class Sum(Request[int]):
    start: int


@frozen
class Double(StreamRequest[Point]):
    pass


@frozen
class First(Request[int]):
    pass


class Counter(Agent, name="test/ns/counter"):
    concurrency = 4

    def __init__(self) -> None:
        self.made = 0
        self.ended: list[str] = []

    @handler
    async def count(self, message: Count) -> AsyncIterator[int]:
        try:
            for number in range(message.up_to):
                self.made = number + 1
                yield number
        except GeneratorExit:
            self.ended.append("left")
            raise
        finally:
            self.ended.append("finally")

    @handler
    async def fail(self, message: str) -> AsyncIterator[int]:
        yield 1
        raise ValueError(message)

    @handler
    async def wrong(self, message: Wrong) -> AsyncIterator[int]:
        yield 1

    @handler
    async def wrong_among_many(self, message: WrongAmongMany) -> AsyncIterator[int | str]:
        for number in range(40):
            yield "no number" if number == message.at else number

    @handler
    async def growing(self, message: Growing) -> AsyncIterator[list[int]]:
        numbers: list[int] = []
        for number in range(message.times):
            numbers.append(number)
            yield numbers

    @handler
    async def never(self, message: float) -> AsyncIterator[int]:
        yield 1
        try:
            await asyncio.Event().wait()
        finally:
            self.ended.append("never")

    @handler
    async def total(self, message: Sum, items: AsyncIterator[Point], ctx: Context) -> int:
        total = message.start
        async for point in items:
            total += point.x
        return total

    @handler
    async def double(self, message: Double, items: AsyncIterator[Point]) -> AsyncIterator[Point]:
        async for point in items:
            yield Point(point.x * 2)

    @handler
    async def first(self, message: First, items: AsyncIterator[Any]) -> Any:
        return await anext(items)

    @handler
    async def plain(self, message: bytes) -> bytes:
        return message


def double(number: int, *_: int) -> int:
    return number * 2


ROUTES: list[Anycast | Unicast] = [Anycast("test/ns/counter"), Unicast("test/ns/counter", mls=True)]
COUNTER = ROUTES[0]


@pytest.fixture
async def counter(runtime: Runtime) -> Counter:
    agent = Counter()
    await runtime.spawn(lambda: agent)
    return agent


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("size", [0, 1, 10, ITEMS_AHEAD, 3000])
async def test_items_come_once_and_in_order(
    runtime: Runtime, counter: Counter, route: Anycast | Unicast, size: int
) -> None:
    assert [item async for item in runtime.stream(route, Count(size))] == list(range(size))
    assert counter.ended == ["finally"]


async def test_aiostreams_operators_apply(runtime: Runtime, counter: Counter) -> None:
    numbers = runtime.stream(COUNTER, Count(1_000_000_000))
    assert await stream.list(numbers | pipe.map(double) | pipe.take(5)) == [0, 2, 4, 6, 8]
    assert [item async for item in numbers | pipe.take(3)] == [0, 1, 2]
    assert await (runtime.stream(COUNTER, Count(7)) | pipe.accumulate()) == 21
    async with numbers[10:20:5].stream() as sliced:
        assert [item async for item in sliced] == [10, 15]
    await eventually(lambda: counter.ended.count("finally") == 4)


async def leave_by_break(items: Any) -> None:
    async for item in items:
        if item == 3:
            break


async def leave_by_error(items: Any) -> None:
    with pytest.raises(KeyError):
        async for item in items:
            if item == 3:
                raise KeyError


async def leave_by_cancel(items: Any) -> None:
    reached = asyncio.Event()

    async def read() -> None:
        async for item in items:
            if item == 3:
                reached.set()
                await asyncio.Event().wait()

    task = asyncio.create_task(read())
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("leave", [leave_by_break, leave_by_error, leave_by_cancel])
async def test_leaving_the_loop_stops_the_producer_and_runs_its_finally(
    runtime: Runtime, counter: Counter, leave: Any
) -> None:
    await leave(runtime.stream(COUNTER, Count(1_000_000_000)))
    await eventually(lambda: "finally" in counter.ended)
    made = counter.made
    assert [item async for item in runtime.stream(COUNTER, Count(3))] == [0, 1, 2]
    assert made <= 2 * ITEMS_AHEAD


async def test_a_slow_reader_holds_the_producer_back(runtime: Runtime, counter: Counter) -> None:
    async with runtime.stream(COUNTER, Count(100_000)).stream() as items:
        for expected in range(5):
            assert await anext(items) == expected
        # A message there and back: whatever the producer was going to send by now, it has sent.
        for _ in range(3):
            assert await runtime.ask(COUNTER, b"x") == b"x"
        assert counter.made <= 5 + 2 * ITEMS_AHEAD


async def test_an_error_ends_the_stream_after_the_items_before_it(runtime: Runtime, counter: Counter) -> None:
    got = []
    with pytest.raises(RemoteError, match="ValueError: enough"):
        async for item in runtime.stream(COUNTER, "enough"):
            got.append(item)
    assert got == [1]


async def test_an_item_of_another_type_than_declared_is_an_error(runtime: Runtime, counter: Counter) -> None:
    with pytest.raises(MalformedMessage, match=r"An item of .*Expected `str`, got `int`"):
        async for _ in runtime.stream(COUNTER, Wrong()):
            pass


async def test_the_items_before_a_wrong_one_are_given(runtime: Runtime, counter: Counter) -> None:
    got = []
    with pytest.raises(MalformedMessage, match="Expected `int`, got `str`"):
        async for item in runtime.stream(COUNTER, WrongAmongMany(30)):
            got.append(item)
    assert got == list(range(30))


async def test_an_item_is_sent_as_it_was_when_it_was_yielded(runtime: Runtime, counter: Counter) -> None:
    lists = [item async for item in runtime.stream(COUNTER, Growing(20))]
    assert lists == [list(range(length)) for length in range(1, 21)]


def bodies(*numbers: int) -> Raw:
    return Raw(msgspec.msgpack.encode(numbers))


async def test_items_that_come_again_are_passed_over_and_a_gap_ends_the_flow() -> None:
    inlet = Inlet(Body(int), lambda _: None, "somebody")
    inlet.take_in(wire.Items(1, 0, bodies(0, 1, 2)))
    inlet.take_in(wire.Item(1, 2, Raw(b"\x02")))
    inlet.take_in(wire.Items(1, 1, bodies(1, 2, 3, 4)))
    inlet.take_in(wire.Items(1, 0, bodies(0, 1)))
    inlet.take_in(wire.Items(1, 6, bodies(6, 7)))
    got = []
    with pytest.raises(PeerLost, match="were lost on their way"):
        async for item in inlet:
            got.append(item)
    assert got == [0, 1, 2, 3, 4]


async def test_more_items_are_granted_as_they_are_taken_and_not_as_they_come() -> None:
    grants: list[int] = []
    inlet = Inlet(Body(int), grants.append, "somebody")
    inlet.take_in(wire.Items(1, 0, bodies(*range(8))))
    assert grants == [ITEMS_AHEAD]
    inlet.take_in(wire.Items(1, 8, bodies(*range(8, ITEMS_AHEAD))))
    assert grants == [ITEMS_AHEAD]
    for _ in range(ITEMS_AHEAD // 2 - 1):
        await anext(inlet)
    assert grants == [ITEMS_AHEAD]
    await anext(inlet)
    assert grants == [ITEMS_AHEAD, ITEMS_AHEAD * 3 // 2]


async def test_an_item_that_does_not_come_expires_the_stream(runtime: Runtime, counter: Counter) -> None:
    got = []
    with pytest.raises(Expired, match=r"within 0.3 s"):
        async for item in runtime.stream(COUNTER, 1.0, timeout=0.3):
            got.append(item)
    assert got == [1]
    await eventually(lambda: counter.ended == ["never"])


async def test_a_handler_that_returns_makes_a_stream_of_one(runtime: Runtime, counter: Counter) -> None:
    assert [item async for item in runtime.stream(COUNTER, b"x")] == [b"x"]


async def test_asking_for_a_stream_is_explained(runtime: Runtime, counter: Counter) -> None:
    with pytest.raises(UnhandledMessage, match="answered with a stream: call stream"):
        await runtime.ask(COUNTER, Count(3))


async def test_items_can_be_sent_along_with_a_message(runtime: Runtime, counter: Counter) -> None:
    async def points(count: int) -> AsyncIterator[Point]:
        for x in range(count):
            yield Point(x)

    assert await runtime.ask(COUNTER, Sum(100), items=points(2000)) == 100 + sum(range(2000))
    assert await runtime.ask(COUNTER, Sum(5)) == 5
    doubled = runtime.stream(COUNTER, Double(), items=points(600))
    assert [point.x async for point in doubled] == [2 * x for x in range(600)]


async def test_an_ask_with_items_that_is_cancelled_before_it_begins_leaves_nothing_behind(
    runtime: Runtime, counter: Counter, recwarn: pytest.WarningsRecorder
) -> None:
    async def points() -> AsyncIterator[Point]:
        yield Point(1)

    assert await runtime.ask(COUNTER, Sum(1)) == 1
    asking = asyncio.create_task(runtime.ask(COUNTER, Sum(1), items=points()))
    asking.cancel()
    await asyncio.wait([asking])
    del asking
    gc.collect()
    assert [str(warning.message) for warning in recwarn] == []


async def test_items_are_read_no_further_than_the_handler_reads(runtime: Runtime, counter: Counter) -> None:
    sent, closed = [], []

    async def numbers() -> AsyncIterator[int]:
        try:
            for number in range(1_000_000):
                sent.append(number)
                yield number
        finally:
            closed.append(True)

    assert await runtime.ask(COUNTER, First(), items=numbers()) == 0
    assert closed == [True]
    assert len(sent) <= 2 * ITEMS_AHEAD


async def test_an_error_of_the_callers_items_is_the_callers(runtime: Runtime, counter: Counter) -> None:
    async def broken() -> AsyncIterator[Point]:
        yield Point(1)
        raise OSError("disk on fire")

    with pytest.raises(OSError, match="disk on fire"):
        await runtime.ask(COUNTER, Sum(0), items=broken())
    assert await runtime.ask(COUNTER, b"x") == b"x"


async def test_items_of_a_wrong_type_or_for_no_handler_are_refused(
    runtime: Runtime, counter: Counter
) -> None:
    async def text() -> AsyncIterator[str]:
        yield "x"

    with pytest.raises(RemoteError, match=r"An item of .* does not fit"):
        await runtime.ask(COUNTER, Sum(0), items=text())
    with pytest.raises(UnhandledMessage, match="takes no items"):
        await runtime.ask(COUNTER, b"x", items=text())


async def test_an_item_that_the_agent_cannot_take_ends_the_message_and_its_handler(runtime: Runtime) -> None:
    class Reader(Agent, name="test/ns/reader"):
        ended = asyncio.Event()

        @handler
        async def read(self, message: First, items: AsyncIterator[Any]) -> int:
            try:
                return len([item async for item in items])
            finally:
                self.ended.set()

    await runtime.spawn(Reader)

    async def items() -> AsyncIterator[Any]:
        yield 1
        deep: Any = []
        for _ in range(101):
            deep = [deep]
        yield deep

    with pytest.raises(MalformedMessage, match="deeper than 100") as malformed:
        await runtime.ask(Anycast("test/ns/reader"), First(), items=items(), timeout=1e6)
    async with asyncio.timeout(10):
        await Reader.ended.wait()
    assert malformed.value.may_have_run


async def test_a_producer_that_dies_ends_the_stream_with_peer_lost(world: World) -> None:
    if world.endpoint is not None:
        pytest.skip("over SLIM: test_failover.py::test_a_stream_ends_soon_after_its_process_is_killed")
    caller, host = await world.runtime(), await world.runtime()
    ref = await host.spawn(Counter)
    got = []
    with pytest.raises(PeerLost):
        async for item in caller.stream(ref.route, 1.0):
            got.append(item)
            assert isinstance(host, TestRuntime)
            await host.kill(ref)
    assert got == [1]


@pytest.mark.parametrize("is_left", [True, False])
async def test_a_producer_ends_whose_reader_left_in_an_outage_or_lost_the_stream_in_it(
    test_runtime: TestRuntime, is_left: bool
) -> None:
    class Feed(Agent, name="test/ns/feed"):
        ended = asyncio.Event()

        @handler
        async def events(self, message: str) -> AsyncIterator[int]:
            try:
                yield 0
                await asyncio.Event().wait()
            finally:
                self.ended.set()

    await test_runtime.spawn(Feed)
    caller = TestRuntime(network=test_runtime.network)
    async with caller:

        async def read() -> None:
            async for _ in caller.stream(Anycast("test/ns/feed"), "x", timeout=1e6):
                pass

        reading = asyncio.create_task(read())
        await asyncio.sleep(1)
        test_runtime.network.outage()
        await asyncio.sleep(1)
        if is_left:
            reading.cancel()
            await asyncio.wait([reading])
        test_runtime.network.restore()
        async with asyncio.timeout(60):
            await Feed.ended.wait()
            if not is_left:
                with pytest.raises(PeerLost, match="network was away"):
                    await reading


async def test_streams_go_through_pins_and_contexts(runtime: Runtime, counter: Counter) -> None:
    class Front(Agent, name="test/ns/front"):
        @handler
        async def count(self, message: Count, ctx: Context) -> AsyncIterator[int]:
            async for number in ctx.stream(COUNTER, message):
                yield number + 1

    await runtime.spawn(Front)
    async with runtime.pin("test/ns/front") as front:
        assert [item async for item in front.stream(Count(400))] == list(range(1, 401))
        await leave_by_break(front.stream(Count(1_000_000)))
        await eventually(lambda: counter.ended.count("finally") == 2)


def test_wrong_flows_are_refused_where_they_are_declared() -> None:
    with pytest.raises(DeclarationError, match="is not a type of message"):

        class Bad(Agent, name="t/t/bad"):
            @handler
            async def total(self, items: AsyncIterator[int]) -> None: ...

    with pytest.raises(DeclarationError, match="items or ctx or both"):

        class Worse(Agent, name="t/t/bad"):
            @handler
            async def total(self, message: int, a: AsyncIterator[int], b: AsyncIterator[int]) -> None: ...
