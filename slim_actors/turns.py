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
    """Messages, those of each sender in their order; the senders one after the other.

    A sender that is *held* has no turn: its messages wait here until it is let go.
    """

    def __init__(self) -> None:
        self.all: OrderedDict[Envelope, None] = OrderedDict()
        """All of them, in the order in which they came; for looking only."""
        self.are_lined_up = False
        """Whether each sender has a line: one alone, the usual case, has every turn anyway."""
        self._only: Address | None = None
        """The sender of all there is, while there are no lines."""
        self._senders: OrderedDict[Address, OrderedDict[Envelope, None]] = OrderedDict()
        """The lines of those that have turns."""
        self._held: dict[Address, OrderedDict[Envelope, None]] = {}
        """The lines of the others, empty ones too."""

    def add(self, envelope: Envelope) -> None:
        """Put one at the end of its sender's."""
        if self.are_lined_up:
            self._line_up(envelope)
        elif not self.all:
            self._only = envelope.sender
        elif envelope.sender is not self._only and envelope.sender != self._only:
            self._line_up_all()
            self._line_up(envelope)
        self.all[envelope] = None

    def add_all(self, envelopes: Sequence[Envelope]) -> None:
        """Put several of one sender at the end of its own."""
        self.add(envelopes[0])
        if self.are_lined_up:
            for envelope in envelopes:
                self._line_up(envelope)
        self.all.update(dict.fromkeys(envelopes))

    def has(self, sender: Address) -> bool:
        """Tell whether there is one of this sender."""
        if self.are_lined_up:
            return sender in self._senders or bool(self._held.get(sender))
        return bool(self.all) and sender == self._only

    def first_of_each(self, *, held: bool = False) -> list[Envelope]:
        """Give the first of each sender that has turns, or of each that is held."""
        if self.are_lined_up:
            lines = self._held if held else self._senders
            return [next(iter(line)) for line in lines.values() if line]
        return [] if held or not self.all else [next(iter(self.all))]

    def next_run(self, most: int, most_bytes: int) -> list[Envelope]:
        """Take out the next; with a tell of a sender who is alone the tells of its session that follow."""
        first = self.next()
        if first is None:
            return []
        run, size = [first], first.size
        if first.wants_reply or self.are_lined_up:
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

    def next(self) -> Envelope | None:
        """Take out the first of the sender whose turn it is; None if nobody has one."""
        if not self.are_lined_up:
            return self.all.popitem(last=False)[0] if self.all else None
        if not self._senders:
            return None
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
        if not self.are_lined_up:
            return
        sender = envelope.sender
        held = self._held.get(sender)
        if held is not None:
            del held[envelope]
            return
        waiting = self._senders[sender]
        del waiting[envelope]
        if not waiting:
            del self._senders[sender]
            self._look()

    def hold(self, sender: Address, first: Envelope | None = None) -> None:
        """Let a sender have no turn until it is let go; put back what was taken out for it."""
        if not self.are_lined_up:
            self._line_up_all()
        line = self._held[sender] = self._senders.pop(sender, OrderedDict())
        self.are_lined_up = True
        if first is not None:
            for queue in (line, self.all):
                queue[first] = None
                queue.move_to_end(first, last=False)

    def let_go(self, sender: Address) -> None:
        """Let a sender that was held have its turns again."""
        line = self._held.pop(sender)
        if line:
            self._senders[sender] = line
        self._look()

    def clear(self) -> list[Envelope]:
        """Take all out; nobody is held any more."""
        left = list(self.all)
        self.all.clear()
        self._senders.clear()
        self._held.clear()
        self._look()
        return left

    def _look(self) -> None:
        self.are_lined_up = bool(self._senders or self._held)

    def _line_up_all(self) -> None:
        # Each is lined up once at the most, so this costs no more than to line up all of them at once.
        for waiting in self.all:
            self._line_up(waiting)

    def _line_up(self, envelope: Envelope) -> None:
        sender = envelope.sender
        line = self._held.get(sender) if self._held else None
        if line is None:
            line = self._senders.setdefault(sender, OrderedDict())
        line[envelope] = None
        self.are_lined_up = True
