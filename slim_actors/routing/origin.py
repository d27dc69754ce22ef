"""Where sessions come from: the sender's own port, or one beside it for those of its own name."""

from __future__ import annotations

import asyncio

from slim_actors.names import Address
from slim_actors.shared import Shared
from slim_actors.transport.base import Port, Session, SessionOptions, Transport

__all__ = ["Origin"]

_ENDING = ".self"
_LOOK_EVERY = 0.2


class Origin:
    """Opens the sessions of one sender.

    SLIM carries nothing back between two instances of one name (measured with slim-bindings 3.3.8: what the
    caller sends arrives, and no reply does). So what an agent sends to its own name comes from a port with
    another name and the same identity, which is opened when it is needed first.

    Args:
        transport: The network.
        port: The sender's own port.
    """

    def __init__(self, transport: Transport, port: Port) -> None:
        self._transport = transport
        self._port = port
        self._beside = Shared(self._open_beside)
        # What it gives is None, which is no value: each wait that has ended is followed by one of its own.
        self._return = Shared(self._returned)

    @property
    def address(self) -> Address:
        """The sender."""
        return self._port.address

    async def connect(self, target: Address, options: SessionOptions) -> Session:
        """See `Port.connect`."""
        port = await self._beside.get() if target.name == self.address.name else self._port
        return await port.connect(target, options)

    async def returned(self) -> None:
        """Wait until it is worth trying again what could not be reached.

        Raises:
            Stopped: The sender was stopped first.
        """
        await self._return.get()

    async def close(self) -> None:
        """Close the port beside the sender's own, not that one itself; who waits is told `Stopped`."""
        await self._return.stop()
        beside = await self._beside.stop()
        if beside is not None:
            await beside.close()

    async def _open_beside(self) -> Port:
        name = self.address.name
        return await self._transport.open(name + _ENDING, subject=name)

    async def _returned(self) -> None:
        if await self._transport.check():
            # It is there, and may take no new connections all the same: then each try fails at once.
            await asyncio.sleep(_LOOK_EVERY)
        await self._transport.available()
