"""One value for all who want it: made once, given in the order of asking, whoever gives up."""

from __future__ import annotations

import asyncio

import pytest

from slim_actors import Stopped
from slim_actors.shared import Shared
from tests.conftest import eventually


class Maker:
    """Makes a value when it is told to, as often as it is asked."""

    def __init__(self) -> None:
        self.may_end = asyncio.Event()
        self.made = 0
        self.error: Exception | None = None

    async def make(self) -> int:
        self.made += 1
        await self.may_end.wait()
        if self.error is not None:
            raise self.error
        return self.made


async def test_all_have_it_in_the_order_of_asking_also_those_who_come_while_others_are_woken() -> None:
    maker, had = Maker(), list[int]()
    shared = Shared(maker.make)
    later: list[asyncio.Task[None]] = []

    async def want(number: int) -> None:
        await shared.get()
        had.append(number)

    first = [asyncio.create_task(want(number)) for number in range(3)]
    await asyncio.sleep(0)
    maker.may_end.set()
    # One more in each turn of the loop, from before it is made until all have it.
    for number in range(3, 10):
        later.append(asyncio.create_task(want(number)))
        await asyncio.sleep(0)
    await asyncio.gather(*first, *later)
    assert had == list(range(10))
    assert maker.made == 1
    assert shared.at_hand == 1


async def test_who_gives_up_leaves_nothing_behind_and_holds_nobody_up() -> None:
    maker = Maker()
    shared = Shared(maker.make)
    patient = asyncio.create_task(shared.get())
    hasty = [asyncio.create_task(shared.get()) for _ in range(100)]
    await asyncio.sleep(0)
    for task in hasty:
        task.cancel()
    await asyncio.wait(hasty)
    assert len(shared._turns) == 1
    maker.may_end.set()
    assert await patient == 1
    assert not shared.is_wanted


async def test_an_error_is_for_those_who_waited_and_the_next_one_tries_again() -> None:
    maker = Maker()
    shared = Shared(maker.make)
    maker.error = OSError("no")
    maker.may_end.set()
    tries: list[asyncio.Task[int]] = []

    def try_again(_: asyncio.Task[int]) -> None:
        # In the turn of the loop in which the first have their error.
        maker.error = None
        tries.append(asyncio.create_task(shared.get()))

    waiting = [asyncio.create_task(shared.get()) for _ in range(2)]
    waiting[0].add_done_callback(try_again)
    for task in waiting:
        with pytest.raises(OSError, match="no"):
            await task
    await eventually(lambda: bool(tries))
    assert await asyncio.gather(*tries) == [2]


async def test_who_waits_for_what_is_made_no_longer_is_told_so_and_not_cancelled() -> None:
    maker = Maker()
    shared = Shared(maker.make)
    waiting = asyncio.create_task(shared.get())
    await eventually(lambda: maker.made == 1)
    assert await shared.stop() is None
    with pytest.raises(Stopped, match="stopped before anybody was found"):
        await waiting


async def test_what_was_made_is_given_at_once_to_whoever_stops_it() -> None:
    maker = Maker()
    shared = Shared(maker.make)
    maker.may_end.set()
    assert await shared.get() == 1
    with pytest.raises(StopIteration) as stopped:
        shared.stop().send(None)
    assert stopped.value.value == 1


async def test_what_was_stopped_before_it_was_wanted_is_never_made() -> None:
    maker = Maker()
    shared = Shared(maker.make)
    assert await shared.stop() is None
    with pytest.raises(Stopped):
        await shared.get()
    assert not maker.made
