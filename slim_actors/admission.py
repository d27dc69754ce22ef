"""Admission to one agent instance: how many sessions, bytes and streams its peers may have there."""

from __future__ import annotations

import asyncio
from collections import OrderedDict

from slim_actors.errors import Busy
from slim_actors.limits import Limits
from slim_actors.names import Address

__all__ = ["Admission", "Visit"]

_REMEMBERED = 4096
"""Peers without a session of which it is still known how many they opened of late."""
_COME_BACK_AFTER = 1.0
_RETRY_AFTER = 0.1
_BARRED_FOR = 60.0
"""Seconds."""


class _Tally:
    """What one peer has, or one subject, or all of them together."""

    def __init__(self) -> None:
        self.sessions = 0
        self.messages = 0
        """Bytes of messages without an outcome."""
        self.items = 0
        """Bytes of items that nobody has taken out yet."""
        self.parts = 0
        """Bytes of parts whose message is not here as a whole yet."""


class _Peer(_Tally):
    def __init__(self, may_open: float = 0.0, looked_at: float = 0.0) -> None:
        super().__init__()
        self.streams = 0
        self.may_open = may_open
        """Sessions that it may open now: a bucket that fills with time."""
        self.looked_at = looked_at
        self.barred_until = 0.0


class Admission:
    """Counts what peers have, and refuses what is too much.

    Args:
        limits: What is too much.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._peers: OrderedDict[Address, _Peer] = OrderedDict()
        self._subjects: dict[tuple[str, str], _Tally] = {}
        self._all = _Tally()

    def enter(self, address: Address) -> Visit:
        """Let a new session in.

        Raises:
            Busy: There are too many, of this peer or in all, or it opens them too fast.
        """
        limits, now = self.limits, asyncio.get_running_loop().time()
        peer = self._peers.get(address)
        if peer is None:
            peer = self._peers[address] = _Peer(may_open=limits.max_new_sessions, looked_at=now)
            self._forget_old_ones()
        self._peers.move_to_end(address)
        peer.may_open = min(
            limits.max_new_sessions, peer.may_open + (now - peer.looked_at) * limits.max_new_sessions
        )
        peer.looked_at = now
        if peer.barred_until > now:
            raise Busy("This peer has sent too much of what cannot be taken.", peer.barred_until - now)
        if peer.sessions >= limits.max_sessions:
            raise Busy(f"One peer may have {limits.max_sessions} sessions here.", _COME_BACK_AFTER)
        if peer.may_open < 1:
            raise Busy(
                f"One peer may open {limits.max_new_sessions} sessions a second here.", _COME_BACK_AFTER
            )
        if self._all.sessions >= limits.max_sessions_in_all:
            raise Busy(f"All {limits.max_sessions_in_all} sessions here are taken.", _COME_BACK_AFTER)
        peer.may_open -= 1
        return Visit(self, peer, self._all)

    def tally_of(self, address: Address) -> _Tally:
        """Give what the verified subject of a peer has."""
        return self._subjects.setdefault((address.subject, address.issuer), _Tally())

    def forget(self, address: Address) -> None:
        """Forget a subject that has no session any more."""
        key = (address.subject, address.issuer)
        tally = self._subjects.get(key)
        if tally is not None and not tally.sessions:
            del self._subjects[key]

    def _forget_old_ones(self) -> None:
        # Those with sessions are bounded by the sessions.
        if len(self._peers) > _REMEMBERED + self.limits.max_sessions_in_all:
            idle = (address for address, peer in self._peers.items() if not peer.sessions)
            del self._peers[next(idle)]


class Visit:
    """One session, and what it has at the agent. It ends with `leave`."""

    def __init__(self, admission: Admission, peer: _Peer, everybody: _Tally) -> None:
        self.identity: Address | None = None
        """Whose it is, once that is verified."""
        self.limits = admission.limits
        """What is too much."""
        self._admission = admission
        self._peer = peer
        self._all = everybody
        self._subject = _Tally()
        """That of its peer's subject; nobody's until the peer is verified."""
        self._own = _Tally()
        self._streams = 0
        peer.sessions += 1
        everybody.sessions += 1

    def identify(self, address: Address) -> None:
        """Take note of whose identity was verified; does nothing the second time.

        Raises:
            Busy: This subject has half of all sessions already, by whatever many instances.
        """
        if self.identity is not None or not address.subject:
            return
        tally = self._admission.tally_of(address)
        most = self.limits.max_sessions_in_all // 2
        if tally.sessions >= most:
            raise Busy(f"One subject may have {most} sessions here.", _COME_BACK_AFTER)
        self.identity = address
        tally.sessions += 1
        tally.messages += self._own.messages
        tally.items += self._own.items
        tally.parts += self._own.parts
        self._subject = tally

    def hold(self, size: int) -> None:
        """Count a message in. One may come while less than the limit waits.

        Raises:
            Busy: Too many bytes wait, of this peer or in all.
        """
        limits = self.limits
        if self._peer.messages >= limits.max_waiting:
            raise Busy(f"{limits.max_waiting} bytes of messages of this caller wait already.", _RETRY_AFTER)
        if self._all.messages >= limits.max_waiting_in_all or (
            self.identity is not None and self._subject.messages >= limits.max_waiting_in_all // 2
        ):
            raise Busy("Too many bytes of messages wait here already.", _RETRY_AFTER)
        # As `count` does: a call more for every message would cost as much again.
        self._peer.messages += size
        self._all.messages += size
        self._subject.messages += size
        self._own.messages += size

    def has_room(self, size: int) -> bool:
        """Tell whether messages of so many bytes together may come in, however many they are."""
        limits = self.limits
        return (
            self._peer.messages + size <= limits.max_waiting
            and self._all.messages + size <= limits.max_waiting_in_all
            and self._subject.messages + size <= limits.max_waiting_in_all // 2
        )

    def count(self, size: int) -> None:
        """Count a message in that was let in already; below 0, count it out."""
        # One by one: this is done twice for every message, and a loop would cost more.
        self._peer.messages += size
        self._all.messages += size
        self._subject.messages += size
        self._own.messages += size

    def count_stream(self, number: int) -> None:
        """Count a stream in that was let in already; below 0, count it out."""
        self._peer.streams += number
        self._streams += number

    def hold_item(self, size: int) -> bool:
        """Count an item in, or, with a size below 0, out; give whether there is room for it."""
        limits = self.limits
        if size > 0 and (
            self._peer.items >= limits.max_waiting
            or self._all.items >= limits.max_waiting_in_all
            or (self.identity is not None and self._subject.items >= limits.max_waiting_in_all // 2)
        ):
            return False
        for tally in (self._peer, self._all, self._subject, self._own):
            tally.items += size
        return True

    def hold_part(self, size: int) -> bool:
        """Count a part in, or, with a size below 0, out; give whether there is room for it."""
        limits = self.limits
        # Beyond what may wait there is room to complete one message.
        if size > 0 and (
            self._peer.parts >= limits.max_waiting + limits.max_payload
            or self._all.parts >= limits.max_waiting_in_all + limits.max_payload
            or (
                self.identity is not None
                and self._subject.parts >= limits.max_waiting_in_all // 2 + limits.max_payload
            )
        ):
            return False
        for tally in (self._peer, self._all, self._subject, self._own):
            tally.parts += size
        return True

    def open_stream(self) -> None:
        """Count a stream in.

        Raises:
            Busy: This peer has too many.
        """
        most = self.limits.max_streams
        if self._peer.streams >= most:
            raise Busy(f"One peer may have {most} streams open here.", _RETRY_AFTER)
        self.count_stream(1)

    def leave(self, *, in_disgrace: bool = False) -> None:
        """Count everything out that is still in; who leaves in disgrace may not come back for a while."""
        if in_disgrace:
            self._peer.barred_until = asyncio.get_running_loop().time() + _BARRED_FOR
        for tally in (self._peer, self._all, self._subject):
            tally.sessions -= 1
            tally.messages -= self._own.messages
            tally.items -= self._own.items
            tally.parts -= self._own.parts
        self._peer.streams -= self._streams
        if self.identity is not None:
            self._admission.forget(self.identity)
        # What is counted out from here on is out already.
        self._peer, self._all, self._subject, self._own = _Peer(), _Tally(), _Tally(), _Tally()
        self._streams = 0
