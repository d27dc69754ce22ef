"""Limits: whoever goes over one hurts only himself. In memory and over SLIM."""

from __future__ import annotations

import asyncio
import re
import tracemalloc
from collections.abc import AsyncIterator
from functools import partial
from math import inf
from typing import Any

import msgspec
import pytest
from attrs import frozen
from msgspec import Raw

from slim_actors import (
    Address,
    Agent,
    Anycast,
    Busy,
    ConfigurationError,
    Limits,
    Mailbox,
    MalformedMessage,
    PeerLost,
    Request,
    Runtime,
    Stopped,
    StreamRequest,
    TooLarge,
    Unicast,
    handler,
    wire,
)
from slim_actors.admission import Admission
from slim_actors.batches import decode_batch
from slim_actors.limits import BATCH_BYTES
from slim_actors.messages import Body
from slim_actors.pulse import Pulse
from slim_actors.routing.outgoing import Outgoing
from slim_actors.routing.plain import PlainPeer
from slim_actors.shape import Misshapen, check_shape
from slim_actors.testing import TestRuntime
from slim_actors.transport.base import Port, Session, SessionClosed, SessionOptions
from tests.conftest import World, eventually, next_of, say

NAME = "t/t/target"
TARGET = Anycast(NAME)
ENDLESS = 5.0


@frozen
class Hold(Request[str]):
    """Is answered when the gate opens."""

    load: bytes = b""


@frozen
class Numbers(StreamRequest[int]):
    pass


@frozen
class Sum(Request[int]):
    pass


class Target(Agent, name=NAME):
    concurrency = 8
    mailbox = Mailbox(capacity=8)

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.holding = 0

    @handler
    async def echo(self, message: str) -> str:
        return message

    @handler
    async def anything(self, message: list[Any]) -> int:
        return len(message)

    @handler
    async def hold(self, message: Hold) -> str:
        self.holding += 1
        await self.gate.wait()
        return "held"

    @handler
    async def numbers(self, message: Numbers) -> AsyncIterator[int]:
        number = 0
        while True:
            yield number
            number += 1

    @handler
    async def sum(self, message: Sum, items: AsyncIterator[int]) -> int:
        return sum([item async for item in items])


class Hostile:
    """A peer that sends whatever it likes."""

    def __init__(self, port: Port) -> None:
        self.port = port

    async def open(self, *, framed: bool = True) -> Session:
        return await self.port.connect(Address(NAME), SessionOptions(framed=framed))

    @staticmethod
    async def send(session: Session, *frames: Any) -> None:
        """Send frames, which may be encoded already."""
        encoded = [frame if isinstance(frame, bytes) else wire.encode(frame) for frame in frames]
        await session.send(wire.join(encoded), wire.PAYLOAD_TYPE)

    @staticmethod
    async def error(session: Session, message_id: int = 0) -> wire.Error:
        """Wait for the next error about a message, or about the session."""
        while True:
            payload = await session.receive()
            for frame in decode_batch(payload.data).frames:
                if isinstance(frame, wire.Error) and frame.id == message_id:
                    return frame

    @staticmethod
    async def closed(session: Session) -> None:
        """Wait until the other end has closed the session."""
        with pytest.raises(SessionClosed):
            while True:
                await session.receive()


class Scene:
    """An agent with limits, a hostile peer and a well-behaved one."""

    def __init__(self, world: World, runtime: Runtime, limits: Limits) -> None:
        self.world = world
        self.runtime = runtime
        self.limits = limits
        self.agent = Target()

    @classmethod
    async def set(cls, world: World, **limits: Any) -> Scene:
        bounds = Limits(**limits)
        runtime = await world.runtime(limits=bounds)
        scene = cls(world, runtime, bounds)
        await runtime.spawn(lambda: scene.agent)
        return scene

    async def hostile(self, name: str = "evil/ns/mallory") -> Hostile:
        elsewhere = await self.world.runtime()
        return Hostile(await elsewhere._transport.open(name))

    async def good_peer(self) -> Runtime:
        return await self.world.runtime(name="good/ns/bob")


