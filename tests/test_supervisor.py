"""Replicas and commands in bad moments: stopped half-started, forked, misled, interrupted, out of place."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import re
import signal
import sys
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from slim_actors import Backoff, Restart
from slim_actors.assignment import Task
from slim_actors.cli import app as command_line
from slim_actors.exits import Exit
from slim_actors.launch import Launched, launch
from slim_actors.replicas import deaths, process, supervisor
from slim_actors.replicas.events import Event, EventKind, ReplicaFailed
from slim_actors.replicas.supervisor import Supervisor
from slim_actors.settings import Settings
from tests.conftest import PATIENCE, ROOT, Command, Starter, eventually, free_endpoint

ALICE = "agntcy/ns/alice"
ECHO = str(ROOT / "agents/echo.py")
AGENT = """
from slim_actors import Agent

class Mine(Agent, name="test/ns/mine"):
    async def receive(self, message):
        return message
"""
INTERRUPTED = 130


def agent(folder: Path, before: str = "", after: str = "") -> str:
    """Write an agent with something around it; give its file."""
    file = folder / "mine.py"
    file.write_text(before + AGENT + after)
    return str(file)


def refused(command: Command, code: int, sentence: str) -> None:
    assert command.wait() == code, command.output
    assert re.search(sentence, command.output), command.output
    assert len(command.output.strip().splitlines()) == 1, command.output


def quiet_end(command: Command, code: int) -> None:
    """Wait for the end, which must come without a word about errors."""
    assert command.wait() == code, command.output
    assert not re.search("Traceback|Error|never", command.output), command.output


@contextlib.asynccontextmanager
async def supervised(one: Supervisor) -> AsyncIterator[asyncio.Task[None]]:
    """Run a supervisor; at the end it must stop."""
    running = asyncio.create_task(one.run())
    try:
        yield running
    finally:
        one.stop()
        async with asyncio.timeout(PATIENCE):
            await running


async def test_a_stop_during_a_start_ends_the_replica_that_is_half_started(
    endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Launched] = []

    def stopped_meanwhile() -> Launched:
        started.append(launch())
        three.stop()
        return started[-1]

    monkeypatch.setattr(process, "launch", stopped_meanwhile)
    three = Supervisor(Task(ECHO, -1), 3, Settings.find(endpoint=endpoint).variables(), lambda event: None)
    async with asyncio.timeout(PATIENCE):
        await three.run()
    assert len(started) == 3
    assert all(one.returncode is not None for one in started)


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Path]:
    """A file whose readers wait until the test is over."""
    fifo = tmp_path / "gate"
    os.mkfifo(fifo)
    yield fifo
    with contextlib.suppress(OSError):
        os.close(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK))


def test_a_replica_with_a_child_of_its_own_is_restarted_and_stopped(
    start: Starter, endpoint: str, tmp_path: Path, gate: Path
) -> None:
    # The child outlives the replica, and holds every pipe that the replica has.
    fork = f"import os\nif os.fork() == 0:\n    open({str(gate)!r})\n    os._exit(0)\n"
    run = start("run", agent(tmp_path, fork), "--endpoint", endpoint)
    (joined,) = run.until(r"^joined .*pid (\d+)")
    os.kill(int(joined[1]), signal.SIGKILL)
    run.until("^lost .*killed by SIGKILL")
    run.until("^restarted")
    assert run.stop() == 0


async def test_replicas_wait_for_a_node_that_is_away_however_long(
    start: Starter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "_AWAY", Backoff(0.01))
    pids: list[int] = []

    def counted() -> Launched:
        launched = launch()
        pids.append(launched.pid)
        return launched

    monkeypatch.setattr(process, "launch", counted)
    endpoint = free_endpoint()
    node = start("node", "--endpoint", endpoint)
    node.until("listening")
    events: list[Event] = []
    one = Supervisor(Task(ECHO, -1), 1, Settings.find(endpoint=endpoint).variables(), events.append)
    async with supervised(one) as running:
        await eventually(lambda: len(events) == 1)
        node.stop(signal.SIGKILL)
        os.kill(pids[0], signal.SIGKILL)
        await eventually(lambda: len(pids) > 8 or running.done())
        start("node", "--endpoint", endpoint).until("listening")
        await eventually(lambda: running.done() or events[-1].kind is EventKind.RESTARTED)
    lost = [event.detail for event in events if event.kind is EventKind.LOST]
    assert len(lost) == 2, "a node that is away is told of once"
    assert "No SLIM node listens" in lost[1]


def test_a_file_that_breaks_while_replicas_run_does_not_end_them(
    start: Starter, endpoint: str, tmp_path: Path
) -> None:
    file = Path(agent(tmp_path))
    run = start("run", str(file), "--replicas", "2", "--endpoint", endpoint)
    joined = run.until(r"^joined .*pid (\d+)", times=2)
    file.write_text("class (\n")
    os.kill(int(joined[0][1]), signal.SIGKILL)
    run.until("^lost .*line 1, does not parse.*starting it again")
    agent(tmp_path)
    run.until("^restarted")
    os.kill(int(joined[1][1]), 0)
    assert run.stop() == 0


def test_an_error_as_long_as_a_book_is_cut_to_a_sentence(
    start: Starter, endpoint: str, tmp_path: Path
) -> None:
    file = agent(tmp_path, "raise RuntimeError('so\\n' * 50_000)\n")
    run = start("run", file, "--endpoint", endpoint)
    refused(run, 2, "fails on import with RuntimeError: so so so")
    assert len(run.output) < 3_000
    file = agent(tmp_path, "raise RuntimeError('\\ud800')\n")
    refused(start("run", file, "--endpoint", endpoint), 2, r"fails on import with RuntimeError: \?")


@pytest.mark.parametrize("garbage", ["b'garbage\\n'", "b'[' * 65_536", "b'\\xff\\n'"])
def test_a_report_that_cannot_be_read_is_a_death(
    start: Starter, endpoint: str, tmp_path: Path, garbage: str
) -> None:
    # Once, into every pipe that the process has.
    write = f"""
