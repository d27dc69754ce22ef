"""The agent's end of one session, as a peer sees it that speaks the wire format by itself."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from slim_actors import Agent, Mailbox, handler, wire
from slim_actors.batches import decode_batch
from slim_actors.names import Address
from slim_actors.transport.base import Session, SessionOptions
from tests.conftest import World

NAME = "test/ns/collector"
TELLS = 40


class Collector(Agent, name=NAME):
    mailbox = Mailbox(capacity=TELLS // 4)

    def __init__(self) -> None:
        self.seen: list[str] = []

    @handler
    async def note(self, message: str) -> None:
        self.seen.append(message)

    @handler
    async def count(self, message: int) -> list[str]:
        return self.seen


class Peer:
    def __init__(self, session: Session) -> None:
        self.session = session

    async def send(self, *frames: wire.Frame) -> None:
        await self.session.send(wire.join([wire.encode_frame(frame) for frame in frames]), wire.PAYLOAD_TYPE)

    async def accepted(self, wanted: set[int]) -> list[wire.Accepted]:
        """Give what comes until all these are accepted."""
        found: list[wire.Accepted] = []
        while wanted - {number for frame in found for number in frame.ids}:
            batch = decode_batch((await self.session.receive()).data)
            found.extend(frame for frame in batch.frames if isinstance(frame, wire.Accepted))
        return found

    async def reply(self) -> Any:
        while True:
            for frame in decode_batch((await self.session.receive()).data).frames:
                if isinstance(frame, wire.Reply):
                    return msgspec.msgpack.decode(frame.body)


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
    assert frame.ids == list(range(1, TELLS // 4 + 1))


async def test_every_tell_is_accepted_once_although_not_all_have_room_at_first(peer: Peer) -> None:
    await peer.send(*tells(range(1, TELLS + 1)))
    frames = await peer.accepted(set(range(1, TELLS + 1)))
    assert [number for frame in frames for number in frame.ids] == list(range(1, TELLS + 1))


async def test_a_tell_that_is_sent_again_is_accepted_again_and_not_handled_again(peer: Peer) -> None:
    await peer.send(*tells(range(1, 4)))
    await peer.accepted({1, 2, 3})
    await peer.send(*tells(range(2, 5)))
    assert {2, 3, 4} <= {number for frame in await peer.accepted({2, 3, 4}) for number in frame.ids}
    await peer.send(wire.Ask(5, "int", 0, 30.0))  # type: ignore[arg-type]
    assert await peer.reply() == ["1", "2", "3", "4"]
