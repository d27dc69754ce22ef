"""A durable tell is kept in the sender's store until it was handled, whoever is away meanwhile."""

import asyncio
import logging
import tempfile
from pathlib import Path

from attrs import Factory, define, frozen

from slim_actors import Agent, Anycast, Request, Runtime, State, handler

# Each dead letter is logged too; here it is printed.
logging.getLogger("slim_actors").setLevel(logging.CRITICAL)


@frozen
class Deposit:
    amount: int


@frozen
class Balance(Request[int]):
    pass


@define
class Account:
    deposits: list[int] = Factory(list)


class Bank(Agent, name="demo/ns/bank"):
    account = State(Account)

    @handler
    async def deposit(self, message: Deposit) -> None:
        if message.amount <= 0:
            raise ValueError(f"a deposit of {message.amount}")
        # Kept together with the note that this message was handled, so it counts once.
        self.account.deposits.append(message.amount)

    @handler
    async def balance(self, message: Balance) -> int:
        return sum(self.account.deposits)


async def main() -> None:
    bank = Anycast("demo/ns/bank")
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "bank.db"
        async with Runtime(embed_node=True, store=store) as runtime:
            await runtime.tell(bank, Deposit(5), durable=True)
            await runtime.tell_many(bank, [Deposit(7), Deposit(-1)], durable=True)
            print("kept; nobody is there to take them")
            await runtime.stop(drain=0)
        async with Runtime(embed_node=True, store=store) as runtime:
            await runtime.spawn(Bank)
            while await runtime.ask(bank, Balance()) < 12 or not len(runtime.dead_letters):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            print("the balance is", await runtime.ask(bank, Balance()))
            for letter in await runtime.dead_letters.take():
                print(letter.message, "died of", letter.cause)


if __name__ == "__main__":
    asyncio.run(main())