import os, pathlib, stat
once = pathlib.Path({str(tmp_path / "once")!r})
if not once.exists():
    once.touch()
    for number in map(int, os.listdir("/dev/fd")):
        try:
            is_pipe = number > 2 and stat.S_ISFIFO(os.fstat(number).st_mode)
        except OSError:
            continue
        if is_pipe:
            os.write(number, {garbage})
"""
    run = start("run", agent(tmp_path, write), "--endpoint", endpoint)
    run.until("^lost .*it sent a report that cannot be read; starting it again")
    run.until("^restarted")
    assert run.stop() == 0


async def test_a_process_that_cannot_be_started_leaves_nothing_open(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*words: Any, **options: Any) -> int:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr(os, "posix_spawn", fails)
    monkeypatch.setattr(deaths, "_POLICY", Restart(limit=5, within=30.0, backoff=Backoff(0.001, 0.001)))
    before = len(list(Path("/dev/fd").iterdir()))
    one = Supervisor(
        Task(ECHO, -1), 1, Settings.find(endpoint=free_endpoint()).variables(), lambda event: None
    )
    with pytest.raises(ReplicaFailed, match="could not be started: Cannot allocate memory") as caught:
        await one.run()
    assert caught.value.exit == Exit.GAVE_UP
    assert len(list(Path("/dev/fd").iterdir())) == before


def test_a_death_by_a_signal_without_a_name_is_told() -> None:
    assert process._reason(-40) == "killed by signal 40"


def test_a_node_removes_no_file_but_a_socket(start: Starter, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("keep me")
    refused(start("node", "--endpoint", f"unix://{precious}"), 2, "precious exists and is not a socket")
    assert precious.read_text() == "keep me"
    link = tmp_path / "link"
    link.symlink_to(precious)
    refused(start("node", "--endpoint", f"unix://{link}"), 2, "link exists and is not a socket")
    assert link.is_symlink()


def test_a_node_that_stops_leaves_the_socket_of_the_next_one(start: Starter, tmp_path: Path) -> None:
    path = tmp_path / "slim.sock"
    unix = f"unix://{path}"
    first = start("node", "--endpoint", unix)
    first.until("listening")
    path.unlink()
    second = start("node", "--endpoint", unix)
    second.until("listening")
    assert first.stop() == 0
    assert path.is_socket()
    refused(start("node", "--endpoint", unix), 6, "Something already listens")
    assert second.stop() == 0
    assert not path.exists()


def test_a_socket_where_none_can_be_is_refused(start: Starter, tmp_path: Path) -> None:
    refused(start("node", "--endpoint", f"unix://{tmp_path}/no/s.sock"), 2, "There is no folder .*/no for")
    refused(start("node", "--endpoint", f"unix:///tmp/{'x' * 200}"), 2, "has 205 bytes, but a Unix socket's")


def in_a_group(start: Starter, *words: str) -> Command:
    """Start a command as a terminal does: Ctrl-C reaches every process of its group."""
    script = "import os, sys; os.setsid(); os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    return start("-c", script, "-P", "-m", "slim_actors", *words, python=True)


def are_importing(pid: int, count: int) -> bool:
    """Tell whether so many replicas of the process have come as far as their imports."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    try:
        # Between fork and exec, a child still has its parent's files mapped, and its command line.
        importing = [
            "slim_actors.replica" in Path(f"/proc/{child}/cmdline").read_text()
            and "/msgspec/" in Path(f"/proc/{child}/maps").read_text()
            for child in children
        ]
        return sum(importing) >= count
    except OSError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="looks for the children in /proc")
