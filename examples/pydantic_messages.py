"""Pydantic models are messages too, with their own validation (pip install slim-actors[pydantic])."""

import asyncio

from pydantic import BaseModel, Field

from slim_actors import Agent, Anycast, MalformedMessage, Runtime, handler


class Payment(BaseModel):
    amount: int = Field(gt=0)
    currency: str = "EUR"


class Bank(Agent, name="demo/ns/bank"):
    @handler
    async def pay(self, message: Payment) -> str:
        return f"paid {message.amount} {message.currency}"


async def main() -> None:
    bank = Anycast("demo/ns/bank")
    async with Runtime(embed_node=True) as runtime:
        await runtime.spawn(Bank)
        print(await runtime.ask(bank, Payment(amount=12)))
        try:
            await runtime.ask(bank, Payment.model_construct(amount=-1))
        except MalformedMessage as error:
            print(error)


if __name__ == "__main__":
    asyncio.run(main())
