"""The store in one SQLite file, and one in memory.

Durability: write-ahead log with ``synchronous=FULL``, so what was committed survives a power cut. What may
safely be lost in one (a claim, the removal of what was delivered) is written with ``synchronous=NORMAL``,
which survives the death of the process all the same, and costs no wait for the disk.

Calls that come while a transaction is under way are done together in the next one, so many callers share
one wait for the disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import time
import uuid
import weakref
import zlib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from enum import IntEnum
from pathlib import Path
from typing import Any, TypeVar

from attrs import define

from slim_actors.errors import StoreError
from slim_actors.locks import FileLocks
from slim_actors.store import (
    OWNER,
    Adopted,
    Change,
    Ended,
    Hold,
    Parcel,
    Released,
    Snapshot,
    Token,
    Verdict,
    Waiting,
)
from slim_actors.tables import SCHEMA, SCHEMA_VERSION, apply, take_claim

__all__ = ["MemoryStore", "SqliteStore"]

T = TypeVar("T")

_APPLICATION = 0x534C4143
_LOCKED_FOR = 10.0
_REMEMBER_SOURCES = 30 * 24 * 3600.0
_WINDOW = 4096
"""How far the numbers under way to one target may spread: what a receiver has to remember of a sender."""

_PARCEL = "target, route, type, body, context, expires, number, cause"


class _Mode(IntEnum):
    READ = 0
    WRITE = 1
    SYNCED = 2


@define(eq=False)
class _Job:
    work: Callable[[sqlite3.Connection], Any]
    mode: _Mode
    result: asyncio.Future[Any]


class SqliteStore:
    """A store in one file, for the processes of one machine. See `Store`.

    Beside the file there are, while it is in use, ``FILE-wal`` and ``FILE-shm``, and a folder ``FILE-locks``.
    They must be on a disk of this machine, not on a network's. A file that is put back from an older copy
    counts its messages from where the copy was, and receivers take those for repeated ones: start a new file.

    Args:
        path: The file; made, readable by this user alone, where there is none.

    Raises:
        StoreError: On opening: the file is damaged, of a newer version, or no store.

    Example:
        .. code-block:: python

            async with Runtime(store=SqliteStore("agents.db")) as runtime:    # or just store="agents.db"
                await runtime.tell(Anycast("demo/ns/ledger"), Deposit(5), durable=True)
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.id = ""
        self._locks = FileLocks(self.path.with_name(self.path.name + "-locks"), OWNER)
        self._connection: sqlite3.Connection
        self._executor: ThreadPoolExecutor
        self._jobs: list[_Job] = []
        self._worker: asyncio.Task[None] | None = None
        self._synchronous = ""

    async def open(self) -> None:
        """See `Store.open`."""
        # SQLite may wait for the disk, or for another process: never on the event loop.
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=f"store {self.path.name}")
        try:
            await asyncio.get_running_loop().run_in_executor(self._executor, self._open)
        except BaseException:
            self._executor.shutdown(wait=False)
            raise

    async def close(self) -> None:
        """See `Store.close`."""
        if self._worker is not None:
            await asyncio.wait([self._worker])
        await asyncio.get_running_loop().run_in_executor(self._executor, self._connection.close)
        self._executor.shutdown(wait=False)

    def hold(self, key: str) -> Hold:
        """See `Store.hold`."""
        return self._locks.hold(key)

    async def load(self, key: str) -> Snapshot | None:
        """See `Store.load`."""

        def work(connection: sqlite3.Connection) -> Snapshot | None:
            found = connection.execute("SELECT version, data, sum FROM states WHERE key = ?", (key,))
            for version, data, checksum in found:
                if zlib.crc32(data) != checksum:
                    raise StoreError(f"The state of {key} in {self.path} is damaged: its checksum is wrong.")
                return Snapshot(version, data)
            return None

        return await self._run(work, _Mode.READ)

    async def commit(self, *changes: Change) -> None:
        """See `Store.commit`."""

        def work(connection: sqlite3.Connection) -> None:
            for change in changes:
                apply(connection, change)

        await self._run(work, _Mode.SYNCED if _must_sync(changes) else _Mode.WRITE)

    async def claim(self, token: Token, below: int, holder: str) -> Verdict:
        """See `Store.claim`."""
        return await self._run(
            lambda connection: take_claim(connection, token, below, holder, self._is_held), _Mode.WRITE
        )

    async def waiting(self, owner: str, route: str, known: frozenset[int], limit: int) -> Waiting:
        """See `Store.waiting`."""

        def work(connection: sqlite3.Connection) -> Waiting:
            ((below,),) = connection.execute(
                "SELECT coalesce(min(number), 0) FROM outbox WHERE cause IS NULL AND target = "
                "(SELECT target FROM outbox WHERE cause IS NULL AND route = ? LIMIT 1)",
                (route,),
            )
            numbers = connection.execute(
                "SELECT number FROM outbox WHERE cause IS NULL AND owner = ? AND route = ? AND number < ? "
                "ORDER BY number LIMIT ?",
                (owner, route, below + _WINDOW, limit),
            )
            new = [number for (number,) in numbers if number not in known]
            return Waiting([parcel for number in new for parcel in _parcels(connection, number)], below)

        return await self._run(work, _Mode.READ)

    async def adopt(self, owner: str) -> Adopted:
        """See `Store.adopt`."""

        def work(connection: sqlite3.Connection) -> Adopted:
            others = connection.execute("SELECT DISTINCT owner FROM outbox WHERE owner != ?", (owner,))
            has_dead = False
            for (other,) in others.fetchall():
                if not self._is_held(other):
                    has_dead = has_dead or bool(_dead(connection, other, 0, 1))
                    connection.execute("UPDATE outbox SET owner = ? WHERE owner = ?", (owner, other))
            routes = connection.execute(
                "SELECT DISTINCT route FROM outbox WHERE owner = ? AND cause IS NULL", (owner,)
            )
            return Adopted([route for (route,) in routes], has_dead)

        return await self._run(work, _Mode.WRITE)

    async def dead(self, owner: str, after: int, limit: int) -> list[Parcel]:
        """See `Store.dead`."""
        return await self._run(lambda connection: _dead(connection, owner, after, limit), _Mode.READ)

    def _is_held(self, key: str) -> bool:
        return self._locks.is_held(key)

    async def _run(self, work: Callable[[sqlite3.Connection], T], mode: _Mode) -> T:
        job = _Job(work, mode, asyncio.get_running_loop().create_future())
        self._jobs.append(job)
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work(), name=f"store {self.path}")
        result: T = await job.result
        return result

    async def _work(self) -> None:
        while self._jobs:
            jobs, self._jobs = self._jobs, []
            for job, outcome in zip(jobs, await self._off_loop(jobs), strict=True):
                if job.result.done():
                    # Whoever wanted it was cancelled; it was done all the same.
                    continue
                if isinstance(outcome, Exception):
                    job.result.set_exception(outcome)
                else:
                    job.result.set_result(outcome)

    async def _off_loop(self, jobs: list[_Job]) -> list[Any]:
        return await asyncio.get_running_loop().run_in_executor(self._executor, self._do, jobs)

    def _do(self, jobs: list[_Job]) -> list[Any]:
        """Do some jobs in one transaction; where that fails, each in its own: only the guilty fail."""
        try:
            return self._transaction(jobs)
        except Exception as error:  # noqa: BLE001 (whatever it is, it is the outcome of the job)
            if len(jobs) > 1:
                return [self._do([job])[0] for job in jobs]
            return [self._translated(error)]

    def _transaction(self, jobs: list[_Job]) -> list[Any]:
        connection = self._connection
        mode = max(job.mode for job in jobs)
        self._synchronize("FULL" if mode is _Mode.SYNCED else "NORMAL")
        connection.execute("BEGIN" if mode is _Mode.READ else "BEGIN IMMEDIATE")
        try:
            results = [job.work(connection) for job in jobs]
            connection.execute("COMMIT")
        except BaseException:
            # SQLite has rolled back by itself after some errors.
            with contextlib.suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            raise
        return results

    def _synchronize(self, level: str) -> None:
        if self._synchronous != level:
            self._connection.execute(f"PRAGMA synchronous = {level}")
            self._synchronous = level

    def _open(self) -> None:
        try:
            # Readable by the user alone from the first moment on.
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
        except OSError as error:
            raise StoreError(f"The store {self.path} cannot be opened: {error.strerror}.") from None
        lock = self._locks.hold("open", wait=True)
        self._locks.sweep()
        try:
            self._connection = self._connect()
        except sqlite3.Error as error:
            raise self._translated(error) from None
        finally:
            lock.release()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.path, timeout=_LOCKED_FOR, isolation_level=None, check_same_thread=False
        )
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            self._prepare(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        ((application,),) = connection.execute("PRAGMA application_id")
        ((version,),) = connection.execute("PRAGMA user_version")
        ((tables,),) = connection.execute("SELECT count(*) FROM sqlite_schema")
        if tables and application != _APPLICATION:
            raise StoreError(f"{self.path} is a database of another program: give another file.")
        if version > SCHEMA_VERSION:
            raise StoreError(
                f"The store {self.path} has version {version}, and this program knows {SCHEMA_VERSION}: "
                "update slim-actors."
            )
        ((found,),) = connection.execute("PRAGMA quick_check(1)")
        if found != "ok":
            raise sqlite3.DatabaseError(found)
        connection.execute("BEGIN IMMEDIATE")
        if not tables:
            for statement in SCHEMA:
                connection.execute(statement)
            connection.execute("INSERT INTO store (id) VALUES (?)", (uuid.uuid4().hex,))
            connection.execute(f"PRAGMA application_id = {_APPLICATION}")
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        forgotten = (time.time() - _REMEMBER_SOURCES,)
        connection.execute(
            "DELETE FROM handled WHERE (receiver, source) IN "
            "(SELECT receiver, source FROM sources WHERE heard < ?)",
            forgotten,
        )
        connection.execute("DELETE FROM sources WHERE heard < ?", forgotten)
        connection.execute("COMMIT")
        ((self.id,),) = connection.execute("SELECT id FROM store")

    def _translated(self, error: Exception) -> Exception:
        if not isinstance(error, sqlite3.Error):
            return error
        name = getattr(error, "sqlite_errorname", "SQLITE_CORRUPT")
        code = name.removeprefix("SQLITE_").partition("_")[0]
        advice = _ADVICE.get(code, "Look at its disk and its permissions.")
        translated = StoreError(f"The store {self.path} cannot be used: {error}. {advice}")
        translated.__cause__ = error
        return translated


_DAMAGED = "Nothing was changed. Put back a good copy, or move the file away to begin with an empty store."
_ADVICE = {
    "CORRUPT": _DAMAGED,
    "NOTADB": _DAMAGED,
    "FULL": "Make room on its disk.",
    "BUSY": f"Another process has kept it locked for {_LOCKED_FOR:.0f} s.",
}


class MemoryStore(SqliteStore):
    """A store for tests, in memory. It is there as long as the object is, also between two runtimes.

    It works on the event loop, so that a `VirtualClock` does not jump while it does.
    """

    def __init__(self) -> None:
        super().__init__(":memory:")
        self._held: set[str] = set()
        self._connection = self._connect()
        weakref.finalize(self, self._connection.close)

    async def open(self) -> None:
        """See `Store.open`."""

    async def close(self) -> None:
        """See `Store.close`."""

    def hold(self, key: str) -> Hold:
        """See `Store.hold`."""
        if key in self._held:
            raise StoreError(f"{key} is held by this process.")
        self._held.add(key)
        return _MemoryHold(self._held, key)

    def _is_held(self, key: str) -> bool:
        return key in self._held

    async def _off_loop(self, jobs: list[_Job]) -> list[Any]:
        return self._do(jobs)


class _MemoryHold:
    def __init__(self, held: set[str], key: str) -> None:
        self._held, self._key = held, key

    def release(self) -> None:
        """See `Hold.release`."""
        self._held.discard(self._key)


def _dead(connection: sqlite3.Connection, owner: str, after: int, limit: int) -> list[Parcel]:
    rows = connection.execute(
        f"SELECT {_PARCEL} FROM outbox WHERE owner = ? AND cause IS NOT NULL AND number > ? "  # noqa: S608
        "ORDER BY number LIMIT ?",
        (owner, after, limit),
    )
    return [Parcel(*row) for row in rows]


def _must_sync(changes: Iterable[Change]) -> bool:
    return any(not isinstance(change, Ended | Released) for change in changes)


def _parcels(connection: sqlite3.Connection, number: int) -> list[Parcel]:
    rows = connection.execute(f"SELECT {_PARCEL} FROM outbox WHERE number = ?", (number,))  # noqa: S608
    return [Parcel(*row) for row in rows]