async def test_ctrl_c_during_the_start_ends_a_run_without_a_word(start: Starter, endpoint: str) -> None:
    run = in_a_group(start, "run", "agents/echo.py", "--replicas", "3", "--endpoint", endpoint)
    # The first is there before the command is read: what the others say is that it has been.
    await eventually(lambda: are_importing(run.process.pid, 3))
    os.killpg(run.process.pid, signal.SIGINT)
    quiet_end(run, 0)


def processes_with(mark: str) -> list[psutil.Process]:
    """Give the processes in whose environment this is."""
    found = []
    for one in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if mark in one.environ().values():
                found.append(one)
    return found


async def test_a_run_that_cannot_begin_leaves_no_replica_behind(start: Starter) -> None:
    mark = uuid.uuid4().hex
    refused(start("run", "agents/echo.py", "--replicas", "0", MARK=mark), 2, "--replicas is 0")
    await eventually(lambda: not processes_with(mark))


def test_ctrl_c_twice_ends_a_run_without_a_word(start: Starter, endpoint: str) -> None:
    run = in_a_group(start, "run", "agents/echo.py", "--replicas", "3", "--endpoint", endpoint)
    run.until("^joined", times=3)
    os.killpg(run.process.pid, signal.SIGINT)
    run.until("^stopping")
    with contextlib.suppress(ProcessLookupError):
        os.killpg(run.process.pid, signal.SIGINT)
    run.wait()
    assert run.output.count("stopped ") == 3, run.output
    assert not re.search("Traceback|Error|never", run.output), run.output


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("import signal\nprint('loading', flush=True)\nsignal.pause()\n", ""),
        (
            "import asyncio\n",
            "    async def started(self, ctx):\n"
            "        print('loading', flush=True)\n"
            "        await asyncio.Event().wait()\n",
        ),
    ],
)
def test_an_agent_that_never_starts_can_be_stopped_at_once(
    start: Starter, endpoint: str, tmp_path: Path, before: str, after: str
) -> None:
    run = start("run", agent(tmp_path, before, after), "--endpoint", endpoint)
    run.until("^loading")
    began = time.monotonic()
    run.process.send_signal(signal.SIGINT)
    quiet_end(run, 0)
    assert time.monotonic() - began < Task("", 0).drain, "it waited for the drain time"


def test_ctrl_c_ends_a_send_without_a_word(start: Starter, endpoint: str, tmp_path: Path) -> None:
    file = tmp_path / "silent.py"
    file.write_text(
        "import asyncio\n"
        "from slim_actors import Agent\n"
        "class Silent(Agent, name='test/ns/silent'):\n"
        "    async def receive(self, message):\n"
        "        print('asked', flush=True)\n"
        "        await asyncio.Event().wait()\n"
    )
    run = start("run", str(file), "--endpoint", endpoint)
    run.until("^joined")
    for times in (1, 2):
        send = start("send", "test/ns/silent", "x", "--endpoint", endpoint)
        run.until("^asked")
        for _ in range(times):
            send.process.send_signal(signal.SIGINT)
        quiet_end(send, INTERRUPTED)
        assert not send.output


def test_ctrl_c_before_a_command_runs_has_an_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(commands: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(command_line, "application", interrupted)
    with pytest.raises(SystemExit) as caught:
        command_line.main()
    assert caught.value.code == INTERRUPTED


@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        ("123456789012345678901234567890", "The message cannot be sent: .*64"),
        ('"\\ud800"', "The message cannot be sent: .*surrogates"),
        ("[" * 100_000, "The message is not JSON.*recursion"),
    ],
)
def test_json_that_has_no_form_on_the_wire_is_refused(start: Starter, message: str, sentence: str) -> None:
    refused(start("send", ALICE, message, "--json", "--endpoint", free_endpoint()), 2, sentence)


def test_bytes_that_are_no_text_are_refused(start: Starter) -> None:
    refused(start("send", ALICE, "\udcff", "--endpoint", free_endpoint()), 2, "The message cannot be sent")