def ask(message_id: int, value: Any, type_name: str = "str", context: Any = None) -> bytes:
    return msgspec.msgpack.encode([1, message_id, type_name, value, ENDLESS, context])


async def test_a_message_that_is_too_large_is_refused_alone(world: World) -> None:
    scene = await Scene.set(world, max_payload=1000)
    bob = await scene.good_peer()
    asks = [bob.ask(TARGET, "x" * size) for size in (10, 2000, 20)]
    small, large, other = await asyncio.gather(*asks, return_exceptions=True)
    assert (small, other) == ("x" * 10, "x" * 20)
    assert isinstance(large, TooLarge)
    assert not large.may_have_run
    assert "2003 bytes; one message may have 1000 (Limits.max_payload)" in str(large)


async def test_plain_bytes_that_are_too_many_are_refused(world: World) -> None:
    class Old(Agent, name=NAME):
        async def receive(self, message: Any) -> bytes:
            return bytes(message)

    runtime = await world.runtime(limits=Limits(max_payload=1000))
    await runtime.spawn(Old)
    session = await Hostile(await runtime._transport.open("t/t/plain")).open(framed=False)
    await session.send(b"x" * 1001, None)
    assert (await session.receive()).data.startswith(b"error: The message has 1001 bytes")
    await session.send(b"x" * 1000, None)
    assert (await session.receive()).data == b"x" * 1000


async def test_plain_bytes_that_are_too_many_to_be_sent_leave_nothing_under_way() -> None:
    class Old(Agent, name=NAME):
        async def receive(self, message: Any) -> bytes:
            return bytes(message)

    async with TestRuntime() as runtime:
        await runtime.spawn(Old)
        session = await (await runtime._transport.open("t/t/plain")).connect(
            Address(NAME), SessionOptions(framed=False)
        )
        peer = PlainPeer(session, Pulse(runtime._transport, 15.0))
        message = partial(Outgoing, wire.Ask, 1, "bytes", expires=inf, replies=Body(bytes))
        with pytest.raises(TooLarge):
            await peer.deliver(message(body=bytes(5 * 2**20)))
        assert peer.outstanding == 0
        assert await peer.deliver(message(body=b"hi")) == b"hi"
        await peer.close()


async def test_a_batch_of_too_many_bytes_is_not_read(world: World) -> None:
    scene = await Scene.set(world, max_batch=BATCH_BYTES + 8, max_payload=1000)
    hostile = await scene.hostile()
    session = await hostile.open()
    await hostile.send(session, *(ask(number, "x" * 900) for number in range(1, 400)))
    error = await hostile.error(session)
    assert (error.code, "one may have 262152" in error.message) == ("too-large", True)
    assert await (await scene.good_peer()).ask(TARGET, "hi") == "hi"


async def test_a_batch_of_too_many_frames_is_not_read(world: World) -> None:
    scene = await Scene.set(world)
    hostile = await scene.hostile()
    session = await hostile.open()
    await hostile.send(session, *[wire.encode(wire.Ping())] * 10_001)
    assert "claims 10001 frames; one may have 10000" in (await hostile.error(session)).message
    await session.send(b"\xdd\xff\xff\xff\xff", wire.PAYLOAD_TYPE)
    assert "claims 4294967295 frames" in (await hostile.error(session)).message
    assert await (await scene.good_peer()).ask(TARGET, "hi") == "hi"


async def test_what_is_nested_too_deep_is_not_read(world: World) -> None:
    scene = await Scene.set(world)
    hostile = await scene.hostile()
    session = await hostile.open()
    deep: Any = []
    for _ in range(99):
        deep = [deep]
    await hostile.send(session, ask(1, [deep], "list"), ask(2, deep, "list"))
    error = await hostile.error(session, 1)
    assert (error.code, "deeper than 100" in error.message) == ("malformed", True)
    assert await (await scene.good_peer()).ask(TARGET, deep) == 1


