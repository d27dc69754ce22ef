"""The mailbox of one agent instance: a bounded queue in front of its handlers."""

from __future__ import annotations

import asyncio
from collections import deque
from enum import Enum, auto
from typing import Any, Protocol

from attrs import define, frozen

from slim_actors.errors import ConfigurationError, DeliveryError
from slim_actors.names import Address

__all__ = ["Envelope", "Mailbox", "MailboxQueue", "Origin", "State"]


@frozen
class Mailbox:
    """How an agent's mailbox is declared.

    Attributes:
        capacity: How many messages may wait. Those beyond it wait at their senders, who are slowed down by
            credit.

    Raises:
        ConfigurationError: The capacity is not a whole number from 1 up.

    Example:
        >>> Mailbox(capacity=100).capacity
        100
    """

    capacity: int = 1000

    def __attrs_post_init__(self) -> None:
        if isinstance(self.capacity, bool) or not isinstance(self.capacity, int) or self.capacity < 1:
            raise ConfigurationError(
                f"A mailbox capacity of {self.capacity!r} is not a whole number from 1 up."
            )


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


@define(eq=False)
class Envelope:
    """One message on its way through one instance. It gets exactly one outcome: the first one counts."""

    id: int
    message: Any
    handler: Any
    sender: Address
    expires: float
    """On the clock of the event loop, in seconds."""
    origin: Origin
    wants_reply: bool = True
    was_accepted: bool = False
    state: State = State.WAITING

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

    Messages beyond the capacity are *parked*: they are here, but not accepted, so their senders get no new
    credit for them. What can be parked is bounded by the credit that was given out.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._accepted: deque[Envelope] = deque()
        self._parked: deque[Envelope] = deque()
        self._takers: deque[asyncio.Future[None]] = deque()

    def __len__(self) -> int:
        return len(self._accepted)

    def put(self, envelope: Envelope) -> None:
        """Accept a message, or park it until there is room."""
        if len(self._accepted) < self._capacity:
            self._accept(envelope)
        else:
            self._parked.append(envelope)

    async def take(self) -> Envelope:
        """Wait for the next message that still has no outcome."""
        while True:
            while self._accepted:
                envelope = self._accepted.popleft()
                self._unpark()
                if envelope.state is State.WAITING:
                    return envelope
            taker = asyncio.get_running_loop().create_future()
            self._takers.append(taker)
            try:
                await taker
            except asyncio.CancelledError:
                if taker.done() and not taker.cancelled():
                    self._wake()
                raise

    def clear(self) -> list[Envelope]:
        """Take everything out, and give what had no outcome yet."""
        left = [*self._accepted, *self._parked]
        self._accepted.clear()
        self._parked.clear()
        return [envelope for envelope in left if envelope.state is State.WAITING]

    def clear_parked(self) -> list[Envelope]:
        """Take out only what was never accepted."""
        left = [envelope for envelope in self._parked if envelope.state is State.WAITING]
        self._parked.clear()
        return left

    def _unpark(self) -> None:
        while self._parked and len(self._accepted) < self._capacity:
            envelope = self._parked.popleft()
            self._accept(envelope)

    def _accept(self, envelope: Envelope) -> None:
        self._accepted.append(envelope)
        envelope.was_accepted = True
        envelope.origin.accepted(envelope)
        self._wake()

    def _wake(self) -> None:
        while self._takers:
            taker = self._takers.popleft()
            if not taker.done():
                taker.set_result(None)
                return
