"""An agent under ten times the load that it can handle: does its memory stay flat, and is nothing lost?

python -m benchmarks.overload [--seconds 60]

A node, an agent and the senders, each in a process of its own. The agent sleeps 1 ms for each message and has
a bounded mailbox. The senders start messages at ten times that pace, whatever comes back. Ends with exit code
1 if the messages sent and their outcomes do not agree.
"""

from __future__ import annotations

import asyncio
import gc
import os
import re
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from statistics import mean
from tempfile import TemporaryFile
from typing import Annotated

import typer
from attrs import frozen
from rich.console import Console
from rich.live import Live
from rich.table import Table

from benchmarks.systems.base import free_endpoint, resident
from slim_actors import Agent, Anycast, Busy, Expired, Mailbox, Request, Runtime, handler

TAKES = 0.001
LOAD = 10 / TAKES
"""Messages started in a second."""
SENDERS = [(kind, deadline) for kind in ("ask", "tell") for deadline in (2.0, 3.0, 4.0)]
"""What each sender sends, and how many seconds its messages have."""
GRACE = 10.0
"""Seconds after the last deadline within which every message must have its outcome."""
STEP = 0.005
ROWS = 12
OUTCOMES = ("replied", "accepted", "expired", "busy", "other")
ROUTE = Anycast("bench/ns/overload")

console = Console(width=110, highlight=False)


@frozen
class Work(Request[None]):
    """Something to do."""

    number: int


@frozen
class Handled(Request[int]):
    """How much was done?"""


class Worker(Agent, name="bench/ns/overload"):
    """Handles about 1,000 messages in a second."""

    mailbox = Mailbox(capacity=1000, overflow="wait")

    def __init__(self) -> None:
        self.handled = 0

    @handler
    async def work(self, message: Work) -> None:
        """Take a while."""
        await asyncio.sleep(TAKES)
        self.handled += 1

    @handler
    async def count(self, message: Handled) -> int:
        """Say how much was done."""
        return self.handled


class Load:
    """The senders, and what became of their messages."""

    def __init__(self, runtime: Runtime) -> None:
        self.sent = 0
        self.outcomes: Counter[str] = Counter()
        self.others: Counter[str] = Counter()
        self._runtime = runtime
        self._under_way: set[asyncio.Task[None]] = set()

    async def run(self, seconds: float) -> None:
        """Send for so many seconds, then wait for the outcomes."""
        await asyncio.gather(*(self._sender(kind, deadline, seconds) for kind, deadline in SENDERS))
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=max(deadline for _, deadline in SENDERS) + GRACE)

    async def _sender(self, kind: str, deadline: float, seconds: float) -> None:
        """Start messages at a fixed pace, whatever becomes of them."""
        loop = asyncio.get_running_loop()
        now = due = loop.time()
        ends = now + seconds
        pause = len(SENDERS) / LOAD
        while now < ends:
            # What could not be started in time, because this process was too slow, is not made up for.
            due = max(due, now - 20 * STEP)
            while due < now:
                due += pause
                self._start(kind, deadline)
            await asyncio.sleep(STEP)
            now = loop.time()

    def _start(self, kind: str, deadline: float) -> None:
        self.sent += 1
        task = asyncio.create_task(self._message(kind, deadline, self.sent))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def _message(self, kind: str, deadline: float, number: int) -> None:
        try:
            if kind == "ask":
                await self._runtime.ask(ROUTE, Work(number), timeout=deadline)
                outcome = "replied"
            else:
                await self._runtime.tell(ROUTE, Work(number), timeout=deadline)
                outcome = "accepted"
        except Expired:
            outcome = "expired"
        except Busy:
            outcome = "busy"
        except Exception as error:  # noqa: BLE001 (whatever it is, it is counted and shown)
            outcome = "other"
            self.others[f"{type(error).__name__}: {error}"] += 1
        self.outcomes[outcome] += 1


