"""What becomes of an idempotent message whose replica was lost, or restarted, in the middle of it.

And what `may_have_run` says then: whoever sends it again must be able to rely on that.
"""

from __future__ import annotations

import asyncio

import pytest

from slim_actors import (
    Agent,
    Anycast,
    Cancelled,
    DeliveryError,
    Denied,
    PeerLost,
    RemoteError,
    Restart,
    UnhandledMessage,
    handler,
)
from slim_actors.testing import TestRuntime
from tests.conftest import eventually

NAME = "test/ns/worker"


class Worker(Agent, name=NAME):
    begun = 0

    @handler(idempotent=True)
    async def work(self, message: int) -> None:
        type(self).begun += 1
        await asyncio.Event().wait()


class Strict(Agent, name=NAME):
    allow = ()

    @handler(idempotent=True)
    async def work(self, message: int) -> None: ...


class Other(Agent, name=NAME):
    @handler(idempotent=True)
    async def read(self, message: str) -> None: ...


@pytest.mark.parametrize(
    ("next_one", "error"), [(None, PeerLost), (Strict, Denied), (Other, UnhandledMessage)]
)
async def test_a_message_whose_replica_was_lost_may_have_run_whatever_the_next_one_says(
    test_runtime: TestRuntime, next_one: type[Agent] | None, error: type[DeliveryError]
) -> None:
    Worker.begun = 0
    first = await test_runtime.spawn(Worker)
    async with TestRuntime(network=test_runtime.network) as caller:
        asking = asyncio.create_task(caller.ask(Anycast(NAME), 1, timeout=600))
        await eventually(lambda: Worker.begun == 1)
        if next_one is not None:
            await test_runtime.spawn(next_one)
        test_runtime.network.kill(first.address.instance)
        with pytest.raises(error) as caught:
            await asking
    assert caught.value.may_have_run


async def test_a_message_whose_caller_stops_while_it_is_handled_may_have_run(
    test_runtime: TestRuntime,
) -> None:
    Worker.begun = 0
    await test_runtime.spawn(Worker)
    await test_runtime.spawn(Worker)
    async with TestRuntime(network=test_runtime.network) as caller:
        asking = asyncio.create_task(caller.ask(Anycast(NAME), 1))
        await eventually(lambda: Worker.begun == 1)
    with pytest.raises(PeerLost, match="the link was closed") as caught:
        await asking
    assert caught.value.may_have_run
    assert Worker.begun == 1


async def test_an_idempotent_message_that_a_restart_has_cancelled_goes_to_another_replica(
    test_runtime: TestRuntime,
) -> None:
    class Model(Agent, name=NAME):
        concurrency = 8
        restart = Restart()

        @handler(idempotent=True)
        async def answer(self, prompt: int) -> int:
            await asyncio.sleep(1)
            if prompt == 0:
                raise RuntimeError("poison")
            await asyncio.sleep(1)
            return prompt

    for _ in range(2):
        await test_runtime.spawn(Model)
    asking = (test_runtime.ask(Anycast(NAME), number) for number in range(8))
    poison, *answers = await asyncio.gather(*asking, return_exceptions=True)
    assert isinstance(poison, RemoteError)
    assert answers == [1, 2, 3, 4, 5, 6, 7]


async def test_an_idempotent_message_that_only_a_restarted_replica_takes_ends_as_cancelled(
    test_runtime: TestRuntime,
) -> None:
    Worker.begun = 0
    ref = await test_runtime.spawn(Worker)
    asking = asyncio.create_task(test_runtime.ask(Anycast(NAME), 1))
    await eventually(lambda: Worker.begun == 1)
    await ref.stop(drain=0)
    with pytest.raises(Cancelled):
        await asking
