"""The mailbox of one agent instance: a bounded queue in front of its handlers."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Sequence
from contextvars import Context
from math import inf

from slim_actors.errors import Busy
from slim_actors.mailbox import Envelope, Mailbox, MailboxStats
from slim_actors.names import Address
from slim_actors.turns import Turns

__all__ = ["MailboxQueue"]

_MOST_BYTES = 64 * 1024 * 1024
"""A mailbox is full at this too, however few messages it holds."""


class MailboxQueue:
    """The queue behind a `Mailbox`. Senders take turns: one with many messages keeps no other waiting.

    With ``overflow="wait"``, messages beyond the capacity are *parked*: they are here, but not accepted, so
    their senders get no new credit for them. What can be parked is bounded by the credit that was given out.

    A sender that does not read its outcomes is *held*: it has no turn until it does. Its messages fill the
    mailbox all the same, so what others park there goes past them to a worker that is free.
    """

    def __init__(self, declared: Mailbox) -> None:
        self._declared = declared
        self._accepted = Turns()
        self._parked = Turns()
        self._bytes = 0
        self._will_unpark = False
        self._takers: deque[asyncio.Future[None]] = deque()
        self._held: dict[Address, asyncio.Future[None]] = {}
        """The senders that take no more outcomes for now, and what there is room with again."""
        self._loop = asyncio.get_running_loop()
        self.accepted = self.handled = self.failed = self.expired = 0
        self.cancelled = self.dropped = self.refused = self.denied = 0

    def __len__(self) -> int:
        return len(self._accepted.all)

    @property
    def stats(self) -> MailboxStats:
        """The numbers as they are now."""
        oldest = next(iter(self._accepted.all)).accepted_at if self._accepted.all else None
        age = 0.0 if oldest is None else self._loop.time() - oldest
        return MailboxStats(
            len(self._accepted.all),
            age,
            self.accepted,
            self.handled,
            self.failed,
            self.expired,
            self.cancelled,
            self.dropped,
            self.refused,
            self.denied,
        )

    @property
    def waits_since(self) -> float:
        """When the first message came that waits for a worker, and for nothing else; infinite without one."""
        waiting = self._accepted.first_of_each() + self._parked.first_of_each()
        return min((inf if one.arrived_at is None else one.arrived_at for one in waiting), default=inf)

    def put(self, envelope: Envelope) -> Sequence[Envelope]:
        """Accept a message, or do with it what the overflow says; give those that were dropped for it.

        Raises:
            Busy: It is refused.
        """
        must_wait = False
        if self._parked.all:
            # Whoever has waited comes first.
            self._unpark()
            must_wait = self._parked.has(envelope.sender)
        if len(self._accepted.all) < self._declared.capacity and self._bytes < _MOST_BYTES and not must_wait:
            # As nearly always; one always fits, however large.
            self._accept(envelope)
            return ()
        dropped: list[Envelope] = []
        if not envelope.keep:
            if self._declared.overflow == "wait":
                envelope.arrived_at = self._loop.time()
                self._parked.add(envelope)
                self._wake_past_held()
                return ()
            if self._declared.overflow == "drop_oldest":
                dropped = self._drop()
            elif not (self._held and self._takers and envelope.sender not in self._held):
                self.refused += 1
                raise Busy(
                    f"The mailbox is full: {len(self._accepted.all)} messages wait.",
                    self._declared.retry_after,
                )
        self._accept(envelope)
        return dropped

    def put_all(self, envelopes: Sequence[Envelope], size: int) -> int | None:
        """Put asks, or tells, of one session that have so many bytes together.

        Returns:
            How many were accepted; the others are parked. None, and nothing was done, where they must be put
            one by one, since some would be refused or make others go.
        """
        must_wait = False
        if self._parked.all:
            self._unpark()
            must_wait = self._parked.has(envelopes[0].sender)
        room = 0 if must_wait else max(0, self._declared.capacity - len(self._accepted.all))
        fits = len(envelopes) <= room
        if self._bytes + size >= _MOST_BYTES or (not fits and self._declared.overflow != "wait"):
            return None
        if fits:
            self._accept_all(envelopes)
            return len(envelopes)
        now = self._loop.time()
        for envelope in envelopes[room:]:
            envelope.arrived_at = now
        self._parked.add_all(envelopes[room:])
        if room:
            self._accept_all(envelopes[:room])
        self._wake_past_held()
        return room

    def next(self) -> Envelope | None:
        """Give the next message; None if none waits."""
        accepted = self._accepted
        if not accepted.all:
            return None
        # Of one sender, as nearly always, without another call.
        envelope = accepted.next() if accepted.are_lined_up else accepted.all.popitem(last=False)[0]
        if envelope is None:
            beyond = self._parked.next()
            if beyond is None:
                return None
            self._accept(beyond)
            return self.next()
        self._bytes -= envelope.size
        if self._parked.all:
            # Soon, for several at once, where the worker goes on; but before anything else that comes.
            if not accepted.all:
                self._unpark()
            elif not self._will_unpark:
                self._will_unpark = True
                self._loop.call_soon(self._unpark)
        return envelope

    async def take(self) -> Envelope:
        """Wait for the next message."""
        while (envelope := self.next()) is None:
            taker = self._loop.create_future()
            self._takers.append(taker)
            try:
                await taker
            except asyncio.CancelledError:
                if taker.done() and not taker.cancelled():
                    self._wake()
                raise
        return envelope

    def hold_back(self, envelope: Envelope, room: Awaitable[None]) -> None:
        """Put back what was taken out; until there is room for its outcome, its sender's others wait too."""
        sender = envelope.sender
        self._bytes += envelope.size
        self._accepted.hold(sender, envelope)
        self._parked.hold(sender)
        # In a context of its own: that of the worker holds the message.
        held = self._held[sender] = Context().run(asyncio.ensure_future, room)
        held.add_done_callback(lambda _: self._let_go(sender) if self._held.get(sender) is held else None)

    def held_back(self) -> list[Envelope]:
        """Give the first message of each sender that is held."""
        return self._accepted.first_of_each(held=True) if self._held else []

    def discard(self, envelope: Envelope) -> None:
        """Take a message out, wherever it waits."""
        if envelope in self._accepted.all:
            self._remove(envelope)
            self._unpark()
        else:
            self._parked.remove(envelope)

    def clear(self) -> list[Envelope]:
        """Take everything out, and give it."""
        held, self._held = self._held, {}
        for room in held.values():
            room.cancel()
        left = self._accepted.clear()
        self._bytes = 0
        return left + self._parked.clear()

    def clear_parked(self) -> list[Envelope]:
        """Take out only what was never accepted."""
        left = self._parked.clear()
        for sender in self._held:
            self._parked.hold(sender)
        return left

    @property
    def _is_full(self) -> bool:
        # One always fits, however large.
        return len(self._accepted.all) >= self._declared.capacity or self._bytes >= _MOST_BYTES

    def _remove(self, envelope: Envelope) -> None:
        self._accepted.remove(envelope)
        self._bytes -= envelope.size

    def _drop(self) -> list[Envelope]:
        """Take out the oldest, as many as must go before the mailbox is not full."""
        dropped: list[Envelope] = []
        while self._is_full:
            oldest = next((waiting for waiting in self._accepted.all if not waiting.keep), None)
            if oldest is None:
                break
            self._remove(oldest)
            dropped.append(oldest)
        self.dropped += len(dropped)
        return dropped

    def _let_go(self, sender: Address) -> None:
        del self._held[sender]
        self._accepted.let_go(sender)
        self._parked.let_go(sender)
        self._unpark()
        for _ in range(len(self._takers)):
            self._wake()

    def _wake_past_held(self) -> None:
        """Let workers that are free take what waits behind a mailbox full of what is held."""
        if self._held:
            for _ in range(len(self._takers)):
                self._wake()

    def _unpark(self) -> None:
        self._will_unpark = False
        while self._parked.all and not self._is_full:
            room = self._declared.capacity - len(self._accepted.all)
            run = self._parked.next_run(room, _MOST_BYTES - self._bytes)
            if not run:
                return
            if len(run) == 1:
                self._accept(run[0])
            else:
                self._accept_all(run)

    def _accept_all(self, envelopes: Sequence[Envelope]) -> None:
        now, size = self._loop.time(), 0
        for envelope in envelopes:
            envelope.accepted_at = now
            if envelope.arrived_at is None:
                envelope.arrived_at = now
            size += envelope.size
        self.accepted += len(envelopes)
        self._bytes += size
        self._accepted.add_all(envelopes)
        envelopes[0].origin.accepted_all(envelopes)
        for _ in range(min(len(envelopes), len(self._takers))):
            self._wake()

    def _accept(self, envelope: Envelope) -> None:
        envelope.accepted_at = now = self._loop.time()
        if envelope.arrived_at is None:
            envelope.arrived_at = now
        self.accepted += 1
        self._bytes += envelope.size
        self._accepted.add(envelope)
        envelope.origin.accepted(envelope)
        if self._takers:
            self._wake()

    def _wake(self) -> None:
        while self._takers:
            taker = self._takers.popleft()
            if not taker.done():
                taker.set_result(None)
                return
