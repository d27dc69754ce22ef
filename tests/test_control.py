"""Orders to runs: what does not answer, or is none, holds up no command, and nobody else passes for one."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest

from slim_actors import ConfigurationError
from slim_actors.replicas import control
from slim_actors.replicas.events import Event, EventKind
from slim_actors.secret import config_folder
from tests.conftest import Starter

if TYPE_CHECKING:
    from slim_actors.replicas.supervisor import Supervisor

NAME = "agntcy/ns/alice"


@pytest.fixture
def sockets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the control sockets of this test."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    (tmp_path / "slim-actors").mkdir(0o700)
    return tmp_path / "slim-actors"


def test_a_frozen_run_is_said_and_holds_up_no_order_to_another(
    start: Starter, endpoint: str, sockets: Path
) -> None:
    frozen = start("run", "agents/echo.py", "--endpoint", endpoint)
    frozen.until("^joined")
    (silent,) = sockets.iterdir()
    start("run", "agents/echo.py", "--endpoint", endpoint).until("^joined")
    frozen.process.send_signal(signal.SIGSTOP)
    try:
        for words, done in (
            (["ps"], rf"{NAME}/\S+\t1\t"),
            (["restart", NAME], "restarted +1 replica"),
            (["scale", NAME, "2"], "scaled +2 replicas"),
        ):
            command = start(*words)
            assert command.wait() == 1
            assert f"error: The run at {silent} does not answer" in command.output
            assert len(re.findall(f"^{done}", command.output, re.MULTILINE)) == 1, command.output
    finally:
        frozen.process.send_signal(signal.SIGCONT)
    # It has not missed anything that it would now do too late.
    assert frozen.stop() == 0
    frozen.wait()
    assert "replaced" not in frozen.output


@pytest.mark.parametrize("words", [["ps"], ["restart", NAME]])
def test_a_socket_that_is_no_run_is_no_concern(start: Starter, sockets: Path, words: list[str]) -> None:
    expected = start(*words)
    code = expected.wait()
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagrams,
        socket.socket(socket.AF_UNIX) as talker,
    ):
        datagrams.bind(str(sockets / "one.sock"))
        talker.bind(str(sockets / "two.sock"))
        talker.listen()
        command = start(*words)
        said, _ = talker.accept()
        said.sendall(b"220 mail.example.com ESMTP\n")
        said.close()
        assert command.wait() == code
        assert command.output == expected.output


def test_a_folder_that_others_can_enter_is_not_believed(start: Starter, endpoint: str, sockets: Path) -> None:
    sockets.chmod(0o755)
    listed = start("ps")
    assert listed.wait() == 2
    assert re.fullmatch(f"error: The folder {sockets} is not this user's alone.*chmod 700.*\n", listed.output)
    run = start("run", "agents/echo.py", "--endpoint", endpoint)
    run.until(
        "^control .*restart, scale and ps will not find this run: The folder .* is not this user's alone"
    )
    run.until("^joined")


def test_a_user_without_a_home_is_told_so_and_can_run_agents(start: Starter, endpoint: str) -> None:
    script = (
        "import pwd, sys\n"
        "def nobody(uid): raise KeyError\n"
        "pwd.getpwuid = nobody\n"
        "from slim_actors.cli import main\n"
        "main()\n"
    )
    env = {"HOME": None, "XDG_CONFIG_HOME": None, "XDG_RUNTIME_DIR": None}
    listed = start("-c", script, "ps", python=True, **env)
    assert listed.wait() == 2
    assert re.fullmatch(
        "error: This user has no home folder.*: set HOME or XDG_CONFIG_HOME .*\n", listed.output
    )
    run = start("-c", script, "run", "agents/echo.py", "--endpoint", endpoint, python=True, **env)
    run.until("^control .*This user has no home folder")
    run.until("^joined")
    assert run.stop() == 0


def test_a_base_folder_that_is_relative_is_ignored_as_its_specification_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", "config")
    monkeypatch.setenv("XDG_RUNTIME_DIR", "run")
    assert config_folder() == tmp_path / ".config" / "slim-actors"
    assert control.folder() == tmp_path / ".config" / "slim-actors" / "run"


def test_a_folder_of_somebody_else_is_not_believed(sockets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 54_321)
    with pytest.raises(ConfigurationError, match="is not this user's alone"):
        control.runs()


class Restarting:
    """A supervisor whose restart takes until the test says that it is done."""

    name = NAME

    def __init__(self) -> None:
        self.begun, self.done = asyncio.Event(), asyncio.Event()

    async def restart(self, _: str) -> int:
        self.begun.set()
        await self.done.wait()
        return 1


@pytest.mark.usefixtures("sockets")
async def test_a_run_goes_on_in_silence_when_the_command_that_gave_an_order_has_gone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    supervisor = Restarting()
    async with control.Control(cast("Supervisor", supervisor)) as listening:
        (path,) = control.runs()
        _, writer = await asyncio.open_unix_connection(path)
        writer.write(b'{"do":"restart"}\n')
        await supervisor.begun.wait()
        writer.close()
        await writer.wait_closed()
        for number in range(20):
            listening.tell(Event(EventKind.REPLACED, number))
        supervisor.done.set()
    assert caplog.messages == []
