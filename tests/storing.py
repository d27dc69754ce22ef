"""What the tests of stores and durable messages share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from slim_actors import Anycast, Runtime
from slim_actors.sqlite import SqliteStore
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
