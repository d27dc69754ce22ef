"""Durable tells while sender, receiver and node are each killed with -9 at random moments.

The receiver's journal is the state of an agent: what a handler changes there counts exactly once.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

from attrs import Factory, define, frozen

from faults.replicas import SECRET
from faults.result import Result, Tally
from faults.stage import Stage
from slim_actors import (
    Agent,
    Anycast,
    Context,
    DeliveryError,
    NodeUnreachable,
    Request,
    Runtime,
    SharedSecret,
    State,
    every,
    handler,
)
from slim_actors.endpoints import Endpoint

__all__ = ["Handled", "Plan", "play", "run"]

JOURNAL = "faults/durable/journal"
TICK = 0.02
TICKS_A_KILL = 40
BETWEEN = (0.2, 2.6)
"""Seconds from one death to the next: long enough for the dead to come back and do something."""


@define
class Entries:
    numbers: list[int] = Factory(list)


@frozen
class Entry:
    number: int


@frozen
class Read(Request[list[int]]):
    pass


class Journal(Agent, name=JOURNAL):
    entries = State(Entries)

    @handler
    async def enter(self, message: Entry) -> None:
        self.entries.numbers.append(message.number)

    @handler
    async def read(self, message: Read) -> list[int]:
        return self.entries.numbers


@define
class Progress:
    sent: int = 0


class Sender(Agent, name="faults/durable/sender"):
    """Sends the messages; how far it came and what it sent go into its store together."""

    progress = State(Progress)

    def __init__(self, messages: int, kills: int) -> None:
        self.messages = messages
        # Slow enough that there is something to send at each death.
        self.batch = max(1, messages // (3 * kills * TICKS_A_KILL))

    @every(seconds=TICK)
    async def send(self, ctx: Context) -> None:
        first = self.progress.sent
        batch = [Entry(number) for number in range(first, min(first + self.batch, self.messages))]
        await ctx.tell_many(Anycast(JOURNAL), batch, durable=True)
        self.progress.sent += len(batch)


@frozen
class Plan:
    """What is to happen.

    Attributes:
        messages: How many durable tells.
        kills: How often each of the three is killed.
        seed: Of the moments.
        folder: Where the stores are made.
    """

    messages: int
    kills: int
    seed: int
    folder: Path


@define
class Handled:
    """What has happened.

    Attributes:
        entries: The receiver's journal.
        deaths: How often each process was killed.
        messages: How many were sent.
        seconds: How long it took.
    """

    messages: int
    entries: list[int]
    deaths: Counter[str]
    seconds: float

    @property
    def missing(self) -> list[int]:
        """Those that were never handled."""
        return sorted(set(range(self.messages)) - set(self.entries))

    @property
    def repeated(self) -> list[int]:
        """Those that were handled more than once."""
        return sorted(number for number, times in Counter(self.entries).items() if times > 1)


class Cast:
    """The three processes, each started again when it was killed."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.endpoint = f"http://127.0.0.1:{probe.getsockname()[1]}"
        self._processes: dict[str, asyncio.subprocess.Process] = {}
        self.deaths: Counter[str] = Counter()
        self.revived: Counter[str] = Counter()

    async def start(self, role: str) -> None:
        """Start one; a node is waited for, because the others cannot be started without."""
        words = {
            "node": ["slim_actors", "node", "--endpoint", self.endpoint],
            "receiver": ["faults.durable", "--role", "receiver"],
            "sender": ["faults.durable", "--role", "sender"],
        }[role]
        self._processes[role] = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            *words,
            *([] if role == "node" else self._words(role)),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            env={**os.environ, "SLIM_SHARED_SECRET": SECRET},
        )
        while role == "node" and not await Endpoint.parse(self.endpoint).listening():
            # Another process: there is nothing here that could be waited for.
            await asyncio.sleep(0.02)
            await self.revive()

    def _words(self, role: str) -> list[str]:
        store = str(self._plan.folder / f"{role}.db")
        size = ["--messages", str(self._plan.messages), "--kills", str(self._plan.kills)]
        return ["--endpoint", self.endpoint, "--store", store, *size]

    async def kill(self, role: str, number: int = signal.SIGKILL) -> None:
        """Kill one and wait until it is gone."""
        process = self._processes.pop(role)
        if process.returncode is None:
            process.send_signal(number)
        await process.wait()

    async def revive(self) -> None:
        """Start what has ended by itself, because it found no node."""
        for role, process in list(self._processes.items()):
            if process.returncode is not None:
                self.revived[role] += 1
                await self.start(role)

    async def murder(self, role: str) -> None:
        """Kill one for the count, and start it again."""
        await self.kill(role)
        self.deaths[role] += 1
        await self.start(role)

    async def end(self) -> None:
        """Kill all that is left."""
        for role in list(self._processes):
            await self.kill(role, signal.SIGKILL)


