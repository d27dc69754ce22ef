"""One replica: the process that `slim_actors.replicas` starts. It runs one agent until it is told to stop.

What it is to run comes in the environment variable `CONFIG`, what happens goes out as JSON lines on a file
descriptor. Its standard input is a lifeline: when the supervisor is gone, however it went, that ends, and
the replica drains and ends too.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import traceback
from typing import Any

import msgspec

from slim_actors.errors import SlimActorsError
from slim_actors.exits import Exit, exit_code
from slim_actors.loader import load_agent
from slim_actors.logs import LogContext, configure
from slim_actors.runtime import Runtime

__all__ = ["CONFIG", "Report", "Task", "main"]

CONFIG = "SLIM_ACTORS_REPLICA"

_MOST_CHARACTERS = 2_000


class Task(msgspec.Struct, frozen=True):
    """What a replica is to run."""

    target: str
    reports: int
    """The file descriptor for the reports."""
    name: str | None = None
    require_mls: bool = False
    otel: bool = False
    store: str | None = None
    drain: float = 8.0


class Report(msgspec.Struct, frozen=True):
    """What a replica says: that it is ready, or why it could not start."""

    event: str
    address: str = ""
    message: str = ""
    exit: int = 0


def main() -> int:
    """Run the replica; give the exit code."""
    # It is for the supervisor to say when to stop, whoever else may be interrupting every process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    configure()
    task = msgspec.json.decode(os.environ.pop(CONFIG), type=Task)
    os.set_inheritable(task.reports, False)  # noqa: FBT003 (the signature of the standard library)
    try:
        asyncio.run(_run(task))
    except SlimActorsError as error:
        _report(task, Report("failed", message=_sentence(str(error)), exit=exit_code(error)))
        return exit_code(error)
    except Exception as error:  # noqa: BLE001 (what the agent's started raised)
        traceback.print_exc()
        text = f"The agent failed to start with {type(error).__name__}: {error}"
        _report(task, Report("failed", message=_sentence(text)))
        return Exit.FAILED
    return Exit.OK


async def _run(task: Task) -> None:
    # Before the signal handler: an import that takes for ever can be ended at once, it has nothing to drain.
    agent = load_agent(task.target)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_reader(sys.stdin.fileno(), _lifeline, stop)
    if task.require_mls:
        agent.require_mls = True
    if task.otel:
        # Before the SDK reads it: traces show each agent under its own name.
        os.environ.setdefault("OTEL_SERVICE_NAME", task.name or agent.__declaration__.name or "")
    async with Runtime(
        middleware=[LogContext()], enable_opentelemetry=task.otel, store=task.store
    ) as runtime:
        spawning = asyncio.ensure_future(runtime.spawn(agent, name=task.name))
        if not await _before(stop, spawning):
            return
        _report(task, Report("ready", address=str(spawning.result().address)))
        await stop.wait()
        await runtime.stop(task.drain)


async def _before(stop: asyncio.Event, work: asyncio.Future[Any]) -> bool:
    """Tell whether the work ended before the stop; cancel it otherwise, for it may take for ever."""
    stopping = asyncio.ensure_future(stop.wait())
    await asyncio.wait([stopping, work], return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if work.done():
        return True
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)
    return False


def _lifeline(stop: asyncio.Event) -> None:
    if not os.read(sys.stdin.fileno(), 1024):
        asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
        stop.set()


def _sentence(text: str) -> str:
    """Give a text that fits into a report: one line of moderate length, whatever an exception says."""
    return " ".join(text.encode(errors="replace").decode().split())[:_MOST_CHARACTERS]


def _report(task: Task, report: Report) -> None:
    data: Any = msgspec.json.encode(report) + b"\n"
    try:
        os.write(task.reports, data)
    except OSError:
        # The supervisor is gone; the lifeline says so too.
        return


if __name__ == "__main__":
    sys.exit(main())
