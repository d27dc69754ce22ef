"""A deadline that passes, or a caller that cancels, stops the handler at its next await."""

import asyncio

from attrs import frozen

from slim_actors import Agent, Anycast, Expired, Request, Runtime, handler


@frozen
class Work(Request[str]):
    name: str


class Worker(Agent, name="demo/ns/worker"):
    def __init__(self) -> None:
        self.events: asyncio.Queue[str] = asyncio.Queue()

    @handler
    async def work(self, message: Work) -> str:
        self.events.put_nowait(f"{message.name} began")
        try:
            await asyncio.sleep(3600)
        finally:
            self.events.put_nowait(f"{message.name} was stopped")
        return "done"


async def main() -> None:
    route = Anycast("demo/ns/worker")
    worker = Worker()
    async with Runtime(embed_node=True) as runtime:
        await runtime.spawn(lambda: worker)
        try:
            await runtime.ask(route, Work("slow"), timeout=0.5)
        except Expired:
            print("expired")
        print(await worker.events.get())
        print(await worker.events.get())

        task = asyncio.create_task(runtime.ask(route, Work("unwanted")))
        print(await worker.events.get())
        task.cancel()
        print(await worker.events.get())


if __name__ == "__main__":
    asyncio.run(main())
