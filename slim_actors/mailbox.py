"""What waits for the handlers of one agent instance: how much may, and what is known of each message."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, Literal, Protocol

import attrs
from attrs import frozen
from msgspec import Struct, field

from slim_actors.checks import is_number, is_whole
from slim_actors.errors import ConfigurationError, DeliveryError
from slim_actors.middleware import Verb
from slim_actors.names import Address

if TYPE_CHECKING:
    from slim_actors.declaration import Handler
    from slim_actors.streams import Inlet, Outlet

__all__ = [
    "DONE",
    "RUNNING",
    "WAITING",
    "Envelope",
    "Mailbox",
    "MailboxStats",
    "Origin",
    "State",
]

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
        """Wait until an outcome can be taken: whoever does not read replies gets no more made.

        None if it can be taken now, which is to be asked again after the wait.
        """


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
    """Bytes of its body and context that its caller is charged with until it has its outcome."""
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
