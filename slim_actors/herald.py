"""The herald: that a replica has come is told to others of its name, which tell their callers.

Discovery says nothing of newcomers by itself, and every caller that asks it again and again, for each of its
names, makes a load that grows with callers times replicas. So callers look again when they are told to.
"""

from __future__ import annotations

import asyncio
import contextlib

from slim_actors import wire
from slim_actors.errors import SlimActorsError
from slim_actors.names import Address
from slim_actors.transport.base import Port, SessionOptions

__all__ = ["Herald"]

_NEWS = wire.join([wire.encode(wire.Newcomer())])
_WITHIN = 3.0
_TOGETHER = 0.1
"""Seconds: what comes together is told at once."""
_MOST_TOLD = 8
"""One that has just come as well has no callers yet, so one is not enough."""


class Herald:
    """Tells the others of its name that an instance has come."""

    def __init__(self) -> None:
        self._newest: dict[str, Port] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def came(self, port: Port) -> None:
        """Tell of an instance, soon; one word stands for all of one name that come together."""
        name = port.address.name
        if name not in self._newest:
            task = asyncio.create_task(self._tell(name), name=f"herald {name}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        # The last one tells: the others may have callers already, who are told like everybody's.
        self._newest[name] = port

    async def stop(self) -> None:
        """Tell nothing any more."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _tell(self, name: str) -> None:
        await asyncio.sleep(_TOGETHER)
        port = self._newest.pop(name)
        told: set[str] = set()
        # Nobody else of the name may be there, or nobody that can be reached now: then there is nobody to
        # tell, and callers look again from time to time in any case.
        with contextlib.suppress(SlimActorsError):
            while len(told) < _MOST_TOLD and await _say(port, told):
                pass


async def _say(port: Port, told: set[str]) -> bool:
    """Tell the one that discovery gives; say whether it had not been told before."""
    session = await port.connect(Address(port.address.name), SessionOptions())
    try:
        known = session.peer.instance in told
        told.add(session.peer.instance)
        if not known:
            await session.alive(_NEWS, wire.PAYLOAD_TYPE, _WITHIN)
        return not known
    finally:
        await session.close()
