"""Hooks that last: held around a message or a runtime, and unable to change what becomes of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from typing import Any

import pytest

from slim_actors import (
    Agent,
    Anycast,
    Busy,
    ConfigurationError,
    Context,
    Mailbox,
    Middleware,
    RemoteError,
    Runtime,
    Sending,
)
from tests.agents_for_tests import Fail, Gate, Note, Say, Wait, Worker
from tests.conftest import World, eventually
from tests.storing import Stores

WORKER = Anycast("test/ns/worker")


def missing(what: str) -> None:
    raise LookupError(what)


current: ContextVar[str] = ContextVar("current", default="nothing")


async def test_a_hook_that_is_a_context_manager_is_held_until_the_outcome(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    steps: list[str] = []

    class Watch(Middleware):
        def __init__(self, name: str) -> None:
            self.name = name

        @contextmanager
        def sending(self, sending: Sending) -> Iterator[None]:
            yield from self._hold(f"{sending.verb} {sending.route.name}")
            assert sending.peer is not None

        @contextmanager
        def handling(self, ctx: Context, message: Any) -> Iterator[None]:
            yield from self._hold(f"{ctx.verb}ed")

        def _hold(self, what: str) -> Iterator[None]:
            steps.append(f"{self.name} begins {what}")
            try:
                yield
            except Exception as error:
                steps.append(f"{self.name} sees {type(error).__name__}")
                raise
            steps.append(f"{self.name} ends {what}")

    runtime = await world.runtime(middleware=[Watch("a"), Watch("b")])
    await runtime.spawn(Worker)
    await runtime.ask(WORKER, Say("x"))
    assert steps == [
        "a begins ask test/ns/worker",
        "b begins ask test/ns/worker",
        "a begins asked",
        "b begins asked",
        "b ends asked",
        "a ends asked",
        "b ends ask test/ns/worker",
        "a ends ask test/ns/worker",
    ]
    steps.clear()
    with caplog.at_level("CRITICAL"), pytest.raises(RemoteError, match="too bad"):
        await runtime.ask(WORKER, Fail("too bad"))
    assert steps[4:] == ["b sees ValueError", "a sees ValueError", "b sees RemoteError", "a sees RemoteError"]


async def test_a_context_variable_that_is_set_around_a_handler_is_the_handlers(world: World) -> None:
    class Names(Middleware):
        @contextmanager
        def handling(self, ctx: Context, message: Any) -> Iterator[None]:
            token = current.set(f"{ctx.sender.name} {message}")
            yield
            current.reset(token)

    class Tells(Agent, name="test/ns/tells"):
        async def receive(self, message: str) -> str:
            return current.get()

    runtime = await world.runtime(middleware=[Names()])
    await runtime.spawn(Tells)
    for message in ("one", "two"):
        assert await runtime.ask(Anycast("test/ns/tells"), message) == f"slim-actors/local/runtime {message}"
    assert current.get() == "nothing"


@pytest.mark.parametrize("swallow", [False, True])
async def test_a_broken_context_manager_changes_nothing(
    world: World, caplog: pytest.LogCaptureFixture, swallow: bool
) -> None:
    class Broken(Middleware):
        @contextmanager
        def sending(self, sending: Sending) -> Iterator[None]:
            try:
                yield
            except RemoteError:
                if not swallow:
                    raise RuntimeError("oops") from None

        @contextmanager
        def handling(self, ctx: Context, message: Any) -> Iterator[None]:
            missing("at once")
            yield

    runtime = await world.runtime(middleware=[Broken()])
    await runtime.spawn(Worker)
    assert await runtime.ask(WORKER, Say("x")) == "x"
    with pytest.raises(RemoteError, match="too bad"):
        await runtime.ask(WORKER, Fail("too bad"))
    assert "handling failed" in caplog.text
    assert ("sending failed" in caplog.text) is not swallow


async def test_every_message_that_came_to_a_mailbox_has_one_outcome_there(world: World) -> None:
    received: list[str] = []
    outcomes: list[str] = []

    class Count(Middleware):
        def received(self, ctx: Context, message: Any) -> None:
            received.append(repr(message))

        def outcome(self, ctx: Context, message: Any, error: Exception | None) -> None:
            outcomes.append(f"{message!r} {type(error).__name__}")

    class Small(Worker, name="test/ns/small"):
        mailbox = Mailbox(1, overflow="busy")

    gate = Gate()
    runtime = await world.runtime(middleware=[Count()])
    await runtime.spawn(lambda: Small(gate))
    small = Anycast("test/ns/small")
    asking = asyncio.ensure_future(runtime.ask(small, Wait("a")))
    await eventually(lambda: gate.began == ["a"])
    await runtime.tell(small, Note("waits"))
    with pytest.raises(Busy):
        await runtime.ask(small, Say("no room"))
    asking.cancel()
    await eventually(lambda: len(outcomes) == 3)
    assert outcomes == [
        "Say(text='no room') Busy",
        "Wait(name='a') Cancelled",
        "Note(text='waits') NoneType",
    ]
    assert len(received) == 3


async def test_what_sending_puts_into_the_context_of_a_durable_tell_travels_with_it(
    world: World, stores: Stores, caplog: pytest.LogCaptureFixture
) -> None:
    steps: list[str] = []
    handled = asyncio.Event()

    class Mark(Middleware):
        @contextmanager
        def sending(self, sending: Sending) -> Iterator[None]:
            sending.context["mark"] = f"{sending.verb} by {sending.sender.name}"
            steps.append("begins")
            yield
            steps.append("ends")

        def handling(self, ctx: Context, message: Any) -> None:
            steps.append(ctx.context["mark"])
            handled.set()

    runtime = await world.runtime(middleware=[Mark()], store=stores("host"))
    await runtime.spawn(Worker)
    await runtime.tell(WORKER, Note("x"), durable=True)
    await handled.wait()
    assert steps == ["begins", "ends", "tell by slim-actors/local/runtime"]
    assert not caplog.records


async def test_running_is_held_while_the_runtime_is_open(world: World) -> None:
    steps: list[str] = []

    class Pool(Middleware):
        @asynccontextmanager
        async def running(self, runtime: Runtime) -> AsyncIterator[None]:
            steps.append("opened")
            yield
            steps.append(f"closed with {len(runtime.instances)} agents")

    runtime = await world.runtime(middleware=[Pool()])
    ref = await runtime.spawn(Worker)
    assert runtime.instances == (ref,)
    await runtime.ask(WORKER, Say("x"))
    assert runtime.sessions > 0
    await runtime.stop()
    await runtime.stop()
    assert steps == ["opened", "closed with 0 agents"]
    assert runtime.sessions == 0


async def test_what_running_raises_on_entering_is_raised(world: World) -> None:
    class Wrong(Middleware):
        @asynccontextmanager
        async def running(self, runtime: Runtime) -> AsyncIterator[None]:
            missing("no such database")
            yield

    with pytest.raises(LookupError, match="no such database"):
        await world.runtime(middleware=[Wrong()])


async def test_what_is_no_middleware_is_refused() -> None:
    for wrong in (Middleware, object()):
        with pytest.raises(ConfigurationError, match="is no middleware: give instances of Middleware"):
            Runtime(middleware=[wrong])  # type: ignore[list-item]
