"""A hostile peer, written with bare slim-bindings, against an agent: who is hurt?

python -m benchmarks.hostile [--sessions 10000] [--seconds 10] [--only streams]

A node, an agent, a hostile peer and a well-behaved one, each in a process of its own. Prints, for each
attack, the agent's memory before and after it, and how the well-behaved peer fared meanwhile. Ends with exit
code 1 if an ask of the well-behaved peer failed, or the agent's memory grew by more than it may.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from datetime import timedelta
from time import perf_counter
from typing import Annotated, Any

import msgspec
import typer
from attrs import define, frozen
from rich.console import Console
from rich.table import Table

from benchmarks.overload import command
from benchmarks.systems.base import free_endpoint, resident
from slim_actors import Agent, Anycast, DeliveryError, Request, Runtime, StreamRequest, handler, wire
from slim_actors.secret import local_secret
from slim_actors.transport.bindings import new_service, slim

NAME = "bench/ns/fortress"
ROUTE = Anycast(NAME)
PATIENCE = 10.0
MOST_GROWTH = 300.0
"""MiB that one attack may cost the agent: a few payloads of 4 MiB, what may wait, and SLIM's own sessions."""
HUGE = 2**63 - 1
SESSIONS_AT_ONCE = 50

console = Console(width=110, highlight=False)


@frozen
class Say(Request[str]):
    text: str


@frozen
class Load(Request[bytes]):
    """Asks for a lot of bytes."""

    size: int


@frozen
class Ticks(StreamRequest[int]):
    """Asks for numbers without end."""


class Fortress(Agent, name=NAME):
    concurrency = 4

    @handler
    async def say(self, message: Say) -> str:
        return message.text

    @handler
    async def load(self, message: Load) -> bytes:
        return bytes(min(message.size, 1_000_000))

    @handler
    async def ticks(self, message: Ticks) -> AsyncIterator[int]:
        number = 0
        while True:
            yield number
            number += 1


