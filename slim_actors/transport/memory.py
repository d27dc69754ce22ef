"""The transport in memory: the same promises as over SLIM, no node, and faults on demand.

It is for the unit tests of whoever writes agents; see `slim_actors.testing`.
"""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict, deque
from collections.abc import Callable
from uuid import UUID

from attrs import define, field

from slim_actors.errors import ConfigurationError, NodeUnreachable, NoRoute
from slim_actors.limits import MAX_PAYLOAD
from slim_actors.names import Address
from slim_actors.transport.base import Payload, SessionClosed, SessionOptions
from slim_actors.transport.faults import Fate, Fault, parts

__all__ = ["Fault", "MemoryNetwork", "MemoryTransport"]


@define
class MemoryNetwork:
    """What memory transports are connected to. Its methods make things go wrong, reproducibly.

    Args:
        seed: What faults with a probability draw from.

    Example:
        .. code-block:: python

            network.drop(target="a/b/alice", nth=1)     # the next payload to Alice is lost
            network.delay(0.5, source="a/b/alice")      # what she sends takes half a second
            network.partition("a/b/alice", "a/b/bob")   # they do not hear from each other
            network.heal()                              # all is well again
    """

    seed: int = 0
    _chance: random.Random = field(init=False)
    _ports: dict[str, MemoryPort] = field(init=False, factory=dict)
    _turns: dict[str, int] = field(init=False, factory=lambda: defaultdict(int))
    _faults: list[Fault] = field(init=False, factory=list)
    _partitions: list[tuple[str, str]] = field(init=False, factory=list)
    _up: asyncio.Event = field(init=False, factory=asyncio.Event)
    _returned: list[Callable[[], None]] = field(init=False, factory=list)

    def __attrs_post_init__(self) -> None:
        self._chance = random.Random(self.seed)  # noqa: S311 (reproducible, not secret)
        self._up.set()

    def drop(
        self, *, nth: int | None = None, probability: float = 1.0, source: str = "", target: str = ""
    ) -> Fault:
        """Lose payloads, as a network does when every retransmission failed."""
        return self._add(Fault(source, target, nth, probability, copies=0))

    def duplicate(
        self, *, nth: int | None = None, probability: float = 1.0, source: str = "", target: str = ""
    ) -> Fault:
        """Deliver payloads twice."""
        return self._add(Fault(source, target, nth, probability, copies=2))

    def delay(
        self,
        seconds: float,
        *,
        nth: int | None = None,
        probability: float = 1.0,
        source: str = "",
        target: str = "",
    ) -> Fault:
        """Deliver payloads later; the order within a session stays."""
        return self._add(Fault(source, target, nth, probability, delay=seconds))

    def partition(self, one: str, other: str) -> None:
        """Let nothing through between two names or instances."""
        self._partitions.append((one, other))

    def heal(self) -> None:
        """End all faults, but for what was killed."""
        self._faults.clear()
        self._partitions.clear()

    def kill(self, instance: str) -> None:
        """Let an instance vanish without a word, as ``kill -9`` does."""
        port = self._ports.pop(instance, None)
        if port is not None:
            port.vanish()

    def outage(self) -> None:
        """Take the network away for everybody, as when the node dies."""
        self._up.clear()

    def restore(self) -> None:
        """Bring the network back."""
        self._up.set()
        for callback in list(self._returned):
            callback()

    @property
    def is_up(self) -> bool:
        """Whether the network is there."""
        return self._up.is_set()

    async def available(self) -> None:
        """Wait until the network is there."""
        await self._up.wait()

    def on_return(self, callback: Callable[[], None]) -> None:
        """See `Transport.on_return`."""
        self._returned.append(callback)

    def forget_return(self, callback: Callable[[], None]) -> None:
        """See `Transport.forget_return`."""
        self._returned.remove(callback)

    def join(self, name: str, subject: str, issuer: str) -> MemoryPort:
        """Make a new instance."""
        instance = str(UUID(int=self._chance.getrandbits(128), version=4))
        port = self._ports[instance] = MemoryPort(
            self, Address(name, instance, subject=subject, issuer=issuer)
        )
        return port

    def find(self, target: Address, seeker: Address) -> MemoryPort | None:
        """Give the instance, or the next one of the name; like SLIM's, never the seeker itself."""
        if target.instance:
            port = self._ports.get(target.instance)
            return port if port is not None and port.address.name == target.name else None
        others = (port for port in self._ports.values() if port.address != seeker)
        found = [port for port in others if port.address.name == target.name and port.is_found]
        if not found:
            return None
        self._turns[target.name] += 1
        return found[(self._turns[target.name] - 1) % len(found)]

    def reaches(self, one: Address, other: Address) -> bool:
        """Tell whether payloads get through between two living instances."""
        if not self.is_up or one.instance not in self._ports or other.instance not in self._ports:
            return False
        ends, others = parts(one), parts(other)
        return not any(
            (a in ends and b in others) or (b in ends and a in others) for a, b in self._partitions
        )

    def fate(self, source: Address, target: Address) -> Fate:
        """Decide what becomes of a payload."""
        if not self.reaches(source, target):
            return Fate(copies=0)
        copies, delay = 1, 0.0
        for fault in self._faults:
            if fault.strikes(source, target, self._chance):
                copies *= fault.copies
                delay += fault.delay
        return Fate(copies, delay)

    def remove(self, port: MemoryPort) -> None:
        """Let an instance leave."""
        self._ports.pop(port.address.instance, None)

    def _add(self, fault: Fault) -> Fault:
        self._faults.append(fault)
        return fault


