"""Runs cases on several systems by turns, each turn in fresh processes."""

from __future__ import annotations

import compileall
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from importlib.util import find_spec

from attrs import asdict, define, field, frozen

from benchmarks.cases import Case
from benchmarks.driver import RESULT
from benchmarks.isolation import ISOLATED, isolated
from benchmarks.systems import System
from benchmarks.systems.base import Setup

__all__ = ["Effort", "Samples", "measure"]

_WITHIN = 200.0


@frozen
class Effort:
    """How much is done for a figure.

    Attributes:
        rounds: How often each system has its turn.
        seconds: How long one figure is measured in one turn.
        isolate: Whether each turn has a network of its own.
    """

    rounds: int
    seconds: float
    isolate: bool = False


@define
class Samples:
    """What was measured: the values of each case and system, in the order of the rounds."""

    values: dict[Case, dict[System, list[float | None]]] = field(
        factory=lambda: defaultdict(lambda: defaultdict(list))
    )
    errors: dict[str, int] = field(factory=lambda: defaultdict(int))


def measure(
    cases: Iterable[Case], systems: Sequence[System], effort: Effort, say: Callable[[str], None]
) -> Samples:
    """Measure the cases on the systems, which take turns; tell what is going on."""
    _compile("slim_actors", "benchmarks")
    samples = Samples()
    by_setup: dict[Setup, list[Case]] = defaultdict(list)
    # Some are part of more than one series.
    for case in dict.fromkeys(cases):
        by_setup[case.setup].append(case)
    for number in range(effort.rounds):
        for setup, together in by_setup.items():
            # Whoever goes first in one round goes last in the next.
            for system in systems if number % 2 == 0 else systems[::-1]:
                say(f"round {number + 1} of {effort.rounds}: {system.title}, {_describe(setup)}")
                for case, result in zip(together, _turn(system, setup, together, effort), strict=True):
                    samples.values[case][system].append(result.value)
                    if result.error:
                        samples.errors[f"{system.title}, {case.title}: {result.error}"] += 1
    return samples


def _compile(*packages: str) -> None:
    # pip does so with what it installs, but not with what is installed as editable; and where the environment
    # has PYTHONDONTWRITEBYTECODE, each start would compile these anew, and not what others have installed.
    for package in packages:
        spec = find_spec(package)
        for folder in (spec and spec.submodule_search_locations) or ():
            compileall.compile_dir(folder, quiet=1)


@frozen
class _Result:
    value: float | None = None
    error: str = ""


def _turn(system: System, setup: Setup, cases: Sequence[Case], effort: Effort) -> list[_Result]:
    job = {
        "system": system.key,
        "setup": asdict(setup),
        "measures": [(case.measure, case.number) for case in cases],
        "seconds": effort.seconds,
    }
    command = [sys.executable, "-m", "benchmarks.driver", json.dumps(job)]
    environment = {**os.environ, ISOLATED: "1" if effort.isolate else ""}
    found: list[str] = []
    with subprocess.Popen(
        isolated(command) if effort.isolate else command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    ) as driver:
        try:
            output, log = driver.communicate(timeout=_WITHIN)
            found = [line for line in output.splitlines() if line.startswith(RESULT)]
            problem = (log.strip().splitlines() or ["it ended without a word"])[-1]
        except subprocess.TimeoutExpired:
            problem = f"it took more than {_WITHIN:.0f} s"
        finally:
            # Whatever it has started and not stopped, however it ended.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(driver.pid, signal.SIGKILL)
    if found:
        return [_Result(**each) for each in json.loads(found[-1].removeprefix(RESULT))]
    return [_Result(error=problem[:300]) for _ in cases]


def _describe(setup: Setup) -> str:
    usual = asdict(Setup())
    differing = [f"{name} {value}" for name, value in asdict(setup).items() if value != usual[name]]
    return ", ".join(differing) or "unix"
