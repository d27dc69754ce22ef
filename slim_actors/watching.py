"""Watching: an instance is told when another one has ended, here or anywhere on the network."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from msgspec import Struct

from slim_actors.errors import ConfigurationError, NoRoute, PeerLost, Stopped, UnhandledMessage
from slim_actors.mailbox import Envelope, State
from slim_actors.names import Address
from slim_actors.routes import Unicast
from slim_actors.supervision import Terminated

if TYPE_CHECKING:
    from slim_actors.cell import Cell

__all__ = ["Watchable", "Watches"]


@runtime_checkable
class Watchable(Protocol):
    """An instance of this process, whose end is known at first hand."""

    address: Address

    def on_end(self, callback: Callable[[str], None]) -> Callable[[], None]:
        """Call back once with the reason when it has ended, at once if it has; give what forgets that."""


class _Watch(Struct, eq=False):
    forget: Callable[[], None] = lambda: None
    told: Envelope | None = None
    """The message that says so, once it has ended."""

    @property
    def is_over(self) -> bool:
        return self.told is not None and self.told.state is not State.WAITING


class Watches:
    """What one instance watches.

    Args:
        cell: Who is told.
    """

    def __init__(self, cell: Cell) -> None:
        self._cell = cell
        self._watches: dict[Address, _Watch] = {}
        self._is_open = True

    async def add(self, target: Watchable | Unicast | Address, expires: float) -> Address:
        """See `Context.watch`."""
        self._check()
        if self._cell.declaration.find_own(Terminated) is None:
            raise UnhandledMessage(
                f"{self._cell.address} cannot watch: it has no handler for Terminated, and no receive."
            )
        local = self._local(target)
        if local is not None:
            if self._begin(local.address) is not None:
                self._watches[local.address].forget = local.on_end(
                    lambda reason: self._tell(local.address, reason)
                )
            return local.address
        return await self._add_remote(target if isinstance(target, Unicast) else _route_to(target), expires)

    def remove(self, target: Watchable | Unicast | Address) -> None:
        """See `Context.unwatch`."""
        watch = self._watches.pop(_address(target), None)
        if watch is not None:
            self._end(watch)

    def close(self) -> None:
        """Watch nothing more, and tell nothing that was not told yet."""
        self._is_open = False
        while self._watches:
            _, watch = self._watches.popitem()
            self._end(watch)

    def _local(self, target: Watchable | Unicast | Address) -> Watchable | None:
        if isinstance(target, Address | Unicast):
            if not target.instance:
                return None
            address = Address(target.name, target.instance)
            if address == self._cell.address:
                raise ConfigurationError(f"{address} cannot watch itself.")
            return self._cell.host.find(address)
        if isinstance(target, Watchable):
            return target
        raise ConfigurationError(
            f"{target!r} cannot be watched: give the Ref, the Address or the Unicast route of an instance."
        )

    async def _add_remote(self, route: Unicast, expires: float) -> Address:
        if route.wire != "frames":
            raise ConfigurationError("A peer that speaks plain bytes cannot be watched.")
        if route.instance and Address(route.name, route.instance) in self._watches:
            return Address(route.name, route.instance)
        told: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        def lost(reason: str) -> None:
            if not told.done():
                told.set_result(reason)

        try:
            remote = await self._cell.router.watch(route, expires, lost)
        except (NoRoute, PeerLost) as error:
            if not route.instance:
                raise
            self._check()
            address = Address(route.name, route.instance)
            if self._begin(address) is not None:
                self._tell(address, str(error))
            return address
        watch = self._begin(remote.address) if self._is_open else None
        if watch is None:
            remote.stop()
            self._check()
        else:
            watch.forget = remote.stop
            told.add_done_callback(lambda reason: self._tell(remote.address, reason.result()))
        return remote.address

    def _begin(self, address: Address) -> _Watch | None:
        """Note that an instance is watched; None if it was already."""
        known = self._watches.get(address)
        if known is not None and not known.is_over:
            return None
        watch = self._watches[address] = _Watch()
        return watch

    def _tell(self, address: Address, reason: str) -> None:
        watch = self._watches.get(address)
        if watch is not None and watch.told is None:
            message = Terminated(address, reason)

            def ended() -> None:
                if self._watches.get(address) is watch:
                    del self._watches[address]

            watch.told = self._cell.deliver_own(message, ended=ended, keep=True)

    def _end(self, watch: _Watch) -> None:
        watch.forget()
        if watch.told is not None:
            self._cell.take_back(watch.told)

    def _check(self) -> None:
        if not self._is_open:
            raise Stopped(f"{self._cell.address} has ended, and watches nothing any more.")


def _route_to(address: Watchable | Address) -> Unicast:
    assert isinstance(address, Address), "who is at hand is watched at first hand"
    return Unicast(address.name, instance=address.instance or None)


def _address(target: Watchable | Unicast | Address) -> Address:
    if isinstance(target, Unicast):
        if not target.instance:
            raise ConfigurationError(
                f"{target.name} may have many instances: give unwatch the address that watch returned."
            )
        return Address(target.name, target.instance)
    return target if isinstance(target, Address) else target.address
