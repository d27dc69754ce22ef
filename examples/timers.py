"""Timers: @every calls a method again and again, ctx.after sends a message to oneself later."""

import asyncio

from attrs import frozen

from slim_actors import Agent, Context, Runtime, every, handler


@frozen
class Launch:
    rocket: str


class Countdown(Agent, name="demo/ns/countdown"):
    def __init__(self) -> None:
        self.left = 3
        self.launched = asyncio.Event()

    @every(seconds=0.1)
    async def tick(self, ctx: Context) -> None:
        if self.left:
            print(self.left)
            self.left -= 1
            if self.left == 0:
                ctx.after(0.1, Launch("Saturn V"))

    @handler
    async def launch(self, message: Launch) -> None:
        print(f"{message.rocket} is up")
        self.launched.set()


async def main() -> None:
    countdown = Countdown()
    async with Runtime(embed_node=True) as runtime:
        await runtime.spawn(lambda: countdown)
        await countdown.launched.wait()


if __name__ == "__main__":
    asyncio.run(main())
