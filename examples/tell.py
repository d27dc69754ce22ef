"""A tell has no reply: it is done when the agent's mailbox has accepted it. tell_many sends batches."""

import asyncio

from attrs import frozen

from slim_actors import Agent, Request, Runtime, Unicast, handler


@frozen
class Line:
    text: str


@frozen
class Count(Request[int]):
    pass


class Log(Agent, name="demo/ns/log"):
    def __init__(self) -> None:
        self.lines: list[str] = []

    @handler
    async def line(self, message: Line) -> None:
        self.lines.append(message.text)

    @handler
    async def count(self, message: Count) -> int:
        return len(self.lines)


async def main() -> None:
    log = Unicast("demo/ns/log")
    async with Runtime(embed_node=True) as runtime:
        await runtime.spawn(Log)
        await runtime.tell(log, Line("started"))
        print(await runtime.ask(log, Count()), "line")
        await runtime.tell_many(log, [Line(f"step {number}") for number in range(500)])
        print(await runtime.ask(log, Count()), "lines")


if __name__ == "__main__":
    asyncio.run(main())
