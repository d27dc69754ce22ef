"""A caller that does not read what comes back: it waits for itself, and nobody else does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from slim_actors import Agent, Expired, Mailbox, Ref, Runtime, Stopped, handler
from slim_actors.testing import TestRuntime
from slim_actors.transport.memory import MemorySession
from tests.conftest import eventually

NAME = "t/t/shop"
SLOW = "slow/ns/caller"
MANY = 40
"""Large replies; a link takes sixteen or so before its caller has read any."""


class Shop(Agent, name=NAME):
    def __init__(self) -> None:
        self.made: list[int] = []

    @handler
    async def large(self, message: int) -> bytes:
        self.made.append(message)
        return bytes([message]) * 2**20

    @handler
    async def small(self, message: str) -> str:
        return message


class Scene:
    """An agent, a caller that asks it for large replies and reads none of them, and another one."""

    def __init__(self, runtime: Runtime, slow: Runtime, line: asyncio.Event) -> None:
        self.runtime = runtime
        self.slow = slow
        self.line = line
        """Set when the slow caller reads."""
        self.asks: list[asyncio.Task[bytes]] = []

    async def fill_the_line(self, mailbox: Mailbox, timeout: float = 1e6) -> tuple[Shop, Ref]:
        """Ask until no more is made."""
        shop = Shop()
        shop.mailbox = mailbox  # type: ignore[misc]
        ref = await self.runtime.spawn(lambda: shop)
        asks = [self.slow.ask(ref.route, number, timeout=timeout + number) for number in range(MANY)]
        self.asks = [asyncio.create_task(ask) for ask in asks]
        await asyncio.sleep(1)
        assert 16 <= len(shop.made) < 20
        return shop, ref


@pytest.fixture
async def scene(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Scene]:
    send = MemorySession.send

    line = asyncio.Event()

    async def wait_and_send(self: MemorySession, data: bytes, payload_type: str | None) -> None:
        if self.peer.name == SLOW and len(data) > 1000:
            await line.wait()
        await send(self, data, payload_type)

    monkeypatch.setattr(MemorySession, "send", wait_and_send)
    async with TestRuntime() as runtime, TestRuntime(network=runtime.network, name=SLOW) as slow:
        scene = Scene(runtime, slow, line)
        yield scene
        scene.line.set()
        for ask in scene.asks:
            ask.cancel()
        await asyncio.wait(scene.asks)


@pytest.mark.parametrize(
    "mailbox",
    [
        Mailbox(),
        Mailbox(capacity=2),
        Mailbox(capacity=MANY, overflow="busy"),
        Mailbox(capacity=MANY, overflow="drop_oldest"),
    ],
)
async def test_a_caller_that_does_not_read_its_replies_keeps_no_other_waiting(
    scene: Scene, mailbox: Mailbox
) -> None:
    shop, ref = await scene.fill_the_line(mailbox)
    made = list(shop.made)
    for number in range(10):
        asks = [scene.runtime.ask(ref.route, f"{number} {one}", timeout=1) for one in range(1 + number % 2)]
        assert await asyncio.gather(*asks) == [f"{number} {one}" for one in range(1 + number % 2)]
    await scene.runtime.tell(ref.route, "told", timeout=1)
    assert shop.made == made


@pytest.mark.parametrize("mailbox", [Mailbox(), Mailbox(capacity=2)])
async def test_what_a_slow_reader_asked_is_handled_in_its_order_once_it_reads(
    scene: Scene, mailbox: Mailbox
) -> None:
    shop, ref = await scene.fill_the_line(mailbox)
    last = asyncio.create_task(scene.slow.ask(ref.route, "last", timeout=1e6))
    await asyncio.sleep(1)
    scene.line.set()
    assert [reply[0] for reply in await asyncio.gather(*scene.asks)] == list(range(MANY))
    assert shop.made == list(range(MANY))
    assert await last == "last"
    assert ref.depth == 0


async def test_what_waits_for_a_slow_reader_expires_can_be_cancelled_and_is_handed_back(scene: Scene) -> None:
    shop, ref = await scene.fill_the_line(Mailbox(), timeout=10)
    first, second, third = scene.asks[len(shop.made)], scene.asks[len(shop.made) + 1], scene.asks[-1]
    second.cancel()
    await eventually(second.cancelled)
    await eventually(lambda: ref.stats.cancelled == 1)
    await asyncio.sleep(10 + len(shop.made))
    with pytest.raises(Expired):
        await first
    stopping = asyncio.create_task(ref.stop(drain=1))
    await asyncio.sleep(2)
    scene.line.set()
    await stopping
    with pytest.raises(Stopped):
        await third
    assert len(shop.made) < 20


async def test_what_waits_for_a_reader_that_never_reads_expires_at_its_deadline(scene: Scene) -> None:
    """Also where its caller is no longer there to cancel it."""
    shop, ref = await scene.fill_the_line(Mailbox(), timeout=10)
    waiting = ref.depth
    assert waiting == MANY - len(shop.made)

    async def nothing(self: MemorySession, data: bytes, payload_type: str | None) -> None: ...

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MemorySession, "send", nothing)
        await asyncio.sleep(10 + MANY + 1)
        assert ref.stats.expired == waiting
        assert ref.depth == 0
