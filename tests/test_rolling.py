"""Replicas replaced under load: restarts, reloads, memory limits and scaling lose no message."""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from slim_actors import Anycast, DeliveryError, Runtime
from slim_actors.replicas.memory import parse_bytes
from tests.conftest import Command, Starter, eventually

NAME = "test/ns/versioned"
SOURCE = """
import asyncio
import os
from slim_actors import Agent
from version import VERSION

class Versioned(Agent, name="test/ns/versioned"):
    leak = []

    async def receive(self, message):
        await asyncio.sleep(0.002)
        if message == "leak":
            self.leak.append(bytearray(os.urandom(1024)) * 40 * 1024)
        return [VERSION, os.getpid()]
"""


class Load:
    """Callers that ask all the time; each failure is kept."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.failed: list[DeliveryError] = []
        self.versions: list[str] = []
        self.pids: list[int] = []

    async def ask_on(self) -> None:
        while True:
            try:
                version, pid = await self.runtime.ask(Anycast(NAME), "x", timeout=20)
            except DeliveryError as error:
                self.failed.append(error)
            else:
                self.versions.append(version)
                self.pids.append(pid)

    async def passes(self, count: int = 100) -> None:
        """Wait until so many more were answered."""
        done = len(self.versions)
        await eventually(lambda: len(self.versions) >= done + count)


@contextlib.asynccontextmanager
async def load(endpoint: str) -> AsyncIterator[Load]:
    """Ask all the time; at the end nothing may have failed."""
    async with Runtime(endpoint) as runtime:
        made = Load(runtime)
        callers = [asyncio.create_task(made.ask_on()) for _ in range(16)]
        try:
            await made.passes()
            yield made
            await made.passes()
        finally:
            for caller in callers:
                caller.cancel()
            await asyncio.wait(callers)
        assert made.failed == []


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "versioned.py").write_text(SOURCE)
    (tmp_path / "version.py").write_text("VERSION = 'one'\n")
    return tmp_path


def run(start: Starter, folder: Path, endpoint: str, *options: str, **env: str) -> Command:
    return start("run", str(folder / "versioned.py"), "--endpoint", endpoint, *options, **env)


async def until(command: Command, pattern: str, times: int = 1) -> list[re.Match[str]]:
    """Wait for a line without holding up the callers in this process."""
    return await asyncio.to_thread(command.until, pattern, times)


@pytest.mark.parametrize("count", [1, 3])
async def test_a_rolling_restart_under_load_fails_no_ask(
    start: Starter, endpoint: str, folder: Path, count: int
) -> None:
    agents = run(start, folder, endpoint, "--replicas", str(count))
    before = {int(joined[1]) for joined in await until(agents, r"^joined.*pid (\d+)", count)}
    async with load(endpoint) as asked:
        (folder / "version.py").write_text("VERSION = 'number two'\n")
        restart = start("restart", NAME)
        assert await asyncio.to_thread(restart.wait) == 0, restart.output
        assert restart.output.count("replaced ") == restart.output.count("stopped ") == count
        assert re.search(rf"^restarted +{count} replicas? of {NAME}$", restart.output, re.MULTILINE)
        done = len(asked.versions)
        await asked.passes()
    assert set(asked.versions[done:]) == {"number two"}
    assert not before.intersection(asked.pids[done:])
    # Never fewer than there should be: each was ready before the one that it replaced had gone.
    told = re.findall(r"^(replaced|stopped) ", agents.output, re.MULTILINE)
    assert told == ["replaced", "stopped"] * count


async def test_a_hang_up_restarts_a_run_as_the_command_does(
    start: Starter, endpoint: str, folder: Path
) -> None:
    agents = run(start, folder, endpoint, "--replicas", "2")
    await until(agents, "^joined", 2)
    async with load(endpoint):
        agents.process.send_signal(signal.SIGHUP)
        assert len(await until(agents, "^stopped", 2)) == 2
    assert len(re.findall("^replaced .*SIGHUP", agents.output, re.MULTILINE)) == 2
    assert agents.stop() == 0


async def test_a_restart_with_a_broken_file_leaves_the_old_replicas_and_says_why(
    start: Starter, endpoint: str, folder: Path
) -> None:
    agents = run(start, folder, endpoint, "--replicas", "2")
    await until(agents, "^joined", 2)
    (folder / "version.py").write_text("VERSION = \n")
    async with load(endpoint) as asked:
        restart = start("restart", NAME)
        assert await asyncio.to_thread(restart.wait) == 2
        told = r"error: Replica 1 is not replaced: .*version.py, line 1, does not parse"
        assert re.search(told, restart.output), restart.output
        assert len(restart.output.splitlines()) == 1
    assert agents.output.count("kept ") == 1
    assert "replaced " not in agents.output
    assert set(asked.versions) == {"one"}


async def test_a_restart_or_a_scaling_whose_agent_raises_at_its_start_has_failed(
    start: Starter, endpoint: str, folder: Path
) -> None:
    agents = run(start, folder, endpoint)
    await until(agents, "^joined")
    fails = "    async def started(self, ctx): raise ValueError('no luck')\n"
    (folder / "versioned.py").write_text(SOURCE + fails)
    for words, failed in (
        (["restart", NAME], "1 is not replaced"),
        (["scale", NAME, "2"], "2 did not start"),
    ):
        command = start(*words)
        assert await asyncio.to_thread(command.wait) == 5, command.output
        sentence = f"error: Replica {failed}: The agent failed with ValueError: no luck.\n"
        assert command.output == sentence, command.output


async def test_a_restart_that_never_gets_ready_gives_way_to_the_next(
    start: Starter, endpoint: str, folder: Path
) -> None:
    agents = run(start, folder, endpoint)
    await until(agents, "^joined")
    (folder / "version.py").write_text("import signal\nprint('loading', flush=True)\nsignal.pause()\n")
    stuck = start("restart", NAME)
    await until(agents, "^loading")
    (folder / "version.py").write_text("VERSION = 'number two'\n")
    second = start("restart", NAME)
    assert await asyncio.to_thread(stuck.wait) == 1
    assert "Another restart has taken over" in stuck.output
    assert await asyncio.to_thread(second.wait) == 0
    async with load(endpoint) as asked:
        pass
    assert set(asked.versions) == {"number two"}


STATEFUL = """
import asyncio
from slim_actors import Agent, State, handler
from version import VERSION

