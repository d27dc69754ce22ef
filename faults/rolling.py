"""Replicas replaced one at a time while somebody asks."""

from __future__ import annotations

import asyncio

from faults.agents import ECHO
from faults.load import Load
from faults.result import Result
from faults.stage import Stage

__all__ = ["restart_and_reload"]

_REPLICAS = 3
_SOURCE = "from faults.agents import Echo\n"


async def restart_and_reload(stage: Stage, *, rounds: int) -> Result:
    """No ask fails while all replicas are replaced, by `slim-actors restart` and by `--reload`."""
    file = stage.folder / "echo.py"
    file.write_text(_SOURCE)
    run = await stage.command("run", f"{file}:Echo", "--replicas", str(_REPLICAS), "--reload")
    await run.until("^(joined)", _REPLICAS)
    load = Load(await stage.runtime(), ECHO, work=0.002)
    result = Result(load.tally)
    async with load.until_left():
        for turn in range(1, rounds + 1):
            await load.passes(200)
            code = await (await stage.command("restart", ECHO)).wait()
            result.expect(code == 0, f"restart {turn} ended with exit code {code}")
            await run.until("^(replaced).*restart", turn * _REPLICAS)
            await load.passes(200)
            stage.show((turn - 0.5) / rounds)
            await asyncio.to_thread(file.write_text, f"{_SOURCE}# change {turn}\n")
            await run.until("^(replaced).*changed", turn * _REPLICAS)
            # The last old one has drained too.
            await run.until("^(stopped)", turn * _REPLICAS * 2)
            stage.show(turn / rounds)
        await load.passes(200)
    replaced = len([line for line in run.lines if line.startswith("replaced")])
    result.facts.append(f"{rounds} restarts and {rounds} reloads of {_REPLICAS}: {replaced} replaced")
    result.expect(not any(line.startswith("lost") for line in run.lines), "a replica was lost")
    result.expect_all_answered()
    return result
