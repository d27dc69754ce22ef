"""How replicas die and drain: what is told of it, and that nothing hangs or grows for it."""

from __future__ import annotations

import asyncio
import os
import pty
import re
import signal
import sys
from pathlib import Path

import psutil
import pytest

from slim_actors import Anycast, Cancelled, Runtime, Unicast
from tests.conftest import Command, Starter, eventually

NAME = "test/ns/mortal"
SOURCE = """
import asyncio
import os
import sys
import time
from slim_actors import Agent, Mailbox

class Mortal(Agent, name="test/ns/mortal"):
    mailbox = Mailbox(capacity=5)

    async def receive(self, message):
        if message == "hang":
            time.sleep(3600)
        if message == "crash":
            for number in range(30):
                print("line", number)
            print("the last of all", file=sys.stderr, end="")
            os._exit(7)
        if message == "chat":
            print(("x" * 9_999 + "\\n") * 50, end="")
        if message == "nap":
            print("napping", flush=True)
            await asyncio.sleep(0.5)
            return "slept"
        if message == "wait":
            print("waiting", flush=True)
            await asyncio.Event().wait()
        return os.getpid()
"""


@pytest.fixture
def file(tmp_path: Path) -> str:
    (tmp_path / "mortal.py").write_text(SOURCE)
    return str(tmp_path / "mortal.py")


async def until(command: Command, pattern: str, times: int = 1) -> list[re.Match[str]]:
    return await asyncio.to_thread(command.until, pattern, times)


async def test_a_death_is_told_with_its_exit_code_and_its_last_lines(
    start: Starter, endpoint: str, file: str
) -> None:
    run = start("run", file, "--endpoint", endpoint)
    await until(run, "^joined")
    async with Runtime(endpoint) as caller:
        asking = asyncio.create_task(caller.ask(Unicast(NAME), "crash"))
        await until(run, "^lost .*ended with exit code 7; starting it again in")
        shown = await until(run, r"^ +\| (.*)$", 20)
        assert [match[1] for match in shown] == [f"line {n}" for n in range(11, 30)] + ["the last of all"]
        await until(run, "^restarted")
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)


async def test_a_replica_that_hangs_is_killed_shows_where_and_is_started_again(
    start: Starter, endpoint: str, file: str
) -> None:
    run = start("run", file, "--endpoint", endpoint, "--hang-after", "1")
    await until(run, "^joined")
    async with Runtime(endpoint) as caller:
        asking = asyncio.create_task(caller.ask(Unicast(NAME), "hang"))
        await until(run, "^lost .*hung: its event loop did not run for 1 s; starting it again")
        await until(run, r"^ +\| .*mortal.py.* in receive")
        await until(run, "^restarted")
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)


async def test_a_frozen_replica_is_killed_and_started_again(start: Starter, endpoint: str, file: str) -> None:
    run = start("run", file, "--endpoint", endpoint, "--hang-after", "0.5")
    (joined,) = await until(run, r"^joined.*pid (\d+)")
    os.kill(int(joined[1]), signal.SIGSTOP)
    await until(run, "^lost .*hung")
    await until(run, "^restarted")


async def test_a_supervisor_that_was_frozen_itself_blames_nobody(
    start: Starter, endpoint: str, file: str
) -> None:
    run = start("run", file, "--endpoint", endpoint, "--hang-after", "1")
    (joined,) = await until(run, r"^joined.*pid (\d+)")
    frozen = [psutil.Process(run.process.pid), psutil.Process(int(joined[1]))]
    for process in frozen:
        process.suspend()
    # Long enough for a replica that hangs on its own to be found.
    other = start("run", file, "--name", "test/ns/other", "--endpoint", endpoint, "--hang-after", "1")
    (hanging,) = await until(other, r"^joined.*pid (\d+)")
    os.kill(int(hanging[1]), signal.SIGSTOP)
    await until(other, "^lost .*hung")
    for process in reversed(frozen):
        process.resume()
    async with Runtime(endpoint) as caller:
        for _ in range(3):
            assert await caller.ask(Anycast(NAME), "x") == int(joined[1])
    assert run.stop() == 0
    assert "lost" not in run.output


