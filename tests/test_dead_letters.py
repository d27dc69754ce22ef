"""Dead letters: how much is kept of what ended without anybody to tell."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pytest

from slim_actors import Anycast, Middleware, Runtime, Sending, StoreError, deadletters
from slim_actors.middleware import Hooks
from slim_actors.names import Address
from tests.agents_for_tests import Fail, Say, Worker
from tests.conftest import World, eventually

WORKER = Anycast("test/ns/worker")
ANYBODY = Address("test/ns/anybody")


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


async def test_after_its_runtime_has_ended_durable_ones_cannot_be_taken_and_that_is_said(
    endpoint: str, tmp_path: Path
) -> None:
    async with Runtime(endpoint, store=tmp_path / "store.db") as runtime:
        await runtime.spawn(Worker)
        await runtime.tell(WORKER, Fail("in vain"), durable=True)
        await eventually(lambda: [letter.number for letter in runtime.dead_letters] == [1])
    with pytest.raises(StoreError, match="is closed"):
        await runtime.dead_letters.take()
    assert len(runtime.dead_letters) == 1


class Dying:
    """A store in which a message dies, and is told of, while what died is read."""

    def __init__(self, letters: deadletters.DeadLetters) -> None:
        self.letters = letters

    async def dead(self, after: int) -> list[deadletters.DeadLetter]:
        if after:
            return []
        letter = deadletters.DeadLetter("late", ANYBODY, ANYBODY, StoreError("in vain"), number=1)
        self.letters.add(letter)
        return [letter]

    async def forget(self, numbers: tuple[int, ...]) -> None:
        """Remove nothing."""


async def test_a_durable_one_that_dies_while_others_are_recalled_is_there_once() -> None:
    letters = deadletters.DeadLetters(Hooks([]))
    letters.kept = Dying(letters)
    assert await letters.recall() == 1
    assert [letter.message for letter in letters] == ["late"]
