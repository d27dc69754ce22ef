"""A queue in which senders take turns: whoever sends a lot waits for himself, and not everybody for him."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from slim_actors.mailbox import Envelope
    from slim_actors.names import Address

__all__ = ["Turns"]


class Turns:
    """Messages, those of each sender in their order; the senders one after the other."""

    def __init__(self) -> None:
        self._all: OrderedDict[Envelope, None] = OrderedDict()
        self._only: Address | None = None
        """The sender of all there is, while there is only one."""
        self._senders: OrderedDict[Address, OrderedDict[Envelope, None]] = OrderedDict()
        """What each has, from the second sender on: one alone, the usual case, has every turn anyway."""

    def __len__(self) -> int:
        return len(self._all)

    def __contains__(self, envelope: Envelope) -> bool:
        return envelope in self._all

    def __iter__(self) -> Iterator[Envelope]:
        """Give them in the order in which they came."""
        return iter(self._all)

    def add(self, envelope: Envelope) -> None:
        """Put one at the end of its sender's."""
        if self._senders:
            self._line_up(envelope)
        elif not self._all:
            self._only = envelope.sender
        elif envelope.sender is not self._only and envelope.sender != self._only:
            # Each is lined up once at the most, so this costs no more than to line up all of them at once.
            for waiting in self._all:
                self._line_up(waiting)
            self._line_up(envelope)
        self._all[envelope] = None

    def next(self) -> Envelope:
        """Take out the first of the sender whose turn it is."""
        if not self._senders:
            return self._all.popitem(last=False)[0]
        sender, waiting = next(iter(self._senders.items()))
        envelope = next(iter(waiting))
        self.remove(envelope)
        if waiting:
            self._senders.move_to_end(sender)
        return envelope

    def remove(self, envelope: Envelope) -> None:
        """Take one out, if it is here."""
        if envelope not in self._all:
            return
        del self._all[envelope]
        if self._senders:
            waiting = self._senders[envelope.sender]
            del waiting[envelope]
            if not waiting:
                del self._senders[envelope.sender]

    def clear(self) -> list[Envelope]:
        """Take all out."""
        left = list(self._all)
        self._all.clear()
        self._senders.clear()
        return left

    def _line_up(self, envelope: Envelope) -> None:
        self._senders.setdefault(envelope.sender, OrderedDict())[envelope] = None
