"""The outbox: delivers durable messages until each has its outcome, in this life of the process or the next.

A durable message travels as an ask whose reply says that it was handled; what has no outcome yet is in the
store. A *lane* for each route delivers the oldest messages, some at a time, and repeats with a pause what
may still succeed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import msgspec

from slim_actors import wire
from slim_actors.backoff import Backoff
from slim_actors.call import Call
from slim_actors.deadletters import DeadLetter, DeadLetters
from slim_actors.errors import (
    ConfigurationError,
    DeliveryError,
    Denied,
    Expired,
    MalformedMessage,
    RemoteError,
    StoreError,
    TooLarge,
    UnhandledMessage,
    UnsupportedVersion,
    from_wire,
    to_wire,
)
from slim_actors.limits import MAX_PAYLOAD
from slim_actors.messages import body_of
from slim_actors.middleware import Hooks, Sending
from slim_actors.names import Address
from slim_actors.routes import Anycast, Route, Unicast
from slim_actors.routing.router import Router
from slim_actors.speaker import sender_by
from slim_actors.store import OWNER, Change, Died, Ended, Hold, Parcel, Put, Store, Token

__all__ = ["NO_STORE", "Outbox"]

NO_STORE = "A durable tell needs a store: Runtime(store=...), or run --store FILE."

_AT_ONCE = 64
_DEAD_AT_ONCE = 100
_ATTEMPT = 60.0
"""Seconds that one attempt may take, in the mailbox and in the handler."""

_LOOK_EVERY = 2.0
_LANE_KEEPS = 60.0
"""Seconds for which a lane without messages is kept: one for each user, say, would be many."""
_BACKOFF = Backoff()
_FRAME_ROOM = 4096

_FINAL = (UnhandledMessage, MalformedMessage, Denied, TooLarge, RemoteError, UnsupportedVersion)
_ROUTES: dict[str, type[Anycast | Unicast]] = {"Anycast": Anycast, "Unicast": Unicast}

_logger = logging.getLogger("slim_actors.outbox")


class Outbox:
    """The durable messages of one runtime.

    Args:
        name: The SLIM name of the runtime.
        store: Where they are: a store, or the file of one.
        sender: Gives what sends them.
        dead_letters: Where those go that no repetition helps.
        hooks: Told what is sent.
    """

    def __init__(
        self,
        name: str,
        store: str | os.PathLike[str] | Store,
        sender: Callable[[], Awaitable[Router]],
        dead_letters: DeadLetters,
        hooks: Hooks,
    ) -> None:
        self._name = name
        self.store = _store_of(store)
        self.owner = OWNER + uuid.uuid4().hex
        self.claimed: set[Token] = set()
        """The durable messages that are being handled in this process."""
        self._sender = sender
        self._dead_letters = dead_letters
        self._hooks = hooks
        self._lanes: dict[str, _Lane] = {}
        self._hold: Hold | None = None
        self._patrol: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Open the store, and recall the dead letters that are in it.

        Raises:
            StoreError: It cannot be used.
        """
        await self.store.open()
        try:
            self._hold = self.store.hold(self.owner)
            await self.store.adopt(self.owner)
            self._dead_letters.kept = self
            await self._recall()
        except BaseException:
            await self.close_store()
            raise

    def start(self) -> None:
        """Begin to deliver what is there, also what processes that died have left."""
        self._patrol = asyncio.create_task(self._look(), name="outbox")

    async def close(self, drain: float) -> None:
        """Deliver what can be delivered now, in so many seconds at the most; the rest stays in the store."""
        if self._patrol is None:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(drain):
                for lane in list(self._lanes.values()):
                    await lane.idle.wait()
        tasks = [self._patrol, *(task for lane in self._lanes.values() for task in lane.tasks)]
        self._patrol = None
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)

    async def close_store(self) -> None:
        """Let go of the store; what is not delivered may be adopted by others."""
        await self.close(0.0)
        if self._hold is not None:
            self._hold.release()
        await self.store.close()

    def parcel(self, route: Route, message: object, timeout: float | None, context: dict[str, Any]) -> Parcel:
        """Make a message ready for the store.

        Raises:
            ConfigurationError: The route names what does not outlive a process.
            MalformedMessage: It holds something that has no form on the wire.
            TooLarge: It has more bytes than one message may have.
        """
        if isinstance(route, Unicast) and (route.instance is not None or route.wire == "bytes"):
            raise ConfigurationError(
                "A durable message is for a name, whichever replica is there to take it: its route can have "
                "no instance and no wire='bytes'."
            )
        sending = Sending("tell", route, message, "", Address(self._name), context, Call())
        with self._hooks.around(self._hooks.sending, sending):
            # Nobody waits for what comes after: it ends when it goes into the store.
            pass
        # Nobody waits for what it does, so it cannot close a circle.
        context.pop("chain", None)
        kind, body = body_of(message)
        encoded, travelling = wire.encode_body(body), wire.encode_body(context)
        if len(encoded) + len(travelling) + _FRAME_ROOM > MAX_PAYLOAD:
            raise TooLarge(f"A durable message of {len(encoded)} bytes is more than one may have.")
        text = msgspec.json.encode((type(route).__name__, route)).decode()
        expires = None if timeout is None else time.time() + timeout
        return Parcel(route.name, text, kind, encoded, travelling, expires)

    async def put(self, parcels: Iterable[Parcel]) -> None:
        """Keep messages, and begin to deliver them.

        Raises:
            Busy: The outbox is full.
            StoreError: They cannot be kept.
        """
        parcels = tuple(parcels)
        await self.store.commit(Put(self.owner, parcels))
        self.look(parcels)

    def look(self, parcels: Iterable[Parcel]) -> None:
        """Begin to deliver messages that were put into the store."""
        for route in {parcel.route for parcel in parcels}:
            self._lane(route).look()

    async def _look(self) -> None:
        while True:
            try:
                adopted = await self.store.adopt(self.owner)
                for route in adopted.routes:
                    self._lane(route).look()
                if adopted.has_dead:
                    await self._recall()
            except StoreError as error:
                _logger.warning("The outbox waits for its store: %s", error)
            await asyncio.sleep(_LOOK_EVERY)

    def _lane(self, route: str) -> _Lane:
        lane = self._lanes.get(route)
        if lane is None:
            lane = self._lanes[route] = _Lane(self, route)
        return lane

    def forget_lane(self, route: str) -> None:
        """Take note that a lane has ended: there was nothing to deliver; the next message makes another."""
        del self._lanes[route]

    async def relay(self, route: Route, parcel: Parcel, below: int) -> None:
        """Try once to have a message handled."""
        source = self.store.id
        context = msgspec.msgpack.decode(parcel.context)
        context = {"id": f"{source}:{parcel.number}", **context, "durable": (source, parcel.number, below)}
        left = _ATTEMPT if parcel.expires is None else min(_ATTEMPT, parcel.expires - time.time())
        if left <= 0:
            raise Expired("no time was left for another.")
        expires = asyncio.get_running_loop().time() + left
        router = await sender_by(self._sender, expires)
        await router.relay(route, parcel.type, msgspec.Raw(parcel.body), expires, context)

    async def note(self, change: Change) -> None:
        """Make a change that needs making, however long the store is out of order."""
        while True:
            try:
                await self.store.commit(change)
            except StoreError as error:
                _logger.warning("The outcome of a durable message cannot be kept yet: %s", error)
                await asyncio.sleep(_BACKOFF.most)
            else:
                return

    async def bury(self, parcel: Parcel, cause: DeliveryError) -> None:
        """Keep a message as a dead letter, and tell."""
        await self.note(Died(parcel.number, msgspec.msgpack.encode(to_wire(cause))))
        self._dead_letters.add(self._letter(parcel, cause))

    async def _recall(self) -> None:
        """Show the dead letters of earlier lives, and of other processes that have ended."""
        count = await self._dead_letters.recall()
        if count:
            _logger.warning("%d dead letters wait in the store", count)

    async def dead(self, after: int) -> list[DeadLetter]:
        """See `Kept.dead`."""
        letters = []
        for parcel in await self.store.dead(self.owner, after, _DEAD_AT_ONCE):
            assert parcel.cause is not None, "the dead have a cause"
            cause = from_wire(*msgspec.msgpack.decode(parcel.cause))
            letters.append(self._letter(parcel, cause))
        return letters

    async def forget(self, numbers: tuple[int, ...]) -> None:
        """See `Kept.forget`."""
        await self.store.commit(Ended(numbers))

    def _letter(self, parcel: Parcel, cause: DeliveryError) -> DeadLetter:
        message, recipient = msgspec.msgpack.decode(parcel.body), Address(parcel.target)
        return DeadLetter(message, Address(self._name), recipient, cause, number=parcel.number)


