"""The mailbox of one agent instance: a bounded queue in front of its handlers."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, Literal, Protocol

from attrs import define, field, frozen

from slim_actors.errors import Busy, ConfigurationError, DeliveryError
from slim_actors.middleware import Verb
from slim_actors.names import Address

if TYPE_CHECKING:
    from slim_actors.declaration import Handler
    from slim_actors.streams import Inlet, Outlet

__all__ = ["Envelope", "Mailbox", "MailboxQueue", "MailboxStats", "Origin", "State"]

Overflow = Literal["wait", "busy", "drop_oldest"]


@frozen
class Mailbox:
    """How an agent's mailbox is declared.

    Attributes:
        capacity: How many messages may wait.
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
    overflow: Overflow = field(default="wait", kw_only=True)
    retry_after: float = field(default=0.1, kw_only=True)

    def __attrs_post_init__(self) -> None:
        if isinstance(self.capacity, bool) or not isinstance(self.capacity, int) or self.capacity < 1:
            raise ConfigurationError(
                f"A mailbox capacity of {self.capacity!r} is not a whole number from 1 up."
            )
        if self.overflow not in ("wait", "busy", "drop_oldest"):
            raise ConfigurationError(
                f"A mailbox overflow of {self.overflow!r} is not 'wait', 'busy' or 'drop_oldest'."
            )


@frozen
class MailboxStats:
    """What went through a mailbox so far.

    Attributes:
        depth: Messages that wait now.
        oldest_age: Seconds that the first of them has waited; 0 where none waits.
        accepted: Messages that were accepted.
        handled: Messages whose handler returned.
        failed: Messages whose handler raised.
        expired: Messages whose deadline passed while they waited.
        cancelled: Messages that their caller cancelled, before or while they were handled.
        dropped: Messages that were accepted and had to make room for others.
        refused: Messages that were answered with `Busy`.
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


class State(Enum):
    """Where a message is on its way through an instance."""

    WAITING = auto()
    RUNNING = auto()
    DONE = auto()


class Origin(Protocol):
    """Where a message came from, and where its outcome goes."""

    def accepted(self, envelope: Envelope) -> None:
        """The mailbox has taken the message."""

    def replied(self, envelope: Envelope, value: Any) -> None:
        """The handler returned."""

    def failed(self, envelope: Envelope, error: DeliveryError) -> None:
        """The message ended without a reply."""

    async def room(self) -> None:
        """Wait until its outcome can be taken: whoever does not read replies gets no more made."""


@define(eq=False)
class Envelope:
    """One message on its way through one instance. It gets exactly one outcome: the first one counts."""

    id: int
    message: Any
    handler: Handler | None
    sender: Address
    expires: float
    """On the clock of the event loop, in seconds."""
    origin: Origin
    context: dict[str, Any] = field(factory=dict)
    wants_reply: bool = True
    outlet: Outlet | None = None
    """Where a stream of replies goes."""
    inlet: Inlet | None = None
    """Where the items come from that follow the message."""
    arrived_at: float | None = None
    """When it came to the mailbox; earlier than it was accepted, if it had to wait at the door."""
    accepted_at: float | None = None
    state: State = State.WAITING

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
        if self.state is not State.DONE:
            self.state = State.DONE
            self.origin.replied(self, value)

    def fail(self, error: DeliveryError) -> None:
        """End without a reply."""
        if self.state is not State.DONE:
            self.state = State.DONE
            self.origin.failed(self, error)


class MailboxQueue:
    """The queue behind a `Mailbox`.

    With ``overflow="wait"``, messages beyond the capacity are *parked*: they are here, but not accepted, so
    their senders get no new credit for them. What can be parked is bounded by the credit that was given out.
    """

    def __init__(self, declared: Mailbox) -> None:
        self._declared = declared
        self._accepted: OrderedDict[Envelope, None] = OrderedDict()
        self._parked: OrderedDict[Envelope, None] = OrderedDict()
        self._takers: deque[asyncio.Future[None]] = deque()
        self.accepted = self.handled = self.failed = self.expired = 0
        self.cancelled = self.dropped = self.refused = 0

    def __len__(self) -> int:
        return len(self._accepted)

    @property
    def stats(self) -> MailboxStats:
        """The numbers as they are now."""
        oldest = next(iter(self._accepted)).accepted_at if self._accepted else None
        age = 0.0 if oldest is None else asyncio.get_running_loop().time() - oldest
        return MailboxStats(
            len(self._accepted),
            age,
            self.accepted,
            self.handled,
            self.failed,
            self.expired,
            self.cancelled,
            self.dropped,
            self.refused,
        )

    def put(self, envelope: Envelope) -> Envelope | None:
        """Accept a message, or do with it what the overflow says; give the one that was dropped for it.

        Raises:
            Busy: It is refused.
        """
        dropped = None
        if len(self._accepted) >= self._declared.capacity:
            if self._declared.overflow == "wait":
                envelope.arrived_at = asyncio.get_running_loop().time()
                self._parked[envelope] = None
                return None
            if self._declared.overflow == "busy":
                self.refused += 1
                raise Busy(
                    f"The mailbox is full: {len(self._accepted)} messages wait.", self._declared.retry_after
                )
            dropped, _ = self._accepted.popitem(last=False)
            self.dropped += 1
        self._accept(envelope)
        return dropped

    async def take(self) -> Envelope:
        """Wait for the next message."""
        while True:
            if self._accepted:
                envelope, _ = self._accepted.popitem(last=False)
                self._unpark()
                return envelope
            taker = asyncio.get_running_loop().create_future()
            self._takers.append(taker)
            try:
                await taker
            except asyncio.CancelledError:
                if taker.done() and not taker.cancelled():
                    self._wake()
                raise

    def discard(self, envelope: Envelope) -> None:
        """Take a message out, wherever it waits."""
        if envelope in self._accepted:
            del self._accepted[envelope]
            self._unpark()
        else:
            self._parked.pop(envelope, None)

    def clear(self) -> list[Envelope]:
        """Take everything out, and give it."""
        left = list(self._accepted)
        self._accepted.clear()
        return left + self.clear_parked()

    def clear_parked(self) -> list[Envelope]:
        """Take out only what was never accepted."""
        left = list(self._parked)
        self._parked.clear()
        return left

    def _unpark(self) -> None:
        while self._parked and len(self._accepted) < self._declared.capacity:
            envelope, _ = self._parked.popitem(last=False)
            self._accept(envelope)

    def _accept(self, envelope: Envelope) -> None:
        envelope.accepted_at = asyncio.get_running_loop().time()
        if envelope.arrived_at is None:
            envelope.arrived_at = envelope.accepted_at
        self.accepted += 1
        self._accepted[envelope] = None
        envelope.origin.accepted(envelope)
        self._wake()

    def _wake(self) -> None:
        while self._takers:
            taker = self._takers.popleft()
            if not taker.done():
                taker.set_result(None)
                return
