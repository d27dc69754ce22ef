"""The Anycast pool: sessions to distinct replicas, and the choice among them for each message."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from copy import copy
from math import inf

from slim_actors.backoff import Backoff
from slim_actors.errors import DeliveryError, Untrusted
from slim_actors.routing.breaker import Breaker
from slim_actors.routing.peer import Peer

__all__ = ["Pool"]

_LOOK_AGAIN = Backoff(2.0, 30.0, jitter=0.1)
"""After a change, and then ever more rarely. Newcomers are announced; but one that was cut off for a while
does not know that it was, and a word may be lost."""
_LOOK_AFTER = 1.0
"""Seconds between two looks, however much news there is; and in which all who hear the same news look."""
_SETUPS_AT_ONCE = 8
_MOST_ROUNDS = 4
_MOST_ROUNDS_IN_VAIN = 2
_MOST_LEFT = 64
_SAME_MOMENT = 0.05
_MOST_BREAKERS = 256
_SEVERAL = 4
"""Outstanding messages of each replica from which on the next one may go where the last one went; and while
not all are known, waits for others to be found."""
_BEHIND = 8
"""How many messages a replica may have to catch up with when several are as busy: who had few while others
did the work is not made to do all of what comes then. The parts of a small `tell_many` differ by less."""
_WAIT_FOR_OTHERS = 0.5
"""Seconds for which messages that have somebody to go to wait for others to be found; all of a burst
together, from the first that waits. A set-up takes some hundredths, unless it leads to nobody: then 3."""


class Pool:
    """All replicas of one service that discovery has come across.

    SLIM chooses a replica once, when a session is set up, and goes round the replicas with each set-up. So
    the first messages take a fresh session each, until discovery comes round to a replica that is known
    already and one more round shows nobody new: then the pool is complete. Each message goes to the replica
    with the fewest outstanding ones, and among equals to the one that has had the fewest lately; those that a
    `Breaker` leaves out are left out. Where all have several, it goes where the last one went, as long as
    that replica has at most a quarter more: what goes together travels in one payload. While it is used, the
    pool looks for new replicas when a known one says that somebody has come, when one is lost, and ever more
    rarely after that.

    Args:
        name: The service.
        find: Opens a session to the replica that discovery picks next.
    """

    def __init__(self, name: str, find: Callable[[], Awaitable[Peer]]) -> None:
        self.name = name
        self._find = find
        self._loop = asyncio.get_running_loop()
        self._peers: dict[str, Peer] = {}
        self._complete = self._has_met_anybody = False
        self._setups: set[asyncio.Task[bool]] = set()
        self._turns = itertools.count(1)
        self._most = 0
        """How many messages the one has had that has had the most."""
        self._last: Peer | None = None
        """Where the last message went of those that `at_hand` chose for."""
        self._explorer: asyncio.Task[None] | None = None
        self._look_at = 0.0
        """When it is time to look for new replicas."""
        self._looked_at = float("-inf")
        self._in_vain = 0
        """How often it was looked round since somebody was found or lost."""
        self._waiting: asyncio.Task[object] | None = None
        self._patient_until = inf
        """When messages wait no longer for others to be found."""
        self._changed = asyncio.Event()
        self._left: deque[str] = deque(maxlen=_MOST_LEFT)
        self._why_lost: DeliveryError | None = None
        self._breakers: dict[str, Breaker] = {}

    @property
    def peers(self) -> Collection[Peer]:
        """The live replicas that are known."""
        self._drop_lost()
        return self._peers.values()

    @property
    def _usable(self) -> list[Peer]:
        return [peer for peer in self.peers if not peer.is_leaving]

    @property
    def _all_left(self) -> bool:
        """Whether everybody who was known is stopping, or has stopped."""
        return not self._usable and bool(self._peers or self._left)

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
        if not self._complete:
            return None
        chosen: Peer | None = None
        least = -1
        for peer in breaker.fit(self._usable) if breaker.open else self._peers.values():
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
        if now >= self._look_at:
            self._explore_now()
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
        if not self._all_left:
            try:
                await self._meet()
            except Untrusted:
                # Discovery may well lead there again before it leads to others.
                await self._look_round()
            except DeliveryError:
                if not self._has_met_anybody:
                    raise
                # Somebody was there: on a busy machine one set-up may find no answer while SLIM waits.
                await self._meet()
        if self._all_left:
            await self._look_round()
        if avoid and not self._complete and all(peer.address.instance in avoid for peer in self._usable):
            # Whoever is known refused, and not all are known yet.
            await asyncio.wait([self._explore_now()])
        return self._use(self._choose(breaker, avoid))

    async def _survivor(self, avoid: Collection[str]) -> Peer | None:
        asked = {
            asyncio.create_task(peer.is_there()): peer
            for peer in self._usable
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

    async def _meet(self) -> None:
        """Get to know the replicas, by a set-up at the most; the first must succeed."""
        if self._complete and self._usable:
            if self._loop.time() >= self._look_at:
                self._explore_now()
        elif len(self._setups) < _SETUPS_AT_ONCE:
            setup = self._set_up()
            await self._wait([setup], _WAIT_FOR_OTHERS if self._usable else None)
            if not setup.done() or (setup.exception() is None and not setup.result()):
                # Nobody new came up. Others may have moved discovery on, so go round once more.
                self._explore_now()
        elif not self._usable:
            setups = list(self._setups)
            await self._wait_together(setups, _WAIT_FOR_OTHERS)
            if not self._usable:
                await self._wait(setups)
        elif all(peer.outstanding >= _SEVERAL for peer in self._usable) and (patience := self._patience()):
            # Of a burst that comes before all are known, all should have their part.
            await self._wait_together([self._explore_now()], patience)

    def _patience(self) -> float:
        """Give how many seconds a message may wait for others to be found, though somebody is known."""
        now = self._loop.time()
        self._patient_until = min(self._patient_until, now + _WAIT_FOR_OTHERS)
        return max(0.0, self._patient_until - now)

    async def _wait_together(self, tasks: Iterable[asyncio.Task[object]], timeout: float) -> None:
        # One wait for a whole burst: one for each message would take longer than to handle them.
        if self._waiting is None or self._waiting.done():
            self._waiting = asyncio.create_task(asyncio.wait(tasks, timeout=timeout), name="anycast wait")
        await asyncio.wait([self._waiting])

    async def close(self) -> None:
        """End all conversations."""
        tasks = [task for task in (*self._setups, self._explorer, self._waiting) if task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await asyncio.gather(*(peer.close() for peer in self._peers.values()))

    def _alive(self, asked: Mapping[asyncio.Task[bool], Peer]) -> list[Peer]:
        """Give those that have answered, and are still of use."""
        usable = self._usable
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
        candidates = [peer for peer in self._usable if peer.address.instance not in avoid]
        if not candidates:
            raise NothingLeft
        return min(breaker.fit(candidates), key=_load)

    def _drop_lost(self) -> None:
        lost = [instance for instance, peer in self._peers.items() if peer.is_lost]
        for instance in lost:
            peer = self._peers.pop(instance)
            self._last = None
            self._why_lost = peer.lost(may_have_run=False)
            if peer.is_leaving:
                self._left.append(instance)
            for breaker in self._breakers.values():
                breaker.forget(peer)
            # Whoever replaces it should be found at the next use.
            self._look_at, self._in_vain = 0.0, 0
        if lost and not self._peers:
            self._complete, self._patient_until = False, inf

    def _set_up(self) -> asyncio.Task[bool]:
        setup = asyncio.create_task(self._discover(), name="anycast set-up")
        self._setups.add(setup)
        setup.add_done_callback(self._set_up_done)
        return setup

    def _set_up_done(self, setup: asyncio.Task[bool]) -> None:
        self._setups.discard(setup)
        self._changed.set()
        if not setup.cancelled():
            # Looked at, so that asyncio does not report it when its callers found another replica meanwhile.
            setup.exception()

    async def _wait(self, setups: Collection[asyncio.Task[bool]], timeout: float | None = None) -> None:
        await asyncio.wait(setups, timeout=timeout)
        if self._usable or self._all_left:
            return
        await asyncio.wait(setups)
        for setup in setups:
            error = setup.exception()
            if error is not None:
                # Several callers may wait for one set-up; each raises an error of its own.
                raise copy(error)
        if self._why_lost is not None:
            # Whoever was found has ended the session already, and said why.
            raise copy(self._why_lost)

    async def _discover(self) -> bool:
        """Set up one session; tell whether it led to a replica that was not known."""
        peer = await self._find()
        instance = peer.address.instance
        self._drop_lost()
        if instance in self._peers or instance in self._left:
            await peer.close()
            return False
        # One that joins a pool at work takes its part from now on.
        peer.uses = self._most if self._complete else 0
        peer.news = self.look_again
        self._peers[instance] = peer
        self._has_met_anybody = True
        self._in_vain = 0
        return True

    def look_again(self) -> None:
        """Look for new replicas before long: somebody may have come."""
        soon = self._loop.time() + random.uniform(0.0, _LOOK_AFTER)  # noqa: S311 (no secret)
        self._look_at = min(self._look_at, max(soon, self._looked_at + _LOOK_AFTER))

    def _explore_now(self) -> asyncio.Task[None]:
        if self._explorer is None or self._explorer.done():
            self._explorer = asyncio.create_task(self._explore(), name="anycast discovery")
        return self._explorer

    async def _look_round(self) -> None:
        """Find somebody in the place of replicas that are leaving, or that are refused here.

        Both keep their name, so a set-up may well lead to one of them again; and one that reaches a replica
        in the moment of its end waits in vain. So go round, each time by more set-ups, and take who comes
        first. Always by some at a time: of one after the other, each can lead to the same replica.
        """
        vain = 0
        for turn in range(1, _MOST_ROUNDS + 1):
            count = min(len(self._peers) + 2**turn, _SETUPS_AT_ONCE - len(self._setups))
            setups = [self._set_up() for _ in range(count)] or list(self._setups)
            while not all(setup.done() for setup in setups):
                self._changed.clear()
                await self._changed.wait()
                if self._usable:
                    return
            errors = [error for setup in setups if (error := setup.exception()) is not None]
            vain += len(errors) == len(setups)
            if vain == _MOST_ROUNDS_IN_VAIN:
                raise copy(errors[0])
        await self._wait(setups)

    async def _explore(self) -> None:
        """Go once round all replicas: as many set-ups as there are known ones, and one more.

        All at once, so that the set-ups of other callers do not come between them.
        """
        # News that comes meanwhile may be of somebody whom this round has missed.
        self._look_at = inf
        failed = False
        for _ in range(_MOST_ROUNDS):
            known = len(self._peers)
            for first in range(0, known + 1, _SETUPS_AT_ONCE):
                count = min(_SETUPS_AT_ONCE, known + 1 - first)
                setups = [self._set_up() for _ in range(count)]
                # Errors are no news: nobody more to find now; messages that need somebody say so.
                found = await asyncio.gather(*setups, return_exceptions=True)
                failed |= any(isinstance(each, BaseException) for each in found)
            # Also those whom others have found meanwhile, and who may have come between.
            if len(self._peers) <= known:
                break
        self._complete = bool(self._peers)
        self._looked_at = self._loop.time()
        # A set-up that came to nothing may have been to somebody new.
        self._in_vain = 0 if failed else self._in_vain
        self._look_at = min(self._look_at, self._looked_at + _LOOK_AGAIN.pause(self._in_vain))
        self._in_vain += 1


def _load(peer: Peer) -> tuple[int, int, int]:
    return peer.outstanding, peer.uses, peer.last_used


class NothingLeft(DeliveryError):
    """Every replica that is known was to be avoided."""