@pytest.mark.parametrize("place", ["body", "context"])
async def test_a_payload_of_a_million_empty_maps_is_not_built(world: World, place: str) -> None:
    scene = await Scene.set(world)
    hostile = await scene.hostile()
    session = await hostile.open()
    crowd: list[Any] = [{}] * 1_000_000
    frame = ask(1, crowd, "list") if place == "body" else ask(1, "x", context={"crowd": crowd})
    await hostile.send(session, frame)
    assert "holds more than 200000 lists and maps" in (await hostile.error(session, 1)).message
    assert await (await scene.good_peer()).ask(TARGET, "hi") == "hi"


def a_part(size: int) -> bytes:
    garbage = b"\x91" * 4_000_000
    return wire.join([wire.encode(wire.Part(1, size, 0, memoryview(garbage)))])


@pytest.mark.parametrize(
    ("payload", "payload_type"),
    [
        (b"\x91" * 4_000_000, wire.PAYLOAD_TYPE),
        (b"\x91" * 4_000_000, "slim-actors/2"),
        (a_part(4_000_000), wire.PAYLOAD_TYPE),
        (a_part(2**40), wire.PAYLOAD_TYPE),
        (a_part(1000), wire.PAYLOAD_TYPE),
    ],
    ids=["garbage", "version", "whole", "too-large", "misfit"],
)
async def test_a_peer_that_goes_on_sending_what_cannot_be_taken_loses_its_session_and_is_barred(
    world: World, payload: bytes, payload_type: str
) -> None:
    scene = await Scene.set(world)
    mallory, bob = await scene.hostile(), await scene.good_peer()
    session = await mallory.open()
    with pytest.raises(SessionClosed):
        for _ in range(50):
            await session.send(payload, payload_type)
    assert (await Hostile.error(await mallory.open())).code == "busy"
    assert await bob.ask(TARGET, "hello") == "hello"


async def test_the_bytes_that_wait_for_one_peer_are_bounded(world: World) -> None:
    scene = await Scene.set(world, max_waiting=1_000_000)
    hostile = await scene.hostile()
    session = await hostile.open()
    load = {"load": b"x" * 300_000}
    for number in range(1, 6):
        await hostile.send(session, ask(number, load, "test_limits.Hold"))
    error = await hostile.error(session, 5)
    assert (error.code, "1000000 bytes of messages of this caller wait" in error.message) == ("busy", True)
    assert await (await scene.good_peer()).ask(TARGET, "hi") == "hi"


async def test_the_bytes_of_contexts_that_wait_for_one_peer_are_bounded_too(world: World) -> None:
    scene = await Scene.set(world, max_waiting=1_000_000)
    hostile = await scene.hostile()
    session = await hostile.open()
    context = {"x": "x" * 300_000}
    for number in range(1, 6):
        await hostile.send(session, ask(number, {"load": b""}, "test_limits.Hold", context))
    assert (await hostile.error(session, 5)).code == "busy"
    assert await (await scene.good_peer()).ask(TARGET, "hi") == "hi"


async def test_many_tells_of_one_frame_do_not_multiply_their_context(world: World) -> None:
    scene = await Scene.set(world)
    hostile = await scene.hostile()
    session = await hostile.open()
    context = {f"{number:x}": 0 for number in range(20_000)}
    deep: Any = 0
    for _ in range(102):
        deep = [deep]
    many = [{"load": b""}] * 1990
    tracemalloc.start()
    try:
        await hostile.send(
            session, wire.Tells(1, "test_limits.Hold", Raw(wire.encode(many)), ENDLESS, context)
        )
        # One that goes too deep has all the others taken one by one.
        await hostile.send(
            session, wire.Tells(5001, "test_limits.Hold", Raw(wire.encode([*many, deep])), ENDLESS, context)
        )
        await hostile.error(session, 5000 + len(many) + 1)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 200 * 2**20
    assert await (await scene.good_peer()).ask(TARGET, "hi") == "hi"


async def test_a_well_behaved_caller_waits_instead_of_going_over(world: World) -> None:
    scene = await Scene.set(world, max_waiting=1_000_000)
    bob = await scene.good_peer()
    await bob.ask(TARGET, "hello")
    asks = [asyncio.ensure_future(bob.ask(TARGET, Hold(b"x" * 100_000))) for _ in range(50)]
    await eventually(lambda: scene.agent.holding == 8)
    scene.agent.gate.set()
    assert await asyncio.gather(*asks) == ["held"] * 50