async def test_a_chatty_replica_is_passed_on_and_neither_held_up_nor_kept(
    start: Starter, endpoint: str, file: str
) -> None:
    run = start("run", file, "--endpoint", endpoint)
    await until(run, "^joined")
    supervisor = psutil.Process(run.process.pid)
    async with Runtime(endpoint) as caller:
        await caller.ask(Anycast(NAME), "chat")
        before = supervisor.memory_info().rss
        for _ in range(20):
            await caller.ask(Anycast(NAME), "chat")
        assert supervisor.memory_info().rss - before < 5 * 2**20, "10 MB went through it"
    await until(run, "^x{9999}$", 21 * 50)
    assert run.stop() == 0


async def test_a_reader_that_stalls_holds_up_neither_supervision_nor_the_end(
    start: Starter, endpoint: str, file: str
) -> None:
    reading, writing = os.pipe()
    words = [sys.executable, "-P", "-m", "slim_actors", "run", file, "--endpoint", endpoint]
    run = await asyncio.create_subprocess_exec(*words, stdout=writing, stderr=asyncio.subprocess.DEVNULL)
    os.close(writing)
    async with Runtime(endpoint) as caller:
        while not os.read(reading, 1024).startswith(b"joined"):
            pass
        stalled = asyncio.create_task(caller.ask(Anycast(NAME), "chat", timeout=300))
        listed = ""

        async def is_listed() -> bool:
            nonlocal listed
            ps = start("ps")
            await asyncio.to_thread(ps.wait)
            listed = ps.output
            return NAME in listed

        await eventually(is_listed)
        run.send_signal(signal.SIGTERM)
        stalled.cancel()
        await asyncio.gather(stalled, return_exceptions=True)
    async with asyncio.timeout(30):
        while os.read(reading, 1024 * 1024):
            pass
        assert await run.wait() == 0
    os.close(reading)


def test_a_crash_at_import_ends_in_one_message_and_without_a_node(start: Starter, tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("import os\nraise RuntimeError('no')\n")
    run = start("run", str(tmp_path / "bad.py"), SLIM_ENDPOINT=None)
    assert run.wait() == 2
    assert re.fullmatch(
        r"error: .*bad.py fails on import with RuntimeError: no \(.*, line 2\)\.\n", run.output
    )


def test_a_process_that_ends_at_import_ends_the_run_after_its_restart_intensity(
    start: Starter, endpoint: str, tmp_path: Path
) -> None:
    (tmp_path / "bad.py").write_text("import os, sys\nprint('why', file=sys.stderr)\nos._exit(3)\n")
    run = start("run", str(tmp_path / "bad.py"), "--endpoint", endpoint)
    assert run.wait() == 5
    assert len(re.findall("^error: ", run.output, re.MULTILINE)) == 1
    told = r"^error: Replica 1 ended 6 times within 30 s, last: ended with exit code 3\. It is"
    assert re.search(told, run.output, re.MULTILINE)
    assert run.output.count("  | why") == 5


async def test_what_the_drain_has_no_time_for_is_done_by_another_replica(
    start: Starter, endpoint: str, file: str
) -> None:
    run = start("run", file, "--endpoint", endpoint, "--drain-timeout", "0.5")
    (joined,) = await until(run, r"^joined.*pid (\d+)")
    async with Runtime(endpoint) as caller:
        # The first one keeps the only instance busy; those behind it wait in its mailbox, and at its door.
        started = asyncio.create_task(caller.ask(Anycast(NAME), "wait"))
        await until(run, "^waiting")
        waiting = [asyncio.create_task(caller.ask(Anycast(NAME), "x")) for _ in range(20)]
        other = start("run", file, "--endpoint", endpoint)
        (successor,) = await until(other, r"^joined.*pid (\d+)")
        run.process.send_signal(signal.SIGTERM)
        answered = await asyncio.gather(*waiting)
        assert set(answered) == {int(successor[1])} != {int(joined[1])}
        with pytest.raises(Cancelled, match="ended while the message was handled"):
            await started
    assert await asyncio.to_thread(run.wait) == 0


async def test_ctrl_c_twice_stops_at_once(start: Starter, endpoint: str, file: str) -> None:
    run = start("run", file, "--endpoint", endpoint, "--drain-timeout", "3600")
    await until(run, "^joined")
    async with Runtime(endpoint) as caller:
        asking = asyncio.create_task(caller.ask(Anycast(NAME), "wait"))
        await until(run, "^waiting")
        run.process.send_signal(signal.SIGINT)
        await until(run, "^stopping .*Ctrl-C again stops now")
        run.process.send_signal(signal.SIGINT)
        assert await asyncio.to_thread(run.wait) == 130
        assert re.search("^stopped .*killed by SIGKILL", run.output, re.MULTILINE)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)


