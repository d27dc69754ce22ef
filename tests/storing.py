"""What the tests of stores and durable messages share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from attrs import define, field

from slim_actors import Anycast, Runtime, StoreError
from slim_actors.sqlite import SqliteStore
from slim_actors.store import Change
from slim_actors.testing import MemoryStore
from tests.conftest import World, eventually
from tests.keeping import LEDGER, Read


class Stores:
    """The stores of one world, by name, as each life of a process finds them."""

    def __init__(self, world: World, folder: Path) -> None:
        self._memory: dict[str, MemoryStore] = {}
        self._world = world
        self._folder = folder

    def __call__(self, name: str) -> SqliteStore:
        if self._world.endpoint is None:
            return self._memory.setdefault(name, MemoryStore())
        return SqliteStore(self._folder / f"{name}.db")


@define(slots=False)
class Breakdown:
    """The next commit of a kind of change waits until it may go on, and fails."""

    store: SqliteStore
    kind: type[Change]
    fails: bool = True
    has_begun: asyncio.Event = field(factory=asyncio.Event)
    may_go_on: asyncio.Event = field(factory=asyncio.Event)

    def __attrs_post_init__(self) -> None:
        self._commit: Callable[..., Any] = self.store.commit
        self.store.commit = self._broken  # type: ignore[method-assign]

    async def _broken(self, *changes: Change) -> None:
        if not self.has_begun.is_set() and any(isinstance(change, self.kind) for change in changes):
            self.has_begun.set()
            await self.may_go_on.wait()
            if self.fails:
                raise StoreError("The disk is away.")
        await self._commit(*changes)


def count(runtime: Runtime, table: str, where: str = "1") -> int:
    """Count rows of the store of a runtime."""
    assert runtime._outbox is not None
    store = runtime._outbox.store
    assert isinstance(store, SqliteStore)
    ((found,),) = store._connection.execute(f"SELECT count(*) FROM {table} WHERE {where}")  # noqa: S608
    return int(found)


async def entries(runtime: Runtime, name: str = LEDGER) -> list[int]:
    return await runtime.ask(Anycast(name), Read())


async def until_empty(runtime: Runtime) -> None:
    await eventually(lambda: count(runtime, "outbox", "cause IS NULL") == 0)


def repeated(store: str, number: int, below: int = 0) -> dict[str, Any]:
    """Give what travels along with a durable message, each time that it is sent."""
    return {"id": f"{store}:{number}", "durable": [store, number, below]}


def raw(value: Any) -> msgspec.Raw:
    return msgspec.Raw(msgspec.msgpack.encode(value))