async def test_the_streams_of_one_peer_are_bounded(world: World) -> None:
    scene = await Scene.set(world, max_streams=3)
    hostile = await scene.hostile()
    session = await hostile.open()
    stream = ["test_limits.Numbers", {}, ENDLESS, None, False, 0]
    for number in range(1, 5):
        await hostile.send(session, msgspec.msgpack.encode([10, number, *stream]))
    error = await hostile.error(session, 4)
    assert (error.code, error.message) == ("busy", "One peer may have 3 streams open here.")
    await hostile.send(session, wire.Cancel(1))
    assert (await hostile.error(session, 1)).code == "cancelled"
    await hostile.send(session, msgspec.msgpack.encode([10, 5, *stream]), ask(6, 7, "str"))
    assert (await hostile.error(session, 6)).code == "malformed"
    assert await (await scene.good_peer()).ask(TARGET, "hi") == "hi"


@pytest.mark.parametrize("claim", [0, 256, 2**63 - 1])
async def test_claims_in_grants_and_credits_change_nothing_for_others(world: World, claim: int) -> None:
    scene = await Scene.set(world)
    hostile = await scene.hostile()
    session = await hostile.open()
    huge = 2**63 - 1
    await hostile.send(
        session,
        msgspec.msgpack.encode([10, huge, "test_limits.Numbers", {}, 1e300, None, False, 0]),
        wire.Credit(claim),
        wire.Grant(huge, claim),
        wire.Item(huge, claim, msgspec.Raw(b"\x01")),
        wire.End(huge, claim),
        wire.Hello(1, claim, ["*"]),
        wire.Accepted([(claim, 1), (1, claim)]),
        msgspec.msgpack.encode([1, 2**64 - 1, "str", "x", ENDLESS]),
        ask(5, 5),
    )
    assert (await hostile.error(session, 5)).code == "malformed"
    assert await (await scene.good_peer()).ask(TARGET, "hi") == "hi"
    await session.close()


async def test_items_that_nobody_granted_end_their_flow(world: World) -> None:
    scene = await Scene.set(world)
    hostile = await scene.hostile()
    session = await hostile.open()
    await hostile.send(session, msgspec.msgpack.encode([1, 1, "test_limits.Sum", {}, ENDLESS, None, True]))
    await hostile.send(session, *(wire.Item(1, number, msgspec.Raw(b"\x01")) for number in range(2000)))
    error = await hostile.error(session, 1)
    assert "sends more items than it may" in error.message
    for number, count in ((2, 200_000), (3, 9)):
        await hostile.send(
            session,
            msgspec.msgpack.encode([1, number, "test_limits.Sum", {}, ENDLESS, None, True]),
            wire.Items(number, 0, msgspec.Raw(msgspec.msgpack.encode([1] * count))),
        )
        error = await hostile.error(session, number)
        assert re.search("sends more items than it may|items in one frame", error.message)
    assert await (await scene.good_peer()).ask(TARGET, "hi") == "hi"


@pytest.mark.parametrize(
    ("bodies", "about", "code"),
    [(3, 7, "malformed"), ([], 7, "malformed"), ({}, 7, "malformed"), ([1] * 20_000, 0, "too-large")],
)
async def test_tells_that_are_no_list_or_too_many_are_refused(
    world: World, bodies: Any, about: int, code: str
) -> None:
    scene = await Scene.set(world)
    hostile = await scene.hostile()
    session = await hostile.open()
    await hostile.send(session, wire.Tells(7, "str", msgspec.Raw(msgspec.msgpack.encode(bodies)), 5.0))
    assert (await hostile.error(session, about)).code == code
    assert await (await scene.good_peer()).ask(TARGET, "hi") == "hi"


