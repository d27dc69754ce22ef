"""What type checkers must see: mypy reads this file with the others; nothing runs it but its import."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, assert_type

from attrs import frozen

from slim_actors import Agent, Anycast, Call, Context, Request, Runtime, StreamRequest, Unicast, handler


@frozen
class Say(Request[str]):
    text: str


@frozen
class Find(Request[list[int] | None]):
    what: str


@frozen
class Words(StreamRequest[str]):
    text: str


@frozen
class Note:
    text: str


async def verbs_give_what_the_message_declares(runtime: Runtime) -> None:
    route = Anycast("a/b/c")
    assert_type(await runtime.ask(route, Say("x")), str)
    assert_type(runtime.ask(route, Say("x")), Call[str])
    assert_type(await runtime.ask(Unicast("a/b/c"), Find("x")), list[int] | None)
    assert_type(await runtime.ask(route, {"untyped": 1}), Any)
    assert_type(await runtime.tell(route, Note("x")), None)
    async for word in runtime.stream(route, Words("a b")):
        assert_type(word, str)
    async for found in runtime.stream(route, Find("a stream of one")):
        assert_type(found, list[int] | None)
    async with runtime.pin("a/b/c") as peer:
        assert_type(await peer.ask(Say("x")), str)
        async for word in peer.stream(Words("a b")):
            assert_type(word, str)


class Good(Agent, name="a/b/c"):
    @handler
    async def say(self, message: Say, ctx: Context) -> str:
        assert_type(await ctx.ask(Anycast("a/b/d"), Find("x")), list[int] | None)
        return message.text

    @handler(idempotent=True)
    async def words(self, message: Words) -> AsyncIterator[str]:
        for word in message.text.split():
            yield word