class Hostile:
    """Does what no well-behaved peer does."""

    def __init__(self, app: slim.App, sessions: int, seconds: float) -> None:
        self._app = app
        self._sessions = sessions
        self._ends = perf_counter() + seconds
        self._kept: list[Any] = []

    @property
    def _going_on(self) -> bool:
        return perf_counter() < self._ends

    async def sessions(self) -> None:
        """Open sessions, and say nothing in them."""

        async def some() -> None:
            for _ in range(self._sessions // SESSIONS_AT_ONCE):
                await self._open()

        await asyncio.gather(*(some() for _ in range(SESSIONS_AT_ONCE)))

    async def claims(self) -> None:
        """Claim a gibibyte of everything, and numbers as large as they go."""
        session = await self._open()
        gibibyte = (2**30).to_bytes(4, "big")
        lengths = [bytes([head]) + gibibyte for head in (0xDD, 0xDF, 0xDB, 0xC6)]
        crowd: list[Any] = [{}] * 4_000_000
        large = [
            *lengths,
            *(b"\x91\x95\x01\x01\xa3str" + length for length in lengths),
            msgspec.msgpack.encode([[1, 1, "list", crowd, 5.0, None]]),
            msgspec.msgpack.encode([[1, 2, "str", "x", 5.0, {"crowd": crowd}]]),
            msgspec.msgpack.encode([[10, HUGE, "hostile.Ticks", {}, 1e300, None, False, HUGE]]),
            msgspec.msgpack.encode([[tag, HUGE, HUGE] for tag in (6, 11, 12, 13)]),
            b"\x91" * 4_000_000,
            b"\xdc\xff\xff" + b"\x91\x08" * 65535,
        ]
        while self._going_on:
            for payload in large:
                await session.publish_async(payload, wire.PAYLOAD_TYPE, None)
            await self._pause()

    async def garbage(self) -> None:
        """Send whatever, as fast as it goes."""
        session, chance = await self._open(), random.Random(4)  # noqa: S311 (reproducible, not secret)
        while self._going_on:
            for payload_type in (wire.PAYLOAD_TYPE, None, "slim-actors/7"):
                await session.publish_async(chance.randbytes(chance.randrange(5000)), payload_type, None)

    async def slow_reads(self) -> None:
        """Ask for megabytes again and again, and read nothing."""
        session = await self._open()
        for number in range(1, 10**6):
            frames = [self._ask(1, 100 * number + each, "Load", {"size": 10**6}) for each in range(10)]
            await self._publish(session, frames)
            await self._pause()
            if not self._going_on:
                return

    async def large_messages(self) -> None:
        """Send megabytes and never wait for an outcome."""
        session, text = await self._open(), "x" * 3_000_000
        number = 0
        while self._going_on:
            number += 1
            await self._publish(session, [self._ask(1, number, "Say", {"text": text})])

    async def streams(self) -> None:
        """Begin streams without end, and grant them nothing."""
        tail = (None, False, 0)
        session = await self._open()
        await self._publish(session, [self._ask(10, number, "Ticks", {}, *tail) for number in range(1, 4000)])
        await asyncio.sleep(self._ends - perf_counter())

    @staticmethod
    def _ask(tag: int, number: int, name: str, body: Any, *more: Any) -> bytes:
        return msgspec.msgpack.encode([tag, number, f"hostile.{name}", body, 30.0, *more])

    @staticmethod
    async def _publish(session: slim.Session, frames: list[bytes]) -> None:
        await session.publish_async(wire.join(frames), wire.PAYLOAD_TYPE, None)

    @staticmethod
    async def _pause() -> None:
        await asyncio.sleep(0.01)

    async def _open(self) -> slim.Session:
        config = slim.SessionConfig(
            session_type=slim.SessionType.POINT_TO_POINT,
            max_retries=5,
            interval=timedelta(seconds=1),
            metadata={"slim-actors": "1"},
            mls_settings=None,
        )
        session = await self._app.create_session_and_wait_async(config, slim.Name(*NAME.split("/")))
        self._kept.append(session)
        return session


ATTACKS: dict[str, Callable[[Hostile], Awaitable[None]]] = {
    "sessions": Hostile.sessions,
    "claims": Hostile.claims,
    "garbage": Hostile.garbage,
    "slow reads": Hostile.slow_reads,
    "large messages": Hostile.large_messages,
    "streams": Hostile.streams,
}


async def attack(name: str, endpoint: str, sessions: int, seconds: float) -> None:
    """Be the hostile peer, for one attack."""
    service = new_service()
    connection = await service.connect_async(slim.new_insecure_client_config(endpoint))
    app = service.create_app_with_secret(slim.Name("evil", "ns", "mallory"), local_secret())
    await app.subscribe_async(app.name(), connection)
    try:
        await ATTACKS[name](Hostile(app, sessions, seconds))
    except slim.SlimError as error:
        console.print(f"{name}: the hostile peer was stopped: {error}")
    # Without a word, as the hostile do.
    os._exit(0)


@define
class Fared:
    """How the well-behaved peer fared."""

    asked: int = 0
    failed: int = 0
    slowest: float = 0.0
    last_error: str = ""


async def behave(runtime: Runtime, fared: Fared, over: asyncio.Event) -> None:
    """Ask something, and something again, until it is over."""
    while not over.is_set():
        began = perf_counter()
        try:
            await runtime.ask(ROUTE, Say("hello"), timeout=PATIENCE)
        except DeliveryError as error:
            fared.failed += 1
            fared.last_error = f"{type(error).__name__}: {error}"
        fared.asked += 1
        fared.slowest = max(fared.slowest, perf_counter() - began)
        await asyncio.sleep(0.02)


async def measure(sessions: int, seconds: float, attacks: Iterable[str]) -> bool:
    """Run the attacks; give whether only the hostile peer was hurt."""
    endpoint = free_endpoint()
    run = ("run", f"{__file__}:Fortress", "--endpoint", endpoint)
    well = True
    table = Table(title="A hostile peer and an agent")
    for column in (
        "attack",
        "agent before",
        "most",
        "after (MiB)",
        "asks of the good peer",
        "failed",
        "slowest s",
    ):
        table.add_column(column, justify="left" if column == "attack" else "right")
    async with (
        command("node", "--endpoint", endpoint, until="listening at"),
        command(*run, until=r"^joined.*\(pid (\d+)\)") as joined,
        Runtime(endpoint) as runtime,
    ):
        agent = int(joined[1])
        for name in attacks:
            fared, over = Fared(), asyncio.Event()
            before = most = resident(agent)
            good = asyncio.create_task(behave(runtime, fared, over))
            options = ("--attack", name, "--endpoint", endpoint)
            hostile = await asyncio.create_subprocess_exec(
                sys.executable, __file__, *options, "--sessions", str(sessions), "--seconds", str(seconds)
            )
            ended = asyncio.ensure_future(hostile.wait())
            while not ended.done():
                await asyncio.wait([ended], timeout=0.1)
                most = max(most, resident(agent))
            over.set()
            await good
            if ended.result():
                raise SystemExit(f"The attack {name} could not be made.")
            after = resident(agent)
            table.add_row(
                name, *(f"{size:.0f}" for size in (before, most, after)),
                f"{fared.asked}", f"{fared.failed}", f"{fared.slowest:.2f}",
            )  # fmt: skip
            well = well and fared.asked > 0 and not fared.failed and most - before < MOST_GROWTH
            if fared.last_error:
                console.print(f"{name}: {fared.last_error}")
    console.print(table)
    console.print("only the hostile peer was hurt" if well else "somebody else was hurt")
    return well


def main(
    sessions: Annotated[int, typer.Option(min=SESSIONS_AT_ONCE, help="How many sessions it opens.")] = 10_000,
    seconds: Annotated[float, typer.Option(min=1, help="How long each other attack lasts.")] = 10,
    only: Annotated[list[str] | None, typer.Option(help="One of the attacks; all by default.")] = None,
    attack_name: Annotated[str, typer.Option("--attack", hidden=True)] = "",
    endpoint: Annotated[str, typer.Option(hidden=True)] = "",
) -> None:
    """Let a hostile peer loose on an agent."""
    if attack_name:
        asyncio.run(attack(attack_name, endpoint, sessions, seconds))
    raise typer.Exit(0 if asyncio.run(measure(sessions, seconds, only or ATTACKS)) else 1)


if __name__ == "__main__":
    typer.run(main)
