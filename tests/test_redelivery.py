"""Durable messages whose handling came to no end, or could not be kept: given back, and run again."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from slim_actors import Anycast, Restart, StoreError, handler, outbox
from slim_actors.store import Handled, Save
from slim_actors.testing import MemoryNetwork, TestRuntime, VirtualClock
from tests.agents_for_tests import Fail, Gate, Wait, Worker
from tests.conftest import World, eventually
from tests.keeping import LEDGER, Add, Enter, Ledger
from tests.storing import Breakdown, Stores, count, entries, raw, repeated, until_empty

ROUTE = Anycast(LEDGER)
WORKER = Anycast("test/ns/worker")


async def test_one_whose_handler_a_stop_has_cut_off_is_run_again(world: World, stores: Stores) -> None:
    gate = Gate()
    host = await world.runtime(store=stores("host"))
    ref = await host.spawn(lambda: Worker(gate))
    sender = await world.runtime(store=stores("sender"))
    await sender.tell(WORKER, Wait("on"), durable=True)
    await eventually(lambda: gate.began == ["on"])
    await ref.stop(drain=0.0)
    gate.open.set()
    await host.spawn(lambda: Worker(gate))
    await until_empty(sender)
    assert (gate.began, gate.ended, list(sender.dead_letters)) == (["on", "on"], ["on"], [])


async def test_one_whose_handler_a_restart_has_cut_off_is_run_again(world: World, stores: Stores) -> None:
    gate = Gate()

    class Wide(Worker):
        concurrency = 2
        restart = Restart()

    host = await world.runtime(store=stores("host"))
    await host.spawn(lambda: Wide(gate))
    sender = await world.runtime(store=stores("sender"))
    await sender.tell(WORKER, Wait("on"), durable=True)
    await eventually(lambda: gate.began == ["on"])
    await host.tell(WORKER, Fail("so that it restarts"))
    await eventually(lambda: gate.cancelled == ["on"])
    gate.open.set()
    await until_empty(sender)
    assert (gate.began, gate.ended, list(sender.dead_letters)) == (["on", "on"], ["on"], [])


async def test_one_that_took_longer_than_a_try_may_is_run_again(
    world: World, stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "_ATTEMPT", 0.5)
    gate = Gate()
    host = await world.runtime(store=stores("host"))
    await host.spawn(lambda: Worker(gate))
    sender = await world.runtime(store=stores("sender"))
    await sender.tell(WORKER, Wait("on"), durable=True)
    await eventually(lambda: gate.cancelled == ["on"])
    gate.open.set()
    await until_empty(sender)
    assert (gate.began, gate.ended, list(sender.dead_letters)) == (["on", "on"], ["on"], [])


async def test_one_built_on_what_could_not_be_kept_is_run_again(world: World, stores: Stores) -> None:
    began, may_end = asyncio.Event(), asyncio.Event()
    runs: list[int] = []

    class Slow(Ledger):
        @handler
        async def enter(self, message: Enter) -> None:
            runs.append(message.number)
            began.set()
            await may_end.wait()
            self.book.entries.append(message.number)

    host = await world.runtime(store=stores("host"))
    await host.spawn(Slow)
    sender = await world.runtime(store=stores("sender"))
    assert host._outbox is not None
    breakdown = Breakdown(host._outbox.store, Save)  # type: ignore[arg-type]
    adding = asyncio.create_task(host.ask(ROUTE, Add(1)))
    await breakdown.has_begun.wait()
    await sender.tell(ROUTE, Enter(7), durable=True)
    await began.wait()
    breakdown.may_go_on.set()
    with pytest.raises(StoreError, match="The disk is away"):
        await adding
    may_end.set()
    await until_empty(sender)
    assert (runs, await entries(host), list(sender.dead_letters)) == ([7, 7], [7], [])


@pytest.mark.parametrize("fails", [False, True])
async def test_one_whose_own_end_could_not_be_kept_is_run_again_at_once(
    world: World, stores: Stores, *, fails: bool
) -> None:
    runs: list[int] = []

    class Ending(Ledger):
        @handler
        async def enter(self, message: Enter) -> None:
            runs.append(message.number)
            self.book.entries.append(message.number)
            if fails and len(runs) == 1:
                raise ValueError("the first time it fails")

    host = await world.runtime(store=stores("host"))
    await host.spawn(Ending)
    sender = await world.runtime(store=stores("sender"))
    assert host._outbox is not None
    breakdown = Breakdown(host._outbox.store, Handled)  # type: ignore[arg-type]
    breakdown.may_go_on.set()
    await sender.tell(ROUTE, Enter(7), durable=True)
    # Within the half minute that this waits: one that had no outcome would be tried again after a minute.
    await until_empty(sender)
    assert (runs, await entries(host), list(sender.dead_letters)) == ([7, 7], [7], [])
    assert count(host, "handled", "holder IS NOT NULL") == 0


async def test_one_that_only_waits_to_be_kept_when_its_agent_stops_is_not_run_again(
    world: World, stores: Stores
) -> None:
    host = await world.runtime(store=stores("host"))
    ref = await host.spawn(Ledger)
    sender = await world.runtime(store=stores("sender"))
    assert host._outbox is not None
    breakdown = Breakdown(host._outbox.store, Handled, fails=False)  # type: ignore[arg-type]
    await sender.tell(ROUTE, Enter(7), durable=True)
    await breakdown.has_begun.wait()
    stopping = asyncio.create_task(ref.stop(drain=0.0))
    await eventually(lambda: ref._cell.life.is_over)
    breakdown.may_go_on.set()
    await stopping
    await host.spawn(Ledger)
    await until_empty(sender)
    assert (await entries(host), list(sender.dead_letters)) == ([7], [])


@pytest.mark.parametrize("durable", [["x", 2**63, 0], ["x", 1, 2**63], ["x", -1, 0], ["x" * 65, 1, 0]])
async def test_a_claim_that_no_store_can_have_made_hangs_nobody(
    world: World, stores: Stores, durable: list[Any]
) -> None:
    host = await world.runtime(store=stores("host"))
    await host.spawn(Ledger)
    router = await host._sender()
    expires = asyncio.get_running_loop().time() + 10
    await router.relay(ROUTE, "tests.keeping.Enter", raw({"number": 7}), expires, {"durable": durable})
    assert await entries(host) == [7]


async def test_nobody_can_claim_in_the_name_of_another_subject() -> None:
    network = MemoryNetwork()
    with VirtualClock():
        async with (
            TestRuntime(network=network, subject="acme/host", issuer="acme") as host,
            TestRuntime(network=network, subject="acme/sender", issuer="acme") as sender,
            TestRuntime(network=network, subject="acme/evil", issuer="acme") as evil,
        ):
            await host.spawn(Ledger)
            assert sender._outbox is not None
            # That nothing below this number comes again, so that it was handled if it does.
            claim = repeated(sender._outbox.store.id, 2**63 - 1, 2**63 - 1)
            expires = asyncio.get_running_loop().time() + 10
            router = await evil._sender()
            await router.relay(ROUTE, "tests.keeping.Enter", raw({"number": 666}), expires, claim)
            await sender.tell(ROUTE, Enter(7), durable=True)
            await until_empty(sender)
            assert await entries(host) == [666, 7]