@pytest.mark.parametrize(
    ("word", "module"),
    [
        ("run", "slim_actors.launch"),
        ("run", "typer"),
        ("run", "slim_actors.settings"),
        ("--help", "slim_actors.cli.app"),
        ("--help", "enum"),
    ],
)
def test_ctrl_c_while_a_command_is_loaded_ends_it_quietly(start: Starter, word: str, module: str) -> None:
    # Of these, enum replaces an exception that comes while it makes a class by another one.
    probe = (
        "import os, sys\n"
        "sys.argv = ['slim-actors', *sys.argv[1:]]\n"
        "class Interrupted:\n"
        "    def find_spec(self, name, *rest):\n"
        "        if name == sys.argv[2]: os.kill(os.getpid(), 2)\n"
        "from slim_actors.cli import main\n"
        "sys.modules.pop(sys.argv[2], None)\n"
        "sys.meta_path.insert(0, Interrupted())\n"
        "main()\n"
    )
    command = start("-c", probe, word, module, python=True)
    assert command.wait() == 130
    assert not command.output


def test_nothing_that_takes_long_is_loaded_before_ctrl_c_is_seen_to(start: Starter) -> None:
    probe = (
        "import sys\n"
        "before = set(sys.modules)\n"
        "import slim_actors.cli\n"
        "print(*sorted(set(sys.modules) - before - set(sys.builtin_module_names)))\n"
    )
    command = start("-c", probe, python=True)
    assert command.wait() == 0
    assert command.output.split() == ["__future__", "slim_actors", "slim_actors.cli"]


async def test_on_a_terminal_lines_name_their_replica_and_its_end_ends_the_run(
    endpoint: str, file: str
) -> None:
    ours, theirs = pty.openpty()
    takes_it = (
        "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.executable,"
    )
    run = await asyncio.create_subprocess_exec(
        *[sys.executable, "-c", f"{takes_it} [sys.executable, *sys.argv[1:]])", "-P", "-m", "slim_actors"],
        *["run", file, "--endpoint", endpoint],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    shown = b""

    def read_until(word: bytes) -> None:
        nonlocal shown
        while word not in shown:
            shown += os.read(ours, 1024)

    async with Runtime(endpoint) as caller:
        async with asyncio.timeout(30):
            await asyncio.to_thread(read_until, b"joined")
            asking = asyncio.create_task(caller.ask(Anycast(NAME), "nap"))
            await asyncio.to_thread(read_until, b"replica 1 | napping")
            os.close(ours)
            # The hang-up drains.
            assert await asking == "slept"
            assert await run.wait() == 0


def is_running(pid: int) -> bool:
    """Tell whether a process is there, and not only because nobody has taken note of its end."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def test_replicas_end_when_their_supervisor_is_killed(start: Starter, endpoint: str) -> None:
    run = start("run", "agents/echo.py", "--endpoint", endpoint)
    (joined,) = run.until(r"^joined.*pid (\d+)")
    run.process.kill()
    run.wait()
    await eventually(lambda: not is_running(int(joined[1])))


@pytest.mark.parametrize("blocking", ["time.sleep(3600)", "await asyncio.to_thread(time.sleep, 3600)"])
async def test_a_replica_that_is_stuck_outlives_its_supervisor_by_the_drain_and_no_more(
    start: Starter, endpoint: str, tmp_path: Path, blocking: str
) -> None:
    (tmp_path / "stuck.py").write_text(
        "import asyncio, time\n"
        "from slim_actors import Agent\n"
        "class Stuck(Agent, name='t/t/stuck'):\n"
        "    async def receive(self, message):\n"
        "        print('stuck', flush=True)\n"
        f"        {blocking}\n"
    )
    run = start("run", str(tmp_path / "stuck.py"), "--endpoint", endpoint, "--drain-timeout", "0")
    (joined,) = run.until(r"^joined.*pid (\d+)")
    start("send", "t/t/stuck", "x", "--endpoint", endpoint)
    run.until("^stuck")
    run.process.kill()
    await eventually(lambda: not is_running(int(joined[1])))
