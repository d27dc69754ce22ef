"""A queue in which senders take turns: whoever sends a lot waits for himself, and not everybody for him."""

from __future__ import annotations

from collections import OrderedDict
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
        self._senders: OrderedDict[Address, OrderedDict[Envelope, None]] = OrderedDict()
        """What each has, from the second sender on: one alone, the usual case, has every turn anyway."""

    def add(self, envelope: Envelope) -> None:
        """Put one at the end of its sender's."""
        if self._senders:
            self._line_up(envelope)
        elif not self.all:
            self._only = envelope.sender
        elif envelope.sender is not self._only and envelope.sender != self._only:
            # Each is lined up once at the most, so this costs no more than to line up all of them at once.
            for waiting in self.all:
                self._line_up(waiting)
            self._line_up(envelope)
        self.all[envelope] = None

    def next(self) -> Envelope:
        """Take out the first of the sender whose turn it is."""
        if not self._senders:
            return self.all.popitem(last=False)[0]
        sender, waiting = next(iter(self._senders.items()))
        envelope = next(iter(waiting))
        self.remove(envelope)
        if waiting:
            self._senders.move_to_end(sender)
        return envelope

    def remove(self, envelope: Envelope) -> None:
        """Take one out, if it is here."""
        if envelope not in self.all:
            return
        del self.all[envelope]
        if self._senders:
            waiting = self._senders[envelope.sender]
            del waiting[envelope]
            if not waiting:
                del self._senders[envelope.sender]

    def clear(self) -> list[Envelope]:
        """Take all out."""
        left = list(self.all)
        self.all.clear()
        self._senders.clear()
        return left

    def _line_up(self, envelope: Envelope) -> None:
        self._senders.setdefault(envelope.sender, OrderedDict())[envelope] = None
