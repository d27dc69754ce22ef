"""Discovery: the replicas of one service that are known, and the session set-ups that find more."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterable
from copy import copy
from math import inf

from slim_actors.backoff import Backoff
from slim_actors.errors import DeliveryError, Untrusted
from slim_actors.routing.peer import Peer
from slim_actors.shared import sender_stopped

__all__ = ["Discovery"]

_LOOK_AGAIN = Backoff(2.0, 30.0, jitter=0.1)
"""After a change, and then ever more rarely. Newcomers are announced; but one that was cut off for a while
does not know that it was, and a word may be lost."""
_LOOK_AFTER = 1.0
"""Seconds between two looks, however much news there is; and in which all who hear the same news look."""
_SETUPS_AT_ONCE = 8
_MOST_ROUNDS = 4
_MOST_ROUNDS_IN_VAIN = 2
_MOST_LEFT = 64
_WAIT_FOR_OTHERS = 0.5
"""Seconds for which messages that have somebody to go to wait for others to be found; all of a burst
together, from the first that waits. A set-up takes some hundredths, unless it leads to nobody: then 3."""


class Discovery:
    """All replicas of one service that set-ups of sessions have led to.

    SLIM chooses a replica once, when a session is set up, and goes round the replicas with each set-up. So
    the first messages take a fresh session each, until that leads to a replica that is known already and one
    more round, for which all others wait a moment, shows nobody new: then all are known. After that it is
    time to look for more when a known one says that somebody has come, when one is lost, and ever more rarely
    otherwise.

    Args:
        find: Opens a session to the replica that SLIM picks next.
        joined: Called with each replica that becomes known.
        lost: Called with each that is lost.
    """

    def __init__(
        self,
        find: Callable[[], Awaitable[Peer]],
        joined: Callable[[Peer], None],
        lost: Callable[[Peer], None],
    ) -> None:
        self._find = find
        self._joined = joined
        self._lost = lost
        self._loop = asyncio.get_running_loop()
        self.known: dict[str, Peer] = {}
        """By instance; lost ones may be among them until `live` is asked for."""
        self.is_complete = False
        """Whether nobody is known to be missing."""
        self._has_met_anybody = False
        self.look_at = 0.0
        """When it is time to look for new replicas."""
        self._looked_at = -inf
        self._in_vain = 0
        """How often it was looked round since somebody was found or lost."""
        self._setups: set[asyncio.Task[bool]] = set()
        self._explorer: asyncio.Task[None] | None = None
        self._waiting: asyncio.Task[object] | None = None
        self._patient_until = inf
        """When messages wait no longer for others to be found."""
        self._changed = asyncio.Event()
        self._left: deque[str] = deque(maxlen=_MOST_LEFT)
        self._why_lost: DeliveryError | None = None
        self._is_closed = False

    @property
    def live(self) -> Collection[Peer]:
        """The known replicas that are not lost."""
        self._drop_lost()
        return self.known.values()

    @property
    def is_of_use(self) -> bool:
        """Whether there is a live replica, or one is being looked for."""
        return bool(self._setups or self.live) or self._is_exploring

    @property
    def usable(self) -> list[Peer]:
        """Those that are not stopping."""
        return [peer for peer in self.live if not peer.is_leaving]

    async def meet(self, *, busy_from: int) -> None:
        """Get to know the replicas as far as a message needs that: see to it that somebody is known.

        Args:
            busy_from: If all that are known have so many outstanding messages, others are waited for.

        Raises:
            Stopped: Nobody is looked for any more.
            DeliveryError: What the set-ups end with where they lead to nobody, and nobody is known.
        """
        if not self._have_all_left:
            try:
                await self._meet_one(busy_from)
            except Untrusted:
                # SLIM may well lead there again before it leads to others.
                await self._look_round()
            except DeliveryError:
                if not self._has_met_anybody:
                    raise
                # Somebody was there: on a busy machine one set-up may find no answer while SLIM waits.
                await self._meet_one(busy_from)
        if self._have_all_left:
            await self._look_round()
        self._check_open()

    def look_again(self) -> None:
        """Look for new replicas before long: somebody may have come."""
        soon = self._loop.time() + random.uniform(0.0, _LOOK_AFTER)  # noqa: S311 (no secret)
        self.look_at = min(self.look_at, max(soon, self._looked_at + _LOOK_AFTER))

    def explore(self) -> asyncio.Task[None]:
        """Look for new replicas now; give what ends when that is done."""
        self._check_open()
        if self._explorer is None or self._explorer.done():
            self._explorer = asyncio.create_task(self._explore(), name="anycast discovery")
        return self._explorer

    async def close(self) -> None:
        """Look for nobody any more, and end all conversations."""
        self._is_closed = True
        tasks = [task for task in (*self._setups, self._explorer, self._waiting) if task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await asyncio.gather(*(peer.close() for peer in self.known.values()))

    @property
    def _is_exploring(self) -> bool:
        return self._explorer is not None and not self._explorer.done()

    @property
    def _have_all_left(self) -> bool:
        """Whether everybody who was known is stopping, or has stopped."""
        return not self.usable and bool(self.known or self._left)

    async def _meet_one(self, busy_from: int) -> None:
        """Get to know the replicas, by a set-up at the most; the first must succeed."""
        if self.is_complete and self.usable:
            if self._loop.time() >= self.look_at:
                self.explore()
        elif self._is_exploring and self.usable:
            # Whoever else there is will be found, and a set-up of its own would be one more to wait for.
            await self._wait_for_others()
        elif len(self._setups) < _SETUPS_AT_ONCE:
            began, setup = self._loop.time(), self._set_up()
            await self._wait([setup], _WAIT_FOR_OTHERS if self.usable else None)
            nobody_new = not setup.done() or (_failure(setup) is None and not setup.result())
            if nobody_new and not (self.is_complete and self._looked_at >= began):
                # Others may have moved SLIM on, so go round once more.
                self.explore()
        elif not self.usable:
            setups = list(self._setups)
            await self._wait_together(setups, _WAIT_FOR_OTHERS)
            if not self.usable:
                await self._wait(setups)
        elif all(peer.outstanding >= busy_from for peer in self.usable):
            # Of a burst that comes before all are known, all should have their part.
            await self._wait_for_others()

    async def _look_round(self) -> None:
        """Find somebody in the place of replicas that are leaving, or that are refused here.

        Both keep their name, so a set-up may well lead to one of them again; and one that reaches a replica
        in the moment of its end waits in vain. So go round, each time by more set-ups, and take who comes
        first. Always by some at a time: of one after the other, each can lead to the same replica.
        """
        vain = 0
        for turn in range(1, _MOST_ROUNDS + 1):
            count = min(len(self.known) + 2**turn, _SETUPS_AT_ONCE - len(self._setups))
            setups = [self._set_up() for _ in range(count)] or list(self._setups)
            while not all(setup.done() for setup in setups):
                self._changed.clear()
                await self._changed.wait()
                if self.usable:
                    return
            errors = [error for setup in setups if (error := _failure(setup)) is not None]
            vain += len(errors) == len(setups)
            if vain == _MOST_ROUNDS_IN_VAIN:
                raise copy(errors[0])
        await self._wait(setups)

    def _drop_lost(self) -> None:
        lost = [instance for instance, peer in self.known.items() if peer.is_lost]
        for instance in lost:
            peer = self.known.pop(instance)
            self._why_lost = peer.lost(may_have_run=False)
            if peer.is_leaving:
                self._left.append(instance)
            self._lost(peer)
            # Whoever replaces it should be found at the next use.
            self.look_at, self._in_vain = 0.0, 0
        if lost and not self.known:
            self.is_complete, self._patient_until = False, inf

    def _check_open(self) -> None:
        if self._is_closed:
            raise sender_stopped()

    def _set_up(self) -> asyncio.Task[bool]:
        self._check_open()
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

    async def _discover(self) -> bool:
        """Set up one session; tell whether it led to a replica that was not known."""
        peer = await self._find()
        instance = peer.address.instance
        self._drop_lost()
        if instance in self.known or instance in self._left:
            await peer.close()
            return False
        peer.news = self.look_again
        self.known[instance] = peer
        self._has_met_anybody = True
        self._in_vain = 0
        self._joined(peer)
        return True

    async def _explore(self) -> None:
        """Go once round all replicas: as many set-ups as there are known ones, and one more.

        All at once, so that the set-ups of other callers do not come between them.
        """
        # News that comes meanwhile may be of somebody whom this round has missed.
        self.look_at = inf
        failed = False
        for _ in range(_MOST_ROUNDS):
            known = len(self.known)
            for first in range(0, known + 1, _SETUPS_AT_ONCE):
                count = min(_SETUPS_AT_ONCE, known + 1 - first)
                setups = [self._set_up() for _ in range(count)]
                # Errors are no news: nobody more to find now; messages that need somebody say so.
                found = await asyncio.gather(*setups, return_exceptions=True)
                failed |= any(isinstance(each, BaseException) for each in found)
            # Also those whom others have found meanwhile, and who may have come between.
            if len(self.known) <= known:
                break
        self.is_complete = bool(self.known)
        self._looked_at = self._loop.time()
        # A set-up that came to nothing may have been to somebody new.
        self._in_vain = 0 if failed else self._in_vain
        self.look_at = min(self.look_at, self._looked_at + _LOOK_AGAIN.pause(self._in_vain))
        self._in_vain += 1

    async def _wait_for_others(self) -> None:
        """Let a message wait for others to be found, though somebody is known; not for long."""
        now = self._loop.time()
        self._patient_until = min(self._patient_until, now + _WAIT_FOR_OTHERS)
        if self._patient_until > now:
            await self._wait_together([self.explore()], self._patient_until - now)

    async def _wait_together(self, tasks: Iterable[asyncio.Task[object]], timeout: float) -> None:
        # One wait for a whole burst: one for each message would take longer than to handle them.
        if self._waiting is None or self._waiting.done():
            self._waiting = asyncio.create_task(asyncio.wait(tasks, timeout=timeout), name="anycast wait")
        await asyncio.wait([self._waiting])

    async def _wait(self, setups: Collection[asyncio.Task[bool]], timeout: float | None = None) -> None:
        await asyncio.wait(setups, timeout=timeout)
        if self.usable or self._have_all_left:
            return
        await asyncio.wait(setups)
        for setup in setups:
            error = _failure(setup)
            if error is not None:
                # Several callers may wait for one set-up; each raises an error of its own.
                raise copy(error)
        if self._why_lost is not None:
            # Whoever was found has ended the session already, and said why.
            raise copy(self._why_lost)


def _failure(setup: asyncio.Task[bool]) -> BaseException | None:
    """Give what a set-up has ended with, if not with a replica; only `Discovery.close` cancels one."""
    return sender_stopped() if setup.cancelled() else setup.exception()
