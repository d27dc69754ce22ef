"""Agents that keep a state, and a program that sends durable tells; also run as processes of their own."""

from __future__ import annotations

import asyncio
import sys

from attrs import Factory, define, frozen

from slim_actors import Agent, Anycast, Context, Forward, Request, Runtime, State, handler

LEDGER = "test/ns/ledger"


@define
class Book:
    """What was entered, in order."""

    entries: list[int] = Factory(list)
    total: int = 0


@frozen
class Enter:
    number: int


@frozen
class Add(Request[int]):
    amount: int


@frozen
class Spoil(Request[int]):
    """Change the state, then fail."""


@frozen
class Read(Request[list[int]]):
    pass


@frozen
class Pass:
    """To be entered at another ledger, once it was noted here."""

    to: str
    number: int
    fail: bool = False


@frozen
class Hand:
    """To be entered by another ledger instead."""

    to: str
    number: int


class Ledger(Agent, name=LEDGER):
    book = State(Book)

    @handler
    async def enter(self, message: Enter) -> None:
        self.book.entries.append(message.number)

    @handler
    async def add(self, message: Add) -> int:
        self.book.total += message.amount
        return self.book.total

    @handler
    async def spoil(self, message: Spoil) -> int:
        self.book.total += 1000
        raise ValueError("spoilt")

    @handler
    async def read(self, message: Read) -> list[int]:
        return self.book.entries

    @handler
    async def pass_on(self, message: Pass, ctx: Context) -> None:
        self.book.entries.append(message.number)
        await ctx.tell(Anycast(message.to), Enter(message.number), durable=True)
        if message.fail:
            raise ValueError("not passed on")

    @handler
    async def hand_on(self, message: Hand) -> Forward:
        return Forward(Anycast(message.to), Enter(message.number))


async def send(endpoint: str, store: str, first: int, count: int) -> None:
    """Send durable tells, and say after each that it is kept."""
    async with Runtime(endpoint, store=store) as runtime:
        for number in range(first, first + count):
            await runtime.tell(Anycast(LEDGER), Enter(number), durable=True)
            print("kept", number, flush=True)
        await runtime.stop(drain=60)
    print("done", flush=True)


if __name__ == "__main__":
    asyncio.run(send(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