class MemoryTransport:
    """A connection to a `MemoryNetwork`. See `Transport`.

    Args:
        network: What it is connected to.
        subject: Whom the verified identity of its ports names; the name of each by default.
        issuer: Who vouches for that.
    """

    def __init__(self, network: MemoryNetwork, subject: str = "", issuer: str = "") -> None:
        self._network = network
        self._subject = subject
        self._issuer = issuer
        self._ports: list[MemoryPort] = []

    async def open(self, name: str, subject: str = "") -> MemoryPort:
        """See `Transport.open`."""
        if not self._network.is_up:
            raise NodeUnreachable("The network is away.")
        port = self._network.join(name, self._subject or subject or name, self._issuer)
        self._ports.append(port)
        return port

    def on_return(self, callback: Callable[[], None]) -> None:
        """See `Transport.on_return`."""
        self._network.on_return(callback)

    def forget_return(self, callback: Callable[[], None]) -> None:
        """See `Transport.forget_return`."""
        self._network.forget_return(callback)

    @property
    def is_available(self) -> bool:
        """See `Transport.is_available`."""
        return self._network.is_up

    async def check(self) -> bool:
        """See `Transport.check`."""
        return self._network.is_up

    async def available(self) -> None:
        """See `Transport.available`."""
        await self._network.available()

    async def close(self) -> None:
        """See `Transport.close`."""
        for port in self._ports:
            await port.close()


class MemoryPort:
    """One instance on the network. See `Port`."""

    def __init__(self, network: MemoryNetwork, address: Address) -> None:
        self._network = network
        self._address = address
        self._arrived: asyncio.Queue[MemorySession | None] = asyncio.Queue()
        # In the order in which they came, or faults would not be reproducible.
        self._sessions: dict[MemorySession, None] = {}
        self.is_found = True

    @property
    def address(self) -> Address:
        """See `Port.address`."""
        return self._address

    async def connect(self, target: Address, options: SessionOptions) -> MemorySession:
        """See `Port.connect`."""
        if not self._network.is_up:
            raise NodeUnreachable("The network is away.")
        # Discovery goes through the network and back.
        await asyncio.sleep(0)
        port = self._network.find(target, self._address)
        if port is None or not self._network.reaches(self._address, port.address):
            waited = (options.max_retries + 1) * options.timeout
            await asyncio.sleep(waited)
            raise NoRoute(
                f"Nobody answers at {target} (waited {waited:.3g} s): no such agent is running there."
            )
        mine = MemorySession(self._network, self._address, port.address, options)
        theirs = MemorySession(self._network, port.address, self._address, options)
        mine.other, theirs.other = theirs, mine
        self._sessions[mine] = None
        mine.on_close = self._forget
        port.offer(theirs)
        return mine

    def offer(self, session: MemorySession) -> None:
        """Take a session that somebody opened to this instance."""
        self._sessions[session] = None
        session.on_close = self._forget
        self._arrived.put_nowait(session)

    async def accept(self) -> MemorySession:
        """See `Port.accept`."""
        session = await self._arrived.get()
        if session is None:
            raise SessionClosed(f"{self._address} is closed.")
        return session

    async def withdraw(self) -> None:
        """See `Port.withdraw`."""
        self.is_found = False

    async def close(self) -> None:
        """See `Port.close`."""
        for session in list(self._sessions):
            await session.close()
        self._network.remove(self)
        self._arrived.put_nowait(None)

    def _forget(self, session: MemorySession) -> None:
        self._sessions.pop(session, None)

    def vanish(self) -> None:
        """End everything on this side, without a word to the other."""
        for session in self._sessions:
            session.end()
        self._arrived.put_nowait(None)


