"""The agent's end of one session: frames become envelopes in the mailbox, outcomes become frames."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from slim_actors import wire
from slim_actors.admission import Visit
from slim_actors.batches import Problem
from slim_actors.cell import Cell
from slim_actors.declaration import Handler
from slim_actors.errors import (
    Busy,
    DeliveryError,
    Denied,
    RemoteError,
    Stopped,
    TooLarge,
    UnhandledMessage,
    to_wire,
)
from slim_actors.limits import too_large
from slim_actors.link import Link
from slim_actors.mailbox import Envelope, State
from slim_actors.names import Address
from slim_actors.outcomes import Outcomes
from slim_actors.plain import PlainOrigin
from slim_actors.speaker import DEFAULT_TIMEOUT
from slim_actors.streams import FIRST_ITEMS, Inlet, Outlet, Patience
from slim_actors.transport.base import Payload

__all__ = ["WINDOW", "Conversation"]

WINDOW = 1024
"""Messages that each caller may have under way which the mailbox has not accepted yet."""

_CREDIT_EVERY = WINDOW // 4
_RETRY_AFTER = 0.1
_LONGEST_TTL = 7 * 24 * 3600.0
_MOST_UNREAD = 64 * 1024 * 1024


class Host(Protocol):
    """What the conversations of one instance share."""

    outcomes: Outcomes

    def forget(self, conversation: Conversation) -> None:
        """Take note that a conversation is over."""

    def log(self, peer: Address, what: str, why: object) -> None:
        """Log what a peer did wrong."""


class Conversation:
    """One caller's session."""

    def __init__(self, host: Host, cell: Cell, visit: Visit, link: Callable[..., Link]) -> None:
        self._host = host
        self._cell = cell
        self._visit = visit
        self._limits = visit.limits
        self._outcomes = host.outcomes
        self._open: dict[int, Envelope] = {}
        self._received = 0
        self._taken = 0
        self._credited = 0
        self._plain = PlainOrigin(self)
        self._plain_ids = 0
        self._patience = Patience(self._limits.stream_patience, self._holds_up)
        self._goodbye: asyncio.Task[None] | None = None
        self._is_over = False
        self.ended = asyncio.Event()
        self.link = link(owner=self)
        self._handshake = asyncio.get_running_loop().call_later(
            self._limits.handshake_timeout, self._expect_something
        )
        self.greet()

    def greet(self) -> None:
        """Say hello; once more after an outage, so that the caller sends again what was lost in it."""
        if not self.link.framed:
            return
        idempotent, limits = self._cell.declaration.idempotent, self._limits
        self.link.send(wire.Hello(wire.VERSION, WINDOW, idempotent, limits.max_waiting, limits.max_payload))
        if self._cell.is_draining:
            self.say_leaving()

    def say_leaving(self) -> None:
        """Tell the caller to send its next messages elsewhere."""
        if self.link.framed:
            self.link.send(wire.Leaving())

    async def close(self) -> None:
        """End the conversation: what the caller has sent that never came was not, and is not, started."""
        if self.link.framed:
            self._is_over = True
            # An outcome may have been lost on its way, in an outage.
            came = {"came": self._outcomes.ids(self.link.peer)}
            self.link.send(wire.Error(0, Stopped.code, f"{self._cell.address} has stopped.", came))
        await self.link.close()

    def room(self) -> Awaitable[None] | None:
        """See `Origin.room`."""
        return self.link.room()

    @property
    def busy(self) -> bool:
        """See `LinkOwner.busy`: a caller that is gone must not keep handlers running."""
        return bool(self._open)

    def frame(self, frame: wire.Frame) -> None:
        """See `LinkOwner.frame`."""
        match frame:
            case wire.Ask() | wire.Tell() | wire.Stream():
                self._message(frame)
            case wire.Item():
                envelope = self._open.get(frame.id)
                if envelope is not None and envelope.inlet is not None:
                    envelope.inlet.item(frame.number, frame.body)
            case wire.End():
                envelope = self._open.get(frame.id)
                if envelope is not None and envelope.inlet is not None:
                    envelope.inlet.end(frame.count)
            case wire.Grant():
                envelope = self._open.get(frame.id)
                if envelope is not None and envelope.outlet is not None:
                    envelope.outlet.grant(frame.total)
            case wire.Cancel():
                self.link.forget(frame.id)
                envelope = self._open.get(frame.id)
                if envelope is not None:
                    self._cell.cancel(envelope)
            case _:
                pass

    def problem(self, problem: Problem) -> None:
        """See `LinkOwner.problem`."""
        self._host.log(self.link.peer, "sent what cannot be taken", problem.reason)
        envelope = self._open.get(problem.id)
        detail = {"may_have_run": True} if envelope is not None else None
        self.link.send(wire.Error(problem.id, problem.code, problem.reason, detail))
        if envelope is not None:
            # What cannot be taken belongs to it: an item, for which its handler would wait for ever.
            self._cell.cancel(envelope)
        self._not_for_ever_unread()

    def plain(self, payload: Payload) -> None:
        """See `LinkOwner.plain`: a peer without our wire format is answered in plain bytes."""
        untyped = self._cell.declaration.untyped
        self._plain_ids -= 1
        expires = _expires(DEFAULT_TIMEOUT)
        envelope = Envelope(self._plain_ids, payload.data, untyped, self.link.peer, expires, self._plain)
        self._plain.expect(envelope)
        self._receive(envelope, len(payload.data))
        self._not_for_ever_unread()

    def closed(self) -> None:
        """See `LinkOwner.closed`: nobody waits any more for what this caller asked."""
        self._host.forget(self)
        self._handshake.cancel()
        self.ended.set()
        for envelope in list(self._open.values()):
            if envelope.origin in (self, self._plain):
                # No outcome to remember: whoever asks again under the same id asks anew.
                self._outcomes.forget(envelope)
                self._cell.cancel(envelope)
        self._visit.leave(in_disgrace=self.link.is_abused)

    def accepted(self, envelope: Envelope) -> None:
        """See `Origin.accepted`."""
        self.taken()
        if not envelope.wants_reply and envelope.state is State.WAITING:
            # From here on the message is the agent's: neither its caller's end nor its cancel concerns it.
            self.done(envelope)
            self._outcomes.end(envelope, self.link.send(wire.Accepted([envelope.id])))

    def replied(self, envelope: Envelope, value: Any) -> None:
        """See `Origin.replied`."""
        if not envelope.wants_reply:
            return
        self.done(envelope)
        try:
            frame = self._last(envelope, value)
        except TooLarge as error:
            error.may_have_run = True
            frame = self._error(envelope.id, error)
        except Exception as error:  # noqa: BLE001 (encoding runs code of the user's classes)
            frame = self._error(envelope.id, RemoteError.of(TypeError(f"the reply cannot be sent: {error}")))
        self._outcomes.end(envelope, frame)

    def failed(self, envelope: Envelope, error: DeliveryError) -> None:
        """See `Origin.failed`."""
        if envelope.id not in self._open:
            return
        self.done(envelope)
        if not envelope.was_accepted:
            self.taken()
        self._outcomes.end(envelope, self._error(envelope.id, error))
        self._not_for_ever_unread()

    def done(self, envelope: Envelope) -> None:
        """Take note that a message has its outcome."""
        self.give_away(envelope)
        if envelope.inlet is not None:
            envelope.inlet.discard()

    def taken(self) -> None:
        """Count a message that no longer waits at the door; the caller gets credit for the next ones."""
        self._taken += 1
        if self._taken - self._credited >= _CREDIT_EVERY and self.link.framed:
            self._credited = self._taken
            self.link.send(wire.Credit(self._taken))

    def _last(self, envelope: Envelope, value: Any) -> bytes:
        """Send the frame that ends a message well."""
        outlet = envelope.outlet
        if outlet is None:
            return self.link.send(wire.Reply(envelope.id, value))
        if envelope.handler is not None and not envelope.handler.streams and value is not None:
            # A handler that returns makes a stream of one.
            self._send_item(envelope.id, outlet.count, value)
            outlet.count += 1
        return self.link.send(wire.End(envelope.id, outlet.count))

    def _send_item(self, message_id: int, number: int, value: Any) -> None:
        self.link.send(wire.Item(message_id, number, value))

    def _grant(self, message_id: int, total: int) -> None:
        self.link.send(wire.Grant(message_id, total))

    def _message(self, frame: wire.Incoming) -> None:
        if self._is_over:
            return
        seen = self._outcomes.find(self.link.peer, frame.id)
        if isinstance(seen, bytes):
            # An earlier copy may have lost some of its parts.
            self.link.forget(frame.id)
            self.link.send_encoded(seen, frame.id)
            self._not_for_ever_unread()
        elif seen is not None:
            # Sent again while it is under way.
            self._move_here(seen)
        else:
            found = self._cell.declaration.find(frame.type)
            envelope = Envelope(
                frame.id, None, found, self.link.peer, _expires(frame.ttl), self, frame.context or {}
            )
            envelope.wants_reply = not isinstance(frame, wire.Tell)
            self._outcomes.begin(envelope)
            self._receive(envelope, len(frame.body), frame)

    def _receive(self, envelope: Envelope, size: int, frame: wire.Incoming | None = None) -> None:
        self._received += 1
        self._open[envelope.id] = envelope
        try:
            found = self._admitted(envelope, size, frame)
            if frame is not None:
                envelope.message = found.read(frame.body, frame.type)
        except Denied as error:
            self._cell.deny(envelope, error)
        except DeliveryError as error:
            envelope.fail(error)
        else:
            self._cell.deliver(envelope)

    def _admitted(self, envelope: Envelope, size: int, frame: wire.Incoming | None) -> Handler:
        """Give the handler of a message that may come in; nothing of its body has been read.

        Raises:
            DeliveryError: It may not.
        """
        found = envelope.handler
        if self._cell.agent.require_mls and not self.link.mls:
            raise Denied("This agent takes messages from end-to-end encrypted sessions only (mls=True).")
        denied = self._cell.life.guard.denies(envelope.sender, found)
        if denied is not None:
            raise denied
        self._identify(envelope.sender)
        if self._received - self._taken > 2 * WINDOW:
            raise Busy(f"{2 * WINDOW} messages of this caller wait already.", _RETRY_AFTER)
        if frame is None and size > self._limits.max_payload:
            raise TooLarge(too_large(size, self._limits.max_payload))
        found = self._handled(found, frame)
        self._visit.hold(size)
        envelope.size = size
        if frame is not None:
            self._open_flows(envelope, found, frame)
        return found

    def _identify(self, sender: Address) -> None:
        try:
            self._visit.identify(sender)
        except Busy as error:
            self._host.log(sender, "loses its session", error)
            # Not at once: the answer goes out first.
            self._goodbye = self._goodbye or asyncio.create_task(self.link.close())
            raise

    def _handled(self, found: Handler | None, frame: wire.Incoming | None) -> Handler:
        what = "plain bytes" if frame is None else frame.type[:200]
        if found is None:
            accepts = self._cell.declaration.accepts
            if frame is None:
                raise UnhandledMessage(f"This agent does not take plain bytes; it takes {accepts}.")
            raise UnhandledMessage(f"There is no handler for {what}; this agent takes {accepts}.")
        if found.streams and not isinstance(frame, wire.Stream):
            raise UnhandledMessage(f"{what} is answered with a stream: call stream(...) for it.")
        if found.items_body is None and isinstance(frame, wire.Ask | wire.Stream) and frame.items:
            raise UnhandledMessage(f"The handler for {what} takes no items.")
        return found

    def _open_flows(self, envelope: Envelope, found: Handler, frame: wire.Incoming) -> None:
        if not isinstance(frame, wire.Stream) and found.items_body is None:
            return
        self._visit.open_stream()
        # The id and not the frame is kept by what follows: its body may be large.
        message_id = frame.id
        if isinstance(frame, wire.Stream):
            envelope.outlet = Outlet(
                lambda number, value: self._send_item(message_id, number, value),
                frame.granted,
                self._patience,
            )
        if found.items_body is None:
            return
        envelope.inlet = Inlet(
            found.items_body,
            lambda total: self._grant(message_id, total),
            frame.type[:200],
            self._patience,
            self._visit.hold_item,
        )
        if isinstance(frame, wire.Tell) or not frame.items:
            envelope.inlet.end(0)
        else:
            self._grant(frame.id, FIRST_ITEMS)

    def _move_here(self, envelope: Envelope) -> None:
        """Let the outcome of a message go to where it was sent from last."""
        before = envelope.origin
        if before is self or not isinstance(before, Conversation):
            return
        before.give_away(envelope)
        envelope.origin = self
        self._open[envelope.id] = envelope
        self._visit.take_over(envelope.size, flows=envelope.has_flows)

    def give_away(self, envelope: Envelope) -> None:
        """Count a message out that goes on elsewhere."""
        if self._open.pop(envelope.id, None) is not None:
            self._visit.take_over(-envelope.size, flows=-envelope.has_flows)

    def _expect_something(self) -> None:
        if not self.link.has_heard:
            seconds = f"{self._limits.handshake_timeout:.3g} s"
            self._end(f"it opened a session and sent nothing that makes sense for {seconds}")

    def _holds_up(self) -> bool:
        """Tell whether others wait for the end of a stream that its other end lets stand; it ends then."""
        if not self._cell.stats.depth:
            return False
        asyncio.get_running_loop().call_soon(self._end, "it keeps others waiting with a stream that stands")
        return True

    def _not_for_ever_unread(self) -> None:
        """End the conversation with a caller that does not read the refusals which it brings about."""
        unread = self.link.backlog + self._plain.held
        if unread > _MOST_UNREAD and not self.link.is_over:
            self._end(f"it leaves {unread} bytes unread")

    def _end(self, reason: str) -> None:
        self._host.log(self.link.peer, "loses its session", f"{reason}.")
        self.link.end(reason)

    def _error(self, message_id: int, error: DeliveryError) -> bytes:
        return self.link.send(wire.Error(message_id, *to_wire(error)))


def _expires(seconds: float) -> float:
    return asyncio.get_running_loop().time() + min(seconds, _LONGEST_TTL)
