"""The mailbox of one agent instance: a bounded queue in front of its handlers."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, Literal, Protocol

import attrs
from attrs import frozen
from msgspec import Struct, field

from slim_actors.checks import is_number, is_whole
from slim_actors.errors import Busy, ConfigurationError, DeliveryError
from slim_actors.middleware import Verb
from slim_actors.names import Address
from slim_actors.turns import Turns

if TYPE_CHECKING:
    from slim_actors.declaration import Handler
    from slim_actors.streams import Inlet, Outlet

__all__ = [
    "DONE",
    "RUNNING",
    "WAITING",
    "Envelope",
    "Mailbox",
    "MailboxQueue",
    "MailboxStats",
    "Origin",
    "State",
]

_MOST_BYTES = 64 * 1024 * 1024
"""A mailbox is full at this too, however few messages it holds."""

Overflow = Literal["wait", "busy", "drop_oldest"]


@frozen
class Mailbox:
    """How an agent's mailbox is declared.

    Attributes:
        capacity: How many messages may wait; fewer if they have 64 MiB together.
        overflow: What happens to one more. ``"wait"``: it waits at its sender, who is slowed down across the
            network. ``"busy"``: it is refused with `Busy`, and Anycast tries another replica.
            ``"drop_oldest"``: it takes the place of the message that has waited longest.
        retry_after: Seconds that `Busy` names to its caller.

    Raises:
        ConfigurationError: A value is out of range.

    Example:
        >>> Mailbox(capacity=100, overflow="busy").capacity
        100
    """

    capacity: int = 1000
    overflow: Overflow = attrs.field(default="wait", kw_only=True)
    retry_after: float = attrs.field(default=0.1, kw_only=True)

    def __attrs_post_init__(self) -> None:
        if not is_whole(self.capacity) or self.capacity < 1:
            raise ConfigurationError(
                f"A mailbox capacity of {self.capacity!r} is not a whole number from 1 up."
            )
        if self.overflow not in ("wait", "busy", "drop_oldest"):
            raise ConfigurationError(
                f"A mailbox overflow of {self.overflow!r} is not 'wait', 'busy' or 'drop_oldest'."
            )
        if not is_number(self.retry_after) or self.retry_after < 0:
            raise ConfigurationError(
                f"A mailbox retry_after of {self.retry_after!r} is not a number of seconds from 0 up."
            )


class MailboxStats(Struct, frozen=True):
    """What went through a mailbox so far.

    Attributes:
        depth: Messages that wait now.
        oldest_age: Seconds that the first of them has waited; 0 where none waits.
        accepted: Messages that were accepted.
        handled: Messages whose handler returned.
        failed: Messages whose handler raised.
        expired: Messages whose deadline passed while they waited or were handled.
        cancelled: Messages that their caller cancelled, before or while they were handled.
        dropped: Messages that were accepted and had to make room for others.
        refused: Messages that were answered with `Busy`.
        denied: Messages that were answered with `Denied`.
    """

    depth: int
    oldest_age: float
    accepted: int
    handled: int
    failed: int
    expired: int
    cancelled: int
    dropped: int
    refused: int
    denied: int = 0


class State(Enum):
    """Where a message is on its way through an instance."""

    WAITING = auto()
    RUNNING = auto()
    DONE = auto()


WAITING, RUNNING, DONE = State
"""For what is done for every message: looking a member up in its class costs more than comparing it."""


class Origin(Protocol):
    """Where a message came from, and where its outcome goes."""

    def accepted(self, envelope: Envelope) -> None:
        """The mailbox has taken the message."""

    def accepted_all(self, envelopes: Sequence[Envelope]) -> None:
        """The mailbox has taken messages that all came from here: only tells, or none."""

    def replied(self, envelope: Envelope, value: Any) -> None:
        """The handler returned."""

    def failed(self, envelope: Envelope, error: DeliveryError) -> None:
        """The message ended without a reply."""

    def room(self) -> Awaitable[None] | None:
        """Wait until its outcome can be taken: whoever does not read replies gets no more made."""


class Envelope(Struct, eq=False):
    """One message on its way through one instance. It gets exactly one outcome: the first one counts."""

    id: int
    message: Any
    handler: Handler | None
    sender: Address
    expires: float
    """On the clock of the event loop, in seconds."""
    origin: Origin
    context: dict[str, Any] = field(default_factory=dict)
    wants_reply: bool = True
    outlet: Outlet | None = None
    """Where a stream of replies goes."""
    inlet: Inlet | None = None
    """Where the items come from that follow the message."""
    size: int = 0
    """Bytes of its body that its caller is charged with until it has its outcome."""
    arrived_at: float | None = None
    """When it came to the mailbox; earlier than it was accepted, if it had to wait at the door."""
    keep: bool = False
    """Whether it is taken however full the mailbox is, and never makes room for another."""
    accepted_at: float | None = None
    state: State = WAITING
    release: Callable[[], None] | None = None
    """Called when it ends without its handler having ended: of a durable message, which may come again."""

    @property
    def verb(self) -> Verb:
        """How it was sent."""
        if self.outlet is not None:
            return "stream"
        return "ask" if self.wants_reply else "tell"

    @property
    def was_accepted(self) -> bool:
        """Whether a mailbox has taken it."""
        return self.accepted_at is not None

    def reply(self, value: Any) -> None:
        """End with a reply."""
        if self.state is not DONE:
            self.state = DONE
            self.origin.replied(self, value)

    def fail(self, error: DeliveryError) -> None:
        """End without a reply."""
        if self.state is not DONE:
            self.state = DONE
            if self.release is not None:
                self.release()
            self.origin.failed(self, error)


class MailboxQueue:
    """The queue behind a `Mailbox`. Senders take turns: one with many messages keeps no other waiting.

    With ``overflow="wait"``, messages beyond the capacity are *parked*: they are here, but not accepted, so
    their senders get no new credit for them. What can be parked is bounded by the credit that was given out.
    """

    def __init__(self, declared: Mailbox) -> None:
        self._declared = declared
        self._accepted = Turns()
        self._parked = Turns()
        self._bytes = 0
        self._will_unpark = False
        self._takers: deque[asyncio.Future[None]] = deque()
        self._loop = asyncio.get_running_loop()
        self.accepted = self.handled = self.failed = self.expired = 0
        self.cancelled = self.dropped = self.refused = self.denied = 0

    def __len__(self) -> int:
        return len(self._accepted.all)

    @property
    def stats(self) -> MailboxStats:
        """The numbers as they are now."""
        oldest = next(iter(self._accepted.all)).accepted_at if self._accepted.all else None
        age = 0.0 if oldest is None else self._loop.time() - oldest
        return MailboxStats(
            len(self._accepted.all),
            age,
            self.accepted,
            self.handled,
            self.failed,
            self.expired,
            self.cancelled,
            self.dropped,
            self.refused,
            self.denied,
        )

    def put(self, envelope: Envelope) -> Envelope | None:
        """Accept a message, or do with it what the overflow says; give the one that was dropped for it.

        Raises:
            Busy: It is refused.
        """
        if self._parked.all:
            # Whoever has waited comes first.
            self._unpark()
        if len(self._accepted.all) < self._declared.capacity and self._bytes < _MOST_BYTES:
            # As nearly always; one always fits, however large.
            self._accept(envelope)
            return None
        dropped = None
        if not envelope.keep:
            if self._declared.overflow == "wait":
                envelope.arrived_at = self._loop.time()
                self._parked.add(envelope)
                return None
            if self._declared.overflow == "busy":
                self.refused += 1
                raise Busy(
                    f"The mailbox is full: {len(self._accepted.all)} messages wait.",
                    self._declared.retry_after,
                )
            dropped = next((waiting for waiting in self._accepted.all if not waiting.keep), None)
            if dropped is not None:
                self._remove(dropped)
                self.dropped += 1
        self._accept(envelope)
        return dropped

    def put_all(self, envelopes: Sequence[Envelope], size: int) -> int | None:
        """Put asks, or tells, of one session that have so many bytes together.

        Returns:
            How many were accepted; the others are parked. None, and nothing was done, where they must be put
            one by one, since some would be refused or make others go.
        """
        if self._parked.all:
            self._unpark()
        room = max(0, self._declared.capacity - len(self._accepted.all))
        fits = len(envelopes) <= room
        if self._bytes + size >= _MOST_BYTES or (not fits and self._declared.overflow != "wait"):
            return None
        if fits:
            self._accept_all(envelopes)
            return len(envelopes)
        now = self._loop.time()
        for envelope in envelopes[room:]:
            envelope.arrived_at = now
        self._parked.add_all(envelopes[room:])
        if room:
            self._accept_all(envelopes[:room])
        return room

    def next(self) -> Envelope | None:
        """Give the next message; None if none waits."""
        accepted = self._accepted
        if not accepted.all:
            return None
        # Of one sender, as nearly always, without another call.
        envelope = accepted.next() if accepted.senders else accepted.all.popitem(last=False)[0]
        self._bytes -= envelope.size
        if self._parked.all:
            # Soon, for several at once, where the worker goes on; but before anything else that comes.
            if not accepted.all:
                self._unpark()
            elif not self._will_unpark:
                self._will_unpark = True
                self._loop.call_soon(self._unpark)
        return envelope

    async def take(self) -> Envelope:
        """Wait for the next message."""
        while (envelope := self.next()) is None:
            taker = self._loop.create_future()
            self._takers.append(taker)
            try:
                await taker
            except asyncio.CancelledError:
                if taker.done() and not taker.cancelled():
                    self._wake()
                raise
        return envelope

    def discard(self, envelope: Envelope) -> None:
        """Take a message out, wherever it waits."""
        if envelope in self._accepted.all:
            self._remove(envelope)
            self._unpark()
        else:
            self._parked.remove(envelope)

    def clear(self) -> list[Envelope]:
        """Take everything out, and give it."""
        left = self._accepted.clear()
        self._bytes = 0
        return left + self.clear_parked()

    def clear_parked(self) -> list[Envelope]:
        """Take out only what was never accepted."""
        return self._parked.clear()

    @property
    def _is_full(self) -> bool:
        # One always fits, however large.
        return len(self._accepted.all) >= self._declared.capacity or self._bytes >= _MOST_BYTES

    def _remove(self, envelope: Envelope) -> None:
        self._accepted.remove(envelope)
        self._bytes -= envelope.size

    def _unpark(self) -> None:
        self._will_unpark = False
        while self._parked.all and not self._is_full:
            room = self._declared.capacity - len(self._accepted.all)
            run = self._parked.next_run(room, _MOST_BYTES - self._bytes)
            if len(run) == 1:
                self._accept(run[0])
            else:
                self._accept_all(run)

    def _accept_all(self, envelopes: Sequence[Envelope]) -> None:
        now, size = self._loop.time(), 0
        for envelope in envelopes:
            envelope.accepted_at = now
            if envelope.arrived_at is None:
                envelope.arrived_at = now
            size += envelope.size
        self.accepted += len(envelopes)
        self._bytes += size
        self._accepted.add_all(envelopes)
        envelopes[0].origin.accepted_all(envelopes)
        for _ in range(min(len(envelopes), len(self._takers))):
            self._wake()

    def _accept(self, envelope: Envelope) -> None:
        envelope.accepted_at = now = self._loop.time()
        if envelope.arrived_at is None:
            envelope.arrived_at = now
        self.accepted += 1
        self._bytes += envelope.size
        self._accepted.add(envelope)
        envelope.origin.accepted(envelope)
        if self._takers:
            self._wake()

    def _wake(self) -> None:
        while self._takers:
            taker = self._takers.popleft()
            if not taker.done():
                taker.set_result(None)
                return