class _Lane:
    """Delivers the messages for one route."""

    def __init__(self, outbox: Outbox, route: str) -> None:
        kind, fields = msgspec.json.decode(route, type=tuple[str, dict[str, Any]])
        self._route = _ROUTES[kind](**fields)
        self._outbox = outbox
        self._text = route
        self._flying: dict[int, asyncio.Task[None]] = {}
        self._resting: set[int] = set()
        self._wake = asyncio.Event()
        self.idle = asyncio.Event()
        """Set while there is nothing that could be delivered at once."""
        self._task = asyncio.create_task(self._run(), name=f"outbox {self._route.name}")

    @property
    def tasks(self) -> list[asyncio.Task[None]]:
        """All that is under way."""
        return [self._task, *self._flying.values()]

    def look(self) -> None:
        """Look for messages in the store."""
        self.idle.clear()
        self._wake.set()

    async def _run(self) -> None:
        outbox = self._outbox
        while True:
            self._wake.clear()
            try:
                found = await outbox.store.waiting(
                    outbox.owner, self._text, frozenset(self._flying), _AT_ONCE
                )
            except StoreError as error:
                _logger.warning("The outbox waits for its store: %s", error)
                await asyncio.sleep(_BACKOFF.most)
                continue
            for parcel in found.parcels:
                self._flying[parcel.number] = asyncio.create_task(self._deliver(parcel, found.below))
            if self._flying.keys() <= self._resting and not self._wake.is_set():
                self.idle.set()
            try:
                async with asyncio.timeout(None if self._flying else _LANE_KEEPS):
                    await self._wake.wait()
            except TimeoutError:
                if not self._wake.is_set():
                    outbox.forget_lane(self._text)
                    return

    async def _deliver(self, parcel: Parcel, below: int) -> None:
        try:
            cause = await self._outcome(parcel, below)
            if cause is None:
                await self._outbox.note(Ended((parcel.number,)))
            else:
                await self._outbox.bury(parcel, cause)
        finally:
            del self._flying[parcel.number]
            self._resting.discard(parcel.number)
            self.look()

    async def _outcome(self, parcel: Parcel, below: int) -> DeliveryError | None:
        """Try until there is an outcome: None, or the error that no repetition helps."""
        attempt = 0
        while True:
            try:
                await self._outbox.relay(self._route, parcel, below)
            except _FINAL as error:
                return error
            except DeliveryError as error:
                if parcel.expires is not None and parcel.expires <= time.time():
                    late = Expired(f"The durable message was not handled in its time; the last try: {error}")
                    late.may_have_run = error.may_have_run
                    return late
            except Exception:
                _logger.exception("A durable message for %s could not be sent", parcel.target)
            else:
                return None
            self._resting.add(parcel.number)
            self.look()
            await asyncio.sleep(self._within(parcel, _BACKOFF.pause(attempt)))
            self._resting.discard(parcel.number)
            attempt += 1

    @staticmethod
    def _within(parcel: Parcel, pause: float) -> float:
        return pause if parcel.expires is None else max(0.0, min(pause, parcel.expires - time.time()))


def _store_of(store: str | os.PathLike[str] | Store) -> Store:
    if not isinstance(store, str | os.PathLike):
        if not hasattr(store, "commit"):
            raise ConfigurationError(f"The store is {store!r}, but must be the path of a file, or a Store.")
        return store
    # Here, not at the top: a runtime without a store need not load a database.
    from slim_actors.sqlite import SqliteStore

    return SqliteStore(store)