class Watch:
    """Looks at the memory every second, and fills the table."""

    def __init__(self, load: Load, agent: int, seconds: float) -> None:
        self.agent_rss: list[float] = []
        self.table = Table(title=f"{LOAD:,.0f} messages/s for an agent that can handle {1 / TAKES:,.0f}")
        for column in ("s", "agent MiB", "senders MiB", "sent", *OUTCOMES):
            self.table.add_column(column, justify="right")
        self._load = load
        self._agent = agent
        self._seconds = seconds

    async def run(self, live: Live) -> None:
        """Watch for as long as the load lasts."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        ticks = max(4, round(self._seconds))
        every = max(1, ticks // ROWS)
        for tick in range(1, ticks + 1):
            await asyncio.sleep(began + tick * self._seconds / ticks - loop.time())
            self.agent_rss.append(resident(self._agent))
            if tick % every == 0:
                self.row(f"{loop.time() - began:.0f}")
                live.refresh()

    def row(self, name: str) -> None:
        """Add a row."""
        numbers = [self._load.sent, *(self._load.outcomes[outcome] for outcome in OUTCOMES)]
        sizes = [resident(self._agent), resident(os.getpid())]
        self.table.add_row(name, *(f"{size:.1f}" for size in sizes), *(f"{number:,}" for number in numbers))

    @property
    def growth(self) -> tuple[float, float]:
        """The mean of the agent's memory in the first quarter, and in the last."""
        quarter = len(self.agent_rss) // 4
        return mean(self.agent_rss[:quarter]), mean(self.agent_rss[-quarter:])


@asynccontextmanager
async def command(*words: str, until: str) -> AsyncIterator[re.Match[str]]:
    """Run a slim-actors command for a while; give the line that says that it is ready."""
    with TemporaryFile() as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "slim_actors", *words, stdin=DEVNULL, stdout=PIPE, stderr=log
        )
        try:
            found = await ready(process, until)
            if found is None:
                log.seek(0)
                raise SystemExit(f"slim-actors {words[0]} could not start: {log.read().decode()}")
            yield found
        finally:
            if process.returncode is None:
                process.terminate()
            await process.communicate()


async def ready(process: Process, until: str) -> re.Match[str] | None:
    """Wait for the line that says so; give None if the process ends without it."""
    assert process.stdout is not None, "it is a pipe"
    async for line in process.stdout:
        found = re.search(until, line.decode())
        if found:
            return found
    await process.wait()
    return None


async def measure(seconds: float) -> bool:
    """Run it all; give whether sent and outcomes agree."""
    # With tens of thousands of messages under way, the collector would take most of the senders' time.
    gc.set_threshold(100_000, 20, 100)
    endpoint = free_endpoint()
    run = ("run", f"{__file__}:Worker", "--endpoint", endpoint)
    async with (
        command("node", "--endpoint", endpoint, until="listening at"),
        command(*run, until=r"^joined.*\(pid (\d+)\)") as joined,
        Runtime(endpoint) as runtime,
    ):
        load = Load(runtime)
        watch = Watch(load, int(joined[1]), seconds)
        with Live(watch.table, console=console, auto_refresh=False) as live:
            await asyncio.gather(load.run(seconds), watch.run(live))
            watch.row("end")
        handled = await runtime.ask(ROUTE, Handled(), timeout=GRACE)

    console.print()
    total = sum(load.outcomes.values())
    agree = total == load.sent
    first, last = watch.growth
    for what, count in load.others.most_common(5):
        console.print(f"other: {count} x {what}")
    console.print(
        f"load: {load.sent / seconds:,.0f} messages/s were sent and {handled / seconds:,.0f}/s handled: "
        f"{load.sent / max(1, handled):.1f} times what it handles"
    )
    console.print(
        f"agent: {first:.1f} MiB in the first quarter, {last:.1f} MiB in the last: "
        f"{100 * (last - first) / first:+.1f} %"
    )
    console.print(f"sent {load.sent:,} {'==' if agree else '!='} {total:,} outcomes")
    return agree


def main(
    seconds: Annotated[float, typer.Option(min=4, help="How long the load lasts.")] = 60,
) -> None:
    """Hold an agent under ten times the load that it can handle."""
    raise typer.Exit(0 if asyncio.run(measure(seconds)) else 1)


if __name__ == "__main__":
    typer.run(main)