async def test_a_peer_gets_only_so_many_sessions(world: World, caplog: pytest.LogCaptureFixture) -> None:
    scene = await Scene.set(world, max_sessions=3)
    hostile = await scene.hostile()
    sessions = [await hostile.open() for _ in range(3)]
    for _ in range(4):
        session = await hostile.open()
        error = await hostile.error(session)
        assert (error.code, error.message) == ("busy", "One peer may have 3 sessions here.")
        await hostile.closed(session)
    refusals = [record for record in caplog.records if "is refused a session" in record.getMessage()]
    assert len(refusals) == 1
    assert await (await scene.good_peer()).ask(TARGET, "hi") == "hi"
    await sessions[0].close()

    async def open_again() -> bool:
        session = await hostile.open()
        await hostile.send(session, ask(1, 1))
        try:
            return (await hostile.error(session, 1)).code == "malformed"
        except SessionClosed:
            return False

    await eventually(open_again)


@pytest.mark.parametrize("mls", [False, True])
async def test_a_caller_that_is_refused_a_session_learns_why(world: World, mls: bool) -> None:
    scene = await Scene.set(world, max_sessions_in_all=2)
    hostile = await scene.hostile()
    for _ in range(2):
        await hostile.open()
    bob = await scene.good_peer()
    with pytest.raises(Busy, match="All 2 sessions here are taken") as busy:
        await bob.ask(Anycast(NAME, mls=mls), "hi")
    assert not busy.value.may_have_run
    assert busy.value.retry_after == 1.0


@pytest.mark.parametrize("code", ["malformed", "too-large"])
async def test_an_error_about_no_message_in_particular_says_of_each_that_it_may_have_run(
    world: World, code: str
) -> None:
    elsewhere, bob = await world.runtime(), await world.runtime()
    port = await elsewhere._transport.open("t/t/odd")
    asks = [asyncio.ensure_future(bob.ask(Unicast("t/t/odd", mls=True), "hi")) for _ in range(2)]
    session = await port.accept()
    came: list[wire.Frame] = []
    while len(came) < 2:
        came += decode_batch((await session.receive()).data).frames
    await Hostile.send(session, wire.Error(0, code, "A payload cannot be taken."))
    first, second = await asyncio.gather(*asks, return_exceptions=True)
    assert isinstance(first, MalformedMessage | TooLarge)
    assert isinstance(second, type(first))
    assert first is not second
    assert first.may_have_run
    assert second.may_have_run


async def test_what_waits_for_room_at_an_agent_that_has_stopped_has_not_run(world: World) -> None:
    elsewhere, bob = await world.runtime(), await world.runtime()
    port = await elsewhere._transport.open("t/t/odd")
    asks = [asyncio.ensure_future(bob.ask(Unicast("t/t/odd"), "hi")) for _ in range(2)]
    session = await port.accept()
    await say(session, wire.Hello(wire.VERSION, 1, [], 2**26, 2**26))
    assert (await next_of(session, wire.Ask)).id == 1
    await Hostile.send(session, wire.Error(0, "stopped", "It has stopped."))
    # Nor does the other one go out, although there is room for it now.
    await Hostile.closed(session)
    first, second = await asyncio.gather(*asks, return_exceptions=True)
    assert isinstance(first, Stopped)
    assert isinstance(second, PeerLost)
    assert not second.may_have_run


async def test_sessions_that_say_nothing_are_closed(world: World, caplog: pytest.LogCaptureFixture) -> None:
    scene = await Scene.set(world, handshake_timeout=0.5)
    hostile, bob = await scene.hostile(), await scene.good_peer()
    silent, plain, garbled = await hostile.open(), await hostile.open(framed=False), await hostile.open()
    async with bob.pin(NAME) as quiet:
        await garbled.send(b"\xc1\xc1", wire.PAYLOAD_TYPE)
        for session in (silent, plain, garbled):
            await hostile.closed(session)
        # A caller of ours that has nothing to say yet stays.
        assert await quiet.ask("hi") == "hi"
    assert any("sent nothing that makes sense for 0.5 s" in record.getMessage() for record in caplog.records)


