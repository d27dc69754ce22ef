"""A message as it is sent, and what is known of it until it has its outcome."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextvars import Context
from typing import Any

from msgspec import Raw, Struct, field, structs

from slim_actors import wire
from slim_actors.call import Call
from slim_actors.errors import (
    Busy,
    CallCycle,
    Cancelled,
    DeliveryError,
    Expired,
    MalformedMessage,
    NodeUnreachable,
    PeerLost,
    Stopped,
    Untrusted,
)
from slim_actors.messages import Body
from slim_actors.routing.breaker import Replica
from slim_actors.routing.items import Items
from slim_actors.streams import FIRST_ITEMS, Inlet, Outlet

__all__ = ["Chunk", "Late", "Outgoing", "Pending", "Trials", "Unread", "too_late"]

_MOST_LOSSES = 5


class Outgoing(Struct, frozen=True, eq=False, gc=False):
    """One message as it is sent, to one replica or, on a retry, to another.

    A Struct, as `Pending` is, because it is made in a tenth of the time of a frozen attrs class. Nothing that
    it holds leads back to it, so the garbage collector need not look at thousands of them again and again.
    """

    kind: type[wire.Ask | wire.Tell | wire.Tells | wire.Stream]
    id: int
    type: str
    body: Any
    """That of `wire.Tells` is a list of encoded bodies: as many messages."""
    expires: float
    """On the clock of the event loop, in seconds."""
    replies: Body
    """The reader of the replies."""
    context: dict[str, Any] = field(default_factory=dict)
    items: Items | None = None
    """What follows the message."""

    @property
    def wants_reply(self) -> bool:
        """Whether it ends in more than being accepted."""
        return self.kind is not wire.Tell

    def frame(self, now: float) -> wire.Incoming | wire.Tells:
        """Make the frame; the deadline travels as what is left of it."""
        ttl = self.expires - now if self.expires > now else 0.0
        context, follows = self.context or None, self.items is not None
        if self.kind is wire.Ask:
            return wire.Ask(self.id, self.type, self.body, ttl, context, follows)
        if self.kind is wire.Tell:
            return wire.Tell(self.id, self.type, self.body, ttl, context)
        if self.kind is wire.Tells:
            if len(self.body) == 1:
                return wire.Tell(self.id, self.type, Raw(self.body[0]), ttl, context)
            return wire.Tells(self.id, self.type, Raw(wire.join(self.body)), ttl, context)
        return wire.Stream(self.id, self.type, self.body, ttl, context, follows, FIRST_ITEMS)

    def read(self, reply: Raw) -> Any:
        """Read the reply.

        Raises:
            MalformedMessage: It is not of the type that the message declares.
        """
        try:
            return self.replies.read(reply, f"The reply to {self.type}")
        except MalformedMessage as error:
            error.may_have_run = True
            raise

    def one(self, message_id: int) -> Outgoing:
        """Give one of several tells by itself."""
        body = Raw(self.body[message_id - self.id])
        return structs.replace(self, kind=wire.Tell, id=message_id, body=body)


class Late(Exception):
    """The deadline has passed; why is for the router to say."""


class Unread(Exception):
    """The reply has come and raised something when it was read: whoever waits for it reads it once more.

    What a user's own class raises, and what it looks up in context variables, is for who asked alone.
    """

    def __init__(self, reply: Raw) -> None:
        self.reply = reply


class Pending(Struct, eq=False):
    """A message that is under way to one replica."""

    message: Outgoing
    outcome: asyncio.Future[Any]
    """The reply, the acceptance, or, of a stream, that its first item came or that it ended."""
    inlet: Inlet | None = None
    outlet: Outlet | None = None
    pump: asyncio.Task[None] | None = None
    """What sends the items that follow the message."""
    context: Context | None = None
    """That of whoever gave those items, in which they are made."""
    size: int = 0
    is_late: bool = False
    """Whether its deadline passed first."""
    has_reply: bool = False
    """Whether its reply has come: then its place in the window is given back."""

    @property
    def count(self) -> int:
        """How many messages of it have no outcome: `Chunk`s have several."""
        return 1

    @property
    def span(self) -> int:
        """How many messages it has, with those that have their outcome."""
        return 1

    @property
    def has_flows(self) -> bool:
        """Whether items come or go with it."""
        return self.inlet is not None or self.outlet is not None

    def end(self, result: Any = None, error: Exception | None = None) -> None:
        """Set the outcome, if there is none yet."""
        if error is not None and self.inlet is not None:
            self.inlet.fail(error)
        if self.outcome.done():
            return
        if error is not None:
            self.outcome.set_exception(error)
        else:
            self.outcome.set_result(result)

    def frames(self, now: float) -> Iterable[wire.Frame]:
        """Make the frames that send again what has no outcome."""
        return (self.message.frame(now),)

    def grant(self, total: int, send: Callable[[wire.Frame], object]) -> None:
        """Let so many items in all be sent; the first is not made before."""
        if self.outlet is None:
            return
        if self.pump is None:
            self.pump = asyncio.create_task(self._send_items(self.outlet, send), context=self.context)
        self.outlet.grant(total)

    @property
    def _is_over(self) -> bool:
        return self.outcome.done() if self.inlet is None else self.inlet.is_over

    async def _send_items(self, outlet: Outlet, send: Callable[[wire.Frame], object]) -> None:
        """Send the items that follow the message, as the agent makes room for them."""
        assert self.message.items is not None, "what has an outlet has items"
        if self._is_over:
            # The agent made room, and then had none for the message: another replica may get all of them.
            return
        iterator: AsyncIterator[Any] | None = None
        try:
            iterator = aiter(self.message.items)
            async for item in iterator:
                if (turn := outlet.put(item)) is not None:
                    await turn
            outlet.end()
        except Exception as error:  # noqa: BLE001 (the user's own iterator: its error is the caller's)
            send(wire.Cancel(self.message.id))
            self.end(error=error)
        finally:
            close = getattr(iterator, "aclose", None)
            if close is not None:
                await close()


class Chunk(Pending, kw_only=True):
    """Tells of one type with ids that follow each other: they have one future and go in one frame."""

    left: set[int] | None = None
    """The ids of those that have no outcome; None for all of them."""
    told: Callable[[Chunk, Sequence[int], Exception | None], None]
    """Called with the ids of some that have ended, and how they have."""
    others: set[Chunk]
    """All that were made together and have not ended."""

    @property
    def ids(self) -> range:
        """The ids of all of them."""
        first = self.message.id
        return range(first, first + len(self.message.body))

    @property
    def count(self) -> int:
        """See `Pending.count`."""
        return len(self.message.body) if self.left is None else len(self.left)

    @property
    def span(self) -> int:
        """See `Pending.span`."""
        return len(self.message.body)

    def end(self, result: Any = None, error: Exception | None = None) -> None:
        """End all that have no outcome."""
        self.end_some(self.ids, error)

    def end_some(self, ids: range, error: Exception | None = None) -> None:
        """End those with these ids that have no outcome."""
        left, every = self.left, self.ids
        ended: Sequence[int] = every
        if left is not None or ids.start > every.start or ids.stop < every.stop:
            left = set(every) if left is None else left
            ended = sorted(left.intersection(range(max(ids.start, every.start), min(ids.stop, every.stop))))
            left.difference_update(ended)
        else:
            left = set()
        self.left = left
        if ended:
            self.told(self, ended, error)

    def split(self, count: int) -> Chunk:
        """Take out the first so many, as a chunk of their own; none of them was sent."""
        message, bodies = self.message, self.message.body
        part = structs.replace(self, message=structs.replace(message, body=bodies[:count]))
        self.message = structs.replace(message, id=message.id + count, body=bodies[count:])
        self.size = sum(map(len, self.message.body))
        self.others.add(part)
        return part

    def frames(self, now: float) -> Iterable[wire.Frame]:
        """See `Pending.frames`."""
        if self.left is None:
            return (self.message.frame(now),)
        return [self.message.one(message_id).frame(now) for message_id in sorted(self.left)]


class Trials(Struct, eq=False):
    """What became of an Anycast message so far, at one replica after the other."""

    message: Outgoing
    losses: list[PeerLost | Cancelled] = field(default_factory=list)
    """Of the replicas that were lost with it, or stopped or restarted in the middle of it."""
    refused: dict[str, DeliveryError] = field(default_factory=dict)
    """The instances that it is not tried with again, and what they said."""

    def failed(self, peer: Replica, error: DeliveryError) -> None:
        """Take note of an error; it is raised again unless another replica may be tried."""
        if not self._may_go_on(peer, error):
            # One that was lost may have run it, whatever was said here.
            error.may_have_run = error.may_have_run or bool(self.losses)
            raise error

    def _may_go_on(self, peer: Replica, error: DeliveryError) -> bool:
        message = self.message
        if message.items is not None and message.items.has_begun:
            return False
        # One whose identity is refused later on may have started it, as one that is lost may have.
        if isinstance(error, Busy | CallCycle | Stopped | Untrusted) and not error.may_have_run:
            self.refused[peer.address.instance] = error
            return True
        if not isinstance(error, PeerLost | Cancelled):
            return False
        if not error.may_have_run:
            return True
        self.losses.append(error)
        if isinstance(error, Cancelled):
            # It may be there still, and what ended there just now may come to the same end again.
            self.refused[peer.address.instance] = error
        # A message that takes its replica down with it must not go through all of them.
        return len(self.losses) <= _MOST_LOSSES and peer.is_idempotent(message.type)


def too_late(call: Call[Any] | None, *, is_available: bool) -> DeliveryError:
    """Make the error that the deadline has passed: it says what is known of who had the message."""
    replica = None if call is None else call.replica
    if replica is None:
        if not is_available:
            return NodeUnreachable("The SLIM node was away until the deadline.")
        unsent = Expired("The deadline passed before anybody was found who takes the message.")
        unsent.may_have_run = False
        return unsent
    if not is_available:
        return Expired("The deadline passed while the SLIM node was away.")
    peer = replica.address
    if not replica.was_greeted:
        return Expired(
            f"{peer} has not said hello: it is busy, or no agent of slim-actors. If it speaks plain "
            f"bytes, ask Unicast({peer.name!r}, wire='bytes')."
        )
    # So a slow agent is told from a silent one, as far as anybody can know so soon.
    silence = asyncio.get_running_loop().time() - replica.last_heard
    return Expired(
        f"The deadline passed before the outcome was known (the last sign of life of {peer} came "
        f"{silence:.3g} s before)."
    )
