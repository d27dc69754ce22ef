"""Peers written with bare slim-bindings: they talk with our agents, and cannot harm them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import msgspec
import pytest
import slim_bindings as slim

from slim_actors import Anycast, Expired, MalformedMessage, PeerLost, Runtime, Unicast, wire
from slim_actors.batches import decode_batch
from tests.agents_for_tests import Say, Worker
from tests.conftest import SECRET, Starter

ALICE = ("agntcy", "ns", "alice")
SECONDS_5 = timedelta(seconds=5)


@pytest.fixture
async def runtime(endpoint: str) -> AsyncIterator[Runtime]:
    async with Runtime(endpoint) as runtime:
        yield runtime


def config() -> slim.SessionConfig:
    return slim.SessionConfig(
        session_type=slim.SessionType.POINT_TO_POINT,
        max_retries=5,
        interval=timedelta(seconds=0.5),
        metadata={},
        mls_settings=None,
    )


@asynccontextmanager
async def bare_app(endpoint: str, *name: str) -> AsyncIterator[slim.App]:
    """An app as the documentation of slim-bindings makes one."""
    service = slim.create_service(f"bare-{name[2]}-{random.getrandbits(32)}")
    connection = await service.connect_async(slim.new_insecure_client_config(endpoint))
    app = service.create_app_with_secret(slim.Name(*name), SECRET)
    await app.subscribe_async(app.name(), connection)
    yield app
    await app.unsubscribe_async(app.name(), connection)


@asynccontextmanager
async def bare_session(endpoint: str, *remote: str) -> AsyncIterator[slim.Session]:
    async with bare_app(endpoint, "bare", "ns", "bob") as app:
        session = await app.create_session_and_wait_async(config(), slim.Name(*remote))
        yield session
        await app.delete_session_and_wait_async(session)


@asynccontextmanager
async def bare_responder(
    endpoint: str, answer: Callable[[slim.Session, Any], Awaitable[None]]
) -> AsyncIterator[None]:
    async def serve(app: slim.App) -> None:
        session = await app.listen_for_session_async(None)
        while True:
            try:
                message = await session.get_message_async(None)
            except slim.SlimError as error:
                if "session closed" in str(error):
                    return
                continue
            await answer(session, message)

    async with bare_app(endpoint, "bare", "ns", "alice") as app:
        serving = asyncio.create_task(serve(app))
        yield
        serving.cancel()
        await asyncio.wait([serving])


async def test_a_bare_requester_gets_its_bytes_back_from_the_echo_agent(
    start: Starter, endpoint: str
) -> None:
    start("run", "agents/echo.py", "--endpoint", endpoint).until("^joined")
    async with bare_session(endpoint, *ALICE) as session:
        for text in (b"hi", b"", b"\x00\xff" * 1000):
            await session.publish_async(text, None, None)
            assert (await session.get_message_async(SECONDS_5)).payload == text


async def test_a_bare_requester_is_told_in_plain_bytes_what_went_wrong(
    runtime: Runtime, endpoint: str
) -> None:
    await runtime.spawn(Worker)
    async with bare_session(endpoint, "test", "ns", "worker") as session:
        await session.publish_async(b"hi", None, None)
        answer = (await session.get_message_async(SECONDS_5)).payload
        assert answer.startswith(b"error: This agent does not take plain bytes")


async def test_our_unicast_asks_a_bare_responder_in_plain_bytes(runtime: Runtime, endpoint: str) -> None:
    async def shout(session: slim.Session, message: Any) -> None:
        await session.publish_async(message.payload.upper(), None, None)

    async with bare_responder(endpoint, shout):
        route = Unicast("bare/ns/alice", wire="bytes")
        assert await runtime.ask(route, b"hi") == b"HI"
        assert await runtime.ask(route, "text") == b"TEXT"
        words = [f"word {number}" for number in range(50)]
        replies = await asyncio.gather(*(runtime.ask(route, word) for word in words))
        assert replies == [word.upper().encode() for word in words]
        with pytest.raises(MalformedMessage, match="bytes or str, not int"):
            await runtime.ask(route, 7)


async def test_a_late_plain_answer_is_never_taken_for_the_next_one(runtime: Runtime, endpoint: str) -> None:
    async def ignore(session: slim.Session, message: Any) -> None: ...

    async with bare_responder(endpoint, ignore):
        route = Unicast("bare/ns/alice", wire="bytes")
        with pytest.raises(Expired):
            await runtime.ask(route, b"slow", timeout=0.3)
        with pytest.raises(PeerLost, match="not waited for"):
            await runtime.ask(route, b"next")


async def test_asking_a_bare_responder_without_saying_so_is_explained(
    runtime: Runtime, endpoint: str
) -> None:
    async def echo(session: slim.Session, message: Any) -> None:
        await session.publish_async(message.payload, None, None)

    async with bare_responder(endpoint, echo):
        with pytest.raises(Expired, match=r"no agent of slim-actors.*wire='bytes'"):
            await runtime.ask(Anycast("bare/ns/alice"), b"hi", timeout=1)


def garbage(seed: int) -> list[tuple[bytes, str | None]]:
    """Give 300 payloads, and the payload type of each: random, truncated, mistaken, boastful."""
    chance = random.Random(seed)
    good = wire.join(
        [
            wire.encode(wire.Ask(1, "str", msgspec.Raw(msgspec.msgpack.encode("x")), 5.0)),
            wire.encode(wire.Tell(2, "Say", msgspec.Raw(msgspec.msgpack.encode({"text": "x"})), 5.0)),
            wire.encode(wire.Cancel(1)),
        ]
    )
    makers: list[Callable[[], tuple[bytes, str | None]]] = [
        lambda: (chance.randbytes(chance.randrange(400)), wire.PAYLOAD_TYPE),
        lambda: (good[: chance.randrange(len(good))], wire.PAYLOAD_TYPE),
        lambda: (bytes(b ^ (chance.random() < 0.1) * chance.randrange(256) for b in good), wire.PAYLOAD_TYPE),
        lambda: (good, f"slim-actors/{chance.choice(['2', '', 'x', '999999999999', '-1', '1.0'])}"),
        lambda: (bytes([chance.choice([0xDD, 0xDF, 0xDB, 0xC6])]) + b"\xff\xff\xff\xfe", wire.PAYLOAD_TYPE),
        lambda: (msgspec.msgpack.encode([[1, 2**63 - 1, "Say", {"text": 5}, -1.0]]), wire.PAYLOAD_TYPE),
        lambda: (msgspec.msgpack.encode([[chance.randrange(12), *[None] * 4]]), wire.PAYLOAD_TYPE),
        lambda: (b"\x91" * 4000, wire.PAYLOAD_TYPE),
        lambda: (chance.randbytes(50), None),
        lambda: (chance.randbytes(50), chance.choice(["msg", "json", "slim", "slim-actors", ""])),
    ]
    return [makers[number % len(makers)]() for number in range(300)]


@pytest.mark.parametrize("seed", [1, 2])
async def test_300_garbage_payloads_leave_the_agent_answering(
    runtime: Runtime, endpoint: str, seed: int
) -> None:
    await runtime.spawn(Worker)
    async with bare_session(endpoint, "test", "ns", "worker") as session:
        for payload, payload_type in garbage(seed):
            await session.publish_async(payload, payload_type, None)
        good = wire.encode(wire.Ask(77, "agents_for_tests.Say", {"text": "still here"}, 5.0))  # type: ignore[arg-type]
        await session.publish_async(wire.join([good]), wire.PAYLOAD_TYPE, None)
        while True:
            message = await session.get_message_async(SECONDS_5)
            if message.context.payload_type != wire.PAYLOAD_TYPE:
                assert message.payload.startswith(b"error: ")
                continue
            replies = [f for f in decode_batch(message.payload).frames if getattr(f, "id", 0) == 77]
            if replies:
                assert isinstance(replies[0], wire.Reply)
                assert msgspec.msgpack.decode(replies[0].body) == "still here"
                break
    assert await runtime.ask(Anycast("test/ns/worker"), Say("and to others")) == "and to others"