async def test_a_stream_without_a_reader_keeps_nobody_waiting_for_long(world: World) -> None:
    class Single(Target, name=NAME):
        concurrency = 1

    scene = await Scene.set(world, stream_patience=0.3)
    scene.agent.concurrency = 1  # type: ignore[misc]
    runtime = await world.runtime(limits=scene.limits)
    await runtime.spawn(Single, name="t/t/single")
    hostile = await scene.hostile()
    session = await hostile.port.connect(Address("t/t/single"), SessionOptions())
    stream = ["test_limits.Numbers", {}, ENDLESS, None, False, 0]
    flow = ["test_limits.Sum", {}, 1e9, None, True]
    await hostile.send(
        session, msgspec.msgpack.encode([10, 1, *stream]), msgspec.msgpack.encode([1, 2, *flow])
    )
    bob = await scene.good_peer()
    assert await bob.ask(Anycast("t/t/single"), "hi") == "hi"
    await hostile.closed(session)


@pytest.mark.parametrize("framed", [True, False])
async def test_who_reads_no_refusals_is_sent_no_more_of_them(
    monkeypatch: pytest.MonkeyPatch, framed: bool
) -> None:
    from slim_actors import conversation
    from slim_actors.transport.memory import MemorySession

    monkeypatch.setattr(conversation, "_MOST_UNREAD", 10_000)
    async with TestRuntime() as runtime:
        await runtime.spawn(Target)
        hostile = Hostile(await runtime._transport.open("evil/ns/mallory"))
        session = await hostile.open(framed=framed)
        send = MemorySession.send

        async def stuck(self: MemorySession, data: bytes, payload_type: str | None) -> None:
            if self.peer.name == "evil/ns/mallory":
                await asyncio.Event().wait()
            await send(self, data, payload_type)

        monkeypatch.setattr(MemorySession, "send", stuck)
        if framed:
            await hostile.send(session, *(ask(number, 1) for number in range(1, 1000)))
        else:
            with pytest.raises(SessionClosed):
                for _ in range(1000):
                    await session.send(b"This agent takes no plain bytes.", None)
        await hostile.closed(session)
        assert await runtime.ask(TARGET, "hi") == "hi"


async def test_answers_that_wait_for_that_to_an_earlier_plain_message_are_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from slim_actors import plain

    monkeypatch.setattr(plain, "_MOST_HELD", 10)
    gate = asyncio.Event()
    begun: list[bytes] = []

    class Old(Agent, name=NAME):
        concurrency = 2

        async def receive(self, message: Any) -> Any:
            begun.append(message)
            if message == b"first":
                await gate.wait()
            return message

    async with TestRuntime() as runtime:
        await runtime.spawn(Old)
        session = await Hostile(await runtime._transport.open("t/t/plain")).open(framed=False)
        sent = [b"first", *(b"message %d" % number for number in range(20))]
        for message in sent:
            await session.send(message, None)
        await asyncio.sleep(10)
        assert begun == sent[:3]
        gate.set()
        assert [(await session.receive()).data for _ in sent] == sent


def address(name: str, instance: str = "1", subject: str = "") -> Address:
    return Address(name, instance, subject=subject or name)


async def test_a_peer_may_open_only_so_many_sessions_in_a_second() -> None:
    admission = Admission(Limits(max_new_sessions=5))
    for _ in range(5):
        admission.enter(address("a/b/mallory")).leave()
    with pytest.raises(Busy, match="may open 5 sessions a second"):
        admission.enter(address("a/b/mallory"))
    admission.enter(address("a/b/bob")).leave()


async def test_one_subject_with_many_instances_gets_half_of_all_sessions_and_bytes() -> None:
    admission = Admission(Limits(max_sessions_in_all=10, max_waiting_in_all=1000))
    visits = []
    for number in range(5):
        visits.append(admission.enter(address("a/b/mallory", str(number))))
        visits[-1].identify(address("a/b/mallory", str(number)))
    sixth = admission.enter(address("a/b/mallory", "6"))
    with pytest.raises(Busy, match="One subject may have 5 sessions"):
        sixth.identify(address("a/b/mallory", "6"))
    sixth.leave()
    for visit in visits[:4]:
        visit.hold(125)
    with pytest.raises(Busy, match="Too many bytes"):
        visits[4].hold(125)
    bob = admission.enter(address("a/b/bob"))
    bob.identify(address("a/b/bob"))
    bob.hold(100)
    for visit in visits:
        visit.leave()
    again = admission.enter(address("a/b/mallory"))
    again.identify(address("a/b/mallory"))
    again.hold(125)


