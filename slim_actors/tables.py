"""The tables of the SQLite store, and what each change does to them."""

from __future__ import annotations

import sqlite3
import time
import uuid
import zlib
from collections.abc import Callable
from pathlib import Path

from slim_actors.errors import Busy, StoreError
from slim_actors.store import Change, Died, Ended, Handled, Put, Released, Save, Token, Verdict

__all__ = [
    "MOST_BYTES",
    "MOST_MESSAGES",
    "SCHEMA",
    "SCHEMA_VERSION",
    "apply",
    "check",
    "prepare",
    "take_claim",
]

MOST_MESSAGES = 100_000
MOST_BYTES = 256 * 1024 * 1024
"""What the outbox may hold, with the dead letters in it."""

_RETRY_AFTER = 1.0
_APPLICATION = 0x534C4143
_REMEMBER_SOURCES = 30 * 24 * 3600.0

SCHEMA_VERSION = 1
SCHEMA = (
    "CREATE TABLE store (id TEXT NOT NULL)",
    (
        "CREATE TABLE states (key TEXT PRIMARY KEY, version INTEGER NOT NULL, data BLOB NOT NULL, "
        "sum INTEGER NOT NULL)"
    ),
    # AUTOINCREMENT: a number is never given twice, also after everything was delivered and removed.
    (
        "CREATE TABLE outbox (number INTEGER PRIMARY KEY AUTOINCREMENT, owner TEXT NOT NULL, "
        "target TEXT NOT NULL, route TEXT NOT NULL, type TEXT NOT NULL, body BLOB NOT NULL, "
        "context BLOB NOT NULL, expires REAL, cause BLOB)"
    ),
    "CREATE INDEX outbox_waiting ON outbox (owner, route, number) WHERE cause IS NULL",
    "CREATE INDEX outbox_targets ON outbox (target, number) WHERE cause IS NULL",
    "CREATE INDEX outbox_routes ON outbox (route, target) WHERE cause IS NULL",
    # Counted as they come and go: to count them anew for each message would take longer the more there are.
    "CREATE TABLE outbox_size (messages INTEGER NOT NULL, bytes INTEGER NOT NULL)",
    "INSERT INTO outbox_size VALUES (0, 0)",
    (
        "CREATE TRIGGER outbox_put AFTER INSERT ON outbox BEGIN UPDATE outbox_size SET "
        "messages = messages + 1, bytes = bytes + length(new.body); END"
    ),
    (
        "CREATE TRIGGER outbox_ended AFTER DELETE ON outbox BEGIN UPDATE outbox_size SET "
        "messages = messages - 1, bytes = bytes - length(old.body); END"
    ),
    (
        "CREATE TABLE sources (receiver TEXT, source TEXT, below INTEGER NOT NULL, heard REAL NOT NULL, "
        "PRIMARY KEY (receiver, source)) WITHOUT ROWID"
    ),
    # A message with a holder is being handled; one without was.
    (
        "CREATE TABLE handled (receiver TEXT, source TEXT, number INTEGER, holder TEXT, error BLOB, "
        "PRIMARY KEY (receiver, source, number)) WITHOUT ROWID"
    ),
)
_THIS = "receiver = ? AND source = ? AND number = ?"


def check(connection: sqlite3.Connection, path: Path) -> None:
    """Refuse a database that is no store, or a newer one; change nothing.

    Raises:
        StoreError: It is; the text names its file.
    """
    # All as it is at one moment: another process may be making the store.
    connection.execute("BEGIN")
    ((tables,),) = connection.execute("SELECT count(*) FROM sqlite_schema")
    ((application,),) = connection.execute("PRAGMA application_id")
    ((version,),) = connection.execute("PRAGMA user_version")
    connection.execute("COMMIT")
    if application != _APPLICATION and (tables or application):
        raise StoreError(f"{path} is a database of another program: give another file.")
    if version > SCHEMA_VERSION:
        raise StoreError(
            f"The store {path} has version {version}, and this program knows {SCHEMA_VERSION}: "
            "update slim-actors."
        )


