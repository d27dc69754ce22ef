"""The agent's end of one session, as a peer sees it that speaks the wire format by itself."""

from __future__ import annotations

import asyncio
from itertools import count
from typing import Any

import msgspec
import pytest
from attrs import frozen

from slim_actors import Agent, Mailbox, handler, wire
from slim_actors.batches import decode_batch
from slim_actors.names import Address
from slim_actors.receipts import WINDOW
from slim_actors.transport.base import Session, SessionOptions
from tests.conftest import World, eventually, next_of, say

NAME = "test/ns/collector"
TELLS = 40


@frozen
class Small:
    number: int


class Collector(Agent, name=NAME):
    mailbox = Mailbox(capacity=TELLS // 4)

    def __init__(self) -> None:
        self.seen: list[str] = []

    @handler
    async def note(self, message: str) -> None:
        self.seen.append(message)

    @handler
    async def small(self, message: Small) -> None:
        self.seen.append(str(message.number))

    @handler(allow="nobody")
    async def secret(self, message: bytes) -> None:
        self.seen.append("secret")

    @handler
    async def count(self, message: int) -> list[str]:
        return self.seen


class Peer:
    def __init__(self, session: Session) -> None:
        self.session = session

    async def send(self, *frames: wire.Frame) -> None:
        await say(self.session, *frames)

    async def accepted(self, wanted: set[int]) -> list[wire.Accepted]:
        """Give what comes until all these are accepted."""
        found: list[wire.Accepted] = []
        while wanted - set(ids(found)):
            batch = decode_batch((await self.session.receive()).data)
            found.extend(frame for frame in batch.frames if isinstance(frame, wire.Accepted))
        return found

    async def errors(self, count: int) -> dict[int, str]:
        """Give the codes of so many errors, by the ids that they are about."""
        found: dict[int, str] = {}
        while len(found) < count:
            batch = decode_batch((await self.session.receive()).data)
            found.update((frame.id, frame.code) for frame in batch.frames if isinstance(frame, wire.Error))
        return found

    async def outcomes(self, count: int) -> dict[int, Any]:
        """Give so many outcomes of asks by their ids: what was replied, or the code of an error."""
        found: dict[int, Any] = {}
        while len(found) < count:
            for frame in decode_batch((await self.session.receive()).data).frames:
                if isinstance(frame, wire.Reply):
                    found[frame.id] = msgspec.msgpack.decode(frame.body)
                elif isinstance(frame, wire.Error):
                    found[frame.id] = frame.code
        return found

    async def reply(self) -> Any:
        return msgspec.msgpack.decode((await next_of(self.session, wire.Reply)).body)


def ids(frames: list[wire.Accepted]) -> list[int]:
    return [
        number for frame in frames for first, count in frame.runs for number in range(first, first + count)
    ]


def tells(numbers: range) -> list[wire.Tell]:
    return [wire.Tell(number, "str", str(number), 30.0) for number in numbers]  # type: ignore[arg-type]


@pytest.fixture
async def peer(world: World) -> Peer:
    runtime = await world.runtime()
    await runtime.spawn(Collector)
    port = await runtime._transport.open("test/ns/peer")
    return Peer(await port.connect(Address(NAME), SessionOptions()))


async def test_the_tells_of_one_payload_that_have_room_are_accepted_in_one_frame(peer: Peer) -> None:
    await peer.send(*tells(range(1, TELLS // 4 + 1)))
    (frame,) = await peer.accepted(set(range(1, TELLS // 4 + 1)))
    assert frame.runs == [(1, TELLS // 4)]


async def test_every_tell_is_accepted_once_although_not_all_have_room_at_first(peer: Peer) -> None:
    await peer.send(*tells(range(1, TELLS + 1)))
    frames = await peer.accepted(set(range(1, TELLS + 1)))
    assert ids(frames) == list(range(1, TELLS + 1))


async def test_a_tell_that_is_sent_again_is_accepted_again_and_not_handled_again(peer: Peer) -> None:
    await peer.send(*tells(range(1, 4)))
    await peer.accepted({1, 2, 3})
    await peer.send(*tells(range(2, 5)))
    assert {2, 3, 4} <= set(ids(await peer.accepted({2, 3, 4})))
    await peer.send(wire.Ask(5, "int", 0, 30.0))  # type: ignore[arg-type]
    assert await peer.reply() == ["1", "2", "3", "4"]


def together(first: int, bodies: list[Any], kind: str = "str", ttl: float = 30.0) -> wire.Tells:
    return wire.Tells(first, kind, msgspec.Raw(msgspec.msgpack.encode(bodies)), ttl)


async def seen(peer: Peer, message_id: int) -> list[str]:
    """Give what the agent has seen, once all that came before has been handled."""
    await peer.send(wire.Ask(message_id, "int", 0, 30.0))  # type: ignore[arg-type]
    found: list[str] = await peer.reply()
    return found


async def test_the_tells_of_one_frame_are_accepted_together_and_handled_in_order(peer: Peer) -> None:
    await peer.send(together(1, ["a", "b", "c"]))
    (frame,) = await peer.accepted({1, 2, 3})
    assert frame.runs == [(1, 3)]
    assert await seen(peer, 4) == ["a", "b", "c"]


async def test_the_tells_of_one_frame_that_have_no_room_are_accepted_as_room_is_made(peer: Peer) -> None:
    numbers = [str(number) for number in range(TELLS)]
    await peer.send(together(1, numbers))
    frames = await peer.accepted(set(range(1, TELLS + 1)))
    assert frames[0].runs == [(1, TELLS // 4)]
    assert ids(frames) == list(range(1, TELLS + 1))
    assert await seen(peer, 100) == numbers


async def test_of_the_tells_of_one_frame_each_that_cannot_be_read_is_refused_alone(peer: Peer) -> None:
    bodies = [{"number": 1}, {"number": "two"}, {"number": 3}, {}, {"number": 5}]
    await peer.send(together(1, bodies, "test_conversation.Small"))
    assert await peer.errors(2) == {2: "malformed", 4: "malformed"}
    assert await seen(peer, 9) == ["1", "3", "5"]


async def test_the_tells_of_one_frame_that_come_again_are_accepted_again_and_not_handled_again(
    peer: Peer,
) -> None:
    await peer.send(together(1, ["a", "b", "c"]))
    await peer.accepted({1, 2, 3})
    await peer.send(together(1, ["a", "b", "c"]), together(3, ["c", "d"]))
    assert set(ids(await peer.accepted({1, 2, 3, 4}))) == {1, 2, 3, 4}
    assert await seen(peer, 9) == ["a", "b", "c", "d"]


async def test_one_of_a_frame_can_be_cancelled_while_it_waits_at_the_door(peer: Peer) -> None:
    await peer.send(together(1, [str(number) for number in range(TELLS)]), wire.Cancel(TELLS))
    assert await peer.errors(1) == {TELLS: "cancelled"}
    assert await seen(peer, 100) == [str(number) for number in range(TELLS - 1)]


async def test_the_tells_of_one_frame_are_each_denied_to_who_may_not_send_them(peer: Peer) -> None:
    await peer.send(together(1, [b"x", b"y"], "bytes"))
    assert await peer.errors(2) == {1: "denied", 2: "denied"}
    assert await seen(peer, 3) == []


async def test_the_tells_of_one_frame_whose_time_has_passed_are_not_handled(peer: Peer) -> None:
    await peer.send(together(1, ["a", "b"], ttl=0.0), together(3, ["c"]))
    await peer.accepted({1, 2, 3})
    assert await seen(peer, 4) == ["c"]


def asks(first: int, bodies: list[Any], kind: str = "str", ttl: float = 30.0) -> list[wire.Ask]:
    return [wire.Ask(number, kind, body, ttl) for number, body in enumerate(bodies, first)]


async def test_the_asks_of_one_payload_are_handled_in_order_whatever_their_types(peer: Peer) -> None:
    typed = asks(3, [{"number": 1}, {"number": 2}], "test_conversation.Small")
    await peer.send(*asks(1, ["a", "b"]), *typed, *asks(5, ["c", "d"]))
    assert await peer.outcomes(6) == dict.fromkeys(range(1, 7))
    assert await seen(peer, 7) == ["a", "b", "1", "2", "c", "d"]


async def test_the_asks_of_one_payload_that_have_no_room_wait_at_the_door(peer: Peer) -> None:
    numbers = [str(number) for number in range(TELLS)]
    await peer.send(*asks(1, numbers))
    assert await peer.outcomes(TELLS) == dict.fromkeys(range(1, TELLS + 1))
    assert await seen(peer, 100) == numbers


async def test_of_the_asks_of_one_payload_each_that_cannot_be_read_is_refused_alone(peer: Peer) -> None:
    bodies = [{"number": 1}, {"number": "two"}, {"number": 3}, {}, {"number": 5}]
    await peer.send(*asks(1, bodies, "test_conversation.Small"))
    assert await peer.outcomes(5) == {1: None, 2: "malformed", 3: None, 4: "malformed", 5: None}
    assert await seen(peer, 9) == ["1", "3", "5"]


async def test_an_ask_that_is_twice_in_one_payload_is_handled_once(peer: Peer) -> None:
    await peer.send(*asks(1, ["a", "b"]), *asks(2, ["b", "c"]))
    assert await peer.outcomes(3) == dict.fromkeys((1, 2, 3))
    assert await seen(peer, 9) == ["a", "b", "c"]


async def test_the_asks_of_one_payload_that_come_again_get_their_replies_again(peer: Peer) -> None:
    await peer.send(*asks(1, ["a", "b", "c"]))
    assert await peer.outcomes(3) == dict.fromkeys((1, 2, 3))
    await peer.send(*asks(1, ["a", "b", "c"]), *asks(4, ["d"]))
    assert await peer.outcomes(4) == dict.fromkeys((1, 2, 3, 4))
    assert await seen(peer, 9) == ["a", "b", "c", "d"]


async def test_one_of_the_asks_of_one_payload_can_be_cancelled_before_its_turn(peer: Peer) -> None:
    await peer.send(*asks(1, [str(number) for number in range(TELLS)]), wire.Cancel(3), wire.Cancel(TELLS))
    outcomes = await peer.outcomes(TELLS)
    assert {number for number, code in outcomes.items() if code == "cancelled"} == {3, TELLS}
    assert await seen(peer, 100) == [str(number) for number in range(TELLS - 1) if number != 2]


async def test_the_asks_of_one_payload_are_each_denied_to_who_may_not_send_them(peer: Peer) -> None:
    await peer.send(*asks(1, [b"x", b"y"], "bytes"))
    assert await peer.outcomes(2) == {1: "denied", 2: "denied"}
    assert await seen(peer, 3) == []


async def test_the_asks_of_one_payload_have_each_their_own_deadline(peer: Peer) -> None:
    await peer.send(*asks(1, ["a"]), *asks(2, ["b"], ttl=0.0), *asks(3, ["c"]))
    assert await peer.outcomes(3) == {1: None, 2: "expired", 3: None}
    assert await seen(peer, 4) == ["a", "c"]


async def test_a_tell_that_expires_is_no_outcome_of_another_message_with_its_id(world: World) -> None:
    may_go_on = asyncio.Event()

    class Held(Agent, name=NAME):
        @handler
        async def hold(self, message: str) -> str:
            await may_go_on.wait()
            return message

    runtime = await world.runtime()
    await runtime.spawn(Held)
    port = await runtime._transport.open("test/ns/peer")
    peer = Peer(await port.connect(Address(NAME), SessionOptions()))
    await peer.send(wire.Tell(1, "str", "a", 30.0), wire.Tell(2, "str", "b", 0.01))  # type: ignore[arg-type]
    await peer.accepted({1, 2})
    # So many that the receiver does not know any more that it has had the id.
    many = range(3, 4200)
    for start in range(3, 4200, 1000):
        some = [number for number in many if start <= number < start + 1000]
        await peer.send(*(wire.Ask(number, "unknown", 0, 30.0) for number in some))  # type: ignore[arg-type]
        await peer.errors(len(some))
    await peer.send(wire.Ask(2, "str", "c", 30.0), wire.Ask(5000, "unknown", 0, 30.0))  # type: ignore[arg-type]
    assert await peer.errors(1) == {5000: "unhandled"}
    may_go_on.set()
    frames: list[wire.Frame] = []
    while not any(isinstance(frame, wire.Reply) for frame in frames):
        frames += decode_batch((await peer.session.receive()).data).frames
    assert not any(isinstance(frame, wire.Error) for frame in frames)


async def test_what_waits_at_the_door_and_is_sent_again_on_another_session_waits_at_that_one(
    world: World,
) -> None:
    may_go_on = asyncio.Event()

    class Held(Agent, name=NAME):
        mailbox = Mailbox(capacity=1)

        @handler
        async def hold(self, message: int) -> None:
            await may_go_on.wait()

    runtime = await world.runtime()
    await runtime.spawn(Held)
    port = await runtime._transport.open("test/ns/peer")
    first, second = [Peer(await port.connect(Address(NAME), SessionOptions())) for _ in range(2)]
    door = 2 * WINDOW
    numbers = count(50_000)

    async def took(peer: Peer, sent: list[wire.Ask]) -> None:
        # What nobody handles is refused at once, whatever waits: the two sessions have no order between them.
        unknown = next(numbers)
        await peer.send(*sent, *asks(unknown, [0], "unknown"))
        assert unknown in await peer.errors(1)

    await took(first, asks(1, [1], "int"))
    await took(first, asks(2, [1], "int"))
    waiting = asks(3, [1] * door, "int")
    await took(first, waiting)
    await took(second, waiting)
    # There is room at the first door again, and none for more at the second one.
    more = asks(10_000, [1], "int")
    await took(first, more)
    await second.send(*more, *asks(20_000, [1], "int"))
    assert await second.errors(2) == {10_000: "busy", 20_000: "busy"}
    may_go_on.set()
    assert await second.outcomes(door) == dict.fromkeys(range(3, 3 + door))
    await first.send(*asks(30_000, [1, 1], "int"))
    await second.send(*asks(40_000, [1, 1], "int"))
    assert (await first.outcomes(4)).keys() >= {1, 2}
    assert len(await second.outcomes(2)) == 2


async def test_tells_that_wait_at_the_door_are_not_accepted_any_more_when_their_caller_has_gone(
    world: World,
) -> None:
    class Held(Agent, name=NAME):
        mailbox = Mailbox(capacity=2)

        @handler
        async def hold(self, message: int) -> None:
            await asyncio.Event().wait()

        @handler
        async def note(self, message: str) -> None: ...

    runtime = await world.runtime()
    ref = await runtime.spawn(Held)
    port = await runtime._transport.open("test/ns/peer")
    peer = Peer(await port.connect(Address(NAME), SessionOptions()))
    await peer.send(*asks(1, [1, 1, 1], "int"), *tells(range(10, 30)), *asks(100, [1], "unknown"))
    assert await peer.errors(1) == {100: "unhandled"}
    await peer.session.close()
    await eventually(lambda: ref.stats.cancelled == 3 + 20)
    assert ref.stats.accepted == 3
    assert not list(runtime.dead_letters)
