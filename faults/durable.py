"""Durable tells while sender, receiver and node are each killed with -9 at random moments.

The receiver's journal is the state of an agent: what a handler changes there counts exactly once.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial

from attrs import Factory, define, frozen

from faults.replicas import Replicas
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
    State,
    every,
    handler,
)

__all__ = ["Handled", "play", "run"]

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


async def play(stage: Stage, *, messages: int, kills: int) -> Result:
    """Each is handled exactly once, with sender, receiver and node killed at random."""
    handled = await run(stage, messages, kills)
    result = Result(Tally(messages, answered=messages - len(handled.missing)))
    result.facts.append(", ".join(f"{role} killed {deaths} times" for role, deaths in handled.deaths.items()))
    result.expect(not handled.missing, f"{len(handled.missing)} were never handled: {handled.missing[:20]}")
    result.expect(
        not handled.repeated, f"{len(handled.repeated)} were handled twice: {handled.repeated[:20]}"
    )
    result.expect_one_outcome_each()
    return result


async def run(stage: Stage, messages: int, kills: int) -> Handled:
    """Send the messages, kill everybody so many times, and read the journal when it is quiet."""
    began = time.monotonic()
    receiver = await stage.replicas(Journal, 1, store="receiver.db")
    sender = await stage.replicas(partial(Sender, messages, kills), 1, store="sender.db")
    reader = await stage.runtime()

    async def kill_node() -> None:
        await stage.node.stop(signal.SIGKILL)
        await stage.start_node()

    killing: dict[str, Callable[[], Awaitable[None]]] = {
        "sender": partial(_kill, sender),
        "receiver": partial(_kill, receiver),
        "node": kill_node,
    }
    victims = [*killing] * kills
    stage.chance.shuffle(victims)
    deaths: Counter[str] = Counter()
    for number, victim in enumerate(victims):
        stage.show(0.9 * number / len(victims))
        await asyncio.sleep(stage.chance.uniform(*BETWEEN))
        await killing[victim]()
        deaths[victim] += 1
    entries: list[int] = []
    quiet = 0
    while quiet < 2:  # noqa: PLR2004 (the same twice: nothing comes any more)
        await asyncio.sleep(1.0)
        found = await _journal(reader)
        complete = len(set(found)) >= messages
        quiet = quiet + 1 if complete and found == entries else 0
        entries = found
        if time.monotonic() - began > 60 + messages * 0.05:
            break
    return Handled(messages, entries, deaths, time.monotonic() - began)


async def _kill(replicas: Replicas) -> None:
    # It may not be back yet from the last time.
    await replicas.ready()
    replicas.kill(0)


async def _journal(reader: Runtime) -> list[int]:
    try:
        return await reader.ask(Anycast(JOURNAL), Read(), timeout=5)
    except (DeliveryError, NodeUnreachable):
        return []
