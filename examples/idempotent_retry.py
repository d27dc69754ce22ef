"""An idempotent handler: when a replica dies over a message, Anycast gives the message to another one."""

import asyncio
import os
import sys
from pathlib import Path

from attrs import frozen

from slim_actors import Agent, Anycast, Request, Runtime, handler

SQUARER = Anycast("demo/ns/squarer")


@frozen
class Square(Request[int]):
    number: int


class Squarer(Agent, name="demo/ns/squarer"):
    @handler(idempotent=True)
    async def square(self, message: Square) -> int:
        return message.number**2


class Fragile(Squarer, name="demo/ns/squarer"):
    @handler(idempotent=True)
    async def square(self, message: Square) -> int:
        os._exit(3)  # the whole process is gone, without a word


async def fragile_replica() -> None:
    async with Runtime() as runtime:
        await runtime.spawn(Fragile)
        print("joined", flush=True)
        await asyncio.Event().wait()


async def main() -> None:
    async with Runtime(embed_node=True, lost_after=1) as runtime:
        command = [sys.executable, str(Path(__file__)), "fragile"]
        replica = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        assert replica.stdout is not None
        await replica.stdout.readline()
        await runtime.spawn(Squarer)
        while replica.returncode is None:
            assert await runtime.ask(SQUARER, Square(7)) == 49
        print(f"every ask was answered; the fragile replica ended with {await replica.wait()}")


if __name__ == "__main__":
    asyncio.run(fragile_replica() if "fragile" in sys.argv else main())
