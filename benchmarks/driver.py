"""Measures cases of one system, all with one set-up, in this process: ``python -m benchmarks.driver JOB``.

The job comes as JSON, and so does what was measured, on the last line of the output.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import sys
from typing import Any

from benchmarks.isolation import ISOLATED, bring_up_loopback
from benchmarks.measures import MEASURES
from benchmarks.systems.base import Client, NotSupported, Setup

__all__ = ["RESULT"]

RESULT = "result "
_WITHIN = 60.0
_WARM_UP = 10


async def run(job: dict[str, Any]) -> None:
    """Measure; say a value or an error for each measure of the job."""
    module = importlib.import_module(f"benchmarks.systems.{job['system']}")
    results: list[dict[str, Any]] = []
    try:
        async with module.open_client(Setup(**job["setup"])) as client:
            # Every requester knows every replica before anything is measured.
            for _ in range(_WARM_UP * job["setup"]["requesters"] * job["setup"]["replicas"]):
                await client.ask()
            for name, number in job["measures"]:
                results.append(await _measure(client, name, job["seconds"], number))
            # Here, and not after the clean-up: what was measured is measured, however a library ends.
            _say(results)
    except NotSupported:
        _say([{} for _ in job["measures"]])


def _say(results: list[dict[str, Any]]) -> None:
    print(RESULT + json.dumps(results), flush=True)  # noqa: T201 (the parent reads it)


async def _measure(client: Client, name: str, seconds: float, number: int) -> dict[str, Any]:
    try:
        async with asyncio.timeout(_WITHIN):
            return {"value": await MEASURES[name](client, seconds, number)}
    except NotSupported:
        return {}
    except Exception as error:  # noqa: BLE001 (of whatever system)
        return {"error": f"{type(error).__name__}: {error}"[:300]}


if __name__ == "__main__":
    if os.environ.get(ISOLATED):
        bring_up_loopback()
    asyncio.run(run(json.loads(sys.argv[1])))
