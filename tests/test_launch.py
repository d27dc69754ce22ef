"""The start of a replica's process: what it is given, and what may prevent it."""

from __future__ import annotations

import os
import subprocess
import sys

from slim_actors.launch import launch
from tests.conftest import PATIENCE


def test_a_replica_is_given_nothing_that_its_supervisor_was_given() -> None:
    ours, given = os.pipe()
    os.set_inheritable(given, True)  # noqa: FBT003 (the signature of the standard library)
    one = launch()
    os.close(given)
    os.set_blocking(ours, False)
    assert os.read(ours, 1) == b"", "nobody can write to it any more"
    for descriptor in (ours, one.lifeline, one.reports, one.output, one.errors):
        os.close(descriptor)
    assert one.wait() == 0


def test_a_descriptor_above_the_limit_prevents_no_start() -> None:
    script = (
        "import fcntl, os, resource\n"
        "os.set_inheritable(fcntl.fcntl(1, fcntl.F_DUPFD, 500), True)\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (400, 400))\n"
        "from slim_actors.launch import Launched\n"
        "one = Launched()\n"
        "os.close(one.lifeline)\n"
        "os._exit(one.wait())\n"
    )
    assert subprocess.run([sys.executable, "-c", script], timeout=PATIENCE, check=False).returncode == 0


def test_no_pipe_of_a_replica_takes_the_place_of_a_standard_stream_that_is_closed() -> None:
    script = (
        "import os\n"
        "os.closerange(0, 3)\n"
        "from slim_actors.launch import Launched\n"
        "one = Launched()\n"
        "lowest = min(one.lifeline, one.reports, one.report_to, one.output, one.errors)\n"
        "os.close(one.lifeline)\n"
        "os._exit(one.wait() or lowest < 3)\n"
    )
    assert subprocess.run([sys.executable, "-c", script], timeout=PATIENCE, check=False).returncode == 0


def test_the_end_of_a_replica_is_seen_also_where_its_exit_code_is_lost() -> None:
    script = (
        "import os, signal\n"
        "signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
        "from slim_actors.launch import Launched\n"
        "one = Launched()\n"
        "os.close(one.lifeline)\n"
        "raise SystemExit(one.wait())\n"
    )
    assert subprocess.run([sys.executable, "-c", script], timeout=PATIENCE, check=False).returncode == 0
