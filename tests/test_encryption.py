"""What those between two agents can read: all of it without MLS, nothing of it with MLS."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest
import slim_bindings as slim

from slim_actors import Agent, Anycast, Context, Denied, Runtime, Unicast
from tests.test_interop import SECONDS_5, bare_app, config

ALICE = "relay/ns/alice"
PLAN = "the plan that nobody else may read"
ANSWER = "the answer that nobody else may read"


class Alice(Agent, name=ALICE):
    async def receive(self, message: str, ctx: Context) -> str:
        return ANSWER if message == PLAN else message


class Private(Agent, name="relay/ns/private"):
    require_mls = True

    async def receive(self, message: str, ctx: Context) -> str:
        return message


class Relay:
    """Passes bytes between clients and a node, and keeps them."""

    def __init__(self, node: str) -> None:
        self._node = urlsplit(node)
        self.seen = bytearray()
        self._tasks: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        try:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            if self._tasks:
                await asyncio.wait(self._tasks)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = await asyncio.open_connection(self._node.hostname, self._node.port)
        for source, target in ((reader, there[1]), (there[0], writer)):
            self._tasks.add(asyncio.create_task(self._pass(source, target)))

    async def _pass(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65536):
                self.seen += data
                target.write(data)
        finally:
            target.close()
            with contextlib.suppress(OSError):
                await target.wait_closed()


@pytest.mark.parametrize("kind", [Anycast, Unicast])
async def test_the_node_and_the_way_to_it_see_what_is_said_without_mls_and_nothing_with_it(
    kind: Any, endpoint: str
) -> None:
    relay = Relay(endpoint)
    async with Runtime(endpoint) as runtime, relay.running() as where, Runtime(where) as caller:
        await runtime.spawn(Alice)
        for mls, visible in ((False, True), (True, False)):
            relay.seen.clear()
            assert await caller.ask(kind(ALICE, mls=mls), PLAN) == ANSWER
            assert (PLAN.encode() in relay.seen, ANSWER.encode() in relay.seen) == (visible, visible)
            assert relay.seen


async def test_an_agent_that_requires_mls_refuses_what_is_not_encrypted(runtime: Runtime) -> None:
    await runtime.spawn(Private)
    with pytest.raises(Denied, match="end-to-end encrypted"):
        await runtime.ask(Anycast("relay/ns/private"), "hi")
    assert await runtime.ask(Anycast("relay/ns/private", mls=True), "hi") == "hi"


async def test_the_subject_of_an_encrypted_session_cannot_be_forged_in_a_message(endpoint: str) -> None:
    subjects: list[str] = []

    class Curious(Agent, name="relay/ns/curious"):
        async def receive(self, message: Any, ctx: Context) -> Any:
            subjects.append(ctx.sender.subject)
            return message

    async with Runtime(endpoint) as runtime, bare_app(endpoint, "relay", "ns", "mallory") as mallory:
        await runtime.spawn(Curious)
        settings = config()
        settings.mls_settings = slim.MlsSettings(
            header_integrity_validation_percent=100, max_seen_control_message_ids_size=None
        )
        there = slim.Name("relay", "ns", "curious")
        session = await mallory.create_session_and_wait_async(settings, there)
        forged = {"slim-peer-subject": "relay/ns/the-boss", "sender": "relay/ns/the-boss"}
        await session.publish_async(b"obey", None, forged)
        message = await session.get_message_async(SECONDS_5)
        assert (message.payload, subjects) == (b"obey", ["relay/ns/mallory"])
        await mallory.delete_session_and_wait_async(session)
