"""The pulse: who is gone without a word is noticed."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import TYPE_CHECKING

from slim_actors.transport.base import Session, Transport

if TYPE_CHECKING:
    from slim_actors.link import Link

__all__ = ["Pulse"]

_STOP_WITHIN = 1.0
_MOST_IDLE_PINGS = 12
"""A second; one costs 0.3 ms of each side's processor."""


class Pulse:
    """Notices peers that are gone without a word.

    A peer that has been silent for a while gets a ping. SLIM acknowledges it from inside the peer's process,
    whatever its Python is doing: so a busy agent stays, and a process that was killed, frozen or cut off is
    lost.

    A session with something under way is pinged by both its ends, for itself. One that is idle is pinged by
    the caller, and one stands for all idle ones between the same two instances: what came over any of them is
    a sign of life. With very many instances the pings to idle ones are spread over a longer time, so that
    they cost little however many there are.

    Args:
        transport: Asked whether it is the network itself that is away; then nobody is blamed.
        lost_after: Seconds from the last sign of life to the loss.
    """

    def __init__(self, transport: Transport, lost_after: float) -> None:
        self._transport = transport
        self._tick = lost_after / 12
        self._silence = lost_after / 4
        self._patience = lost_after * 7 / 12
        self._idle = lost_after / 3
        self._unheard = lost_after * 5
        self.lost_after = lost_after
        self._links: dict[Link, asyncio.Task[None] | None] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._task: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        """How many links are watched."""
        return len(self._links)

    def watch(self, link: Link) -> None:
        """Watch a link from now on."""
        self._links[link] = None
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="pulse")

    def forget(self, link: Link) -> None:
        """Watch a link no longer."""
        probe = self._links.pop(link, None)
        if probe is not None and probe is not asyncio.current_task():
            probe.cancel()

    def close_soon(self, session: Session) -> None:
        """Close a session without waiting for it."""
        task = asyncio.create_task(session.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def stop(self) -> None:
        """Watch nothing any more."""
        watching = [task for task in (self._task, *self._links.values()) if task is not None]
        for task in watching:
            task.cancel()
        tasks = [*watching, *self._closing]
        if tasks:
            await asyncio.wait(tasks, timeout=_STOP_WITHIN)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self._tick)
            now = loop.time()
            idle: defaultdict[tuple[str, bool, bool], list[Link]] = defaultdict(list)
            for link in list(self._links):
                if not link.busy:
                    idle[link.peer.instance, link.framed, link.is_caller].append(link)
                elif now - link.last_heard > self._silence:
                    self._ping(link)
            # So that the loss is known in time, unless that would be more pings than cost next to nothing.
            silence = max(self._idle, len(idle) / _MOST_IDLE_PINGS)
            for (_, _, is_caller), links in idle.items():
                if now - max(link.last_heard for link in links) > (silence if is_caller else self._unheard):
                    self._ping(links[0])

    async def probe(self, link: Link) -> None:
        """Find out now whether a peer is gone; all who want to know wait for one answer."""
        if link in self._links:
            await asyncio.wait([self._ping(link)])

    def _ping(self, link: Link) -> asyncio.Task[None]:
        probe = self._links.get(link)
        if probe is None or probe.done():
            probe = self._links[link] = asyncio.create_task(self._probe(link))
        return probe

    async def _probe(self, link: Link) -> None:
        began = asyncio.get_running_loop().time()
        if await link.alive(self._patience):
            link.last_heard = asyncio.get_running_loop().time()
        elif not await self._transport.check():
            await self._transport.available()
        else:
            link.end(f"it gave no sign of life for {self.lost_after:.3g} s")
            # Is it the session or the peer? The others with it are asked at once.
            for other in list(self._links):
                if other.peer.instance == link.peer.instance and other.last_heard <= began:
                    self._ping(other)
