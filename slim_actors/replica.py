"""One replica: the process that `slim_actors.replicas` starts. It runs one agent until it is told to stop.

What it is to run comes in the environment variable `CONFIG`, what happens goes out as JSON lines on a file
descriptor. Its standard input is a lifeline: when the supervisor is gone, however it went, that ends, and
the replica drains and ends too.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import traceback
from typing import Any

import msgspec

from slim_actors.errors import SlimActorsError
from slim_actors.exits import Exit, exit_code
from slim_actors.loader import load_agent
from slim_actors.runtime import Runtime

__all__ = ["CONFIG", "Report", "Task", "main"]

CONFIG = "SLIM_ACTORS_REPLICA"


class Task(msgspec.Struct, frozen=True):
    """What a replica is to run."""

    target: str
    endpoint: str
    reports: int
    """The file descriptor for the reports."""
    name: str | None = None
    require_mls: bool = False
    drain: float = 8.0


class Report(msgspec.Struct, frozen=True):
    """What a replica says: that it is ready, or why it could not start."""

    event: str
    address: str = ""
    message: str = ""
    exit: int = 0


def main() -> int:
    """Run the replica; give the exit code."""
    # Ctrl-C in a terminal reaches every process at once; it is for the supervisor to say when to stop.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    task = msgspec.json.decode(os.environ.pop(CONFIG), type=Task)
    os.set_inheritable(task.reports, False)  # noqa: FBT003 (the signature of the standard library)
    try:
        asyncio.run(_run(task))
    except SlimActorsError as error:
        _report(task, Report("failed", message=str(error), exit=exit_code(error)))
        return exit_code(error)
    except Exception as error:  # noqa: BLE001 (what the agent's started raised)
        traceback.print_exc()
        _report(
            task, Report("failed", message=f"The agent failed to start with {type(error).__name__}: {error}")
        )
        return Exit.FAILED
    return Exit.OK


async def _run(task: Task) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_reader(sys.stdin.fileno(), _lifeline, stop)
    agent = load_agent(task.target)
    if task.require_mls:
        agent.require_mls = True
    async with Runtime(task.endpoint) as runtime:
        ref = await runtime.spawn(agent, name=task.name)
        _report(task, Report("ready", address=str(ref.address)))
        await stop.wait()
        await runtime.stop(task.drain)


def _lifeline(stop: asyncio.Event) -> None:
    if not os.read(sys.stdin.fileno(), 1024):
        asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
        stop.set()


def _report(task: Task, report: Report) -> None:
    data: Any = msgspec.json.encode(report) + b"\n"
    try:
        os.write(task.reports, data)
    except OSError:
        # The supervisor is gone; the lifeline says so too.
        return


if __name__ == "__main__":
    sys.exit(main())
