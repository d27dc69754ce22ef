"""The start of a replica's process: what it is given, and what may prevent it."""

from __future__ import annotations

import os
import re
import select
import subprocess
import sys
from pathlib import Path

import pytest

from slim_actors.assignment import Report, Task
from slim_actors.launch import launch
from slim_actors.replicas import process
from tests.conftest import PATIENCE, eventually


def test_a_replica_is_given_nothing_that_its_supervisor_was_given() -> None:
    ours, given = os.pipe()
    os.set_inheritable(given, True)  # noqa: FBT003 (the signature of the standard library)
    one = launch()
    os.close(given)
    # Linux lets the parent go on a moment before it closes the child's descriptors.
    assert select.select([ours], [], [], PATIENCE)[0], "nobody can write to it any more"
    assert os.read(ours, 1) == b""
    for descriptor in (ours, one.lifeline, one.reports, one.output, one.errors):
        os.close(descriptor)
    assert one.wait() == 0


_ABOVE_THE_LIMIT = """
import fcntl, os, resource
os.set_inheritable(fcntl.fcntl(1, fcntl.F_DUPFD, 500), True)
resource.setrlimit(resource.RLIMIT_NOFILE, (400, 400))
from slim_actors.launch import Launched
one = Launched()
os.close(one.lifeline)
os._exit(one.wait())
"""
_NO_STANDARD_STREAMS = """
import os
os.closerange(0, 3)
from slim_actors.launch import Launched
one = Launched()
lowest = min(one.lifeline, one.reports, one.report_to, one.output, one.errors)
os.close(one.lifeline)
os._exit(one.wait() or lowest < 3)
"""
_NO_EXIT_CODES = """
import os, signal
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
from slim_actors.launch import Launched
one = Launched()
os.close(one.lifeline)
raise SystemExit(one.wait())
"""


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(_ABOVE_THE_LIMIT, id="a descriptor above the limit prevents no start"),
        pytest.param(_NO_STANDARD_STREAMS, id="no pipe takes the place of a standard stream that is closed"),
        pytest.param(_NO_EXIT_CODES, id="the end is seen also where the exit code is lost"),
    ],
)
def test_a_replica_starts_and_ends_whatever_its_supervisor_was_started_with(script: str) -> None:
    assert subprocess.run([sys.executable, "-c", script], timeout=PATIENCE, check=False).returncode == 0


class Dead:
    """A process that was killed right after it had reported that its file is imported."""

    pid, returncode = 0, -9

    def __init__(self) -> None:
        self.reports, self.report_to = os.pipe()
        self.listening, self.lifeline = os.pipe()
        self.output, printing = os.pipe()
        self.errors, complaining = os.pipe()
        os.close(printing)
        os.close(complaining)

    async def end(self, _: object) -> int:
        os.write(self.report_to, b'{"event":"loaded","address":"a/b/c"}\n')
        os.close(self.report_to)
        os.close(self.listening)
        return self.returncode


async def test_nothing_goes_on_for_a_process_that_has_ended_whatever_it_reported_last(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dead = Dead()
    monkeypatch.setattr(process, "launch", lambda: dead)
    monkeypatch.setattr(process, "_exit_code", dead.end)
    told: list[Report] = []

    async def loaded(report: Report) -> None:
        told.append(report)

    plan = process.Plan(Task("agent.py", -1), {}, 0.0, loaded)
    end = await process.Process(1, plan).ended
    assert end.reason == "killed by SIGKILL"
    # It would write to a descriptor that is somebody else's by then.
    assert told == []


@pytest.mark.parametrize(
    ("source", "doing"),
    [
        ("import threading; threading.Event().wait()", "importing .*slow.py"),
        (
            "import asyncio\n"
            "from slim_actors import Agent\n"
            "class Slow(Agent, name='t/t/slow'):\n"
            "    async def started(self, ctx): await asyncio.Event().wait()\n"
            "    async def receive(self, message): ...\n",
            "starting its agent",
        ),
    ],
    ids=["import", "started"],
)
async def test_what_keeps_a_replica_from_its_start_is_told(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    endpoint: str,
    tmp_path: Path,
    source: str,
    doing: str,
) -> None:
    (tmp_path / "slow.py").write_text(source)
    monkeypatch.setattr(process, "_LONG", 0.1)

    async def loaded(_: Report) -> None:
        """Nothing waits here."""

    plan = process.Plan(Task(str(tmp_path / "slow.py"), -1), {"SLIM_ENDPOINT": endpoint}, 0.0, loaded)
    replica = process.Process(7, plan)
    told = re.compile(rf"Replica 7 \(pid \d+\) has been {doing}")
    await eventually(lambda: any(told.search(record.message) for record in caplog.records))
    replica.kill()
    await replica.ended
