"""What is measured: the table, and the series that show how cost grows."""

from __future__ import annotations

from attrs import evolve, frozen

from benchmarks.systems.base import Setup

__all__ = ["SERIES", "TABLE", "Case", "Series"]

_UNIX = Setup()


@frozen
class Case:
    """One figure.

    Attributes:
        title: What it is called.
        unit: What it is counted in.
        measure: One of `benchmarks.measures`.
        setup: What has to run for it.
        number: What the measure needs to know: messages in flight, or bytes.
    """

    title: str
    unit: str
    measure: str
    setup: Setup = _UNIX
    number: int = 1

    @property
    def more_is_better(self) -> bool:
        """Whether it is a rate, not a cost."""
        return self.unit.endswith("/s")


@frozen
class Series:
    """One figure over a range.

    Attributes:
        title: What it shows.
        axis: What grows.
        cases: The case for each value on the axis.
    """

    title: str
    axis: str
    cases: dict[int, Case]


_TCP, _INSIDE, _THREE = Setup(transport="tcp"), Setup(transport="process"), Setup(replicas=3)
_MIB = 1024 * 1024

_ON_EVERY_SETUP = (
    Case("one ask at a time, unix", "µs", "latency"),
    Case("64 asks in flight", "asks/s", "asks", number=64),
    Case("512 asks in flight", "asks/s", "asks", number=512),
    Case("one-way", "messages/s", "one_way"),
    Case("stream", "items/s", "items"),
    Case("1 MiB echo", "MB/s", "echo", number=_MIB),
)
TABLE = (
    *_ON_EVERY_SETUP,
    Case("one ask at a time, tcp", "µs", "latency", _TCP),
    Case("one ask at a time, in one process", "µs", "latency", _INSIDE),
    Case("64 in flight, 3 replicas", "asks/s", "asks", _THREE, 64),
    Case("start to first reply", "ms", "first_reply"),
    Case("agent's memory", "MiB", "memory"),
    *(evolve(case, title=f"{case.title}, MLS", setup=Setup(mls=True)) for case in _ON_EVERY_SETUP),
)

_IN_FLIGHT = (1, 4, 16, 64, 256, 1024, 4096)
_AGENTS = (1, 10, 100, 300, 1000)
_SIZES = (10, 1024, 64 * 1024, 256 * 1024, _MIB, 4 * _MIB, 16 * _MIB)
SERIES = (
    Series(
        "Replicas",
        "replicas",
        {n: Case("64 in flight", "asks/s", "asks", Setup(replicas=n), 64) for n in (1, 2, 4, 8, 16)},
    ),
    Series(
        "Requesters",
        "requesters",
        {n: Case("64 in flight", "asks/s", "asks", Setup(requesters=n), 64) for n in (1, 5, 10, 25, 50)},
    ),
    Series("In flight", "asks in flight", {n: Case("asks", "asks/s", "asks", number=n) for n in _IN_FLIGHT}),
    Series("Payload", "bytes", {n: Case("echo", "MB/s", "echo", number=n) for n in _SIZES}),
    Series(
        "Memory of each agent in one process",
        "agents",
        {n: Case("memory", "KiB", "memory_each", Setup(transport="process", agents=n)) for n in _AGENTS},
    ),
    Series(
        "Start of each agent in one process",
        "agents",
        {n: Case("start", "ms", "start_each", Setup(transport="process", agents=n)) for n in _AGENTS},
    ),
)
