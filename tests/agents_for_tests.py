"""Agents that several tests run, in this process or with ``slim-actors run``."""

from __future__ import annotations

import asyncio
from typing import Any

from attrs import frozen

from slim_actors import Agent, Anycast, Context, Mailbox, Request, Unicast, handler


@frozen
class Say(Request[str]):
    text: str


@frozen
class Fail(Request[str]):
    text: str


@frozen
class Wait(Request[str]):
    """Wait for the gate."""

    name: str


@frozen
class Relay(Request[str]):
    to: str
    text: str


@frozen
class WhoAmI(Request[str]):
    pass


@frozen
class Note:
    text: str


class Gate:
    """Lets tests hold handlers and see what they do."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.began: list[str] = []
        self.ended: list[str] = []
        self.cancelled: list[str] = []


class Worker(Agent, name="test/ns/worker"):
    """Does a bit of everything."""

    mailbox = Mailbox(capacity=4)

    def __init__(self, gate: Gate | None = None) -> None:
        self.gate = gate or Gate()
        self.notes: list[str] = []
        self.hooks: list[str] = []

    async def started(self, ctx: Context) -> None:
        self.hooks.append(f"started {ctx.me.name}")

    async def stopped(self, ctx: Context) -> None:
        self.hooks.append(f"stopped {ctx.me.name}")

    @handler
    async def say(self, message: Say, ctx: Context) -> str:
        return message.text

    @handler
    async def fail(self, message: Fail) -> str:
        raise ValueError(message.text)

    @handler
    async def wait(self, message: Wait) -> str:
        self.gate.began.append(message.name)
        try:
            await self.gate.open.wait()
        except asyncio.CancelledError:
            self.gate.cancelled.append(message.name)
            raise
        self.gate.ended.append(message.name)
        return message.name

    @handler
    async def relay(self, message: Relay, ctx: Context) -> str:
        return await ctx.ask(Anycast(message.to), Say(message.text))

    @handler
    async def who(self, message: WhoAmI, ctx: Context) -> str:
        return str(ctx.sender)

    @handler
    async def back(self, message: int, ctx: Context) -> int:
        # Answers by asking the asker itself: ctx.sender can be pinned.
        return await ctx.ask(Unicast(ctx.sender.name, instance=ctx.sender.instance), message + 1)  # type: ignore[no-any-return]

    @handler
    async def note(self, message: Note) -> None:
        self.notes.append(message.text)

    @handler
    async def bad_reply(self, message: float) -> Any:
        return object()


class Echo(Agent, name="test/ns/echo"):
    @handler(idempotent=True)
    async def receive(self, message: Any) -> Any:
        return message


class Once(Agent, name="test/ns/once"):
    """An echo that is not idempotent."""

    async def receive(self, message: Any) -> Any:
        return message


class Breaking(Agent, name="test/ns/breaking"):
    async def receive(self, message: Any) -> Any:
        raise RuntimeError(f"no {message} today")
