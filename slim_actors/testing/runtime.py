"""The runtime for tests."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Self

from slim_actors.limits import Limits
from slim_actors.middleware import Middleware
from slim_actors.ref import Ref
from slim_actors.runtime import Runtime
from slim_actors.settings import Settings
from slim_actors.sqlite import MemoryStore
from slim_actors.store import Store
from slim_actors.testing.clock import VirtualClock
from slim_actors.testing.probe import Probe
from slim_actors.transport.base import Transport
from slim_actors.transport.memory import MemoryNetwork, MemoryTransport

__all__ = ["TestRuntime"]


class TestRuntime(Runtime):
    """A `Runtime` in memory: no node, no port, no waiting. It behaves as the real one does.

    Args:
        network: Shared with other test runtimes that are to talk with this one; its own by default. Time is
            then as it is: virtual beside a test runtime with a network of its own, or in a `VirtualClock`.
        seed: For the faults of its own network.
        virtual_clock: Let a deadline of 30 s take no time. With False, time is real.
        name: As in `Runtime`.
        lost_after: As in `Runtime`.
        middleware: As in `Runtime`.
        limits: As in `Runtime`.
        subject: Whom the verified identity of everything in it names, as the ``sub`` of a token does; by
            default each instance's own name, as where all share a secret.
        issuer: Who vouches for that.
        store: As in `Runtime`; one in memory by default. Give a `MemoryStore` to two runtimes, one after the
            other, to see what is there after a restart. A file needs real time.

    Example:
        .. code-block:: python

            async with TestRuntime() as runtime:
                await runtime.spawn(Echo)
                runtime.network.drop(target="agntcy/ns/alice", nth=1)
                with pytest.raises(Expired):
                    await runtime.ask(Anycast("agntcy/ns/alice"), "hello")
    """

    __test__ = False  # pytest would take it for a test by its name

    def __init__(
        self,
        *,
        network: MemoryNetwork | None = None,
        seed: int = 0,
        virtual_clock: bool = True,
        name: str = "slim-actors/local/runtime",
        lost_after: float = 3.0,
        middleware: Iterable[Middleware] = (),
        limits: Limits | None = None,
        subject: str = "",
        issuer: str = "",
        store: str | os.PathLike[str] | Store | None = None,
    ) -> None:
        # A test must not depend on what is set or configured where it runs.
        super().__init__(
            settings=Settings(),
            name=name,
            lost_after=lost_after,
            middleware=middleware,
            limits=limits,
            store=store or MemoryStore(),
        )
        self._subject = subject
        self._issuer = issuer
        self._shared = network
        self._seed = seed
        self._virtual = virtual_clock and network is None

    async def __aenter__(self) -> Self:
        if self._virtual and not self._is_open:
            self._stack.enter_context(VirtualClock())
        self.network = self._shared or MemoryNetwork(self._seed)
        return await super().__aenter__()

    async def _connect(self) -> Transport:
        return MemoryTransport(self.network, self._subject, self._issuer)

    async def kill(self, ref: Ref) -> None:
        """Let an instance vanish without a word, as ``kill -9`` does."""
        self.network.kill(ref.address.instance)
        await ref.stop(drain=0.0)

    async def probe(self, name: str) -> Probe:
        """Start a `Probe` under a name."""
        probe = Probe()
        await self.spawn(lambda: probe, name=name)
        return probe
