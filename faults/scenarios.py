"""The scenarios, each with its full numbers and those of a quick run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

from attrs import frozen

from faults import crashes, disks, durable, endurance, freezes, limits, outages, rolling
from faults.result import Result
from faults.stage import Stage

__all__ = ["SCENARIOS", "Scenario"]

Play = Callable[[Stage], Awaitable[Result]]


@frozen
class Scenario:
    """One of them.

    Attributes:
        title: What happens in it.
        full: Plays it with the full numbers.
        quick: Plays it with smaller ones.
    """

    title: str
    full: Play
    quick: Play


SCENARIOS = {
    1: Scenario(
        "a replica killed every 0.5 s, idempotent",
        full=partial(crashes.idempotent, asks=20_000),
        quick=partial(crashes.idempotent, asks=3_000),
    ),
    2: Scenario(
        "a replica killed every 0.5 s, not idempotent",
        full=partial(crashes.not_idempotent, asks=20_000),
        quick=partial(crashes.not_idempotent, asks=3_000),
    ),
    3: Scenario(
        "rolling restarts and reloads",
        full=partial(rolling.restart_and_reload, rounds=5),
        quick=partial(rolling.restart_and_reload, rounds=1),
    ),
    4: Scenario(
        "a replica frozen and thawed",
        full=partial(freezes.one_replica, seconds=10),
        quick=partial(freezes.one_replica, seconds=5),
    ),
    5: Scenario(
        "the node killed every 5 s",
        full=partial(outages.node, deaths=12),
        quick=partial(outages.node, deaths=3),
    ),
    6: Scenario(
        "leaks, and crashes at import",
        full=partial(limits.leaks_and_crashes, leaks=3),
        quick=partial(limits.leaks_and_crashes, leaks=1),
    ),
    7: Scenario(
        "durable tells, everybody killed at random",
        full=partial(durable.play, messages=10_000, kills=20),
        quick=partial(durable.play, messages=500, kills=3),
    ),
    8: Scenario(
        "a full disk, a damaged store",
        full=partial(disks.full_and_damaged, adds=200),
        quick=partial(disks.full_and_damaged, adds=50),
    ),
    9: Scenario(
        "50 requesters for 5 minutes",
        full=partial(endurance.requesters, count=50, hurry=1_500, warm_up=270, seconds=300, window=60),
        quick=partial(endurance.requesters, count=50, warm_up=10, seconds=20, window=5, growth=0.2),
    ),
}
