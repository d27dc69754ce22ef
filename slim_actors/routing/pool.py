"""The Anycast pool: sessions to distinct replicas, and the choice among them for each message."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Collection
from copy import copy

from slim_actors.errors import DeliveryError, SlimActorsError
from slim_actors.routing.peer import Peer

__all__ = ["Pool"]

_REDISCOVER_AFTER = 3.0
_SETUPS_AT_ONCE = 8


class Pool:
    """All replicas of one service that discovery has come across.

    SLIM chooses a replica once, when a session is set up, and goes round the replicas with each set-up. So
    the first messages take a fresh session each, until discovery comes round to a replica that is known
    already: then the pool is complete, and each message goes to the replica with the fewest outstanding
    ones, the one used longest ago among equals. While it is used, the pool looks for new replicas every
    few seconds.

    Args:
        find: Opens a session to the replica that discovery picks next.
    """

    def __init__(self, find: Callable[[], Awaitable[Peer]]) -> None:
        self._find = find
        self._peers: dict[str, Peer] = {}
        self._complete = False
        self._setups: set[asyncio.Task[bool]] = set()
        self._uses = itertools.count(1)
        self._explorer: asyncio.Task[None] | None = None
        self._explored_at = 0.0

    @property
    def peers(self) -> Collection[Peer]:
        """The live replicas that are known."""
        self._drop_lost()
        return self._peers.values()

    @property
    def _usable(self) -> list[Peer]:
        return [peer for peer in self.peers if not peer.is_leaving]

    async def acquire(self, avoid: Collection[str] = ()) -> Peer:
        """Choose the replica for the next message, after one session set-up at the most.

        Args:
            avoid: Instances that will not do.

        Raises:
            NoRoute: Nobody answers to the name, or nobody but the ones to avoid.
            NodeUnreachable: The network is away and no replica is known.
        """
        if self._complete and self._usable:
            self._explore_sometimes()
        elif len(self._setups) < _SETUPS_AT_ONCE:
            await self._wait([self._set_up()])
        elif not self._usable:
            await self._wait(list(self._setups))
        peer = self._choose(avoid)
        peer.last_used = next(self._uses)
        return peer

    async def close(self) -> None:
        """End all conversations."""
        tasks: list[asyncio.Task[bool] | asyncio.Task[None]] = [*self._setups]
        if self._explorer is not None:
            self._explorer.cancel()
            tasks.append(self._explorer)
        if tasks:
            await asyncio.wait(tasks)
        await asyncio.gather(*(peer.close() for peer in self._peers.values()))

    def _choose(self, avoid: Collection[str]) -> Peer:
        candidates = [peer for peer in self._usable if peer.address.instance not in avoid]
        if not candidates:
            raise NothingLeft
        return min(candidates, key=lambda peer: (peer.outstanding, peer.last_used))

    def _drop_lost(self) -> None:
        lost = [instance for instance, peer in self._peers.items() if peer.is_lost]
        for instance in lost:
            del self._peers[instance]
            # Whoever replaces it should be found at the next use.
            self._explored_at = 0.0

    def _set_up(self) -> asyncio.Task[bool]:
        setup = asyncio.create_task(self._discover(), name="anycast set-up")
        self._setups.add(setup)
        setup.add_done_callback(self._set_up_done)
        return setup

    def _set_up_done(self, setup: asyncio.Task[bool]) -> None:
        self._setups.discard(setup)
        if not setup.cancelled():
            # Looked at, so that asyncio does not report it when its callers found another replica meanwhile.
            setup.exception()

    async def _wait(self, setups: Collection[asyncio.Task[bool]]) -> None:
        await asyncio.wait(setups)
        if self._usable:
            return
        for setup in setups:
            error = setup.exception()
            if error is not None:
                # Several callers may wait for one set-up; each raises an error of its own.
                raise copy(error)

    async def _discover(self) -> bool:
        """Set up one session; tell whether it led to a replica that was not known."""
        peer = await self._find()
        instance = peer.address.instance
        self._drop_lost()
        if instance in self._peers:
            self._complete = True
            self._explored_at = asyncio.get_running_loop().time()
            await peer.close()
            return False
        self._peers[instance] = peer
        return True

    def _explore_sometimes(self) -> None:
        due = asyncio.get_running_loop().time() - self._explored_at > _REDISCOVER_AFTER
        if due and (self._explorer is None or self._explorer.done()):
            self._explorer = asyncio.create_task(self._explore(), name="anycast discovery")

    async def _explore(self) -> None:
        """Go once round all replicas: as many set-ups as there are known ones, and one more."""
        known_in_a_row = 0
        while known_in_a_row <= len(self._peers):
            try:
                known_in_a_row = 0 if await self._discover() else known_in_a_row + 1
            except SlimActorsError:
                # Nobody more to find now; messages that need somebody say so themselves.
                break
        self._explored_at = asyncio.get_running_loop().time()


class NothingLeft(DeliveryError):
    """Every replica that is known was to be avoided."""
