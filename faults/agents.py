"""The agents that the scenarios run."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from attrs import define, frozen

from slim_actors import Agent, Context, Request, Restart, State, StoreError, handler

__all__ = ["COUNTER", "ECHO", "ONCE", "Add", "Census", "Counting", "Echo", "Leak", "Once", "Work"]

ECHO = "faults/ns/echo"
ONCE = "faults/ns/once"
COUNTER = "faults/ns/counter"


@frozen
class Work(Request[list[int]]):
    """Answered with the number, and the process that did it."""

    number: int
    seconds: float = 0.0


@frozen
class Leak(Request[int]):
    megabytes: int


@frozen
class Census(Request[list[int]]):
    """Answered with the process and the number of its asyncio tasks."""


class Echo(Agent, name=ECHO):
    leaked: list[bytearray] = []  # noqa: RUF012 (what leaks is nobody's)

    @handler(idempotent=True)
    async def work(self, message: Work) -> list[int]:
        await asyncio.sleep(message.seconds)
        return [message.number, os.getpid()]

    @handler(idempotent=True)
    async def leak(self, message: Leak) -> int:
        self.leaked.append(bytearray(os.urandom(1024)) * 1024 * message.megabytes)
        return os.getpid()

    @handler(idempotent=True)
    async def census(self, message: Census) -> list[int]:
        return [os.getpid(), len(asyncio.all_tasks())]


class Once(Agent, name=ONCE):
    """Not idempotent: it writes down for which message it ran, before it does anything else."""

    def __init__(self, folder: Path) -> None:
        # Appended whole, and there as soon as it is written, whoever is killed next.
        self.journal = os.open(folder / f"{os.getpid()}", os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    @handler
    async def work(self, message: Work, ctx: Context) -> list[int]:
        os.write(self.journal, f"{message.number} {ctx.message_id}\n".encode())
        await asyncio.sleep(message.seconds)
        return [message.number, os.getpid()]


@define
class Sum:
    total: int = 0
    ballast: bytes = b""


@frozen
class Add(Request[int]):
    """Answered with the new total."""

    amount: int
    ballast: bytes = b""


class Counting(Agent, name=COUNTER):
    """Keeps a total; what it cannot keep restarts it, as its policy says."""

    restart = Restart("transient", on={StoreError: "restart"})
    total = State(Sum)

    async def started(self, ctx: Context) -> None:
        ctx.logger.warning("begins with a total of %d", self.total.total)

    @handler
    async def add(self, message: Add) -> int:
        self.total.total += message.amount
        self.total.ballast += message.ballast
        return self.total.total
