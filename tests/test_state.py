"""States of agents: kept before the reply leaves, there after a restart, and never reset in silence."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from attrs import define

from slim_actors import (
    Agent,
    Anycast,
    ConfigurationError,
    DeclarationError,
    RemoteError,
    Runtime,
    State,
    StoreError,
    handler,
    tables,
)
from slim_actors.locks import FileLocks
from slim_actors.sqlite import SqliteStore, _Job
from slim_actors.store import Change, Handled, Save, Snapshot, Token, Verdict
from slim_actors.testing import MemoryStore, TestRuntime
from tests.conftest import Starter, World, eventually
from tests.keeping import LEDGER, Add, Enter, Ledger, Read, Spoil

ROUTE = Anycast(LEDGER)
Stores = Callable[[], SqliteStore]


@pytest.fixture
def stores(world: World, tmp_path: Path) -> Stores:
    """Give the one store of this world, as each life of a process finds it."""
    memory = MemoryStore()
    return lambda: memory if world.endpoint is None else SqliteStore(tmp_path / "store.db")


async def life(world: World, stores: Stores, agent: Any = Ledger) -> Runtime:
    runtime = await world.runtime(store=stores())
    await runtime.spawn(agent)
    return runtime


async def test_a_state_is_there_after_a_restart(world: World, stores: Stores) -> None:
    first = await life(world, stores)
    assert [await first.ask(ROUTE, Add(2)) for _ in range(3)] == [2, 4, 6]
    await first.tell(ROUTE, Enter(7))
    await first.stop()
    second = await life(world, stores)
    assert await second.ask(ROUTE, Add(0)) == 6
    assert await second.ask(ROUTE, Read()) == [7]


async def test_a_handler_that_fails_changes_nothing(world: World, stores: Stores) -> None:
    first = await life(world, stores)
    await first.ask(ROUTE, Add(1))
    with pytest.raises(RemoteError, match="spoilt"):
        await first.ask(ROUTE, Spoil())
    assert await first.ask(ROUTE, Add(1)) == 2
    await first.stop()
    assert await (await life(world, stores)).ask(ROUTE, Add(0)) == 2


async def test_a_state_that_does_not_fit_its_class_is_undone_and_fails_its_message(
    world: World, stores: Stores
) -> None:
    class Careless(Ledger):
        @handler
        async def halve(self, message: str) -> None:
            self.book.total = 0.5  # type: ignore[assignment]

    first = await life(world, stores, Careless)
    await first.ask(ROUTE, Add(1))
    with pytest.raises(RemoteError, match="Expected `int`, got `float`"):
        await first.ask(ROUTE, "half")
    with pytest.raises(RemoteError, match="spoilt"):
        await first.ask(ROUTE, Spoil())
    assert await first.ask(ROUTE, Add(1)) == 2
    await first.stop()
    assert await (await life(world, stores, Careless)).ask(ROUTE, Add(0)) == 2


async def test_a_handler_that_is_cancelled_changes_nothing(world: World, stores: Stores) -> None:
    began = asyncio.Event()

    class Slow(Ledger):
        @handler
        async def slow(self, message: str) -> None:
            self.book.total += 1000
            began.set()
            await asyncio.Event().wait()

    runtime = await life(world, stores, Slow)
    asked = asyncio.create_task(runtime.ask(ROUTE, "slow"))
    await began.wait()
    asked.cancel()
    await asyncio.wait([asked])
    assert await runtime.ask(ROUTE, Add(1)) == 1


async def test_many_messages_at_once_are_kept_together(world: World, stores: Stores) -> None:
    first = await life(world, stores)
    answers = await asyncio.gather(*(first.ask(ROUTE, Add(1)) for _ in range(500)))
    assert sorted(answers) == list(range(1, 501))
    await first.stop()
    assert await (await life(world, stores)).ask(ROUTE, Add(0)) == 500


async def test_what_started_changes_is_kept(world: World, stores: Stores) -> None:
    class Counting(Ledger):
        async def started(self, ctx: Any) -> None:
            self.book.total += 1

    for lives in (1, 2, 3):
        runtime = await life(world, stores, Counting)
        assert await runtime.ask(ROUTE, Add(0)) == lives
        await runtime.stop()


async def test_two_live_instances_cannot_have_one_state(world: World, stores: Stores) -> None:
    first = await life(world, stores)
    with pytest.raises(StoreError, match=r"test/ns/ledger/0 is held by .*process.*SLIM_ACTORS_SLOT"):
        await life(world, stores)
    await first.stop()
    await life(world, stores)


async def test_each_slot_has_its_own_state(
    world: World, stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await life(world, stores)
    assert await first.ask(ROUTE, Add(5)) == 5
    await first.stop()
    monkeypatch.setenv("SLIM_ACTORS_SLOT", "1")
    second = await life(world, stores)
    assert await second.ask(ROUTE, Add(0)) == 0


async def test_a_state_needs_a_store(endpoint: str) -> None:
    async with Runtime(endpoint) as runtime:
        with pytest.raises(ConfigurationError, match="Ledger keeps a state, so its runtime needs a store"):
            await runtime.spawn(Ledger)


@define
class NewBook:
    sum: int = 0


class NewLedger(Agent, name=LEDGER):
    book = State(NewBook, version=2, migrate=lambda version, old: NewBook(sum=old["total"] * 10))

    @handler
    async def add(self, message: Add) -> int:
        self.book.sum += message.amount
        return self.book.sum


class Forgetful(NewLedger):
    book = State(NewBook, version=2)


async def test_an_older_state_is_migrated(world: World, stores: Stores) -> None:
    first = await life(world, stores)
    await first.ask(ROUTE, Add(4))
    await first.stop()
    with pytest.raises(StoreError, match="by its version 1, and this program has 2: give State a migrate"):
        await life(world, stores, Forgetful)
    for expected in (41, 42):
        second = await life(world, stores, NewLedger)
        assert await second.ask(ROUTE, Add(1)) == expected
        await second.stop()
    with pytest.raises(StoreError, match="by its version 2, and this program has 1: run the newer program"):
        await life(world, stores)


async def test_a_state_that_cannot_be_read_is_not_replaced_by_an_empty_one(
    world: World, stores: Stores
) -> None:
    class Other(NewLedger):
        book = State(list[int])  # type: ignore[assignment]

    first = await life(world, stores)
    await first.ask(ROUTE, Add(4))
    await first.stop()
    with pytest.raises(StoreError, match=r"The state of Other cannot be restored: .*Expected `array`"):
        await life(world, stores, Other)
    assert await (await life(world, stores)).ask(ROUTE, Add(0)) == 4


async def test_a_full_disk_fails_the_message_and_the_state_is_as_it_was(world: World, stores: Stores) -> None:
    store = stores()
    runtime = await world.runtime(store=store)
    await runtime.spawn(Ledger)
    assert await runtime.ask(ROUTE, Add(1)) == 1
    pages = fill(store)
    with pytest.raises(StoreError, match=r"could not be kept: .*database or disk is full"):
        for _ in range(2000):
            await runtime.tell(ROUTE, Enter(2**60))
            await runtime.ask(ROUTE, Add(1))
    kept = await runtime.ask(ROUTE, Read())
    assert await runtime.ask(ROUTE, Read()) == kept
    store._connection.execute(f"PRAGMA max_page_count = {pages}")
    total = await runtime.ask(ROUTE, Add(1))
    await runtime.stop()
    second = await life(world, stores)
    assert await second.ask(ROUTE, Add(0)) == total
    assert await second.ask(ROUTE, Read()) == kept


def fill(store: SqliteStore) -> int:
    """Leave no room for more pages; give how many there might have been."""
    ((most,),) = store._connection.execute("PRAGMA max_page_count")
    ((used,),) = store._connection.execute("PRAGMA page_count")
    store._connection.execute(f"PRAGMA max_page_count = {used}")
    return int(most)


async def test_a_damaged_store_is_refused_and_left_as_it_is(
    start: Starter, endpoint: str, tmp_path: Path
) -> None:
    file = tmp_path / "store.db"
    async with Runtime(endpoint, store=file) as runtime:
        await runtime.spawn(Ledger)
        await runtime.tell_many(ROUTE, [Enter(number) for number in range(5000)])
        await runtime.ask(ROUTE, Add(1))
    data = bytearray(file.read_bytes())
    data[4096 * 2 : 4096 * 3] = os.urandom(4096)
    file.write_bytes(data)
    run = start("run", "tests/keeping.py:Ledger", "--endpoint", endpoint, "--store", str(file))
    assert run.wait() == 8
    assert "cannot be used" in run.output
    assert "Nothing was changed" in run.output
    assert "Traceback" not in run.output
    assert file.read_bytes() == data


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"no database at all, but long enough to be read as one" * 20, "is not a database"),
        ("CREATE TABLE theirs (a)", "is a database of another program"),
        ("PRAGMA user_version = 99", "has version 99, and this program knows 1: update slim-actors"),
    ],
)
async def test_a_file_that_is_no_store_is_refused(
    tmp_path: Path, content: bytes | str, sentence: str
) -> None:
    file = tmp_path / "store.db"
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        connection = sqlite3.connect(file)
        connection.execute(content)
        connection.close()
    before = file.read_bytes()
    with pytest.raises(StoreError, match=sentence):
        await SqliteStore(file).open()
    # Nothing was changed, in it or beside it.
    assert file.read_bytes() == before
    assert list(tmp_path.iterdir()) == [file]


async def test_a_store_that_is_closed_says_so(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "store.db")
    with pytest.raises(StoreError, match="is closed"):
        await store.load("a")
    await store.open()
    await store.close()
    with pytest.raises(StoreError, match="is closed"):
        await store.load("a")


async def test_whatever_goes_wrong_in_a_store_nobody_waits_for_ever(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "store.db")
    await store.open()
    store._executor.shutdown()
    with pytest.raises(RuntimeError, match="after shutdown"):
        await store.load("a")


async def test_many_who_wait_for_a_locked_store_are_told_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SqliteStore(tmp_path / "store.db")
    await store.open()
    tries: list[int] = []
    transaction = store._transaction

    def counted(jobs: list[_Job]) -> list[Any]:
        tries.append(len(jobs))
        return transaction(jobs)

    monkeypatch.setattr(store, "_transaction", counted)
    store._connection.execute("PRAGMA busy_timeout = 0")
    with contextlib.closing(sqlite3.connect(store.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        saves = [store.commit(Save(f"{number}", Snapshot(1, b"x"))) for number in range(20)]
        outcomes = await asyncio.gather(*saves, return_exceptions=True)
    assert all(isinstance(each, StoreError) and "kept it locked" in str(each) for each in outcomes)
    assert tries == [20]
    await store.close()


async def test_who_cannot_see_whether_a_lock_is_held_does_not_take_it_for_free(tmp_path: Path) -> None:
    locks = FileLocks(tmp_path / "locks", "owner/")
    held = locks.hold("a")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # No file can be opened any more.
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        with pytest.raises(StoreError, match="cannot be looked at: Too many open files"):
            locks.is_held("a")
        locks.sweep()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert locks.is_held("a")
    assert not locks.is_held("b")
    held.release()


@pytest.mark.parametrize("years", [-50, 50])
async def test_a_clock_that_was_wrong_for_one_life_has_nothing_forgotten(
    tmp_path: Path, years: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SqliteStore(tmp_path / "store.db")
    token, now = Token("t/t/receiver", "source", 7), time.time()

    async def verdict(at: float, below: int) -> str:
        monkeypatch.setattr(tables, "time", SimpleNamespace(time=lambda: at))
        await store.open()
        found = await store.claim(token, below, "owner/a")
        if found.kind == "mine":
            await store.commit(Handled(token, "owner/a"))
        await store.close()
        return found.kind

    assert await verdict(now, 1) == "mine"
    assert await verdict(now + years * 365 * 24 * 3600, 2) == "handled"
    assert await verdict(now, 3) == "handled"


async def test_a_state_with_a_wrong_checksum_is_refused(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "store.db")
    await store.open()
    store._connection.execute("INSERT INTO states VALUES ('a', 1, x'00', 7)")
    with pytest.raises(StoreError, match=r"The state of a in .* is damaged"):
        await store.load("a")
    await store.close()


async def test_only_its_user_may_read_a_store(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "store.db")
    await store.open()
    assert (tmp_path / "store.db").stat().st_mode & 0o077 == 0
    await store.close()


async def test_a_reply_that_was_seen_is_in_the_state_after_a_kill(
    start: Starter, endpoint: str, tmp_path: Path
) -> None:
    run = start(
        "run", "tests/keeping.py:Ledger", "--endpoint", endpoint, SLIM_ACTORS_STORE=str(tmp_path / "store.db")
    )
    (joined,) = run.until(r"^joined.*pid (\d+)")
    pid = int(joined[1])
    async with Runtime(endpoint) as caller:
        for _ in range(3):
            seen = 0

            async def ask() -> None:
                nonlocal seen
                while True:
                    seen = max(seen, await caller.ask(ROUTE, Add(1)))

            asking = [asyncio.create_task(ask()) for _ in range(8)]
            await eventually(lambda: seen > 50)  # noqa: B023
            os.kill(pid, signal.SIGKILL)
            await asyncio.gather(*asking, return_exceptions=True)
            (again,) = await asyncio.to_thread(run.until, r"^restarted.*pid (\d+)")
            pid = int(again[1])
            # What was seen is there; of what was under way and not seen, each may be or not.
            assert seen <= await caller.ask(ROUTE, Add(0), timeout=10) <= seen + 8


async def test_the_test_kit_has_a_store_of_its_own() -> None:
    async with TestRuntime() as runtime:
        await runtime.spawn(Ledger)
        assert await runtime.ask(ROUTE, Add(3)) == 3


def test_wrong_declarations_are_refused() -> None:
    with pytest.raises(DeclarationError, match="Two declares 2 states"):

        class Two(Ledger):
            other = State(NewBook)

    with pytest.raises(DeclarationError, match="its concurrency must be 1, and not 4"):

        class Wide(Ledger):
            concurrency = 4

    with pytest.raises(DeclarationError, match="version=0"):
        State(NewBook, version=0)
    with pytest.raises(DeclarationError, match="cannot be kept"):
        State(object)


async def test_an_agent_may_set_its_first_state_itself() -> None:
    class Begun(Ledger):
        def __init__(self) -> None:
            self.book.total = 100

    async with TestRuntime() as runtime:
        await runtime.spawn(Begun)
        assert await runtime.ask(ROUTE, Add(3)) == 103


async def test_a_fresh_instance_gets_the_state_of_the_one_that_it_replaces() -> None:
    async with TestRuntime() as runtime:
        ref = await runtime.spawn(Ledger)
        assert await runtime.ask(ROUTE, Add(3)) == 3
        fresh = Ledger()
        await ref._cell.keeper.restore(fresh)
        assert fresh.book.total == 3


class Faulty(MemoryStore):
    """A store that raises what no store should, once, when it is told to."""

    in_commit: Exception | None = None
    in_claim: Exception | None = None

    async def commit(self, *changes: Change) -> None:
        error, self.in_commit = self.in_commit, None
        if error is not None:
            raise error
        await super().commit(*changes)

    async def claim(self, token: Token, below: int, holder: str) -> Verdict:
        error, self.in_claim = self.in_claim, None
        if error is not None:
            raise error
        return await super().claim(token, below, holder)


async def test_whatever_a_store_raises_is_the_outcome_of_the_message_and_the_next_one_is_kept() -> None:
    store = Faulty()
    async with TestRuntime(store=store) as runtime:
        await runtime.spawn(Ledger)
        store.in_commit = OSError("the disk is gone")
        with pytest.raises(StoreError, match="the disk is gone"):
            await runtime.ask(ROUTE, Add(1))
        assert await runtime.ask(ROUTE, Add(2)) == 2


async def test_whatever_a_store_raises_a_durable_message_is_tried_again() -> None:
    store = Faulty()
    async with TestRuntime(store=store) as runtime:
        await runtime.spawn(Ledger)
        store.in_claim = ValueError("no claim")
        await runtime.tell(ROUTE, Enter(4), durable=True)

        async def entered() -> bool:
            return await runtime.ask(ROUTE, Read()) == [4]

        await eventually(entered)
