"""Who may call: rules for an agent and for one of its handlers, held against the verified sender."""

import asyncio
import logging

from attrs import frozen

from slim_actors import Address, Agent, Anycast, Context, Denied, Request, Runtime, handler

# The runtime logs denied calls; that would be noise here.
logging.getLogger("slim_actors").setLevel(logging.CRITICAL)

BANK = Anycast("acme/ns/bank")


@frozen
class Balance(Request[str]):
    pass


@frozen
class Transfer(Request[str]):
    amount: int


def in_accounting(sender: Address) -> bool:
    return sender.subject.startswith("acme/accounting/")


class Bank(Agent, name="acme/ns/bank"):
    allow = "acme/*"

    @handler
    async def balance(self, message: Balance, ctx: Context) -> str:
        return f"{ctx.sender.subject} may see that 100 are left"

    @handler(allow=in_accounting)
    async def transfer(self, message: Transfer) -> str:
        return f"{message.amount} are on their way"


async def main() -> None:
    async with Runtime(embed_node=True) as bank:
        await bank.spawn(Bank)
        for name in ("acme/accounting/alice", "acme/sales/bob", "evil/ns/mallory"):
            async with Runtime(bank.endpoint, name=name) as caller:
                for message in (Balance(), Transfer(7)):
                    try:
                        print(await caller.ask(BANK, message))
                    except Denied as error:
                        print(error)


if __name__ == "__main__":
    asyncio.run(main())
