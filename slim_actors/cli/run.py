"""``slim-actors run``: replicas of an agent, as supervised processes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Annotated

import typer
from attrs import evolve

from slim_actors.cli.console import line
from slim_actors.cli.options import OtelOption, with_settings
from slim_actors.cli.stopping import on_stop_signal, run_until_stopped
from slim_actors.endpoints import DEFAULT_ENDPOINT, Endpoint, no_node
from slim_actors.errors import ConfigurationError, EndpointInUse
from slim_actors.identity import SharedSecret
from slim_actors.names import check_name
from slim_actors.replica import Task
from slim_actors.replicas import Event, EventKind, Supervisor
from slim_actors.settings import Settings

__all__ = ["run"]

_STYLES = {
    EventKind.JOINED: "green",
    EventKind.RESTARTED: "green",
    EventKind.LOST: "bold red",
    EventKind.STOPPED: "dim",
}


@with_settings
def run(
    target: Annotated[str, typer.Argument(metavar="FILE[:CLASS]", help="The agent: a file or a module.")],
    replicas: Annotated[int, typer.Option(envvar="SLIM_ACTORS_REPLICAS", help="How many processes.")] = 1,
    name: Annotated[
        str | None,
        typer.Option(
            envvar="SLIM_ACTORS_NAME", help="A name other than the agent's own: org/namespace/service."
        ),
    ] = None,
    mls: Annotated[
        bool,
        typer.Option(
            "--mls/--no-mls",
            envvar="SLIM_ACTORS_MLS",
            help="Take messages from end-to-end encrypted sessions only.",
        ),
    ] = False,
    otel: OtelOption = False,
    store: Annotated[
        Path | None,
        typer.Option(
            envvar="SLIM_ACTORS_STORE",
            dir_okay=False,
            help="The file in which states of agents and durable messages are kept; made where there is "
            "none. Programs on this machine may share one.",
        ),
    ] = None,
    *,
    settings: Settings,
) -> None:
    """Run replicas of an agent until Ctrl-C, and restart those that die.

    With nothing listening at the default endpoint, a SLIM node is started too.

    Examples:
        slim-actors run agents/echo.py --replicas 3

        slim-actors run my_agents.py:Planner --name acme/prod/planner

        slim-actors run package.module:Agent --endpoint unix:///tmp/slim.sock

        slim-actors run ledger.py --store ledger.db
    """
    if replicas < 1:
        raise ConfigurationError(f"--replicas is {replicas}, but must be 1 or more.")
    if name is not None:
        check_name(name)
    run_until_stopped(_run(target, replicas, name, settings, require_mls=mls, otel=otel, store=store))


async def _run(
    target: str,
    replicas: int,
    name: str | None,
    settings: Settings,
    *,
    require_mls: bool,
    otel: bool,
    store: Path | None,
) -> None:
    async with AsyncExitStack() as stack:
        # Here, though the replicas look for theirs: what is wrong with it is said once, and before all else.
        identity = settings.identity()
        if isinstance(identity, SharedSecret):
            settings = evolve(settings, shared_secret=identity.secret)
        task = Task(
            target,
            reports=-1,
            name=name,
            require_mls=require_mls,
            otel=otel,
            store=None if store is None else str(store),
        )
        tell = await _counting(stack) if otel else _show
        supervisor = Supervisor(task, replicas, settings.variables(), tell)
        on_stop_signal(supervisor.stop)
        if not await settings.node.listening():
            await _embed(settings.node, stack)
        await supervisor.run()


async def _embed(endpoint: Endpoint, stack: AsyncExitStack) -> None:
    if str(endpoint) != DEFAULT_ENDPOINT:
        raise no_node(endpoint)
    from slim_actors.transport.node import SlimNode

    node = SlimNode(endpoint)
    try:
        await node.start()
    except EndpointInUse:
        # Another command was faster: then that one has the node.
        return
    stack.push_async_callback(node.stop)
    line("node", f"nothing listened at {endpoint}, so a SLIM node runs here now")


async def _counting(stack: AsyncExitStack) -> Callable[[Event], None]:
    """Give what shows events and counts the restarts."""
    from slim_actors.telemetry import exporting, restarts

    await stack.enter_async_context(exporting())
    counter = restarts()

    def tell(event: Event) -> None:
        _show(event)
        if event.kind is EventKind.RESTARTED:
            counter.add(1, {"messaging.destination.name": event.address.rpartition("/")[0]})

    return tell


def _show(event: Event) -> None:
    detail = f" ({event.detail})" if event.detail else ""
    line(
        event.kind.value,
        f"replica {event.replica} {event.address}".rstrip() + detail,
        style=_STYLES[event.kind],
    )
