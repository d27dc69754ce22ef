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
        self._senders: OrderedDict[Address, OrderedDict[Envelope, None]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._all)

    def __contains__(self, envelope: Envelope) -> bool:
        return envelope in self._all

    def __iter__(self) -> Iterator[Envelope]:
        """Give them in the order in which they came."""
        return iter(self._all)

    def add(self, envelope: Envelope) -> None:
        """Put one at the end of its sender's."""
        self._all[envelope] = None
        self._senders.setdefault(envelope.sender, OrderedDict())[envelope] = None

    def next(self) -> Envelope:
        """Take out the first of the sender whose turn it is."""
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
