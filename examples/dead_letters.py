"""A tell that fails after it was accepted has nobody to tell: it becomes a dead letter, with its cause."""

import asyncio
import logging

from attrs import frozen

from slim_actors import Agent, Anycast, DeadLetter, Middleware, Runtime, handler

# Each dead letter is logged too; here they are printed.
logging.getLogger("slim_actors").setLevel(logging.CRITICAL)


@frozen
class Mail:
    to: str


class Postman(Agent, name="demo/ns/postman"):
    @handler
    async def mail(self, message: Mail) -> None:
        if message.to == "nobody":
            raise LookupError("no such address")


class Watch(Middleware):
    def dead_letter(self, letter: DeadLetter) -> None:
        print("hook:", letter.message)


async def main() -> None:
    async with Runtime(embed_node=True, middleware=[Watch()]) as runtime:
        await runtime.spawn(Postman)
        await runtime.tell(Anycast("demo/ns/postman"), Mail("Ada"))
        await runtime.tell(Anycast("demo/ns/postman"), Mail("nobody"))
    # Leaving the runtime has finished what was accepted.
    for letter in runtime.dead_letters:
        print(letter.message, "to", letter.recipient.name, "died of", letter.cause)


if __name__ == "__main__":
    asyncio.run(main())