class Versioned(Agent, name="test/ns/versioned"):
    total = State(int)

    async def started(self, ctx):
        if VERSION == "stuck":
            print("stuck", flush=True)
            await asyncio.Event().wait()

    @handler
    async def add(self, message: int) -> list:
        self.total += message
        return [VERSION, self.total]
"""


async def test_a_state_has_a_replica_again_when_two_restarts_come_to_nothing(
    start: Starter, endpoint: str, folder: Path
) -> None:
    (folder / "versioned.py").write_text(STATEFUL)
    agents = run(start, folder, endpoint, "--store", str(folder / "store.db"))
    await until(agents, "^joined")
    async with Runtime(endpoint) as caller:
        assert await caller.ask(Anycast(NAME), 1) == ["one", 1]
        (folder / "version.py").write_text("VERSION = 'stuck'\n")
        first = start("restart", NAME)
        # The old one has made room, and the new one never gets ready.
        await until(agents, "^stuck")
        (folder / "version.py").write_text("VERSION = \n")
        second = start("restart", NAME)
        assert await asyncio.to_thread(first.wait) == 1
        assert await asyncio.to_thread(second.wait) == 2
        assert re.search("error: Replica 1 is not replaced: .*does not parse", second.output), second.output
        (folder / "version.py").write_text("VERSION = 'number two'\n")
        await until(agents, "^restarted")
        assert await caller.ask(Anycast(NAME), 1) == ["number two", 2]
    assert agents.stop() == 0


async def test_a_change_under_load_reloads_the_replicas_and_fails_no_ask(
    start: Starter, endpoint: str, folder: Path
) -> None:
    agents = run(start, folder, endpoint, "--replicas", "2", "--reload")
    await until(agents, "^joined", 2)
    async with load(endpoint) as asked:
        (folder / "version.py").write_text("VERSION = 'number two'\n")
        await until(agents, r"^replaced .*version\.py changed", 2)
        await until(agents, "^stopped", 1)
        (folder / "versioned.py").write_text("1 / 0\n")
        await until(agents, "^kept .*replacement did not start.*ZeroDivisionError.*")
        await asked.passes()
        assert "lost" not in agents.output
        # As many editors do: a new file in the place of the old one.
        (folder / "draft").write_text(SOURCE.replace("[VERSION", "['as ' + VERSION"))
        (folder / "draft").rename(folder / "versioned.py")
        await until(agents, r"^replaced .*versioned\.py changed", 2)
        await until(agents, "^stopped")
        done = len(asked.versions)
        await asked.passes()
        assert set(asked.versions[done:]) == {"as number two"}
    assert agents.output.count("kept ") == 1
    assert agents.stop() == 0


async def test_a_replica_that_leaks_is_replaced_at_its_limit_and_fails_no_ask(
    start: Starter, endpoint: str, folder: Path
) -> None:
    agents = run(start, folder, endpoint, "--replicas", "2", "--max-memory", "150MiB")
    await until(agents, "^joined", 2)
    async with load(endpoint) as asked:

        async def replaced() -> bool:
            # 40 MiB a time, for one of the two at random, until one of them is replaced.
            await asked.runtime.ask(Anycast(NAME), "leak")
            await asked.passes(10)
            return "replaced" in agents.output

        await eventually(replaced)
        await until(agents, r"^replaced .*it used \d+ MiB of 150 MiB")
        await until(agents, "^stopped")
    assert "lost" not in agents.output
    assert agents.stop() == 0


async def test_a_limit_that_no_replica_can_keep_ends_the_run(
    start: Starter, endpoint: str, folder: Path
) -> None:
    agents = run(start, folder, endpoint, "--max-memory", "1MiB")
    assert await asyncio.to_thread(agents.wait) == 5
    assert re.search("error: Replica 1 ended 6 times within 30 s, last: it used .* of 1 MiB", agents.output)


async def test_scaling_up_and_down_under_load_fails_no_ask(
    start: Starter, endpoint: str, folder: Path
) -> None:
    agents = run(start, folder, endpoint)
    await until(agents, "^joined")
    async with load(endpoint) as asked:
        for count, progress in ((3, "joined"), (1, "stopped")):
            scale = start("scale", NAME, str(count))
            assert await asyncio.to_thread(scale.wait) == 0, scale.output
            assert scale.output.count(progress) == 2, scale.output
            replicas = "1 replica" if count == 1 else f"{count} replicas"
            assert re.search(f"^scaled +{replicas} of {NAME}$", scale.output, re.MULTILINE)
            listed = start("ps")
            assert await asyncio.to_thread(listed.wait) == 0
            assert (
                len(re.findall(rf"^{NAME}/\S+\t\d\t\d+\t\d+ MiB\t\d+$", listed.output, re.MULTILINE)) == count
            )
            if count == 3:
                await eventually(lambda: len(set(asked.pids)) == 3)
    assert agents.stop() == 0
    assert agents.output.count("stopped ") == 3


async def test_scaling_up_with_a_broken_file_leaves_what_runs(
    start: Starter, endpoint: str, folder: Path
) -> None:
    agents = run(start, folder, endpoint)
    await until(agents, "^joined")
    (folder / "version.py").write_text("VERSION = \n")
    scale = start("scale", NAME, "3")
    assert await asyncio.to_thread(scale.wait) == 2
    assert re.search(r"error: Replica \d did not start: .* does not parse", scale.output), scale.output
    async with load(endpoint):
        pass
    assert agents.stop() == 0
    assert "lost" not in agents.output


def test_every_run_of_a_name_is_asked_and_a_killed_one_is_forgotten(
    start: Starter, endpoint: str, folder: Path
) -> None:
    first, second, killed = (run(start, folder, endpoint) for _ in range(3))
    for agents in (first, second, killed):
        agents.until("^joined")
    killed.stop(signal.SIGKILL)
    restart = start("restart", NAME)
    assert restart.wait() == 0, restart.output
    assert restart.output.count("restarted ") == 2
    first.until("^replaced")
    second.until("^replaced")


@pytest.mark.parametrize("command", [["restart", "no/such/agent"], ["scale", "no/such/agent", "2"]])
def test_a_name_that_nobody_runs_is_said(start: Starter, command: list[str]) -> None:
    refused = start(*command)
    assert refused.wait() == 4
    assert re.fullmatch(r"error: Nobody runs no/such/agent here: .*\n", refused.output), refused.output


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["restart", "two/parts"], "'two/parts' is not a name"),
        (["scale", NAME, "0"], "N is 0, but must be 1 or more"),
        (["run", "x.py", "--max-memory", "much"], "'much' is not an amount of memory: write it like 500MiB"),
        (["run", "x.py", "--max-memory", "9" * 400], "is not an amount of memory"),
        (["run", "x.py", "--max-memory", "0.5"], "'0.5' is not an amount of memory"),
        (["run", "x.py", "--max-memory", "500"], "--max-memory is 500, and no replica is that small"),
        (["run", "x.py", "--drain-timeout", "-1"], "--drain-timeout is -1, but must be a number of seconds"),
        (["run", "x.py", "--hang-after", "inf"], "--hang-after is inf, but must be a number of seconds"),
    ],
)
def test_what_cannot_be_is_refused_with_a_sentence(start: Starter, words: list[str], sentence: str) -> None:
    refused = start(*words)
    assert refused.wait() == 2
    assert sentence in refused.output
    assert len(refused.output.splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "amount"),
    [("500MiB", 500 * 2**20), ("1.5gib", 3 * 2**29), ("800 MB", 800 * 10**6), ("4096", 4096)],
)
def test_amounts_of_memory_are_read_as_people_write_them(text: str, amount: int) -> None:
    assert parse_bytes(text) == amount


def test_nobody_else_can_give_orders(start: Starter, endpoint: str, folder: Path, tmp_path: Path) -> None:
    run(start, folder, endpoint, XDG_RUNTIME_DIR=str(tmp_path)).until("^joined")
    (socket,) = (tmp_path / "slim-actors").iterdir()
    assert socket.stat().st_mode & 0o777 == 0o600
    assert socket.parent.stat().st_mode & 0o777 == 0o700
