"""Watching: who watches an instance is told once when it has ended, wherever it was and however it ended."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from typing import Any

import pytest

from slim_actors import (
    Agent,
    Anycast,
    Backoff,
    ConfigurationError,
    Context,
    Limits,
    Mailbox,
    NoRoute,
    RemoteError,
    Restart,
    Runtime,
    Terminated,
    UnhandledMessage,
    Unicast,
    handler,
)
from slim_actors.names import Address
from slim_actors.testing import TestRuntime
from tests.agents_for_tests import Fail, Gate, Note, Say, Wait, Worker
from tests.conftest import Starter, World, eventually

WATCHER = Anycast("test/ns/watcher")


class Watcher(Agent, name="test/ns/watcher"):
    """Watches whom it is given, and remembers what it is told."""

    restart = Restart(backoff=Backoff(0.01, 0.01))
    mailbox = Mailbox(1, overflow="drop_oldest")

    def __init__(self, told: list[Terminated], target: Any = None) -> None:
        self.told = told
        self.target = target
        self.gate = Gate()

    @handler
    async def begin(self, message: str, ctx: Context) -> str:
        return str(await ctx.watch(self.target))

    @handler
    async def end(self, message: None, ctx: Context) -> None:
        ctx.unwatch(self.target)

    @handler
    async def hold(self, message: Wait) -> str:
        self.gate.began.append(message.name)
        await self.gate.open.wait()
        return message.name

    @handler
    async def note(self, message: Note) -> None:
        pass

    @handler
    async def gone(self, message: Terminated) -> None:
        self.told.append(message)

    @handler
    async def fail(self, message: Fail) -> None:
        raise RuntimeError(message.text)


@pytest.fixture
def told() -> list[Terminated]:
    return []


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "slim_actors")


async def watcher_of(runtime: Runtime, told: list[Terminated], target: Any) -> Watcher:
    agent = Watcher(told, target)
    await runtime.spawn(lambda: agent)
    await runtime.ask(WATCHER, "watch")
    return agent


async def kill(world: World, runtime: Runtime, ref: Any) -> None:
    if isinstance(runtime, TestRuntime):
        await runtime.kill(ref)
    else:
        await ref.stop()


@pytest.mark.parametrize("end", ["stop", "failure"])
async def test_the_end_of_a_neighbour_is_told_once_with_its_reason(
    runtime: Runtime, told: list[Terminated], end: str
) -> None:
    class Fragile(Worker, name="test/ns/fragile"):
        restart = Restart("temporary")

    ref = await runtime.spawn(Fragile)
    await watcher_of(runtime, told, ref)
    assert await runtime.ask(WATCHER, "watch again") == str(ref.address)
    assert await runtime.ask(ref.route, Say("x")) == "x"
    assert told == []
    if end == "stop":
        await ref.stop()
        reason = "it was stopped"
    else:
        with pytest.raises(RemoteError):
            await runtime.ask(ref.route, Fail("broken"))
        reason = f"{ref.address} has stopped: it failed with ValueError: broken."
    await eventually(lambda: bool(told))
    await runtime.ask(WATCHER, None)
    assert told == [Terminated(ref.address, reason)]


@pytest.mark.parametrize("end", ["stop", "kill"])
@pytest.mark.parametrize("by", ["address", "route", "name"])
async def test_the_end_of_an_instance_elsewhere_is_told_once(
    world: World, told: list[Terminated], end: str, by: str
) -> None:
    here, there = await world.runtime(), await world.runtime()
    ref = await there.spawn(Worker)
    target = {"address": ref.address, "route": ref.route, "name": Unicast("test/ns/worker")}[by]
    await watcher_of(here, told, target)
    assert await here.ask(WATCHER, "watch again") == str(ref.address)
    assert await here.ask(ref.route, Say("x")) == "x"
    assert told == []
    await (ref.stop() if end == "stop" else kill(world, there, ref))
    await eventually(lambda: bool(told))
    (message,) = told
    assert message.address == ref.address
    assert message.reason
    await here.ask(WATCHER, None) if by != "name" else None
    assert told == [message]


async def test_a_restart_of_what_is_watched_is_no_end(world: World, told: list[Terminated]) -> None:
    class Fragile(Worker, name="test/ns/fragile"):
        restart = Restart(backoff=Backoff(0.01, 0.01))

    here, there = await world.runtime(), await world.runtime()
    ref = await there.spawn(Fragile)
    await watcher_of(here, told, ref.address)
    with pytest.raises(RemoteError):
        await here.ask(ref.route, Fail("broken"))
    assert await here.ask(ref.route, Say("x")) == "x"
    assert told == []


async def test_what_has_ended_already_is_told_at_once(world: World, told: list[Terminated]) -> None:
    here, there = await world.runtime(), await world.runtime()
    near, far = await here.spawn(Worker), await there.spawn(Worker)
    await near.stop()
    await far.stop()
    agent = await watcher_of(here, told, near)
    assert [message.address for message in told] == [near.address]
    agent.target = far.address
    assert await here.ask(WATCHER, "watch") == str(far.address)
    await eventually(lambda: len(told) == 2)
    assert told[1].address == far.address
    assert "Nobody answers" in told[1].reason


async def test_what_is_watched_no_longer_is_not_told(world: World, told: list[Terminated]) -> None:
    here, there = await world.runtime(), await world.runtime()
    for host, target in ((here, "ref"), (there, "address")):
        ref = await host.spawn(Worker)
        agent = Watcher(told, getattr(ref, target, ref))
        watcher = await here.spawn(lambda agent=agent: agent)  # type: ignore[misc]
        await here.ask(watcher.route, "watch")
        await here.ask(watcher.route, None)
        await ref.stop()
        # Even what waits in the mailbox already is taken back.
        other = agent.target = await here.spawn(Worker)
        await here.ask(watcher.route, "watch")
        held = asyncio.create_task(here.ask(watcher.route, Wait("held")))
        await eventually(lambda agent=agent: agent.gate.began == ["held"])  # type: ignore[misc]
        await other.stop()
        await eventually(lambda watcher=watcher: watcher.stats.depth == 1)  # type: ignore[misc]
        watcher._cell.life.watches.remove(other)
        assert watcher.stats.depth == 0
        agent.gate.open.set()
        await held
        await watcher.stop()
    assert told == []


async def test_a_full_mailbox_neither_refuses_nor_drops_what_is_told(
    runtime: Runtime, told: list[Terminated]
) -> None:
    ref = await runtime.spawn(Worker)
    agent = await watcher_of(runtime, told, ref)
    held = asyncio.create_task(runtime.ask(WATCHER, Wait("held")))
    await eventually(lambda: agent.gate.began == ["held"])
    await ref.stop()
    for number in range(3):
        await runtime.tell(WATCHER, Note(str(number)))
    agent.gate.open.set()
    await held
    await eventually(lambda: len(told) == 1)


async def test_watching_ends_with_the_instance_that_watches(runtime: Runtime, told: list[Terminated]) -> None:
    ref = await runtime.spawn(Worker)
    watcher = await runtime.spawn(lambda: Watcher(told, ref))
    await runtime.ask(WATCHER, "watch")
    with pytest.raises(RemoteError):
        await runtime.ask(WATCHER, Fail("broken"))
    assert not await runtime.ask(watcher.route, Note("x"))
    await ref.stop()
    assert not await runtime.ask(watcher.route, Note("y"))
    assert told == []
    assert not ref._callbacks


async def test_an_agent_without_handlers_is_told_in_receive(runtime: Runtime) -> None:
    got: list[Any] = []

    class Plain(Agent, name="test/ns/plain"):
        async def receive(self, message: Any, ctx: Context) -> None:
            got.append(message)
            if message == "watch":
                await ctx.watch(ref)

    ref = await runtime.spawn(Worker)
    await runtime.spawn(Plain)
    await runtime.ask(Anycast("test/ns/plain"), "watch")
    await ref.stop()
    await eventually(lambda: got[1:] == [Terminated(ref.address, "it was stopped")])


async def test_what_cannot_be_watched_is_refused(runtime: Runtime) -> None:
    class Front(Agent, name="test/ns/front"):
        @handler
        async def watch(self, message: int, ctx: Context) -> Any:
            target: Any = [
                ctx.me,
                Anycast("test/ns/front"),
                Unicast("test/ns/nobody", timeout=0.1, max_retries=0),
                Unicast("test/ns/nobody", wire="bytes"),
                Unicast("test/ns/nobody"),
            ][message]
            if message == 4:
                ctx.unwatch(target)
            return str(await ctx.watch(target))

        @handler
        async def gone(self, message: Terminated) -> None: ...

    await runtime.spawn(Front)
    for number, (kind, why) in enumerate(
        [
            (ConfigurationError, "cannot watch itself"),
            (ConfigurationError, "give the Ref, the Address or the Unicast"),
            (NoRoute, "Nobody answers"),
            (ConfigurationError, "plain bytes"),
            (ConfigurationError, "many instances"),
        ]
    ):
        with pytest.raises(RemoteError, match=why) as caught:
            await runtime.ask(Anycast("test/ns/front"), number)
        assert caught.value.remote_type == kind.__name__

    class Deaf(Agent, name="test/ns/deaf"):
        @handler
        async def watch(self, message: int, ctx: Context) -> None:
            await ctx.watch(Unicast("test/ns/front"))

    await runtime.spawn(Deaf)
    with pytest.raises(RemoteError, match=r"UnhandledMessage: .*no handler for Terminated"):
        await runtime.ask(Anycast("test/ns/deaf"), 1)


async def test_a_watch_that_is_refused_is_no_end(world: World, told: list[Terminated]) -> None:
    here, there = await world.runtime(), await world.runtime(limits=Limits(max_sessions=1))
    ref = await there.spawn(Worker)
    agent = Watcher(told, ref.address)
    watcher = await here.spawn(lambda: agent)
    await here.ask(watcher.route, "watch")
    agent.target = Unicast("test/ns/worker")
    with pytest.raises(RemoteError, match="Busy: One peer may have 1 sessions"):
        await here.ask(watcher.route, "watch by another name")
    assert told == []


async def test_no_peer_can_forge_an_end(runtime: Runtime, told: list[Terminated]) -> None:
    await runtime.spawn(lambda: Watcher(told))
    with pytest.raises(UnhandledMessage, match=r"no handler for slim_actors\.supervision\.Terminated"):
        await runtime.ask(WATCHER, Terminated(Address("test/ns/worker"), "forged"))
    assert told == []


async def test_an_outage_of_the_network_is_no_end(told: list[Terminated]) -> None:
    async with TestRuntime() as here, TestRuntime(network=here.network) as there:
        ref = await there.spawn(Worker)
        await watcher_of(here, told, ref.address)
        here.network.outage()
        await asyncio.sleep(60)
        here.network.restore()
        await asyncio.sleep(60)
        assert told == []
        here.network.partition("test/ns/watcher", "test/ns/worker")
        await asyncio.sleep(60)
        (message,) = told
        assert message.reason == f"{ref.address} is lost: it gave no sign of life for 3 s."


async def test_a_process_that_is_killed_or_frozen_has_ended_for_who_watches_it(
    start: Starter, endpoint: str, told: list[Terminated]
) -> None:
    alices = r"^joined +replica \d agntcy/ns/alice/(\S+) \(pid (\d+)\)"
    run = start("run", "agents/echo.py", "--replicas", "2", "--endpoint", endpoint)
    (killed, pid), (frozen, frozen_pid) = [(match[1], int(match[2])) for match in run.until(alices, times=2)]
    async with Runtime(endpoint) as runtime:
        agent = await watcher_of(runtime, told, Address("agntcy/ns/alice", killed))
        agent.target = Unicast("agntcy/ns/alice", instance=frozen)
        await runtime.ask(WATCHER, "watch")
        os.kill(pid, signal.SIGKILL)
        await eventually(lambda: [message.address.instance for message in told] == [killed])
        os.kill(frozen_pid, signal.SIGSTOP)
        try:
            await eventually(lambda: [message.address.instance for message in told] == [killed, frozen])
        finally:
            os.kill(frozen_pid, signal.SIGCONT)
    assert all("no sign of life for 3 s" in message.reason for message in told)
