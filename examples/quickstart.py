"""Declare an agent, run it, ask it: all in one process, on a real SLIM node."""

import asyncio

from attrs import frozen

from slim_actors import Agent, Anycast, Request, Runtime, handler


@frozen
class Say(Request[str]):
    text: str


class Shout(Agent, name="demo/ns/shout"):
    @handler
    async def say(self, message: Say) -> str:
        return message.text.upper() + "!"


async def main() -> None:
    async with Runtime(embed_node=True) as runtime:
        await runtime.spawn(Shout)
        print(await runtime.ask(Anycast("demo/ns/shout"), Say("hello")))


if __name__ == "__main__":
    asyncio.run(main())
