"""A tree and a watch: a parent starts its children, and is told when one of them has ended."""

import asyncio

from attrs import frozen

from slim_actors import Agent, Anycast, Context, Runtime, Terminated, handler


@frozen
class Retire:
    pass


class Child(Agent, name="demo/ns/child"):
    @handler
    async def retire(self, message: Retire, ctx: Context) -> None:
        ctx.stop()

    async def stopped(self, ctx: Context) -> None:
        print("the child has stopped")


class Parent(Agent, name="demo/ns/parent"):
    def __init__(self) -> None:
        self.told = asyncio.Event()

    async def started(self, ctx: Context) -> None:
        for _ in range(2):
            child = await ctx.spawn(Child)
            # An instance elsewhere is watched in the same way, by its address or a Unicast route.
            await ctx.watch(child)

    @handler
    async def gone(self, message: Terminated) -> None:
        print(message.address.name, "is gone:", message.reason)
        self.told.set()

    async def stopped(self, ctx: Context) -> None:
        print("the parent has stopped")


async def main() -> None:
    parent = Parent()
    async with Runtime(embed_node=True) as runtime:
        await runtime.spawn(lambda: parent)
        await runtime.tell(Anycast("demo/ns/child"), Retire())
        await parent.told.wait()
        # Leaving the runtime stops the parent; the child that is left stops before it.


if __name__ == "__main__":
    asyncio.run(main())
