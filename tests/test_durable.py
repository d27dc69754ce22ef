"""Durable tells: handled effectively once, whoever dies meanwhile."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from faults.durable import run
from faults.stage import Stage
from slim_actors import (
    Agent,
    Anycast,
    Busy,
    ConfigurationError,
    Context,
    Expired,
    Mailbox,
    MalformedMessage,
    RemoteError,
    Runtime,
    StoreError,
    TooLarge,
    UnhandledMessage,
    Unicast,
    deadletters,
    handler,
    outbox,
    tables,
)
from slim_actors.locks import FileLocks
from slim_actors.sqlite import SqliteStore
from slim_actors.store import OWNER, Parcel, Put
from slim_actors.testing import TestRuntime
from tests.agents_for_tests import Gate, Note, Wait, Worker
from tests.conftest import Starter, World, eventually
from tests.keeping import LEDGER, Add, Enter, Hand, Ledger, Pass, Spoil
from tests.storing import Stores, count, entries, raw, repeated, until_empty

ROUTE = Anycast(LEDGER)
SECOND = "test/ns/second"


async def test_a_durable_tell_is_handled_once_and_leaves_the_outbox(world: World, stores: Stores) -> None:
    host = await world.runtime(store=stores("host"))
    await host.spawn(Ledger)
    sender = await world.runtime(store=stores("sender"))
    await sender.tell(ROUTE, Enter(1), durable=True)
    await sender.tell_many(ROUTE, [Enter(number) for number in range(2, 200)], durable=True)
    await until_empty(sender)
    assert sorted(await entries(host)) == list(range(1, 200))


async def test_it_waits_for_somebody_to_be_there(world: World, stores: Stores) -> None:
    sender = await world.runtime(store=stores("sender"))
    await sender.tell(Anycast(LEDGER, max_retries=0, timeout=0.1), Enter(1), durable=True)
    host = await world.runtime(store=stores("host"))
    await host.spawn(Ledger)
    await until_empty(sender)
    assert await entries(host) == [1]


async def test_it_is_delivered_in_the_next_life_of_its_sender(world: World, stores: Stores) -> None:
    sender = await world.runtime(store=stores("sender"))
    await sender.tell(Anycast(LEDGER, max_retries=0, timeout=0.1), Enter(1), durable=True)
    await sender.stop()
    host = await world.runtime(store=stores("host"))
    await host.spawn(Ledger)
    again = await world.runtime(store=stores("sender"))
    await until_empty(again)
    assert await entries(host) == [1]


async def test_leaving_the_runtime_delivers_what_somebody_takes(world: World, stores: Stores) -> None:
    host = await world.runtime(store=stores("host"))
    await host.spawn(Ledger)
    sender = await world.runtime(store=stores("sender"))
    await sender.tell_many(ROUTE, [Enter(number) for number in range(100)], durable=True)
    await sender.stop()
    assert len(await entries(host)) == 100


async def test_a_repeated_one_is_not_handled_again_also_after_a_restart(world: World, stores: Stores) -> None:
    caller = await world.runtime()
    router = await caller._sender()

    async def deliver() -> None:
        expires = asyncio.get_running_loop().time() + 10
        await router.relay(ROUTE, "tests.keeping.Enter", raw({"number": 7}), expires, repeated("x", 5))

    for _ in range(2):
        host = await world.runtime(store=stores("host"))
        await host.spawn(Ledger)
        await deliver()
        await deliver()
        assert await entries(host) == [7]
        await host.stop()


async def test_replicas_that_share_a_store_handle_it_once(world: World, stores: Stores) -> None:
    handled: list[str] = []
    gate = asyncio.Event()

    class Journal(Agent, name="test/ns/journal"):
        @handler
        async def note(self, message: str, ctx: Context) -> None:
            handled.append(ctx.message_id)
            await gate.wait()

    hosts = [await world.runtime(store=stores("host")) for _ in range(2)]
    refs = [await host.spawn(Journal) for host in hosts]
    caller = await world.runtime()
    router = await caller._sender()
    expires = asyncio.get_running_loop().time() + 20

    def deliver(to: int) -> asyncio.Task[None]:
        work = router.relay(refs[to].route, "str", raw("a"), expires, repeated("x", 1))
        return asyncio.create_task(work)

    first = deliver(0)
    await eventually(lambda: handled == ["x:1"])
    with pytest.raises(Busy, match="being handled already"):
        await deliver(1)
    with pytest.raises(Busy, match="being handled already"):
        await deliver(0)
    gate.set()
    await first
    await deliver(1)
    assert handled == ["x:1"]


async def test_what_can_never_be_handled_is_a_dead_letter_until_it_is_taken(
    world: World, stores: Stores
) -> None:
    host = await world.runtime(store=stores("host"))
    await host.spawn(Ledger)
    sender = await world.runtime(store=stores("sender"))
    await sender.tell(ROUTE, {"no": "handler"}, durable=True)
    await sender.tell(ROUTE, Spoil(), durable=True)
    await eventually(lambda: len(sender.dead_letters) == 2)
    await sender.stop()
    again = await world.runtime(store=stores("sender"))
    causes = {type(letter.cause): letter for letter in again.dead_letters}
    assert causes.keys() == {UnhandledMessage, RemoteError}
    assert causes[UnhandledMessage].message == {"no": "handler"}
    assert causes[UnhandledMessage].recipient.name == LEDGER
    assert "spoilt" in str(causes[RemoteError].cause)
    assert len(await again.dead_letters.take()) == 2
    assert list(again.dead_letters) == []
    assert count(again, "outbox") == 0
    assert await again.ask(ROUTE, Add(0)) == 0


@pytest.mark.parametrize("life", ["this", "the next"])
async def test_all_durable_dead_letters_can_be_taken_however_many(
    world: World, stores: Stores, life: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deadletters, "_MOST_LETTERS", 3)
    monkeypatch.setattr(outbox, "_DEAD_AT_ONCE", 2)
    host = await world.runtime(store=stores("host"))
    await host.spawn(Ledger)
    sender = await world.runtime(store=stores("sender"))
    for number in range(8):
        await sender.tell(ROUTE, {"no": number}, durable=True)
    await eventually(lambda: sender.dead_letters.total == 8)
    if life == "the next":
        await sender.stop()
        sender = await world.runtime(store=stores("sender"))
    assert len(sender.dead_letters) == 3
    taken = await sender.dead_letters.take()
    assert sorted(letter.message["no"] for letter in taken) == list(range(8))
    assert (len(sender.dead_letters), count(sender, "outbox")) == (0, 0)
    assert await sender.dead_letters.take() == []


async def test_dead_letters_of_a_process_that_ended_are_shown_and_can_be_taken(
    world: World, stores: Stores
) -> None:
    heir = await world.runtime(store=stores("shared"))
    host = await world.runtime(store=stores("host"))
    await host.spawn(Ledger)
    sender = await world.runtime(store=stores("shared"))
    await sender.tell(ROUTE, {"no": "handler"}, durable=True)
    await eventually(lambda: len(sender.dead_letters) == 1)
    assert await heir.dead_letters.take() == []
    await sender.stop()
    await eventually(lambda: len(heir.dead_letters) == 1)
    (letter,) = await heir.dead_letters.take()
    assert letter.message == {"no": "handler"}
    assert count(heir, "outbox") == 0


async def test_one_that_failed_is_not_run_again(world: World, stores: Stores) -> None:
    runs = 0

    class Failing(Agent, name=LEDGER):
        @handler
        async def enter(self, message: Enter) -> None:
            nonlocal runs
            runs += 1
            raise LookupError("no such page")

    host = await world.runtime(store=stores("host"))
    await host.spawn(Failing)
    router = await host._sender()
    for _ in range(2):
        with pytest.raises(RemoteError, match="no such page"):
            await router.relay(
                ROUTE,
                "tests.keeping.Enter",
                raw({"number": 7}),
                asyncio.get_running_loop().time() + 10,
                repeated("x", 5),
            )
    assert runs == 1


async def test_one_that_expires_is_a_dead_letter(tmp_path: Path, endpoint: str) -> None:
    async with Runtime(endpoint, store=tmp_path / "sender.db") as sender:
        await sender.tell(Anycast(LEDGER, max_retries=0, timeout=0.1), Enter(1), durable=True, timeout=0.3)
        await eventually(lambda: len(sender.dead_letters) == 1)
        (letter,) = sender.dead_letters
        assert isinstance(letter.cause, Expired)
        assert "was not handled in its time" in str(letter.cause)


async def test_what_a_handler_sends_is_kept_with_its_state_or_not_at_all(
    world: World, stores: Stores
) -> None:
    host = await world.runtime(store=stores("host"))
    await host.spawn(Ledger)
    await host.spawn(Ledger, name=SECOND)
    await host.tell(ROUTE, Pass(SECOND, 1), durable=True)
    await host.tell(ROUTE, Pass(SECOND, 2, fail=True), durable=True)
    await host.ask(ROUTE, Pass(SECOND, 3))
    with pytest.raises(RemoteError, match="not passed on"):
        await host.ask(ROUTE, Pass(SECOND, 4, fail=True))
    await until_empty(host)
    assert sorted(await entries(host)) == [1, 3]
    assert sorted(await entries(host, SECOND)) == [1, 3]


async def test_a_durable_message_is_forwarded_as_a_durable_one(world: World, stores: Stores) -> None:
    host = await world.runtime(store=stores("host"))
    await host.spawn(Ledger)
    await host.tell(ROUTE, Hand(SECOND, 1), durable=True)
    # Nobody has that name yet.
    await eventually(lambda: count(host, "outbox", f"target = '{SECOND}'") == 1)
    await host.spawn(Ledger, name=SECOND)
    await until_empty(host)
    assert await entries(host, SECOND) == [1]


async def test_a_busy_agent_gets_it_later(world: World, stores: Stores) -> None:
    gate = Gate()

    class Narrow(Worker):
        mailbox = Mailbox(capacity=1, overflow="busy")

    host = await world.runtime(store=stores("host"))
    await host.spawn(lambda: Narrow(gate))
    sender = await world.runtime(store=stores("sender"))
    route = Anycast("test/ns/worker")
    names = [str(number) for number in range(5)]
    await sender.tell_many(route, [Wait(name) for name in names], durable=True)
    await eventually(lambda: len(gate.began) == 1)
    gate.open.set()
    await until_empty(sender)
    assert sorted(gate.ended) == names


async def test_an_agent_without_a_store_refuses_it_with_a_sentence(endpoint: str, tmp_path: Path) -> None:
    async with Runtime(endpoint) as host, Runtime(endpoint, store=tmp_path / "sender.db") as sender:
        await host.spawn(Worker)
        await sender.tell(Anycast("test/ns/worker"), Note("x"), durable=True)
        await eventually(lambda: len(sender.dead_letters) == 1)
        (letter,) = sender.dead_letters
        assert "takes no durable messages, because its runtime has no store" in str(letter.cause)


async def test_a_full_outbox_refuses_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "MOST_MESSAGES", 3)
    async with TestRuntime() as runtime:
        nobody = Anycast(LEDGER)
        await runtime.tell_many(nobody, [Enter(number) for number in range(2)], durable=True)
        with pytest.raises(Busy, match="The outbox is full: 2 messages"):
            await runtime.tell_many(nobody, [Enter(number) for number in range(2)], durable=True)
        await runtime.tell(nobody, Enter(2), durable=True)


async def test_what_is_remembered_of_a_sender_is_little(world: World, stores: Stores) -> None:
    host = await world.runtime(store=stores("host"))
    await host.spawn(Ledger)
    sender = await world.runtime(store=stores("sender"))
    for first in range(0, 1000, 100):
        await sender.tell_many(ROUTE, [Enter(first + number) for number in range(100)], durable=True)
        await until_empty(sender)
    assert len(await entries(host)) == 1000
    assert count(host, "handled") <= 200


async def test_wrong_durable_tells_are_refused_at_once(endpoint: str) -> None:
    async with Runtime(endpoint) as bare:
        with pytest.raises(ConfigurationError, match="A durable tell needs a store"):
            await bare.tell(ROUTE, Enter(1), durable=True)
    async with TestRuntime() as runtime:
        ref = await runtime.spawn(Ledger)
        with pytest.raises(ConfigurationError, match="no instance and no wire='bytes'"):
            await runtime.tell(ref.route, Enter(1), durable=True)
        with pytest.raises(ConfigurationError, match="no instance and no wire='bytes'"):
            await runtime.tell(Unicast(LEDGER, wire="bytes"), b"x", durable=True)
        with pytest.raises(MalformedMessage):
            await runtime.tell(ROUTE, {"a": object()}, durable=True)
        with pytest.raises(TooLarge):
            await runtime.tell(ROUTE, b"x" * 5_000_000, durable=True)
        with pytest.raises(ConfigurationError, match="timeout"):
            await runtime.tell(ROUTE, Enter(1), durable=True, timeout=-1)


async def test_a_full_disk_refuses_a_durable_tell(tmp_path: Path, endpoint: str) -> None:
    async with Runtime(endpoint, store=tmp_path / "sender.db") as sender:
        assert sender._outbox is not None
        store = sender._outbox.store
        assert isinstance(store, SqliteStore)
        ((used,),) = store._connection.execute("PRAGMA page_count")
        store._connection.execute(f"PRAGMA max_page_count = {used}")
        with pytest.raises(StoreError, match=r"is full\. Make room on its disk"):
            await sender.tell(ROUTE, "x" * 100_000, durable=True)
        assert count(sender, "outbox") == 0


async def test_messages_of_a_process_that_was_killed_are_adopted(
    start: Starter, endpoint: str, tmp_path: Path
) -> None:
    file = tmp_path / "shared.db"
    sender = start("-m", "tests.keeping", endpoint, str(file), "0", "20", python=True)
    await asyncio.to_thread(sender.until, "^kept 19")
    sender.process.kill()
    async with Runtime(endpoint, store=file) as host:
        await host.spawn(Ledger)
        await until_empty(host)
        assert sorted(await entries(host)) == list(range(20))


async def test_one_that_was_begun_goes_on_when_its_sender_is_gone(endpoint: str, tmp_path: Path) -> None:
    gate = Gate()
    async with Runtime(endpoint, store=tmp_path / "host.db") as host:
        await host.spawn(lambda: Worker(gate))
        async with Runtime(endpoint, store=tmp_path / "sender.db") as sender:
            await sender.tell(Anycast("test/ns/worker"), Wait("on"), durable=True)
            await eventually(lambda: gate.began == ["on"])
            await sender.stop(drain=0.0)
        gate.open.set()
        await eventually(lambda: gate.ended == ["on"])
        async with Runtime(endpoint, store=tmp_path / "sender.db") as sender:
            await until_empty(sender)
        assert (gate.began, gate.cancelled) == (["on"], [])


async def test_a_lane_without_messages_ends_and_the_next_message_makes_another(
    test_runtime: TestRuntime,
) -> None:
    await test_runtime.spawn(Ledger)
    outbox = test_runtime._outbox
    assert outbox is not None
    nobody = Anycast("test/ns/nobody")
    await test_runtime.tell(nobody, Enter(0), durable=True)
    for number in (1, 2):
        await test_runtime.tell(ROUTE, Enter(number), durable=True)
        assert len(outbox._lanes) == 2
        await asyncio.sleep(1000)
        assert await entries(test_runtime) == list(range(1, number + 1))
        # The other one still has what it cannot deliver.
        assert [lane._route for lane in outbox._lanes.values()] == [nobody]


async def test_stores_keep_what_was_put_in_order(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "store.db")
    await store.open()
    hold = store.hold("owner/a")
    parcel = Parcel("t", "r", "int", b"\x01", b"\x80")
    await asyncio.gather(*(store.commit(Put("owner/a", (parcel,))) for _ in range(20)))
    waiting = await store.waiting("owner/a", "r", frozenset({1, 2}), 5)
    assert ([each.number for each in waiting.parcels], waiting.below) == ([3, 4, 5], 1)
    with pytest.raises(StoreError, match=f"owner/a is held by process {os.getpid()}"):
        store.hold("owner/a")
    assert (await store.adopt("owner/b")).routes == []
    hold.release()
    assert (await store.adopt("owner/b")).routes == ["r"]
    await store.close()


async def test_the_locks_of_processes_that_were_killed_are_removed(tmp_path: Path) -> None:
    file = tmp_path / "store.db"
    locks = FileLocks(tmp_path / "store.db-locks", OWNER)
    dead, alive = locks.hold(OWNER + "dead"), locks.hold(OWNER + "alive")
    assert dead._descriptor is not None
    os.close(dead._descriptor)
    for path in (tmp_path / "store.db-locks").iterdir():
        os.utime(path, (0, 0))
    young = locks.hold(OWNER + "young")
    assert young._descriptor is not None
    os.close(young._descriptor)
    store = SqliteStore(file)
    await store.open()
    await store.close()
    assert [locks._path(OWNER + key).exists() for key in ("dead", "alive", "young")] == [False, True, True]
    assert locks.is_held(OWNER + "alive")
    alive.release()


async def test_300_durable_tells_survive_the_deaths_of_everybody() -> None:
    async with Stage(seed=5) as stage:
        result = await run(stage, messages=300, kills=3)
    assert result.deaths == {"sender": 3, "receiver": 3, "node": 3}
    assert result.missing == []
    assert result.repeated == []


async def test_losing_the_receiver_is_no_error_of_the_tell(
    start: Starter, endpoint: str, tmp_path: Path
) -> None:
    run = start(
        "run", "tests/keeping.py:Ledger", "--endpoint", endpoint, "--store", str(tmp_path / "host.db")
    )
    (joined,) = run.until(r"^joined.*pid (\d+)")
    async with Runtime(endpoint, store=tmp_path / "sender.db") as sender:
        os.kill(int(joined[1]), signal.SIGKILL)
        await sender.tell_many(ROUTE, [Enter(number) for number in range(10)], durable=True)
        await until_empty(sender)
        assert sorted(await entries(sender)) == list(range(10))
        assert not len(sender.dead_letters)
