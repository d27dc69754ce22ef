"""Replicas that use too much memory, or cannot even be imported."""

from __future__ import annotations

import asyncio
from pathlib import Path

from faults import agents
from faults.agents import ECHO, Leak
from faults.load import Load
from faults.result import Result
from faults.stage import Stage
from slim_actors import Anycast

__all__ = ["leaks_and_crashes"]

_FILE = Path(agents.__file__)
_AT_IMPORT = {
    # What it does when it is imported, and the exit code of the run.
    "ends": ("import os\nos._exit(3)\n", 5),
    "raises": ("raise RuntimeError('no')\n", 2),
}


async def leaks_and_crashes(stage: Stage, *, leaks: int) -> Result:
    """A replica that leaks is replaced at its limit; one that crashes at import ends in one message."""
    run = await stage.command("run", f"{_FILE}:Echo", "--replicas", "2", "--max-memory", "160MiB")
    await run.until("^(joined)", 2)
    runtime = await stage.runtime()
    load = Load(runtime, ECHO, callers=8, work=0.002)
    result = Result(load.tally)
    async with load.until_left():
        replaced = 0
        async with asyncio.timeout(60):
            while replaced < leaks:
                await runtime.ask(Anycast(ECHO), Leak(megabytes=30))
                await load.passes(50)
                replaced = sum(line.startswith("replaced") for line in run.lines)
                stage.show(0.8 * replaced / leaks)
        await run.until("^(stopped)", leaks)
    result.expect_all_answered()
    result.expect(not any(line.startswith("lost") for line in run.lines), "a replica was lost")
    for what, (source, expected) in _AT_IMPORT.items():
        file = stage.folder / f"{what}.py"
        file.write_text(source)
        crashing = await stage.command("run", str(file))
        code = await crashing.wait()
        result.expect(code == expected, f"a file that {what} at import ended the run with exit code {code}")
        errors = [line for line in crashing.lines if line.startswith("error:")]
        result.expect(len(errors) == 1, f"a file that {what} at import ended in {len(errors)} messages")
        result.expect(not any("Traceback" in line for line in crashing.lines), "a traceback was shown")
    result.facts.append(
        f"{replaced} leaking replicas replaced, {len(_AT_IMPORT)} crashes at import told once each"
    )
    return result
