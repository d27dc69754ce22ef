"""The fault suite with small numbers; `make faults` runs it with the full ones."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from faults import crashes, freezes, outages
from faults.load import Load
from faults.result import Result, Tally
from faults.stage import Stage
from slim_actors.testing import TestRuntime
from tests.conftest import eventually


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with Stage(seed=1) as stage:
        yield stage


async def test_every_ask_of_an_idempotent_handler_is_answered_though_replicas_are_killed(
    stage: Stage,
) -> None:
    result = await crashes.idempotent(stage, asks=300, every=0.5)
    assert result.broken == []
    assert result.tally.sent == result.tally.answered == 300


async def test_no_handler_that_is_not_idempotent_runs_twice_though_replicas_are_killed(stage: Stage) -> None:
    result = await crashes.not_idempotent(stage, asks=300, every=0.5)
    assert result.broken == []
    assert result.tally.sent == result.tally.outcomes == 300


async def test_a_frozen_replica_has_no_traffic_and_gets_it_back(stage: Stage) -> None:
    result = await freezes.one_replica(stage, seconds=4)
    assert result.broken == []


async def test_an_outage_leaves_each_ask_one_outcome_and_restarts_nobody(stage: Stage) -> None:
    result = await outages.node(stage, deaths=1, every=2.0)
    assert result.broken == []


def test_a_message_without_an_outcome_a_wrong_answer_and_an_error_are_all_told() -> None:
    result = Result(Tally(sent=5, answered=1, wrong=1))
    result.tally.failed["Expired"] = 2
    result.expect_all_answered()
    assert result.broken == [
        "asks failed: 2 Expired",
        "5 messages were sent, and 4 outcomes came",
        "1 answers were wrong",
    ]


async def test_the_load_counts_every_ask_that_it_sends(test_runtime: TestRuntime) -> None:
    load = Load(test_runtime, "test/ns/nobody", asks=3, callers=2)
    await eventually(lambda: load.is_over)
    await load.stop()
    assert load.tally.failed["NoRoute"] == load.tally.sent == 3
