"""A disk that is full, and a store that is damaged."""

from __future__ import annotations

import asyncio
import os
import re
import resource
from pathlib import Path

import psutil

from faults import agents
from faults.agents import COUNTER, Add
from faults.result import Result
from faults.stage import Command, Stage
from slim_actors import Anycast, DeliveryError, Runtime
from slim_actors.exits import Exit

__all__ = ["full_and_damaged"]

_FAILURES = 3
"""Fewer than restart an agent too often."""
_PAGE = 4096
_BALLAST = b"x" * _PAGE * 8
_ANY = resource.RLIM_INFINITY


async def full_and_damaged(stage: Stage, *, adds: int) -> Result:
    """A full disk fails the message and restarts the agent, as its policy says; nothing is ever reset."""
    result = Result()
    store = stage.folder / "store.db"
    run, process = await _run(stage, store)
    runtime = await stage.runtime()
    # Large enough for the store to have pages besides the first.
    await _add(runtime, result, ballast=_BALLAST)
    for _ in range(adds):
        await _add(runtime, result)
    # To a process that may make no file longer than nothing, every disk is full.
    process.rlimit(psutil.RLIMIT_FSIZE, (0, _ANY))
    for _ in range(_FAILURES):
        await _add(runtime, result)
    process.rlimit(psutil.RLIMIT_FSIZE, (_ANY, _ANY))
    result.expect(
        set(result.tally.failed) == {"StoreError"} and result.tally.failed.total() == _FAILURES,
        f"{_FAILURES} messages came while the disk was full, and failed with {dict(result.tally.failed)}",
    )
    for _ in range(adds):
        await _add(runtime, result)
    restarts = await run.until("begins with a total of (.*)", 1 + _FAILURES)
    before = str(1 + adds)
    result.expect(
        restarts == ["0", *[before] * _FAILURES], f"restarted with a total of {restarts[1:]}, not {before}"
    )
    stage.show(0.6)
    kept = await runtime.ask(Anycast(COUNTER), Add(0))
    result.expect(
        kept == result.tally.answered, f"{result.tally.answered} were answered, and {kept} are kept"
    )
    await run.stop()
    refusals = [await _damaged(stage, store, page, result) for page in (0, 2)]
    result.facts.append(
        f"{_FAILURES} refused on a full disk, each followed by a restart, {kept} kept; "
        f"{len(refusals)} damaged stores refused and left as they were"
    )
    result.expect_one_outcome_each()
    return result


async def _run(stage: Stage, store: Path) -> tuple[Command, psutil.Process]:
    target = f"{agents.__file__}:Counting"
    run = await stage.command("run", target, "--store", str(store), SLIM_ACTORS_LOG_FORMAT="text")
    (pid,) = await run.until(r"^joined.*pid (\d+)")
    return run, psutil.Process(int(pid))


async def _add(runtime: Runtime, result: Result, ballast: bytes = b"") -> None:
    result.tally.sent += 1
    try:
        total = await runtime.ask(Anycast(COUNTER), Add(1, ballast))
    except DeliveryError as error:
        result.tally.failed[type(error).__name__] += 1
    else:
        result.tally.answered += total == result.tally.answered + 1
        result.tally.wrong += total != result.tally.answered


async def _damaged(stage: Stage, store: Path, page: int, result: Result) -> str:
    """Damage a copy of the store, start with it, and give what is said of it."""
    data = bytearray(await asyncio.to_thread(store.read_bytes))
    data[page * _PAGE : (page + 1) * _PAGE] = os.urandom(_PAGE)
    file = stage.folder / f"damaged{page}.db"
    file.write_bytes(data)
    target = f"{agents.__file__}:Counting"
    run = await stage.command("run", target, "--store", str(file))
    code = await run.wait()
    result.expect(code == Exit.STORE, f"with a damaged store (page {page}) a run ended with exit code {code}")
    said = [line for line in run.lines if re.match("error:", line)]
    result.expect(len(said) == 1, f"of a damaged store it said {len(said)} sentences")
    result.expect(file.read_bytes() == data, f"a damaged store (page {page}) was changed")
    return " ".join(said)
