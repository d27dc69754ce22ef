"""``slim-actors run``: replicas of an agent, as supervised processes."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Annotated

import typer
from attrs import evolve

from slim_actors.assignment import Task
from slim_actors.cli.console import line
from slim_actors.cli.events import show
from slim_actors.cli.options import OtelOption, with_settings
from slim_actors.cli.stopping import run_until_stopped
from slim_actors.endpoints import DEFAULT_ENDPOINT, Endpoint, no_node
from slim_actors.errors import ConfigurationError, EndpointInUse
from slim_actors.exits import Exit
from slim_actors.identity import SharedSecret
from slim_actors.names import check_name
from slim_actors.replicas.control import Control
from slim_actors.replicas.events import Event, EventKind
from slim_actors.replicas.memory import parse_bytes
from slim_actors.replicas.output import write_nowhere
from slim_actors.replicas.reload import check_reload, reload_on_change
from slim_actors.replicas.supervisor import ReplicaLimits, Supervisor
from slim_actors.settings import Settings
from slim_actors.supervision import DRAIN

__all__ = ["run"]

_LEAST_MEMORY = 2**20


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
    reload: Annotated[
        bool,
        typer.Option(
            "--reload",
            envvar="SLIM_ACTORS_RELOAD",
            help="For development: replace the replicas when the agent's files change.",
        ),
    ] = False,
    drain_timeout: Annotated[
        float,
        typer.Option(
            envvar="SLIM_ACTORS_DRAIN_TIMEOUT",
            help="Seconds that a replica which stops may take to finish what it has accepted.",
        ),
    ] = DRAIN,
    hang_after: Annotated[
        float,
        typer.Option(
            envvar="SLIM_ACTORS_HANG_AFTER",
            help="Seconds after which a replica whose event loop stands still is killed; 0 for never.",
        ),
    ] = 30.0,
    max_memory: Annotated[
        str | None,
        typer.Option(
            envvar="SLIM_ACTORS_MAX_MEMORY",
            help="Memory beyond which a replica is replaced, such as 500MiB.",
            show_default=False,
        ),
    ] = None,
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

    With nothing listening at the default endpoint, a SLIM node is started too. SIGHUP replaces the replicas,
    one at a time, as slim-actors restart does. A second Ctrl-C does not wait for what they handle.

    Examples:
        slim-actors run agents/echo.py --replicas 3

        slim-actors run my_agents.py:Planner --name acme/prod/planner

        slim-actors run package.module:Agent --endpoint unix:///tmp/slim.sock

        slim-actors run agents/echo.py --reload

        slim-actors run agents/echo.py --max-memory 500MiB --hang-after 60 --drain-timeout 30

        slim-actors run ledger.py --store ledger.db
    """
    if replicas < 1:
        raise ConfigurationError(f"--replicas is {replicas}, but must be 1 or more.")
    for option, seconds in (("--drain-timeout", drain_timeout), ("--hang-after", hang_after)):
        if not 0 <= seconds < float("inf"):
            raise ConfigurationError(f"{option} is {seconds:g}, but must be a number of seconds from 0 up.")
    if name is not None:
        check_name(name)
    if reload:
        check_reload()
    limits = ReplicaLimits(hang_after, _most_memory(max_memory) if max_memory else 0)
    file = None if store is None else _absolute(store)
    task = Task(target, -1, name, mls, otel, file, drain_timeout, tell_files=reload)
    raise typer.Exit(run_until_stopped(_run(task, replicas, settings, limits)) or Exit.OK)


def _most_memory(text: str) -> int:
    most = parse_bytes(text)
    if most < _LEAST_MEMORY:
        raise ConfigurationError(
            f"--max-memory is {text}, and no replica is that small: write it like 500MiB."
        )
    return most


def _absolute(file: Path) -> str:
    try:
        return str(file.absolute())
    except FileNotFoundError:
        raise ConfigurationError(
            f"--store {file} is in the current folder, which was removed: cd to another one."
        ) from None


async def _run(task: Task, replicas: int, settings: Settings, limits: ReplicaLimits) -> int:
    # Here, though the replicas look for theirs: what is wrong with it is said once, and before all else.
    identity = settings.identity()
    if isinstance(identity, SharedSecret):
        settings = evolve(settings, shared_secret=identity.secret)
    endpoint = settings.node
    async with AsyncExitStack() as stack:

        async def prepare() -> None:
            # Only now: a mistake in the agent's file should not cost a node.
            if not await endpoint.listening():
                await _embed(endpoint, stack)

        def on_event(event: Event) -> None:
            show(event)
            control.tell(event)
            count(event)

        if str(endpoint) != DEFAULT_ENDPOINT and not await endpoint.listening():
            from slim_actors.loader import check_file

            # A mistake in the command comes before one that time may mend.
            check_file(task.target)
            raise no_node(endpoint)
        count = await _counting(stack) if task.otel else _no_count
        supervisor = Supervisor(task, replicas, settings.variables(), on_event, limits, prepare)
        control = Control(supervisor)
        _on_signals(supervisor)
        try:
            await stack.enter_async_context(control)
        except (OSError, ConfigurationError) as error:
            line("control", f"restart, scale and ps will not find this run: {error}", style="yellow")
        if task.tell_files:
            reloading = asyncio.create_task(reload_on_change(supervisor))
            reloading.add_done_callback(_reload_ended)
            stack.callback(reloading.cancel)
        await supervisor.run()
        return Exit.INTERRUPTED if supervisor.was_cut_short else Exit.OK


def _reload_ended(reloading: asyncio.Task[None]) -> None:
    error = None if reloading.cancelled() else reloading.exception()
    if error is not None:
        text = f"changes are not seen any more: {type(error).__name__}: {error}; start the run anew"
        line("reload", text, style="bold red")


def _on_signals(supervisor: Supervisor) -> None:
    def interrupted() -> None:
        if supervisor.is_stopping:
            supervisor.stop_now()
        else:
            supervisor.stop()
            line("stopping", "when all that was accepted is finished; Ctrl-C again stops now", style="dim")

    def hung_up() -> None:
        # With the terminal, whoever looked at it has gone.
        if has_terminal and not _has_terminal():
            write_nowhere(*shown)
            supervisor.stop()
        else:
            supervisor.restart_soon("SIGHUP")

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, supervisor.stop)
    loop.add_signal_handler(signal.SIGINT, interrupted)
    has_terminal = _has_terminal()
    shown = [number for number in (1, 2) if os.isatty(number)]
    # Under nohup it stays ignored.
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        loop.add_signal_handler(signal.SIGHUP, hung_up)


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True


async def _embed(endpoint: Endpoint, stack: AsyncExitStack) -> None:
    if str(endpoint) != DEFAULT_ENDPOINT:
        # It was there when the run began, and may come back.
        return
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
    """Give what counts the restarts."""
    from slim_actors.telemetry import exporting, restarts

    await stack.enter_async_context(exporting())
    counter = restarts()

    def count(event: Event) -> None:
        if event.kind is EventKind.RESTARTED:
            counter.add(1, {"messaging.destination.name": event.address.rpartition("/")[0]})

    return count


def _no_count(event: Event) -> None:
    """Count nothing."""
