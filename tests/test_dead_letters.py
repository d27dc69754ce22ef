"""Dead letters: how much is kept of what ended without anybody to tell."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import pytest

from slim_actors import Anycast, Middleware, Runtime, Sending, deadletters
from tests.agents_for_tests import Fail, Say, Worker
from tests.conftest import World, eventually

WORKER = Anycast("test/ns/worker")


async def until_dead(runtime: Runtime, number: int) -> None:
    await eventually(lambda: runtime.dead_letters.total == number)


class AddContext(Middleware):
    """Sends a lot along, as any peer may."""

    def sending(self, sending: Sending) -> AbstractContextManager[object]:
        sending.context["load"] = "x" * 4000
        return nullcontext()


@pytest.mark.parametrize("how", ["each by itself", "beside small ones", "in what travels along"])
async def test_dead_letters_have_no_more_bytes_than_a_mailbox(
    world: World, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deadletters, "_MOST_BYTES", 10_000)
    host = await world.runtime()
    await host.spawn(Worker)
    sender = await world.runtime(middleware=[AddContext()] if how == "in what travels along" else [])
    for number in range(5):
        load = str(number) if how == "in what travels along" else f"{number}" + "x" * 4000
        if how == "beside small ones":
            # Of which none fails: only the large one is kept.
            await sender.tell_many(WORKER, [Fail(load), *[Say("small")] * 50])
        else:
            await sender.tell(WORKER, Fail(load))
        await until_dead(host, number + 1)
    assert [letter.message.text[0] for letter in host.dead_letters] == ["3", "4"]
    await sender.tell(WORKER, Fail("5" + "x" * 20_000))
    await until_dead(host, 6)
    assert [letter.message.text[0] for letter in host.dead_letters] == ["5"]
