"""The Anycast pool: the choice among the replicas of a service for each message."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from contextlib import contextmanager

from slim_actors.errors import DeliveryError
from slim_actors.routing.breaker import Breaker
from slim_actors.routing.discovery import Discovery
from slim_actors.routing.peer import Peer

__all__ = ["NothingLeft", "Pool"]

_SAME_MOMENT = 0.05
_MOST_BREAKERS = 256
_SEVERAL = 4
"""Outstanding messages of each replica from which on the next one may go where the last one went; and while
not all are known, waits for others to be found."""
_BEHIND = 8
"""How many messages a replica may have to catch up with when several are as busy: who had few while others
did the work is not made to do all of what comes then. The parts of a small `tell_many` differ by less."""


class Pool:
    """Balances messages over the replicas of one service.

    Each message goes to the replica with the fewest outstanding ones, and among equals to the one that has
    had the fewest lately; those that a `Breaker` leaves out are left out. Where all have several, it goes
    where the last one went, as long as that replica has at most a quarter more: what goes together travels in
    one payload.

    Args:
        name: The service.
        find: Opens a session to the replica that SLIM picks next.
    """

    def __init__(self, name: str, find: Callable[[], Awaitable[Peer]]) -> None:
        self.name = name
        self.discovery = Discovery(find, self._joined, self._lost)
        """Who there is to choose from."""
        self._users = 0
        # The same that discovery has: each message looks here.
        self._known = self.discovery.known
        self._turns = itertools.count(1)
        self._most = 0
        """How many messages the one has had that has had the most."""
        self._last: Peer | None = None
        """Where the last message went of those that `at_hand` chose for."""
        self._breakers: dict[str, Breaker] = {}

    @property
    def is_of_use(self) -> bool:
        """Whether there is a live replica, one is being looked for, or somebody waits for that."""
        return self._users > 0 or self.discovery.is_of_use

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Say that somebody waits until one is chosen, or goes on to send more."""
        self._users += 1
        try:
            yield
        finally:
            self._users -= 1

    def breaker(self, wire_type: str) -> Breaker:
        """Give what knows how the replicas do with messages of a type."""
        breaker = self._breakers.get(wire_type)
        if breaker is None:
            if len(self._breakers) >= _MOST_BREAKERS:
                del self._breakers[next(iter(self._breakers))]
            breaker = self._breakers[wire_type] = Breaker(f"{wire_type} messages")
        return breaker

    def at_hand(self, breaker: Breaker, now: float) -> Peer | None:
        """Choose the replica for the next message, if the pool is complete and nobody needs replacing.

        As `acquire` does, but in one pass and without lists: this is done for each message.
        """
        discovery = self.discovery
        if not discovery.is_complete:
            return None
        chosen: Peer | None = None
        least = -1
        for peer in breaker.fit(discovery.usable) if breaker.open else self._known.values():
            if peer.is_lost:
                return None
            if peer.is_leaving:
                continue
            if chosen is None:
                chosen = peer
                continue
            # Who is the only one is chosen whatever he has to do.
            least = chosen.outstanding if least < 0 else least
            load = peer.outstanding
            if load < least or (load == least and _load(peer) < _load(chosen)):
                chosen, least = peer, load
        if chosen is None:
            return None
        if least >= _SEVERAL and not breaker.open:
            chosen = self._going_on(least) or chosen
        self._last = chosen
        if now >= discovery.look_at:
            discovery.explore()
        return self._use(chosen)

    def _going_on(self, least: int) -> Peer | None:
        """Give where the last message went, if the next one should go there too.

        Without this batches fall apart, and each of the small ones costs as much as a large one.
        """
        last = self._last
        if last is None or last.is_leaving or last.outstanding - least > least // 4:
            return None
        return last

    def give_more(self, peer: Peer, count: int) -> None:
        """Take note of what a replica gets beside the message that it was chosen for."""
        peer.uses += count
        self._most = max(self._most, peer.uses)

    async def acquire(
        self, breaker: Breaker, avoid: Collection[str] = (), *, ask_first: bool = False
    ) -> Peer:
        """Choose the replica for the next message, without a long wait where one is known that will do.

        Where none is, this opens a session, twice if the first leads to nobody, or looks for all replicas.

        Args:
            breaker: The one for the type of the message; see `breaker`.
            avoid: Instances that will not do.
            ask_first: Take one that gives a sign of life now, if there is any. Where one has died, others may
                have too, and a message must not use up its tries on the dead.

        Raises:
            NoRoute: Nobody answers to the name; where somebody did before, nobody does in two rounds.
            NodeUnreachable: The network is away and no replica is known.
            Untrusted: Whoever was found has an identity that is refused here.
            DeliveryError: The only replica that was found wants no session, or was lost in that moment.
        """
        survivor = await self._survivor(avoid) if ask_first else None
        if survivor is not None:
            return self._use(survivor)
        await self.discovery.meet(busy_from=_SEVERAL)
        known = [peer.address.instance for peer in self.discovery.usable]
        if avoid and not self.discovery.is_complete and all(instance in avoid for instance in known):
            # Whoever is known refused, and not all are known yet.
            await asyncio.wait([self.discovery.explore()])
        return self._use(self._choose(breaker, avoid))

    async def _survivor(self, avoid: Collection[str]) -> Peer | None:
        asked = {
            asyncio.create_task(peer.is_there()): peer
            for peer in self.discovery.usable
            if peer.address.instance not in avoid
        }
        waiting: set[asyncio.Task[bool]] = set(asked)
        try:
            while waiting:
                _, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                if self._alive(asked):
                    # The others that are alive answer in the same moment: not all should go to the first.
                    if waiting:
                        _, waiting = await asyncio.wait(waiting, timeout=_SAME_MOMENT)
                    return min(self._alive(asked), key=_load, default=None)
        finally:
            for answer in waiting:
                answer.cancel()
        return None

    def _alive(self, asked: Mapping[asyncio.Task[bool], Peer]) -> list[Peer]:
        """Give those that have answered, and are still of use."""
        usable = self.discovery.usable
        return [
            peer for answer, peer in asked.items() if answer.done() and answer.result() and peer in usable
        ]

    def _use(self, peer: Peer) -> Peer:
        peer.last_used = next(self._turns)
        peer.uses = uses = peer.uses + 1
        if uses > self._most:
            self._most = uses
        elif uses <= self._most - _BEHIND:
            peer.uses = self._most - _BEHIND + 1
        return peer

    def _choose(self, breaker: Breaker, avoid: Collection[str]) -> Peer:
        candidates = [peer for peer in self.discovery.usable if peer.address.instance not in avoid]
        if not candidates:
            raise NothingLeft
        return min(breaker.fit(candidates), key=_load)

    def _joined(self, peer: Peer) -> None:
        # One that joins others at work takes its part from now on.
        peer.uses = self._most if self.discovery.is_complete else 0

    def _lost(self, peer: Peer) -> None:
        self._last = None
        for breaker in self._breakers.values():
            breaker.forget(peer)


def _load(peer: Peer) -> tuple[int, int, int]:
    return peer.outstanding, peer.uses, peer.last_used


class NothingLeft(DeliveryError):
    """Every replica that is known was to be avoided."""