class MemorySession:
    """One end of a conversation. See `Session`."""

    other: MemorySession
    on_close: Callable[[MemorySession], None]

    def __init__(
        self, network: MemoryNetwork, source: Address, peer: Address, options: SessionOptions
    ) -> None:
        self._network = network
        self._source = source
        self._peer = peer
        self._options = options
        self._inbox: deque[Payload] = deque()
        self._wake = asyncio.Event()
        self._is_over = False
        self._arrival = 0.0

    @property
    def peer(self) -> Address:
        """See `Session.peer`."""
        return self._peer

    @property
    def mls(self) -> bool:
        """See `Session.mls`."""
        return self._options.mls

    @property
    def framed(self) -> bool:
        """See `Session.framed`."""
        return self._options.framed

    async def send(self, data: bytes, payload_type: str | None) -> None:
        """See `Session.send`."""
        if self._is_over:
            raise SessionClosed(f"The session with {self._peer} is over.")
        if len(data) > MAX_PAYLOAD:
            raise ConfigurationError(f"A payload of {len(data)} bytes is over the limit of {MAX_PAYLOAD}.")
        fate = self._network.fate(self._source, self._peer)
        for _ in range(fate.copies):
            self._carry(fate.delay, Payload(data, payload_type or "msg"))
        await asyncio.sleep(0)

    async def receive(self) -> Payload:
        """See `Session.receive`."""
        while not self._inbox:
            if self._is_over:
                raise SessionClosed(f"{self._peer} closed the session.")
            self._wake.clear()
            await self._wake.wait()
        return self._inbox.popleft()

    async def alive(self, data: bytes | None, payload_type: str, within: float) -> bool:
        """See `Session.alive`."""
        if not self._is_over and self._network.reaches(self._source, self._peer):
            if data is not None:
                await self.send(data, payload_type)
            return True
        # During an outage nobody is blamed, as over SLIM.
        if self._network.is_up:
            await asyncio.sleep(within)
        return not self._network.is_up

    async def close(self) -> None:
        """See `Session.close`."""
        self.on_close(self)
        if self._is_over:
            return
        self.end()
        if self._network.reaches(self._source, self._peer):
            loop = asyncio.get_running_loop()
            loop.call_at(max(loop.time(), self._arrival), self.other.end)

    def end(self) -> None:
        """Take nothing more; what has arrived can still be received."""
        self._is_over = True
        self._wake.set()

    def _carry(self, delay: float, payload: Payload) -> None:
        loop = asyncio.get_running_loop()
        if not delay and self._arrival <= loop.time():
            loop.call_soon(self.other.arrive, payload)
            return
        # Never before what was sent earlier.
        self._arrival = max(self._arrival, loop.time() + delay)
        loop.call_at(self._arrival, self.other.arrive, payload)

    def arrive(self, payload: Payload) -> None:
        """Take a payload from the other end."""
        if not self._is_over:
            self._inbox.append(payload)
            self._wake.set()
