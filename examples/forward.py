"""Forward: a front desk passes each question on, and the expert answers the caller directly."""

import asyncio

from attrs import frozen

from slim_actors import Agent, Anycast, Forward, Request, Runtime, handler


@frozen
class Question(Request[str]):
    topic: str
    text: str


class Desk(Agent, name="demo/ns/desk"):
    @handler
    async def question(self, message: Question) -> Forward:
        return Forward(Anycast(f"demo/ns/{message.topic}"), message)


class Maths(Agent, name="demo/ns/maths"):
    @handler
    async def question(self, message: Question) -> str:
        return f"maths says: {message.text} is 4"


class Music(Agent, name="demo/ns/music"):
    @handler
    async def question(self, message: Question) -> str:
        return f"music says: {message.text} is a song"


async def main() -> None:
    desk = Anycast("demo/ns/desk")
    async with Runtime(embed_node=True) as runtime:
        for agent in (Desk, Maths, Music):
            await runtime.spawn(agent)
        print(await runtime.ask(desk, Question("maths", "2 + 2")))
        print(await runtime.ask(desk, Question("music", "Yesterday")))


if __name__ == "__main__":
    asyncio.run(main())
