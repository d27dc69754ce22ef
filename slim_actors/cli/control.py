"""``slim-actors restart``, ``scale`` and ``ps``: what is asked of runs in other terminals."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from slim_actors.cli.console import complain, line, table
from slim_actors.cli.events import show
from slim_actors.cli.stopping import run_until_done
from slim_actors.errors import ConfigurationError
from slim_actors.exits import Exit
from slim_actors.names import check_name
from slim_actors.replicas.control import Order, Status, give, runs, status_of
from slim_actors.replicas.events import EventKind
from slim_actors.replicas.memory import in_mebibytes

__all__ = ["ps", "restart", "scale"]

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The agent: org/namespace/service.")]


def restart(name: NameArgument) -> None:
    """Replace the replicas of an agent that this user runs on this machine, one at a time.

    Each new replica reads the agent's file anew, and is ready before the old one is drained: nothing is lost.
    SIGHUP does the same to one run. When a new replica cannot start, the old ones stay.

    Examples:
        slim-actors restart agntcy/ns/alice
    """
    raise typer.Exit(run_until_done(_order("restarted", Order("restart", check_name(name)))))


def scale(
    name: NameArgument, replicas: Annotated[int, typer.Argument(metavar="N", help="How many processes.")]
) -> None:
    """Change how many replicas of an agent run; those that are too many are drained.

    Where several runs of this user on this machine serve the name, each runs so many.

    Examples:
        slim-actors scale agntcy/ns/alice 5
    """
    if replicas < 1:
        raise ConfigurationError(f"N is {replicas}, but must be 1 or more; Ctrl-C on the run ends it.")
    raise typer.Exit(run_until_done(_order("scaled", Order("scale", check_name(name), replicas))))


def ps() -> None:
    """List the replicas that this user runs on this machine.

    In a pipe: a line for each, without a heading, and with tabs between the agent, the number of the replica,
    its pid, its memory and the pid of its run.

    Examples:
        slim-actors ps
    """
    raise typer.Exit(run_until_done(_ps()))


async def _order(done: str, order: Order) -> Exit:
    """Give an order to each run of the name, one after the other."""
    outcome = Exit.OK
    statuses, are_all = await _statuses()
    paths = [path for path, status in statuses.items() if status.name == order.name]
    for path in paths:
        answer = None
        async for answer in give(path, order):
            # Why a replica is kept is the last answer.
            if answer.event is not None and answer.event.kind is not EventKind.KEPT:
                show(answer.event)
            elif answer.code == Exit.OK:
                line(done, f"{answer.text} of {order.name}")
            elif answer.text:
                complain(answer.text)
                outcome = Exit(answer.code or Exit.FAILED)
        if answer is None or answer.code is None:
            complain(f"The run of {order.name} ended before it was {done}.")
            outcome = Exit.FAILED
    if not paths:
        complain(
            f"Nobody runs {order.name} here: no slim-actors run of this user on this machine has that name "
            "(slim-actors ps lists them)."
        )
        return Exit.NO_ROUTE
    # Which agent a silent one runs nobody knows: it may be one that the order was for.
    return outcome if are_all else outcome or Exit.FAILED


async def _statuses() -> tuple[dict[Path, Status], bool]:
    """Ask every run what it has; tell whether all have answered."""
    statuses: dict[Path, Status] = {}
    are_all = True
    for path in runs():
        try:
            status = await status_of(path)
        except TimeoutError:
            complain(
                f"The run at {path} does not answer, and is left out: it is frozen (kill -CONT ends that)."
            )
            are_all = False
        else:
            if status is not None:
                statuses[path] = status
    return statuses, are_all


async def _ps() -> Exit:
    statuses, are_all = await _statuses()
    code = Exit.OK if are_all else Exit.FAILED
    rows = [
        (
            member.address or f"{status.name} (starting)",
            str(member.replica),
            str(member.pid),
            in_mebibytes(member.memory),
            str(status.pid),
        )
        for status in statuses.values()
        for member in status.members
    ]
    if not rows:
        # Where errors go: a program that reads the list gets an empty one.
        typer.echo("No slim-actors run of this user is running on this machine.", err=True)
        return code
    table(("agent", "replica", "pid", "memory", "pid of the run"), rows)
    return code
