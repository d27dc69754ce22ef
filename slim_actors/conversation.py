"""The agent's end of one session: frames become envelopes in the mailbox, outcomes become frames."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Any, Protocol

from slim_actors import wire
from slim_actors.admission import Visit
from slim_actors.batches import Problem
from slim_actors.cell import Cell
from slim_actors.declaration import Handler
from slim_actors.errors import Busy, DeliveryError, Denied, RemoteError, Stopped, TooLarge, to_wire
from slim_actors.flows import open_flows
from slim_actors.intake import LONGEST_TTL, Intake
from slim_actors.limits import too_large
from slim_actors.link import Link
from slim_actors.mailbox import WAITING, Envelope
from slim_actors.names import Address
from slim_actors.outcomes import ACCEPTED, Outcomes
from slim_actors.owner import Takes, one_by_one
from slim_actors.patience import Patience
from slim_actors.plain import PlainOrigin
from slim_actors.receipts import WINDOW, Receipts
from slim_actors.speaker import DEFAULT_TIMEOUT
from slim_actors.transport.base import Payload

__all__ = ["Conversation"]

_RETRY_AFTER = 0.1
_MOST_UNREAD = 64 * 1024 * 1024

_type_of = attrgetter("type")


class Host(Protocol):
    """What the conversations of one instance share."""

    outcomes: Outcomes

    def newcomer(self) -> None:
        """Take note that another instance of the same name has come."""

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
        self.open: dict[int, Envelope] = {}
        """What came and has no outcome yet, by its id."""
        self._loop = asyncio.get_running_loop()
        self._plain = PlainOrigin(self)
        self._plain_ids = 0
        mailbox = cell.mailbox
        self._patience = Patience(
            self._limits.stream_patience, lambda: mailbox.waits_since, self._keeps_others_waiting
        )
        self._goodbye: asyncio.Task[None] | None = None
        self._is_over = False
        self.ended = asyncio.Event()
        self.takes: Takes = {
            wire.Ask: self._asks,
            wire.Tell: one_by_one(self._message),
            wire.Stream: one_by_one(self._message),
            wire.Tells: one_by_one(self._tells),
            wire.Item: one_by_one(self._flowed),
            wire.Items: one_by_one(self._flowed),
            wire.End: one_by_one(self._flowed),
            wire.Grant: one_by_one(self._granted),
            wire.Cancel: one_by_one(self._cancelled),
            wire.Newcomer: one_by_one(self._newcomer),
        }
        """See `LinkOwner.takes`."""
        self.link = link(owner=self)
        self._receipts = Receipts(self.link)
        self.taken = self._receipts.taken
        self._intake = Intake(self, cell, visit, self._outcomes, self._receipts)
        self.room: Callable[[], Awaitable[None] | None] = self.link.room
        """See `Origin.room`."""
        self._handshake = self._loop.call_later(self._limits.handshake_timeout, self._expect_something)
        self.greet()

    def greet(self) -> None:
        """Say hello; once more after an outage, so that the caller sends again what was lost in it."""
        if not self.link.framed:
            return
        idempotent, limits = self._cell.declaration.idempotent, self._limits
        self.link.send(wire.Hello(wire.VERSION, WINDOW, idempotent, limits.max_waiting, limits.max_payload))
        if self._cell.is_draining:
            self.say(wire.Leaving())

    def say(self, news: wire.Leaving | wire.Newcomer) -> None:
        """Tell the caller something about this instance or its name."""
        if self.link.framed:
            self.link.send(news)

    async def close(self) -> None:
        """End the conversation: what the caller has sent that never came was not, and is not, started."""
        if self.link.framed:
            self._is_over = True
            self._receipts.say()
            # An outcome may have been lost on its way, in an outage.
            came = {"came": self._outcomes.ids(self.link.peer)}
            self.link.send(wire.Error(0, Stopped.code, f"{self._cell.address} has stopped.", came))
        await self.link.close()

    @property
    def outstanding(self) -> int:
        """See `LinkOwner.outstanding`: a caller that is gone must not keep handlers running."""
        return len(self.open)

    def problem(self, problem: Problem) -> None:
        """See `LinkOwner.problem`."""
        self._host.log(self.link.peer, "sent what cannot be taken", problem.reason)
        envelope = self.open.get(problem.id)
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
        expires = self.link.last_heard + DEFAULT_TIMEOUT
        envelope = Envelope(self._plain_ids, payload.data, untyped, self.link.peer, expires, self._plain)
        self._plain.expect(envelope)
        self._receive(envelope)
        self._not_for_ever_unread()

    def closed(self) -> None:
        """See `LinkOwner.closed`: nobody waits any more for what this caller asked."""
        self._host.forget(self)
        self._handshake.cancel()
        self.ended.set()
        # The last one first: else the end of one would let the next in that waits at the door.
        for envelope in reversed(list(self.open.values())):
            if envelope.origin in (self, self._plain):
                # No outcome to remember: whoever asks again under the same id asks anew.
                self._outcomes.forget(envelope)
                self._cell.cancel(envelope)
        self._visit.leave(in_disgrace=self.link.is_abused)

    def accepted(self, envelope: Envelope) -> None:
        """See `Origin.accepted`."""
        self.taken()
        if not envelope.wants_reply and envelope.state is WAITING:
            # From here on the message is the agent's: neither its caller's end nor its cancel concerns it.
            self.done(envelope)
            self._outcomes.end(envelope, ACCEPTED)
            self._receipts.accepted(envelope.id)

    def accepted_all(self, envelopes: Sequence[Envelope]) -> None:
        """See `Origin.accepted_all`."""
        self._intake.accepted(envelopes)

    def replied(self, envelope: Envelope, value: Any) -> None:
        """See `Origin.replied`."""
        if not envelope.wants_reply:
            return
        flows = envelope.outlet is not None or envelope.inlet is not None
        if flows:
            self.done(envelope)
        elif self.open.get(envelope.id) is envelope:
            # As nearly all: what `done` comes to where nothing flows.
            del self.open[envelope.id]
            self._visit.count(-envelope.size)
        try:
            reply = envelope.outlet is None
            frame = self.link.send(wire.Reply(envelope.id, value)) if reply else self._last(envelope, value)
        except TooLarge as error:
            error.may_have_run = True
            frame = self._error(envelope.id, error)
        except Exception as error:  # noqa: BLE001 (encoding runs code of the user's classes)
            frame = self._error(envelope.id, RemoteError.of(TypeError(f"the reply cannot be sent: {error}")))
        self._outcomes.end(envelope, frame)

    def failed(self, envelope: Envelope, error: DeliveryError) -> None:
        """See `Origin.failed`."""
        if self.open.get(envelope.id) is not envelope:
            # A tell that was accepted; the id may be that of another message by now.
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
        if envelope.outlet is not None:
            # What it sent before its outcome goes out before that.
            envelope.outlet.flush()

    def _last(self, envelope: Envelope, value: Any) -> bytes:
        """Send the frame that ends a stream well."""
        outlet = envelope.outlet
        assert outlet is not None, "what has none gets a reply"
        if envelope.handler is not None and not envelope.handler.streams and value is not None:
            # A handler that returns makes a stream of one.
            outlet.send(value)
        return outlet.end()

    def _flowed(self, frame: wire.Item | wire.Items | wire.End) -> None:
        envelope = self.open.get(frame.id)
        if envelope is not None and envelope.inlet is not None:
            envelope.inlet.take_in(frame)

    def _granted(self, frame: wire.Grant) -> None:
        envelope = self.open.get(frame.id)
        if envelope is not None and envelope.outlet is not None:
            envelope.outlet.grant(frame.total)

    def _cancelled(self, frame: wire.Cancel) -> None:
        self.link.forget(frame.id)
        envelope = self.open.get(frame.id)
        if envelope is not None:
            self._cell.cancel(envelope)

    def _asks(self, frames: Sequence[wire.Ask]) -> None:
        for _, alike in groupby(frames, _type_of):
            asks = list(alike)
            if self._is_over or len(asks) == 1 or not self._intake.asks(asks):
                for ask in asks:
                    self._message(ask)

    def _tells(self, frame: wire.Tells) -> None:
        count = wire.count_of(frame.bodies)
        if not count:
            self.problem(Problem(frame.id, "A frame cannot be read: it holds no messages."))
        elif self._is_over or not self._intake.tells(frame, count):
            # Of the context, which came once for all, each is charged with its part.
            beside = -(-len(wire.encode(frame.context)) // count) if frame.context else 0
            for tell in frame.each():
                self._message(tell, beside)

    def _newcomer(self, _: wire.Newcomer) -> None:
        # From others it would make all callers look round for nothing.
        if self.link.peer.name == self._cell.address.name:
            self._host.newcomer()

    def _message(self, frame: wire.Incoming, beside: int | None = None) -> None:
        if self._is_over:
            return
        link = self.link
        found = self._cell.declaration.find(frame.type)
        # The link has just looked at the clock, once for all that came together.
        expires = link.last_heard + min(frame.ttl, LONGEST_TTL)
        wants_reply = type(frame) is not wire.Tell
        envelope = Envelope(
            frame.id, None, found, link.sender, expires, self, frame.context or {}, wants_reply
        )
        seen = self._outcomes.begin(envelope)
        if seen is None:
            self._receive(envelope, frame, beside)
        elif isinstance(seen, Envelope):
            # Sent again while it is under way.
            self._move_here(seen)
        elif seen is ACCEPTED:
            self._receipts.accepted(frame.id)
            self._not_for_ever_unread()
        else:
            # An earlier copy may have lost some of its parts.
            self.link.forget(frame.id)
            self.link.send_encoded(seen, frame.id)
            self._not_for_ever_unread()

    def _receive(
        self, envelope: Envelope, frame: wire.Incoming | None = None, beside: int | None = None
    ) -> None:
        self._receipts.received += 1
        self.open[envelope.id] = envelope
        try:
            found = self._admitted(envelope, frame, beside)
            if frame is not None:
                assert found.body is not None, "only what Declaration.readable gave reads messages"
                envelope.message = found.body.read(frame.body, frame.type)
        except Denied as error:
            self._cell.deny(envelope, error)
        except DeliveryError as error:
            envelope.fail(error)
        else:
            self._cell.deliver(envelope)

    def _admitted(self, envelope: Envelope, frame: wire.Incoming | None, beside: int | None) -> Handler:
        """Give the handler of a message that may come in; nothing of its body has been read.

        It is charged with so many bytes of context; with all that it has where that is None.

        Raises:
            DeliveryError: It may not.
        """
        found, life = envelope.handler, self._cell.life
        if life.agent.require_mls and not self.link.mls:
            raise Denied("This agent takes messages from end-to-end encrypted sessions only (mls=True).")
        guarded = not life.guard.is_open or (found is not None and found.allow is not None)
        if guarded and (denied := life.guard.denies(envelope.sender, found)) is not None:
            raise denied
        if self._visit.identity is None:
            self._identify(envelope.sender)
        if self._receipts.waiting > 2 * WINDOW:
            raise self._too_many()
        size = len(envelope.message if frame is None else frame.body)
        if frame is None and size > self._limits.max_payload:
            raise TooLarge(too_large(size, self._limits.max_payload))
        self._visit.hold(size)
        envelope.size = size
        if envelope.context:
            # It is kept as long as the body is. Measured only now: what is refused shall cost nothing.
            beside = len(wire.encode(envelope.context)) if beside is None else beside
            self._visit.count(beside)
            envelope.size += beside
        more = type(frame) is wire.Stream or (type(frame) is wire.Ask and frame.items)
        if more or found is None or found.flows:
            found = self._cell.declaration.check(found, frame)
            if frame is not None and (type(frame) is wire.Stream or found.items_body is not None):
                self._visit.open_stream()
                open_flows(envelope, found, frame, self.link, self._visit.hold_item, self._patience)
        return found

    def _identify(self, sender: Address) -> None:
        try:
            self._visit.identify(sender)
        except Busy as error:
            self._host.log(sender, "loses its session", error)
            # Not at once: the answer goes out first.
            self._goodbye = self._goodbye or asyncio.create_task(self.link.close())
            raise

    def _move_here(self, envelope: Envelope) -> None:
        """Let the outcome of a message go to where it was sent from last."""
        before = envelope.origin
        if before is self or not isinstance(before, Conversation):
            return
        before.give_away(envelope)
        envelope.origin = self
        self.open[envelope.id] = envelope
        self._visit.count(envelope.size)
        self._visit.count_stream(envelope.outlet is not None or envelope.inlet is not None)
        if not envelope.was_accepted:
            # It waits at this door from now on, where there is no more room than for what comes anew.
            before.taken()
            self._receipts.received += 1
            if self._receipts.waiting > 2 * WINDOW:
                self._cell.mailbox.discard(envelope)
                self._cell.fail(envelope, self._too_many())

    @staticmethod
    def _too_many() -> Busy:
        return Busy(f"{2 * WINDOW} messages of this caller wait already.", _RETRY_AFTER)

    def give_away(self, envelope: Envelope) -> None:
        """Count a message out that goes on elsewhere."""
        if self.open.get(envelope.id) is envelope:
            del self.open[envelope.id]
            self._visit.count(-envelope.size)
            if envelope.outlet is not None or envelope.inlet is not None:
                self._visit.count_stream(-1)

    def _expect_something(self) -> None:
        if not self.link.has_heard:
            seconds = f"{self._limits.handshake_timeout:.3g} s"
            self._end(f"it opened a session and sent nothing that makes sense for {seconds}")

    def _keeps_others_waiting(self) -> None:
        self._loop.call_soon(self._end, "it keeps others waiting with a stream that stands")

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
