"""A queue in which senders take turns: whoever sends a lot waits for himself, and not everybody for him."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from slim_actors.mailbox import Envelope
    from slim_actors.names import Address

__all__ = ["Turns"]


class Turns:
    """Messages, those of each sender in their order; the senders one after the other."""

    def __init__(self) -> None:
        self.all: OrderedDict[Envelope, None] = OrderedDict()
        """All of them, in the order in which they came; for looking only."""
        self._only: Address | None = None
        """The sender of all there is, while there is only one."""
        self.senders: OrderedDict[Address, OrderedDict[Envelope, None]] = OrderedDict()
        """What each has, from the second sender on: one alone, the usual case, has every turn anyway."""

    def add(self, envelope: Envelope) -> None:
        """Put one at the end of its sender's."""
        if self.senders:
            self._line_up(envelope)
        elif not self.all:
            self._only = envelope.sender
        elif envelope.sender is not self._only and envelope.sender != self._only:
            # Each is lined up once at the most, so this costs no more than to line up all of them at once.
            for waiting in self.all:
                self._line_up(waiting)
            self._line_up(envelope)
        self.all[envelope] = None

    def add_all(self, envelopes: Sequence[Envelope]) -> None:
        """Put several of one sender at the end of its own."""
        self.add(envelopes[0])
        if self.senders:
            for envelope in envelopes:
                self._line_up(envelope)
        self.all.update(dict.fromkeys(envelopes))

    def next_run(self, most: int, most_bytes: int) -> list[Envelope]:
        """Take out the next; with a tell of a sender who is alone the tells of its session that follow."""
        first = self.next()
        run, size = [first], first.size
        if first.wants_reply or self.senders:
            return run
        waiting, origin = self.all, first.origin
        while waiting and len(run) < most and size < most_bytes:
            envelope, _ = waiting.popitem(last=False)
            if envelope.origin is not origin or envelope.wants_reply:
                waiting[envelope] = None
                waiting.move_to_end(envelope, last=False)
                break
            run.append(envelope)
            size += envelope.size
        return run

    def next(self) -> Envelope:
        """Take out the first of the sender whose turn it is."""
        if not self.senders:
            return self.all.popitem(last=False)[0]
        sender, waiting = next(iter(self.senders.items()))
        envelope = next(iter(waiting))
        self.remove(envelope)
        if waiting:
            self.senders.move_to_end(sender)
        return envelope

    def remove(self, envelope: Envelope) -> None:
        """Take one out, if it is here."""
        if envelope not in self.all:
            return
        del self.all[envelope]
        if self.senders:
            waiting = self.senders[envelope.sender]
            del waiting[envelope]
            if not waiting:
                del self.senders[envelope.sender]

    def clear(self) -> list[Envelope]:
        """Take all out."""
        left = list(self.all)
        self.all.clear()
        self.senders.clear()
        return left

    def _line_up(self, envelope: Envelope) -> None:
        self.senders.setdefault(envelope.sender, OrderedDict())[envelope] = None
