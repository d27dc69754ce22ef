"""Messages are attrs classes, dataclasses or msgspec Structs; what does not fit its type is refused."""

import asyncio
from dataclasses import dataclass
from datetime import date

from attrs import frozen
from msgspec import Struct

from slim_actors import Agent, Anycast, MalformedMessage, Request, Runtime, handler


@frozen
class Line:
    item: str
    count: int = 1


@frozen
class Receipt:
    total: int
    due: date | None


@frozen
class Order(Request[Receipt]):
    lines: list[Line]
    due: date | None = None


@dataclass
class Greeting(Request[str]):
    name: str


class Ping(Struct):
    number: int


class Shop(Agent, name="demo/ns/shop"):
    @handler
    async def order(self, message: Order) -> Receipt:
        return Receipt(sum(line.count for line in message.lines), message.due)

    @handler
    async def greet(self, message: Greeting) -> str:
        return f"Hello, {message.name}"

    @handler
    async def ping(self, message: Ping) -> int:
        return message.number


async def main() -> None:
    shop = Anycast("demo/ns/shop")
    async with Runtime(embed_node=True) as runtime:
        await runtime.spawn(Shop)
        print(await runtime.ask(shop, Order([Line("tea"), Line("cup", 2)], due=date(2026, 12, 24))))
        print(await runtime.ask(shop, Greeting("Ada")))
        print(await runtime.ask(shop, Ping(7)))
        try:
            await runtime.ask(shop, Order([Line("tea", "many")]))  # type: ignore[arg-type]
        except MalformedMessage as error:
            print(error)


if __name__ == "__main__":
    asyncio.run(main())
