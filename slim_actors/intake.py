"""Messages that came together, of one type: taken in together, and tells remembered together once accepted.

Nothing is looked up, counted or remembered for each of them, which is most of what taking one in costs. Where
there is more to be done about one of them, this does nothing, and they are taken one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from msgspec import Raw

from slim_actors import wire
from slim_actors.admission import Visit
from slim_actors.cell import Cell
from slim_actors.declaration import Handler
from slim_actors.errors import MalformedMessage
from slim_actors.link import Link
from slim_actors.mailbox import Envelope, Origin
from slim_actors.outcomes import Outcomes
from slim_actors.receipts import WINDOW, Receipts

__all__ = ["LONGEST_TTL", "Intake"]

LONGEST_TTL = 7 * 24 * 3600.0
"""Seconds; a later deadline counts as this one."""


class _Conversation(Origin, Protocol):
    link: Link
    open: dict[int, Envelope]

    def give_away(self, envelope: Envelope) -> None: ...


class Intake:
    """Takes in the messages of one conversation that come together.

    Args:
        conversation: Where they come from.
        cell: Who handles them.
        visit: What the caller may bring.
        outcomes: Remembers them.
        receipts: Tells the caller what was accepted.
    """

    def __init__(
        self, conversation: _Conversation, cell: Cell, visit: Visit, outcomes: Outcomes, receipts: Receipts
    ) -> None:
        self._conversation = conversation
        self._cell = cell
        self._visit = visit
        self._outcomes = outcomes
        self._receipts = receipts

    def asks(self, frames: Sequence[wire.Ask]) -> bool:
        """Take all asks of one type in; False if nothing was done, since they must be taken one by one."""
        conversation, count = self._conversation, len(frames)
        link, sender = conversation.link, conversation.link.sender
        bodies = [frame.body for frame in frames]
        size = sum(map(len, bodies))
        found = self._handler(frames[0].type, frames[0].id, count, size)
        if found is None or not _are_plain(frames):
            return False
        messages = _read(found, Raw(wire.join(bodies)))
        if messages is None:
            return False
        heard = link.last_heard
        envelopes = [
            Envelope(
                frame.id,
                message,
                found,
                sender,
                heard + min(frame.ttl, LONGEST_TTL),
                conversation,
                size=len(frame.body),
            )
            for frame, message in zip(frames, messages, strict=True)
        ]
        if self._cell.mailbox.put_all(envelopes, size) is None:
            return False
        self._receipts.received += count
        self._visit.count(size)
        self._remember(envelopes)
        return True

    def tells(self, frame: wire.Tells, count: int) -> bool:
        """Take all messages of a frame in; False if nothing was done, since they must be taken one by one."""
        conversation = self._conversation
        link, sender, size = conversation.link, conversation.link.sender, len(frame.bodies)
        found = None if frame.context else self._handler(frame.type, frame.id, count, size)
        if found is None:
            return False
        messages = _read(found, frame.bodies)
        if messages is None:
            return False
        expires = link.last_heard + min(frame.ttl, LONGEST_TTL)
        # Their bytes are counted together, so it does not matter which one has how many.
        each, wants_reply = size // count, False
        envelopes = [
            Envelope(number, message, found, sender, expires, conversation, {}, wants_reply, size=each)
            for number, message in enumerate(messages, frame.id)
        ]
        accepted = self._cell.mailbox.put_all(envelopes, size)
        if accepted is None:
            return False
        self._receipts.received += count
        if accepted < count:
            waiting = envelopes[accepted:]
            self._visit.count(each * len(waiting))
            self._remember(waiting)
        return True

    def accepted(self, envelopes: Sequence[Envelope]) -> None:
        """Take note that the mailbox has taken messages in: tells are the agent's from here on."""
        self._receipts.taken(len(envelopes))
        if envelopes[0].wants_reply:
            return
        conversation, first = self._conversation, envelopes[0].id
        if first in conversation.open:
            # They have waited at the door, where a cancel could find each of them.
            for envelope in envelopes:
                conversation.give_away(envelope)
        every = range(first, first + len(envelopes))
        runs = [every] if [envelope.id for envelope in envelopes] == [*every] else _runs(envelopes)
        for ids in runs:
            self._outcomes.accept_all(envelopes[0].sender, ids)
            self._receipts.accepted_all(ids.start, len(ids))

    def _handler(self, wire_type: str, first: int, count: int, size: int) -> Handler | None:
        """Give the handler of messages of one type; None if they have to be taken one by one."""
        cell, link = self._cell, self._conversation.link
        sender, found = link.sender, cell.declaration.find(wire_type)
        if (
            found is None
            or found.flows
            or cell.is_draining
            or cell.hooks.received
            or (cell.life.agent.require_mls and not link.mls)
            or cell.life.guard.denies(sender, found)
            or (self._visit.identity is None and sender.subject)
            or self._receipts.waiting + count > 2 * WINDOW
            or not self._visit.has_room(size)
            or not self._outcomes.are_new(sender, first)
        ):
            return None
        return found

    def _remember(self, envelopes: Sequence[Envelope]) -> None:
        waiting = {envelope.id: envelope for envelope in envelopes}
        self._conversation.open.update(waiting)
        self._outcomes.begin_all(envelopes[0].sender, waiting)


def _read(found: Handler, bodies: Raw) -> list[Any] | None:
    """Read all bodies; None if one of them cannot be read."""
    assert found.body is not None, "only what Declaration.readable gave reads messages"
    try:
        return found.body.read_all(bodies)
    except MalformedMessage:
        return None


def _are_plain(frames: Sequence[wire.Ask]) -> bool:
    """Tell whether their ids rise, and nothing comes with them."""
    before = -1
    for frame in frames:
        if frame.id <= before or frame.items or frame.context:
            return False
        before = frame.id
    return True


def _runs(envelopes: Sequence[Envelope]) -> list[range]:
    """Give the ids, those that follow each other together."""
    runs: list[range] = []
    for envelope in envelopes:
        if runs and runs[-1].stop == envelope.id:
            runs[-1] = range(runs[-1].start, envelope.id + 1)
        else:
            runs.append(range(envelope.id, envelope.id + 1))
    return runs