def prepare(connection: sqlite3.Connection) -> str:
    """Make the tables where there are none, and forget what is too old; give the id of the store."""
    ((found,),) = connection.execute("PRAGMA quick_check(1)")
    if found != "ok":
        raise sqlite3.DatabaseError(found)
    connection.execute("BEGIN IMMEDIATE")
    ((tables,),) = connection.execute("SELECT count(*) FROM sqlite_schema")
    if not tables:
        for statement in SCHEMA:
            connection.execute(statement)
        connection.execute("INSERT INTO store (id) VALUES (?)", (uuid.uuid4().hex,))
        connection.execute(f"PRAGMA application_id = {_APPLICATION}")
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    # A clock that is wrong once must not have everything forgotten.
    ((newest,),) = connection.execute("SELECT coalesce(max(heard), 0) FROM sources")
    forgotten = (min(time.time(), newest) - _REMEMBER_SOURCES,)
    connection.execute(
        "DELETE FROM handled WHERE (receiver, source) IN "
        "(SELECT receiver, source FROM sources WHERE heard < ?)",
        forgotten,
    )
    connection.execute("DELETE FROM sources WHERE heard < ?", forgotten)
    connection.execute("COMMIT")
    ((store,),) = connection.execute("SELECT id FROM store")
    return str(store)


def apply(connection: sqlite3.Connection, change: Change) -> None:
    """Make one change.

    Raises:
        Busy: The outbox is full.
        StoreError: The message is not the holder's any more.
    """
    match change:
        case Save(key, snapshot):
            connection.execute(
                "INSERT OR REPLACE INTO states (key, version, data, sum) VALUES (?, ?, ?, ?)",
                (key, snapshot.version, snapshot.data, zlib.crc32(snapshot.data)),
            )
        case Put():
            _put(connection, change)
        case Ended(numbers):
            connection.executemany("DELETE FROM outbox WHERE number = ?", [(number,) for number in numbers])
        case Died(number, cause):
            connection.execute("UPDATE outbox SET cause = ? WHERE number = ?", (cause, number))
        case Handled(token, holder, error):
            done = connection.execute(
                f"UPDATE handled SET holder = NULL, error = ? WHERE {_THIS} AND holder = ?",  # noqa: S608
                (error, *_key(token), holder),
            )
            if not done.rowcount:
                raise StoreError("The durable message was taken over by another process meanwhile.")
        case Released(token, holder):
            connection.execute(
                f"DELETE FROM handled WHERE {_THIS} AND holder = ?",  # noqa: S608
                (*_key(token), holder),
            )


def _put(connection: sqlite3.Connection, change: Put) -> None:
    ((messages, size),) = connection.execute("SELECT messages, bytes FROM outbox_size")
    size += sum(len(parcel.body) for parcel in change.parcels)
    if messages + len(change.parcels) > MOST_MESSAGES or size > MOST_BYTES:
        raise Busy(
            f"The outbox is full: {messages} messages wait in it, or died and were not taken from "
            "runtime.dead_letters.",
            _RETRY_AFTER,
        )
    connection.executemany(
        "INSERT INTO outbox (owner, target, route, type, body, context, expires) "
        "VALUES (?, ?, ?, ?, ?, ?, ?)",
        [
            (change.owner, each.target, each.route, each.type, each.body, each.context, each.expires)
            for each in change.parcels
        ],
    )


def take_claim(
    connection: sqlite3.Connection, token: Token, below: int, holder: str, is_held: Callable[[str], bool]
) -> Verdict:
    """See `Store.claim`."""
    source = (token.receiver, token.source)
    known = connection.execute("SELECT below, heard FROM sources WHERE receiver = ? AND source = ?", source)
    ((floor, heard),) = known.fetchall() or [(-1, 0.0)]
    if below > floor:
        connection.execute(
            "INSERT OR REPLACE INTO sources (receiver, source, below, heard) VALUES (?, ?, ?, ?)",
            # Never earlier than before: the clock may be wrong now.
            (*source, below, max(heard, time.time())),
        )
        # What is being handled stays: its holder will say that it was.
        connection.execute(
            "DELETE FROM handled WHERE receiver = ? AND source = ? AND number < ? AND holder IS NULL",
            (*source, below),
        )
        floor = below
    found = connection.execute(f"SELECT holder, error FROM handled WHERE {_THIS}", _key(token))  # noqa: S608
    for other, error in found.fetchall():
        if other is None:
            return Verdict("handled", error)
        if other != holder and is_held(other):
            return Verdict("elsewhere")
    if token.number < floor:
        return Verdict("handled")
    connection.execute(
        "INSERT OR REPLACE INTO handled (receiver, source, number, holder) VALUES (?, ?, ?, ?)",
        (*_key(token), holder),
    )
    return Verdict("mine")


def _key(token: Token) -> tuple[str, str, int]:
    return token.receiver, token.source, token.number