async def play(stage: Stage, *, messages: int, kills: int) -> Result:
    """Each is handled exactly once, with sender, receiver and node killed at random."""
    plan = Plan(messages, kills, stage.seed, stage.folder)
    handled = await run(plan, stage.show)
    result = Result(Tally(messages, answered=messages - len(handled.missing)))
    result.facts.append(", ".join(f"{role} killed {deaths} times" for role, deaths in handled.deaths.items()))
    result.expect(not handled.missing, f"{len(handled.missing)} were never handled: {handled.missing[:20]}")
    result.expect(
        not handled.repeated, f"{len(handled.repeated)} were handled twice: {handled.repeated[:20]}"
    )
    result.expect_one_outcome_each()
    return result


async def run(plan: Plan, show: Callable[[float], None] = lambda _: None) -> Handled:
    """Send the messages, kill everybody as often as planned, and read the journal when it is quiet."""
    chance = random.Random(plan.seed)  # noqa: S311 (a plan that can be repeated)
    began = time.monotonic()
    cast = Cast(plan)
    victims = ["sender", "receiver", "node"] * plan.kills
    chance.shuffle(victims)
    try:
        for role in ("node", "receiver", "sender"):
            await cast.start(role)
        for number, victim in enumerate(victims):
            show(0.9 * number / len(victims))
            await _for_a_while(cast, chance.uniform(*BETWEEN))
            await cast.murder(victim)
        entries: list[int] = []
        quiet = 0
        while quiet < 2:  # noqa: PLR2004 (the same twice: nothing comes any more)
            await _for_a_while(cast, 1.0)
            found = await _journal(cast)
            complete = len(set(found)) >= plan.messages
            quiet = quiet + 1 if complete and found == entries else 0
            entries = found
            if time.monotonic() - began > 60 + plan.messages * 0.05:
                break
    finally:
        await cast.end()
    return Handled(plan.messages, entries, cast.deaths, time.monotonic() - began)


async def _for_a_while(cast: Cast, seconds: float) -> None:
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        await cast.revive()
        await asyncio.sleep(0.05)


async def _journal(cast: Cast) -> list[int]:
    try:
        async with Runtime(cast.endpoint, identity=SharedSecret(SECRET)) as reader:
            return await reader.ask(Anycast(JOURNAL), Read(), timeout=5)
    except (DeliveryError, NodeUnreachable):
        return []


async def _play(agent: Callable[[], Agent], endpoint: str, store: str) -> None:
    async with Runtime(endpoint, store=store) as runtime:
        await runtime.spawn(agent)
        await asyncio.Event().wait()


def main() -> None:
    """Be one of the processes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--messages", type=int)
    parser.add_argument("--kills", type=int)
    parser.add_argument("--role", choices=["sender", "receiver"], required=True)
    parser.add_argument("--endpoint")
    parser.add_argument("--store")
    options = parser.parse_args()
    agent = Journal if options.role == "receiver" else partial(Sender, options.messages, options.kills)
    asyncio.run(_play(agent, options.endpoint, options.store))


if __name__ == "__main__":
    main()
