"""What a replica does: it runs one agent until it is told to stop.

What happens goes out as JSON lines on a file descriptor. Its standard input is a lifeline: the first line is
the `Assignment`, the second says that the replica may connect, and when the supervisor is gone, however it
went, it ends, and the replica drains and ends too, also where a handler blocks its event loop.
"""

from __future__ import annotations

import asyncio
import faulthandler
import os
import select
import signal
import sys
import threading
import time
import traceback
from typing import Any

import msgspec

from slim_actors.assignment import KILL_AFTER, Assignment, Report, Task
from slim_actors.errors import SlimActorsError
from slim_actors.exits import Exit, exit_code
from slim_actors.loader import load_agent, local_files
from slim_actors.logs import configure
from slim_actors.replicas.output import write_nowhere
from slim_actors.runtime import Runtime
from slim_actors.state import SLOT_VARIABLE, state_of
from slim_actors.transport import slim as _transport  # noqa: F401 (the runtime does so only when it connects)

__all__ = ["serve"]

_MOST_CHARACTERS = 2_000
_READ_BYTES = 64 * 1024


def serve() -> int:
    """Run an agent; give the exit code."""
    # What it prints goes through a pipe, and should be seen when it happens, also before a death.
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    # A crash outside of Python, and the supervisor's SIGABRT after a hang, show where that was.
    faulthandler.enable()
    assignment = _assignment()
    if assignment is None:
        return Exit.OK
    task = assignment.task
    os.environ.update(assignment.variables)
    os.environ[SLOT_VARIABLE] = str(assignment.slot)
    configure()
    # Byte code knows its source by the second, and a reload may come within one.
    sys.dont_write_bytecode = sys.dont_write_bytecode or task.tell_files
    os.set_inheritable(task.reports, False)  # noqa: FBT003 (the signature of the standard library)
    threading.Thread(target=_outlive, args=(task.drain,), name="lifeline", daemon=True).start()
    try:
        asyncio.run(_run(task))
    except SlimActorsError as error:
        _report(task, Report("failed", message=_sentence(str(error)), exit=exit_code(error)))
        return exit_code(error)
    except Exception as error:  # noqa: BLE001 (what the agent's started or stopped raised)
        traceback.print_exc()
        text = f"The agent failed with {type(error).__name__}: {error}"
        _report(task, Report("failed", message=_sentence(text), exit=Exit.GAVE_UP))
        return Exit.FAILED
    return Exit.OK


def _assignment() -> Assignment | None:
    """Read what is to be run; give None if the supervisor is gone."""
    line = b""
    while not line.endswith(b"\n"):
        data = os.read(sys.stdin.fileno(), _READ_BYTES)
        if not data:
            return None
        line += data
    return msgspec.json.decode(line, type=Assignment)


async def _run(task: Task) -> None:
    # Before the signal handler: an import that takes for ever can be ended at once, it has nothing to drain.
    agent = load_agent(task.target)
    stop, go = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_reader(sys.stdin.fileno(), _lifeline, stop, go)
    if task.require_mls:
        agent.require_mls = True
    name = task.name or agent.__declaration__.name or ""
    _report(task, Report("loaded", address=name, stateful=state_of(agent) is not None))
    if not await _before(stop, asyncio.ensure_future(go.wait())):
        return
    if task.otel:
        # Before the SDK reads it: traces show each agent under its own name.
        os.environ.setdefault("OTEL_SERVICE_NAME", name)
    async with Runtime(enable_opentelemetry=task.otel, store=task.store) as runtime:
        spawning = asyncio.ensure_future(runtime.spawn(agent, name=task.name))
        if not await _before(stop, spawning):
            return
        ref = spawning.result()
        configure(str(ref.address))
        if task.tell_files:
            for file in local_files():
                _report(task, Report("imported", message=file))
        _report(task, Report("ready", address=str(ref.address)))
        # From here on nothing of ours may wait for a supervisor that does not read.
        os.set_blocking(task.reports, False)
        beating = asyncio.ensure_future(_beat(task))
        ended = asyncio.ensure_future(ref.wait())
        is_over = await _before(stop, ended)
        if not is_over:
            await runtime.stop(task.drain)
        beating.cancel()
        if is_over and (failure := ended.result()) is not None:
            # What no restart in the process could mend is for the supervisor of processes.
            raise failure
        if is_over:
            _report(task, Report("stopped", message="The agent stopped itself.", exit=Exit.OK))


async def _beat(task: Task) -> None:
    while task.beat:
        _report(task, Report("beat"))
        await asyncio.sleep(task.beat)


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


def _lifeline(stop: asyncio.Event, go: asyncio.Event) -> None:
    if os.read(sys.stdin.fileno(), 1024):
        go.set()
        return
    asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
    # To a handler that prints it must not be an error that nobody reads that any more.
    write_nowhere(1, 2)
    stop.set()


def _outlive(drain: float) -> None:
    """End this process when it is there still although the supervisor, which would kill it, has gone."""
    lifeline = select.poll()
    # For its end alone: what comes through it is the event loop's to read, as long as that runs.
    lifeline.register(sys.stdin.fileno(), 0)
    if any(event & select.POLLHUP for _, event in lifeline.poll()):
        time.sleep(drain + KILL_AFTER)
        os._exit(Exit.FAILED)


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
