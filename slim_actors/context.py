"""What a handler knows about the message that it handles, and the verbs with which it sends others."""

from __future__ import annotations

import asyncio
import logging
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from slim_actors.checks import is_number
from slim_actors.errors import CallCycle, ConfigurationError
from slim_actors.middleware import Verb
from slim_actors.names import Address
from slim_actors.speaker import DEFAULT_TIMEOUT
from slim_actors.verbs import Verbs

if TYPE_CHECKING:
    from collections.abc import Iterable

    from slim_actors.cell import Cell
    from slim_actors.factory import Factory
    from slim_actors.life import Life
    from slim_actors.mailbox import Envelope
    from slim_actors.ref import Ref
    from slim_actors.routes import Route, Unicast
    from slim_actors.routing.router import Router
    from slim_actors.supervision import Restart, Strategy
    from slim_actors.supervisor import Supervisor

__all__ = ["HANDLED", "Context", "circle_of", "current_context"]

_MOST_HOPS = 100

_logger = logging.getLogger("slim_actors.agent")

HANDLED: ContextVar[tuple[Cell, Envelope] | None] = ContextVar("handled", default=None)
"""What is being handled here, and by whom. Not its `Context`: most messages need none."""


class Context(Verbs):
    """Given to a handler with each message, and to ``started`` and ``stopped`` without one.

    It has the same verbs as `Runtime`. What is sent through it comes from this instance, and ends with the
    deadline of the message that is being handled.

    Example:
        .. code-block:: python

            @handler
            async def order(self, message: Order, ctx: Context) -> str:
                ctx.logger.info("an order of %s", ctx.sender.subject)
                return await ctx.ask(Anycast("acme/ns/stock"), Reserve(message.item))
    """

    __slots__ = ("_cell", "_envelope", "_life")

    def __init__(self, cell: Cell, envelope: Envelope | None = None) -> None:
        self._cell = cell
        self._envelope = envelope
        # What a handler starts belongs to its own instance, even if that was restarted beneath it.
        self._life: Life = cell.life

    @property
    def me(self) -> Address:
        """This instance."""
        return self._cell.address

    @property
    def sender(self) -> Address:
        """Who sent the message, as SLIM knows it; this instance itself where nobody else did."""
        return self._envelope.sender if self._envelope else self.me

    @property
    def message_id(self) -> str:
        """The id that the first caller gave to the message, the same after a `Forward`; empty without one."""
        if self._envelope is None or not self._envelope.id:
            return ""
        given = self._envelope.context.get("id")
        return given if isinstance(given, str) else f"{self._envelope.sender.instance}:{self._envelope.id}"

    @property
    def context(self) -> dict[str, Any]:
        """What travels along with the message, from hop to hop: what middleware put there."""
        return self._envelope.context if self._envelope else {}

    @property
    def verb(self) -> Verb:
        """How the message was sent: ``"ask"``, ``"tell"`` or ``"stream"``; by this instance itself: tell."""
        return "tell" if self._envelope is None else self._envelope.verb

    @property
    def waited(self) -> float:
        """Seconds since the message came to this instance's mailbox."""
        if self._envelope is None or self._envelope.arrived_at is None:
            return 0.0
        return asyncio.get_running_loop().time() - self._envelope.arrived_at

    @property
    def deadline(self) -> float | None:
        """When the caller stops waiting, in seconds on the event loop's clock; None where nobody waits."""
        if (
            self._envelope is None
            or self._envelope.outlet is not None
            or self._envelope.expires == float("inf")
        ):
            return None
        return self._envelope.expires

    @property
    def remaining(self) -> float:
        """Seconds until the deadline, never below 0; infinite where there is none."""
        deadline = self.deadline
        return float("inf") if deadline is None else max(0.0, deadline - asyncio.get_running_loop().time())

    @property
    def logger(self) -> logging.LoggerAdapter[logging.Logger]:
        """A logger whose records carry ``agent`` and ``message_id``."""
        return logging.LoggerAdapter(_logger, {"agent": str(self.me), "message_id": self.message_id})

    def after(self, delay: float, message: Any) -> asyncio.TimerHandle:
        """Send a message to this instance after so many seconds, through its mailbox.

        One that is not due when the instance stops or is restarted is never delivered. What is returned has
        ``cancel()``.

        Raises:
            ConfigurationError: The delay is not a number of seconds from 0 up.
            UnhandledMessage: There is no handler for its type.

        Example:
            .. code-block:: python

                ctx.after(60, Remind("still there?"))
        """
        if not is_number(delay) or delay < 0:
            raise ConfigurationError(f"A delay of {delay!r} is not a number of seconds from 0 up.")
        return self._life.timers.after(delay, message)

    async def spawn(self, agent: Factory, *, name: str | None = None) -> Ref:
        """Start a child: it stops with this instance, before it, and when this instance is restarted.

        A child whose failures are escalated (see `Restart`) makes this instance fail with `AgentFailed`.
        Where children are to be there after a restart as well, spawn them in ``started``.

        Raises:
            Stopped: This instance has ended.
            Exception: As `Runtime.spawn` does.

        Example:
            .. code-block:: python

                async def started(self, ctx):
                    self.cache = await ctx.spawn(Cache)
        """
        return await self._life.spawn(agent, name)

    async def supervise(
        self, *agents: Factory, strategy: Strategy = "one_for_one", restart: Restart | None = None
    ) -> Supervisor:
        """Start a group of children; see `Runtime.supervise` and `spawn`.

        Raises:
            Stopped: This instance has ended.
            Exception: As `Runtime.supervise` does.
        """
        return await self._life.supervise(agents, strategy, restart)

    async def watch(self, target: Ref | Unicast | Address) -> Address:
        """Be told when an instance has ended: by one `Terminated` message, through the mailbox.

        An instance of this process is watched at first hand. Any other is watched over a session: it has
        ended when it says that it is leaving, closes the session, or gives no sign of life for the runtime's
        ``lost_after``, as a frozen process does too. If it has ended already, that is told at once. A restart
        of what is watched is no end. Watching ends with this instance: a restarted one begins with none.

        Args:
            target: The instance. A `Unicast` route without one watches whom discovery picks.

        Returns:
            Who is watched.

        Raises:
            UnhandledMessage: The agent has no handler for `Terminated`.
            NoRoute: Nobody answers to a route that names no instance.
            PeerLost: Whoever did was gone before it was watched.
            Denied: It refuses the identity of this agent.
            Untrusted: This side refuses its identity.
            Busy: It takes no more sessions.
            Expired: It said nothing, or the node was away, until the deadline.
            ConfigurationError: The target is no single instance, or this one itself.

        Example:
            .. code-block:: python

                await ctx.watch(ctx.sender)
        """
        return await self._life.watches.add(target, self._expires(None))

    def unwatch(self, target: Ref | Unicast | Address) -> None:
        """Watch an instance no longer; a `Terminated` that waits in the mailbox is not delivered."""
        self._life.watches.remove(target)

    def stop(self) -> None:
        """Stop this instance from the inside, as `Ref.stop` does, once its handlers have ended.

        With a ``"permanent"`` policy a fresh instance goes on with the messages that wait. Returns at once.
        """
        self._cell.stop_itself(self._life)

    def forwarded(self) -> dict[str, Any]:
        """Give what goes along with a message that this one is forwarded as."""
        return {**self._travelling(), "id": self.message_id}

    async def _sender(self) -> Router:
        return self._cell.router

    def _ready_sender(self) -> Router:
        return self._cell.router

    async def _post(self, route: Route, messages: Iterable[object], timeout: float | None) -> None:
        await self._cell.keeper.post(self._envelope, route, messages, timeout, self._travelling())

    def _expires(self, timeout: float | None) -> float:
        now = asyncio.get_running_loop().time()
        expires = now + (DEFAULT_TIMEOUT if timeout is None else timeout)
        deadline = self.deadline
        return expires if deadline is None else min(expires, deadline)

    def _travelling(self) -> dict[str, Any]:
        travelling = {
            key: value for key, value in self.context.items() if key not in ("id", "chain", "durable")
        }
        if self._envelope is not None and self._envelope.wants_reply:
            # Whoever waits for this message waits for what it asks.
            travelling["chain"] = [*chain_of(self.context), str(self.me)]
        return travelling


def current_context() -> Context | None:
    """Give the context of the message whose handler runs here, or started what does; None elsewhere."""
    handled = HANDLED.get()
    return None if handled is None else Context(*handled)


def chain_of(context: dict[str, Any]) -> list[str]:
    """Give the instances that wait for a message, the first caller's first; a peer may claim anything."""
    chain = context.get("chain")
    if not isinstance(chain, list):
        return []
    return [link for link in chain if isinstance(link, str)]


def circle_of(envelope: Envelope, me: str, concurrency: int) -> CallCycle | None:
    """Tell whether a message can only wait for the end of what waits for it."""
    if "chain" not in envelope.context:
        return None
    chain = chain_of(envelope.context)
    if not envelope.wants_reply or (chain.count(me) < concurrency and len(chain) < _MOST_HOPS):
        return None
    return CallCycle(f"The call goes round in a circle: {' asks '.join([*chain, me])}.")
