"""The runtime: the front door. It connects to a node, runs agents, and sends messages."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Self, TypeVar

from slim_actors.cell import Cell
from slim_actors.checks import check_kind, is_number
from slim_actors.deadletters import DeadLetters
from slim_actors.endpoints import no_node
from slim_actors.errors import ConfigurationError, DeclarationError, EndpointInUse, NodeUnreachable, NotANode
from slim_actors.factory import Factory, make
from slim_actors.herald import Herald
from slim_actors.identity import Identity
from slim_actors.inbound import Inbound
from slim_actors.intensity import Intensity
from slim_actors.keeper import Keeper
from slim_actors.life import Child, Life, stop_all
from slim_actors.limits import Limits
from slim_actors.middleware import Hooks, LogFailures, Middleware
from slim_actors.names import Address, check_name
from slim_actors.outbox import NO_STORE, Outbox
from slim_actors.pulse import Pulse
from slim_actors.recovery import Recovery
from slim_actors.ref import Ref
from slim_actors.routes import Route
from slim_actors.routing.router import Router
from slim_actors.settings import Settings
from slim_actors.shared import Shared
from slim_actors.speaker import DEFAULT_TIMEOUT
from slim_actors.supervision import DRAIN, UNSUPERVISED, Restart, Strategy
from slim_actors.supervisor import Supervisor, give_up_alone
from slim_actors.transport import leaving as _leaving  # noqa: F401 (for the end of the interpreter)
from slim_actors.verbs import Verbs

if TYPE_CHECKING:
    from slim_actors.auth import Auth
    from slim_actors.store import Store
    from slim_actors.tls import Tls
    from slim_actors.transport.base import Transport

__all__ = ["Ref", "Runtime"]


_LOOK_FOR_NODE_EVERY = 0.5

C = TypeVar("C", bound=Child)


class Runtime(Verbs):
    """Runs agents on a SLIM node, and sends messages to agents anywhere on it. Use it with ``async with``.

    Args:
        endpoint: The node: ``http://``, ``https://``, ``ws://`` or ``wss://host:port``, or ``unix:///path``.
            By default what ``SLIM_ENDPOINT`` says, else ``http://127.0.0.1:46357``.
        name: The SLIM name under which this runtime itself sends.
        identity: Who the agents and callers of this runtime are, and whom they believe: `SharedSecret`,
            `Jwt`, `StaticJwt` or `Spire`. By default what the environment says (``SLIM_SHARED_SECRET``,
            ``SLIM_JWT`` and its companions), else, on this machine alone, a random secret of this user.
        tls: The certificates for ``https://`` and ``wss://``. By default what ``SLIM_TLS_CA``,
            ``SLIM_TLS_CERT`` and ``SLIM_TLS_KEY`` say, else the system's CAs.
        auth: What the node asks for, if it asks: `Basic`, `Jwt`, `StaticJwt` or `Oidc`. By default what
            ``SLIM_NODE_USER`` and ``SLIM_NODE_PASSWORD``, or ``SLIM_NODE_JWT``, or ``SLIM_NODE_OIDC`` say.
        insecure: Allow an endpoint on another machine without TLS.
        embed_node: Start a node in this process if nothing listens at the endpoint.
        lost_after: Seconds without a sign of life after which a peer is lost. Above 30 s, a peer that was
            frozen for more than those may need as many again after it woke up: SLIM gives it up then.
        middleware: Told what happens to messages, in this order.
        limits: What its agents take from their peers.
        enable_opentelemetry: Send traces and metrics to the OpenTelemetry collector that
            ``OTEL_EXPORTER_OTLP_ENDPOINT`` names, else ``http://localhost:4317``; or to the providers that
            the program has set itself. Needs ``pip install 'slim-actors[otel]'``; see docs/telemetry.md.
        store: Where states of agents and durable messages are kept: a file (SQLite; processes may share it),
            or a `Store`.
        settings: What to use instead of the environment and the files, and of ``endpoint`` and ``insecure``.

    What is not given comes from the environment, else from SLIM's client configuration, else from
    ``slim-actors.toml`` or ``pyproject.toml``; ``docs/configuration.md`` says which.

    Raises:
        ConfigurationError: A value is wrong: at once, or on entering. OpenTelemetry is not installed.
        StoreError: On entering: the store cannot be used.
        NodeUnreachable: On entering: no node listens at the endpoint; `NotANode` where something else does.

    Example:
        .. code-block:: python

            async with Runtime() as runtime:
                print(await runtime.ask(Anycast("agntcy/ns/alice"), "hello"))
    """

    def __init__(
        self,
        endpoint: str | None = None,
        *,
        name: str = "slim-actors/local/runtime",
        identity: Identity | None = None,
        tls: Tls | None = None,
        auth: Auth | None = None,
        insecure: bool | None = None,
        embed_node: bool = False,
        lost_after: float = 3.0,
        middleware: Iterable[Middleware] = (),
        limits: Limits | None = None,
        enable_opentelemetry: bool = False,
        store: str | os.PathLike[str] | Store | None = None,
        settings: Settings | None = None,
    ) -> None:
        check_kind("endpoint", endpoint, str)
        check_kind("identity", identity, Identity)
        check_kind("limits", limits, Limits)
        settings = settings or Settings.find(endpoint=endpoint, insecure=insecure)
        self._endpoint = settings.node
        self._settings = settings
        self._identity = identity
        self._tls = tls or settings.tls()
        self._auth = auth or settings.auth()
        self._name = check_name(name)
        self._embed = embed_node
        if not is_number(lost_after) or lost_after <= 0:
            raise ConfigurationError(
                f"lost_after is {lost_after!r}, but must be a number of seconds above 0."
            )
        self._lost_after = lost_after
        self._limits = limits or Limits()
        self._hooks = Hooks([*_telemetry(enable_opentelemetry), LogFailures(), *middleware])
        self.dead_letters = DeadLetters(self._hooks)
        """The last messages that were accepted by an agent here and not handled to their end."""
        self._store = store
        self._outbox: Outbox | None = None
        self._stack = AsyncExitStack()
        self._refs: dict[Address, Ref] = {}
        self._tops: list[Child] = []
        """What has no parent: instances and groups."""
        self._own = Shared(self._open_own)
        """The router with which it sends itself."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_open = False
        self._transport: Transport
        self._pulse: Pulse

    @property
    def endpoint(self) -> str:
        """Where the node is."""
        return str(self._endpoint)

    @property
    def instances(self) -> tuple[Ref, ...]:
        """The agents that run here now. May be read in any thread, as `sessions` may."""
        return tuple(self._refs.values())

    @property
    def sessions(self) -> int:
        """How many sessions this runtime has now, its own and its agents', to and from others."""
        return len(self._pulse) if self._is_open else 0

    async def __aenter__(self) -> Self:
        if self._is_open:
            raise ConfigurationError("This runtime is in use already: make another Runtime(...).")
        self._own, self._loop = Shared(self._open_own), asyncio.get_running_loop()
        async with AsyncExitStack() as on_error:
            on_error.push_async_callback(self._stack.aclose)
            self._outbox = await self._open_outbox()
            self._transport = await self._connect()
            self._stack.push_async_callback(self._transport.close)
            self._pulse = Pulse(self._transport, self._lost_after)
            self._stack.push_async_callback(self._pulse.stop)
            self._herald = Herald()
            self._stack.push_async_callback(self._herald.stop)
            for running in self._hooks.running:
                held = running(self)
                if held is not None:
                    await self._stack.enter_async_context(held)
            on_error.pop_all()
        self._is_open = True
        if self._outbox is not None:
            self._outbox.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def stop(self, drain: float = DRAIN) -> None:
        """Stop every agent and leave the node. Does nothing the second time.

        Agents without a parent stop at the same time, the members of a group one after the other, the last
        first, and children before their parents. Durable messages that somebody takes now are delivered; the
        others stay in the store.

        Args:
            drain: Seconds that accepted messages may take, as in `Ref.stop`, and after them durable ones.

        Raises:
            Exception: Whatever the first ``stopped`` that failed has raised, after everything has stopped.
        """
        self._is_open = False
        try:
            errors = await stop_all(self._tops, drain)
            # What is left is still being started.
            errors += await stop_all(self._refs.values(), 0.0)
            if self._outbox is not None:
                # After the agents, whose last messages may have sent some.
                await self._outbox.close(drain)
            own, self._own = self._own, Shared(self._open_own)
            router = await own.stop()
            if router is not None:
                await router.close()
            if errors:
                raise errors[0]
        finally:
            await self._stack.aclose()

    async def spawn(self, agent: Factory, *, name: str | None = None) -> Ref:
        """Start one instance of an agent; returns when it can be found by its name.

        Args:
            agent: The agent class, or a function that makes a fresh instance.
            name: A name other than the one that the class declares.

        Raises:
            DeclarationError: The agent cannot be made, has no handlers, or has no name.
            ConfigurationError: The name has not three parts, the runtime is not open, or the agent has a
                `State` and the runtime no store.
            StoreError: The agent's state is damaged, of a newer version, or in use by another live instance.
            NodeUnreachable: The node is away.
            Exception: Whatever the agent's ``started`` raises.

        Example:
            .. code-block:: python

                ref = await runtime.spawn(Echo)
                await runtime.ask(ref.route, "hello")
        """
        return self._keep(await self.start(agent, name, parent=None))

    async def supervise(
        self, *agents: Factory, strategy: Strategy = "one_for_one", restart: Restart | None = None
    ) -> Supervisor:
        """Start several agents as one group, in this order; returns when all of them have started.

        A member that fails is restarted: alone (``"one_for_one"``), with all others (``"one_for_all"``), or
        with those after it (``"rest_for_one"``). They stop in reverse order and start in order, each with a
        fresh instance under its name and id, and with the messages that wait for it. After too many restarts
        in all the group has failed, and stops.

        Args:
            agents: Agent classes, or functions that make fresh instances; each under its declared name.
            strategy: Who is restarted with a member that failed.
            restart: Its ``limit``, ``within`` and ``backoff`` are the group's; its kind and ``on`` hold for
                members that declare no ``restart`` of their own. ``Restart()`` by default.

        Raises:
            ConfigurationError: There is no agent, the strategy or ``restart`` is none, or the runtime is not
                open.
            Exception: As `spawn` does; the members that were started have been stopped again.

        Example:
            .. code-block:: python

                group = await runtime.supervise(Index, Search, strategy="rest_for_one")
                await group.wait()
        """
        self._check_open()
        group = Supervisor(self, strategy, restart)
        await group.start(agents)
        return self._keep(group)

    def find(self, address: Address) -> Ref | None:
        """Give a running instance of this runtime, or None."""
        return self._refs.get(address)

    async def start(
        self, factory: Factory, name: str | None, *, parent: Life | None, recovery: Recovery | None = None
    ) -> Ref:
        """Start an instance for somebody who stops it; see `spawn` for those of the runtime itself."""
        self._check_open()
        instance = make(factory)
        name = name or type(instance).__declaration__.name
        if name is None:
            raise DeclarationError(
                f"{type(instance).__name__} has no name: write class {type(instance).__name__}"
                f'(Agent, name="org/namespace/service"), or give one when it is started.'
            )
        port = await self._transport.open(check_name(name))
        router = Router(self._transport, port, self._pulse, self._hooks, self._limits)
        if recovery is None:
            recovery = Recovery(Intensity(instance.restart or UNSUPERVISED), give_up_alone(parent))
        try:
            # It may have been stopped meanwhile, and then nobody would stop this one.
            self._check_open()
            keeper = Keeper(instance, name, self._outbox)
            cell = Cell(factory, instance, router, self, recovery, self._hooks, self.dead_letters, keeper)
        except BaseException:
            await port.close()
            raise
        # Found already: to ask others in started, an instance must be. What comes meanwhile waits, and is
        # handed back unstarted if started fails.
        inbound = Inbound(port, cell, self._pulse, self._limits, self._transport)
        ref = Ref(port.address, cell, inbound, router, port)
        self._refs[ref.address] = ref
        ref.on_end(lambda _: self._refs.__delitem__(ref.address))
        try:
            await cell.start()
        except BaseException:
            await ref.stop(drain=0.0)
            raise
        self._herald.came(port)
        return ref

    def _keep(self, top: C) -> C:
        """Stop something with the runtime."""
        self._tops.append(top)
        top.on_end(lambda _: self._tops.remove(top))
        return top

    async def _sender(self) -> Router:
        self._check_open()
        return await self._own.get()

    def _ready_sender(self) -> Router | None:
        return self._own.at_hand if self._is_open else None

    def _check_open(self) -> None:
        if not self._is_open:
            raise ConfigurationError(
                "The runtime is not open: use it inside async with Runtime() as runtime."
            )

    async def _open_own(self) -> Router:
        while True:
            try:
                port = await self._transport.open(self._name)
                break
            except NotANode:
                raise
            except NodeUnreachable:
                # The message that needs it has a deadline, and waits that long for the node.
                await asyncio.sleep(_LOOK_FOR_NODE_EVERY)
        return Router(self._transport, port, self._pulse, self._hooks, self._limits)

    async def _post(self, route: Route, messages: Iterable[object], timeout: float | None) -> None:
        self._check_open()
        if self._outbox is None:
            raise ConfigurationError(NO_STORE)
        await self._outbox.put([self._outbox.parcel(route, each, timeout, {}) for each in messages])

    async def _open_outbox(self) -> Outbox | None:
        if self._store is None:
            return None
        outbox = Outbox(self._name, self._store, self._own.get, self.dead_letters, self._hooks)
        await outbox.open()
        self._stack.push_async_callback(outbox.close_store)
        return outbox

    def _travelling(self) -> dict[str, Any]:
        return {}

    def _expires(self, timeout: float | None) -> float:
        loop = self._loop or asyncio.get_running_loop()
        return loop.time() + (DEFAULT_TIMEOUT if timeout is None else timeout)

    async def _connect(self) -> Transport:
        """Give what carries the messages."""
        # Here, not at the top: a program that only declares agents need not load the bindings.
        from slim_actors.transport.security import Connection
        from slim_actors.transport.slim import SlimTransport

        identity = self._identity or self._settings.identity()
        connection = Connection(self._endpoint, self._tls, self._auth)
        if not await self._endpoint.listening():
            if not self._embed:
                raise no_node(self._endpoint)
            # Before anything else of SLIM: it is set up for a node then.
            await self._start_node()
        return SlimTransport(connection, identity)

    async def _start_node(self) -> None:
        from slim_actors.transport.node import SlimNode

        node = SlimNode(self._endpoint, self._tls, self._auth)
        try:
            await node.start()
        except EndpointInUse:
            # Somebody else was faster: then that is the node.
            return
        self._stack.push_async_callback(node.stop)


def _telemetry(wanted: bool) -> Iterable[Middleware]:  # noqa: FBT001 (an option that is passed on)
    if not wanted:
        return ()
    # Here, not at the top: it is an extra, and who does not want it spends nothing on it.
    from slim_actors.telemetry import Exporting, Metering, Tracing

    return (Exporting(), Tracing(), Metering())
