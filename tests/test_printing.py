"""What commands print: neither who reads it nor what cannot be written stops those that have work to do."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from pathlib import Path

import pytest

from slim_actors.cli.aside import _Aside
from tests.conftest import Command, Starter, eventually

NAME = "agntcy/ns/alice"
CLOSED = "os.close(1); os.close(2)"
FULL = "full = os.open('/dev/full', os.O_WRONLY); os.dup2(full, 1); os.dup2(full, 2)"
GONE = "reading, writing = os.pipe(); os.dup2(writing, 1); os.dup2(writing, 2); os.close(reading)"
STALLED = """
reading, writing = os.pipe()
os.set_inheritable(reading, True)
os.set_blocking(writing, False)
try:
    while True:
        os.write(writing, b"x")
except BlockingIOError:
    os.set_blocking(writing, True)
os.dup2(writing, 1)
os.dup2(writing, 2)
"""


def start_with(start: Starter, streams: str, *words: str, **env: str) -> Command:
    """Start a command after something was done to its standard streams."""
    script = f"import os, sys\n{streams}\nos.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    return start("-c", script, "-P", "-m", "slim_actors", *words, python=True, **env)


@pytest.mark.parametrize("streams", [CLOSED, FULL, GONE, STALLED], ids=["closed", "full", "gone", "stalled"])
async def test_a_run_works_on_and_ends_well_whatever_becomes_of_what_it_prints(
    start: Starter, endpoint: str, tmp_path: Path, streams: str
) -> None:
    env = {"XDG_RUNTIME_DIR": str(tmp_path)}
    run = start_with(start, streams, "run", "agents/echo.py", "--endpoint", endpoint, **env)
    pids: list[int] = []

    def is_another_there() -> bool:
        listed = start("ps", **env)
        assert listed.wait() == 0
        match = re.search(rf"^{NAME}/\S+\t1\t(\d+)\t", listed.output, re.MULTILINE)
        if match and int(match[1]) not in pids:
            pids.append(int(match[1]))
            return True
        return False

    await eventually(is_another_there)
    os.kill(pids[0], signal.SIGKILL)
    await eventually(is_another_there)
    assert run.stop() == 0


@pytest.mark.parametrize("streams", [CLOSED, "os.close(1)", "os.close(2)"], ids=["both", "1", "2"])
@pytest.mark.parametrize("words", [["ps"], ["restart", "a/b/c"], ["node", "--endpoint", "nonsense"]])
def test_a_command_whose_streams_are_closed_ends_as_it_would_with_them(
    start: Starter, tmp_path: Path, words: list[str], streams: str
) -> None:
    env = {"XDG_RUNTIME_DIR": str(tmp_path)}
    usual = start(*words, **env).wait()
    quiet = start_with(start, streams, *words, **env)
    assert quiet.wait() == usual
    assert "Traceback" not in quiet.output


def test_a_character_that_the_terminal_lacks_is_spelled(
    start: Starter, endpoint: str, tmp_path: Path
) -> None:
    (tmp_path / "failing.py").write_text(
        "from slim_actors import Agent\n"
        "class Failing(Agent, name='t/t/failing'):\n"
        "    async def started(self, ctx): raise ValueError('100 \\u20ac')\n"
        "    async def receive(self, message): ...\n"
    )
    env = {"PYTHONIOENCODING": "latin-1"}
    failing = start("run", str(tmp_path / "failing.py"), "--endpoint", endpoint, **env)
    failing.until(r"^lost .*100 \\u20ac")
    start("run", "agents/echo.py", "--endpoint", endpoint, **env).until("^joined")
    send = start("send", NAME, "100 \u20ac", "--endpoint", endpoint, **env)
    assert send.wait() == 0, send.output
    assert re.search(r"^reply +100 \\u20ac  from", send.output)


def test_a_message_may_come_from_standard_input(start: Starter, endpoint: str, tmp_path: Path) -> None:
    (tmp_path / "one").write_text("several\nlines\n", encoding="utf-8")
    (tmp_path / "no text").write_bytes(b"\xff\xfe\xff")
    start("run", "agents/echo.py", "--endpoint", endpoint).until("^joined")

    def send(file: Path, *words: str) -> Command:
        reading = f"os.dup2(os.open({str(file)!r}, os.O_RDONLY), 0)"
        return start_with(start, reading, "send", NAME, *words, "--endpoint", endpoint)

    piped = send(tmp_path / "one", "-")
    assert piped.wait() == 0, piped.output
    assert piped.output.startswith("reply     several\nlines  from ")
    garbage = send(tmp_path / "no text", "-")
    assert garbage.wait() == 2
    assert "Standard input cannot be read" in garbage.output


async def test_what_nobody_reads_is_dropped_by_lines_and_counted() -> None:
    reading, writing = os.pipe()
    aside = _Aside(writing, is_terminal=False)
    for number in range(10_000):
        aside.write(f"line {number} ".ljust(99, "x").encode() + b"\n")
    lines: list[str] = []

    def read() -> None:
        with os.fdopen(reading, encoding="ascii") as stream:
            while lines[-1:] != ["the end\n"]:
                lines.append(stream.readline())

    reader = asyncio.create_task(asyncio.to_thread(read))
    await eventually(lambda: not aside._waiting)
    aside.write(b"the end\n")
    await reader
    kept = [line for line in lines if re.fullmatch(r"line \d+ x+\n", line)]
    lost = [int(match[1]) for line in lines if (match := re.search(r"(\d+) lines are lost", line))]
    assert lost
    assert len(kept) + len(lost) + 1 == len(lines)
    assert len(kept) + sum(lost) == 10_000