@pytest.mark.parametrize("kind", ["hold_item", "hold_part"])
async def test_one_subject_with_many_instances_gets_half_of_all_bytes_of_items_and_of_parts(
    kind: str,
) -> None:
    admission = Admission(Limits(max_payload=1, max_waiting=100, max_waiting_in_all=1000))
    held = 0
    for number in range(20):
        visit = admission.enter(address("a/b/mallory", str(number)))
        visit.identify(address("a/b/mallory", str(number)))
        while held < 1000 and getattr(visit, kind)(50):
            held += 50
    assert 500 <= held <= 550
    bob = admission.enter(address("a/b/bob"))
    bob.identify(address("a/b/bob"))
    assert getattr(bob, kind)(50)


async def test_what_left_is_not_counted_any_more() -> None:
    admission = Admission(Limits(max_sessions=1, max_waiting=100, max_streams=1))
    for _ in range(10):
        visit = admission.enter(address("a/b/bob"))
        visit.identify(address("a/b/bob"))
        visit.hold(1000)
        visit.open_stream()
        assert visit.hold_item(1000)
        assert not visit.hold_item(1)
        with pytest.raises(Busy):
            visit.hold(1)
        visit.leave()
    assert admission._all.sessions == admission._all.messages == admission._all.items == 0
    assert not admission._subjects


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"max_payload": 0}, "max_payload is 0, but must be a whole number from 1 up"),
        ({"max_batch": 2**23}, "max_batch is 8388608, but must be a whole number from 262152 to 4186112"),
        ({"max_frames": 10}, "max_frames is 10, but must be a whole number from 4096 up"),
        ({"max_sessions": True}, "max_sessions is True"),
        ({"max_sessions": 1.5}, "max_sessions is 1.5"),
        ({"handshake_timeout": float("nan")}, "handshake_timeout is nan, but must be a number"),
    ],
)
def test_limits_that_cannot_be_are_refused(wrong: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^Limits: {why}"):
        Limits(**wrong)


@pytest.mark.parametrize(
    ("value", "depth"),
    [([], 1), ({}, 1), ([[]], 2), ([1, {"a": [2.5, "x" * 300, b"\x90" * 70_000]}], 3), ([[1], [[2]]], 3)],
)
def test_the_depth_of_a_value_is_measured(value: Any, depth: int) -> None:
    filler = [0x1234, 1.5, None, "text", b"\x81" * 40, -7, *range(200)]
    data = msgspec.msgpack.encode([*filler, value])
    check_shape(data, depth + 1)
    with pytest.raises(Misshapen):
        check_shape(data, depth)


@pytest.mark.parametrize("runs", [[(1000, 100)] * 100_000, [(1000, 2**62)]])
async def test_an_agent_that_claims_more_than_it_was_sent_loses_its_session(
    world: World, runs: list[tuple[int, int]]
) -> None:
    elsewhere, bob = await world.runtime(), await world.runtime()
    port = await elsewhere._transport.open("t/t/odd")
    asks = [asyncio.ensure_future(bob.ask(Unicast("t/t/odd", mls=True), "hi")) for _ in range(200)]
    session = await port.accept()
    came: list[wire.Frame] = []
    while len(came) < 200:
        came += decode_batch((await session.receive()).data).frames
    # What was accepted late, or again, is no news and no harm.
    await Hostile.send(session, wire.Accepted([(10_000, 50), (10_000, 50), (20_000, 1)]))
    await Hostile.send(session, wire.Reply(came[-1].id, msgspec.Raw(b"\x01")))  # type: ignore[union-attr]
    await asyncio.wait(asks, return_when=asyncio.FIRST_COMPLETED)
    await Hostile.send(session, wire.Accepted(runs))
    with pytest.raises(PeerLost, match="more messages than it was sent"):
        await asks[0]
    outcomes = await asyncio.gather(*asks, return_exceptions=True)
    assert outcomes.count(1) == 1
