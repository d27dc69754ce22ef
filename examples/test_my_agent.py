"""Test an agent without a node: the fixture test_runtime comes with slim-actors. Run it with pytest."""

import subprocess
import sys

import pytest
from attrs import frozen

from slim_actors import Agent, Anycast, Context, Expired, Request, handler
from slim_actors.testing import TestRuntime

SHOP = Anycast("demo/ns/shop")


@frozen
class Buy(Request[str]):
    item: str


class Shop(Agent, name="demo/ns/shop"):
    @handler
    async def buy(self, message: Buy, ctx: Context) -> str:
        await ctx.tell(Anycast("demo/ns/ledger"), f"sold {message.item}")
        return f"one {message.item}"


@pytest.mark.asyncio
async def test_a_sale_is_written_down(test_runtime: TestRuntime) -> None:
    ledger = await test_runtime.probe("demo/ns/ledger")
    await test_runtime.spawn(Shop)
    assert await test_runtime.ask(SHOP, Buy("tea")) == "one tea"
    assert await ledger.received() == "sold tea"


@pytest.mark.asyncio
async def test_a_lost_message_expires(test_runtime: TestRuntime) -> None:
    await test_runtime.probe("demo/ns/ledger")
    await test_runtime.spawn(Shop)
    assert await test_runtime.ask(SHOP, Buy("tea")) == "one tea"
    test_runtime.network.drop(target="demo/ns/shop")
    with pytest.raises(Expired):
        await test_runtime.ask(SHOP, Buy("tea"), timeout=30)  # the clock is virtual: this takes no time


if __name__ == "__main__":
    sys.exit(subprocess.call([sys.executable, "-m", "pytest", "-q", __file__]))
