"""Where sessions come from: the sender's own port, or one beside it for those of its own name."""

from __future__ import annotations

from slim_actors.names import Address
from slim_actors.shared import Shared
from slim_actors.transport.base import Port, Session, SessionOptions, Transport

__all__ = ["Origin"]

_ENDING = ".self"


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

    @property
    def address(self) -> Address:
        """The sender."""
        return self._port.address

    async def connect(self, target: Address, options: SessionOptions) -> Session:
        """See `Port.connect`."""
        port = await self._beside.get() if target.name == self.address.name else self._port
        return await port.connect(target, options)

    async def close(self) -> None:
        """Close the port beside the sender's own, which is closed by whoever has opened it."""
        beside = await self._beside.stop()
        if beside is not None:
            await beside.close()

    async def _open_beside(self) -> Port:
        name = self.address.name
        return await self._transport.open(name + _ENDING, subject=name)
