"""The commands: what they print, and the exit code and the one sentence for each mistake."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import socket
from pathlib import Path

import psutil
import pytest

from slim_actors.cli import console
from slim_actors.endpoints import DEFAULT_ENDPOINT
from tests.conftest import OTHER_SECRET, Command, Starter, eventually, free_endpoint

ALICE = "agntcy/ns/alice"


def refused(command: Command, code: int, sentence: str) -> None:
    """Check that a command ended with this code and one sentence, and nothing like a traceback."""
    assert command.wait() == code, command.output
    output = command.output
    assert re.search(sentence, output), output
    assert "Traceback" not in output
    assert len(output.strip().splitlines()) == 1, output


def test_run_announces_each_replica_and_drains_on_a_signal(start: Starter, endpoint: str) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        run = start("run", "agents/echo.py", "--replicas", "3", "--endpoint", endpoint)
        joined = run.until(rf"^joined +replica \d {ALICE}/(\S+)", times=3)
        assert len({match[1] for match in joined}) == 3
        assert run.stop(number) == 0
        run.wait()
        assert len(re.findall("^stopped", run.output, re.MULTILINE)) == 3


def test_send_prints_each_reply_and_who_gave_it(start: Starter, endpoint: str) -> None:
    run = start("run", "agents/echo.py", "--replicas", "3", "--endpoint", endpoint)
    run.until("^joined", times=3)
    for switches, distinct in (([], 3), (["--unicast"], 1), (["--unicast", "--mls"], 1), (["--mls"], 3)):
        send = start("send", ALICE, "hi there", "--iterations", "6", "--endpoint", endpoint, *switches)
        assert send.wait() == 0, send.output
        replies = re.findall(rf"^reply +hi there  from {ALICE}/(\S+)$", send.output, re.MULTILINE)
        assert len(replies) == 6
        assert len(set(replies)) == distinct
    send = start("send", ALICE, '{"a": [1, null]}', "--json", "--endpoint", endpoint)
    assert send.wait() == 0
    shown = json.loads(send.output)
    assert shown["reply"] == {"a": [1, None]}
    assert shown["from"].startswith(f"{ALICE}/")


def test_options_are_environment_variables_too(start: Starter, endpoint: str) -> None:
    run = start(
        "run", "agents/echo.py", SLIM_ENDPOINT=endpoint, SLIM_ACTORS_REPLICAS="2", SLIM_ACTORS_NAME="t/t/t"
    )
    assert len(run.until("^joined +replica . t/t/t/", times=2)) == 2
    send = start("send", "t/t/t", "x", SLIM_ENDPOINT=endpoint, SLIM_ACTORS_ITERATIONS="3")
    assert send.wait() == 0
    assert send.output.count("reply") == 3


def test_only_encrypted_sessions_with_mls(start: Starter, endpoint: str) -> None:
    start("run", "agents/echo.py", "--mls", "--endpoint", endpoint).until("^joined")
    refused(start("send", ALICE, "x", "--endpoint", endpoint), 7, "end-to-end encrypted")
    assert start("send", ALICE, "x", "--mls", "--endpoint", endpoint).wait() == 0


def test_an_agent_in_a_folder_of_its_own_runs(start: Starter, endpoint: str, tmp_path: Path) -> None:
    (tmp_path / "helper.py").write_text("SUFFIX = '!'\n")
    (tmp_path / "mine.py").write_text(
        "from attrs import frozen\n"
        "from slim_actors import Agent, Request, handler\n"
        "from helper import SUFFIX\n"
        "@frozen\n"
        "class Say(Request[str]):\n"
        "    text: str\n"
        "class Mine(Agent, name='me/ns/mine'):\n"
        "    @handler\n"
        "    async def say(self, message: Say) -> str:\n"
        "        return message.text + SUFFIX\n"
    )
    (tmp_path / "ask.py").write_text(
        "import asyncio, sys\n"
        "from slim_actors import Anycast, Runtime\n"
        "from mine import Say\n"
        "async def main():\n"
        "    async with Runtime(sys.argv[1]) as runtime:\n"
        "        print(await runtime.ask(Anycast('me/ns/mine'), Say('it works')))\n"
        "asyncio.run(main())\n"
    )
    for target in (str(tmp_path / "mine.py"), f"{tmp_path}/mine.py:Mine", "mine.py", "mine", "mine:Mine"):
        run = start("run", target, "--endpoint", endpoint, cwd=tmp_path)
        run.until("^joined")
        ask = start("ask.py", endpoint, python=True, cwd=tmp_path)
        assert ask.wait() == 0, ask.output
        assert ask.output == "it works!\n"
        assert run.stop() == 0
    # A file may be called like a module of the standard library.
    (tmp_path / "mine.py").rename(tmp_path / "random.py")
    start("run", str(tmp_path / "random.py"), "--endpoint", endpoint).until("^joined")


def test_a_handler_that_raises_shows_its_error_at_the_caller(start: Starter, endpoint: str) -> None:
    start("run", "tests/agents_for_tests.py:Breaking", "--endpoint", endpoint).until("^joined")
    send = start("send", "test/ns/breaking", "bread", "--endpoint", endpoint)
    refused(send, 1, "RuntimeError: no bread today .*from test/ns/breaking/")


def test_the_default_endpoint_gets_a_node_when_it_has_none(start: Starter) -> None:
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", 46357)) == 0:
            pytest.skip("somebody uses the default endpoint of this machine")
    first = start("run", "agents/echo.py")
    first.until("^node +nothing listened at http://127.0.0.1:46357, so a SLIM node runs here now")
    first.until("^joined")
    second = start("run", "agents/echo.py")
    second.until("^joined")
    assert "node " not in second.output
    send = start("send", ALICE, "x", "--iterations", "4")
    assert send.wait() == 0
    assert len(set(re.findall(r"from (\S+)", send.output))) == 2
    quickstart = start("examples/quickstart.py", python=True)
    assert quickstart.wait() == 0
    assert quickstart.output == "HELLO!\n"
    bob = start("examples/bob.py", python=True)
    assert bob.wait() == 0, bob.output
    assert second.stop() == first.stop() == 0


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["run", "missing.py"], 2, "There is no file missing.py"),
        (["run", "missing.module"], 2, "There is no file and no module missing.module"),
        (["run", "agents/echo.py", "--replicas", "0"], 2, "--replicas is 0, but must be 1 or more"),
        (["run", "agents/echo.py", "--name", "two/parts"], 2, "'two/parts' is not a name"),
        (["run", "agents/echo.py:Nobody"], 2, "has no Nobody; it has Echo"),
        (["run", "agents/echo.py:Any"], 2, "Any in agents/echo.py is not an agent"),
        (
            ["run", "tests/agents_for_tests.py"],
            2,
            r"has several agents \(Worker, Echo, Once, Breaking\): name one",
        ),
        (["send", "two/parts", "x"], 2, "'two/parts' is not a name"),
        (["send", ALICE, "{", "--json"], 2, "The message is not JSON"),
        (["send", ALICE, "x", "--iterations", "0"], 2, "--iterations is 0"),
        (["send", ALICE, "x", "--timeout", "0"], 2, "timeout of 0.0 is not"),
        (["send", "test/ns/nobody", "x"], 4, "Nobody answers at test/ns/nobody"),
    ],
)
def test_a_mistake_is_one_sentence_and_an_exit_code(
    start: Starter, endpoint: str, words: list[str], code: int, sentence: str
) -> None:
    refused(start(*words, "--endpoint", endpoint), code, sentence)


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("class Agent(:\n", "line 1, does not parse"),
        ("import nothing_like_it\n", "fails on import with ModuleNotFoundError: .*nothing_like_it.*line 1"),
        ("1/0\n", "fails on import with ZeroDivisionError"),
        (
            "import asyncio\nasync def main(): ...\nwork = main()\n"
            "try:\n    asyncio.run(work)\nfinally:\n    work.close()",
            r"asyncio.run\(\) cannot .*agent.py, line 5\). Put what starts it under if __name__",
        ),
        ("x = 1\n", "has no agent"),
        (
            "from slim_actors import Agent\n"
            "class A(Agent, name='a/b'):\n    async def receive(self, m): ...\n",
            "A: 'a/b' is not a name",
        ),
        ("from slim_actors import Agent\nclass A(Agent, name='a/b/c'): ...\n", "A handles nothing"),
        (
            "from slim_actors import Agent\nclass A(Agent):\n    async def receive(self, m): ...\n",
            "A has no name",
        ),
        (
            "from slim_actors import Agent\nclass A(Agent, name='a/b/c'):\n"
            "    def __init__(self, x): ...\n    async def receive(self, m): ...\n",
            "cannot be made",
        ),
    ],
)
def test_a_file_that_cannot_be_run_says_why_once(
    start: Starter, endpoint: str, tmp_path: Path, source: str, sentence: str
) -> None:
    (tmp_path / "agent.py").write_text(source)
    run = start("run", str(tmp_path / "agent.py"), "--replicas", "3", "--endpoint", endpoint)
    refused(run, 2, sentence)


def test_a_missing_file_is_said_before_a_missing_node(start: Starter) -> None:
    refused(start("run", "missing.py", "--endpoint", free_endpoint()), 2, "There is no file missing.py")


def test_what_a_replica_could_say_itself_is_shown_once(start: Starter, endpoint: str, tmp_path: Path) -> None:
    (tmp_path / "failing.py").write_text(
        "from slim_actors import Agent\n"
        "class Failing(Agent, name='t/t/failing'):\n"
        "    async def started(self, ctx): raise ValueError('the cause')\n"
        "    async def receive(self, message): ...\n"
    )
    run = start("run", str(tmp_path / "failing.py"), "--endpoint", endpoint)
    run.until("^lost +replica 1 .*ValueError: the cause")
    run.until("^lost")
    assert run.stop() in {0, 5}
    run.wait()
    assert run.output.count("Traceback") >= 2
    assert not re.search(r"^ +\|", run.output, re.MULTILINE), run.output


def test_ps_says_that_nothing_runs_and_lists_nothing(start: Starter, tmp_path: Path) -> None:
    listed = start("ps", XDG_RUNTIME_DIR=str(tmp_path))
    assert listed.wait() == 0
    assert listed.output == "No slim-actors run of this user is running on this machine.\n"


def test_what_a_peer_says_moves_no_cursor_and_sets_no_title(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    console.line("reply", "\x1b]0;title\x07\x9b2J é\nnext")
    shown = terminal.getvalue()
    assert r"\x1b]0;title\x07\x9b2J é" in shown
    assert "\nnext" in shown
    assert "\x1b]0" not in shown
    assert "\x9b" not in shown


def test_a_replica_that_keeps_dying_ends_the_run(start: Starter, endpoint: str, tmp_path: Path) -> None:
    (tmp_path / "dying.py").write_text(
        "import os\nfrom slim_actors import Agent\n"
        "class Dying(Agent, name='t/t/dying'):\n"
        "    async def started(self, ctx): os._exit(7)\n"
        "    async def receive(self, message): ...\n"
    )
    run = start("run", str(tmp_path / "dying.py"), "--endpoint", endpoint)
    assert run.wait() == 5
    assert run.output.count("lost") == 5
    assert re.search("error: Replica 1 ended 6 times within 30 s, last: ended with exit code 7", run.output)


def test_no_node_at_the_endpoint_names_the_command_that_starts_one(start: Starter) -> None:
    endpoint = free_endpoint()
    command = rf"No SLIM node listens at {endpoint}. Start one with: slim-actors node --endpoint {endpoint}"
    refused(start("send", ALICE, "x", "--endpoint", endpoint), 3, command)
    refused(start("run", "agents/echo.py", "--endpoint", endpoint), 3, command)
    refused(start("run", "agents/echo.py", "--endpoint", "nonsense"), 2, "'nonsense' is not an endpoint")


def test_what_listens_but_is_no_node_is_said(start: Starter) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        endpoint = f"http://127.0.0.1:{server.getsockname()[1]}"
        refused(
            start("send", ALICE, "x", "--endpoint", endpoint),
            3,
            "Something listens at .*, but does not answer",
        )


def test_an_endpoint_in_use_is_refused(start: Starter, endpoint: str, tmp_path: Path) -> None:
    refused(start("node", "--endpoint", endpoint), 6, f"Something already listens at {endpoint}")
    unix = f"unix://{tmp_path}/slim.sock"
    first = start("node", "--endpoint", unix)
    first.until("listening")
    refused(start("node", "--endpoint", unix), 6, "Something already listens")
    first.stop(signal.SIGKILL)
    again = start("node", "--endpoint", unix)
    again.until("listening")
    assert again.stop() == 0


def test_secrets_keep_others_out(start: Starter, endpoint: str) -> None:
    start("run", "agents/echo.py", "--endpoint", endpoint).until("^joined")
    wrong = start("send", ALICE, "x", "--endpoint", endpoint, "--shared-secret", OTHER_SECRET)
    refused(wrong, 7, "agntcy/ns/alice refuses this identity: it has another shared secret")
    for command in (["send", ALICE, "x"], ["run", "agents/echo.py"]):
        short = start(*command, "--endpoint", endpoint, "--shared-secret", "short")
        refused(short, 2, "The shared secret has 5 bytes, but SLIM needs at least 32")


def test_without_a_secret_every_local_command_shares_one(
    start: Starter, endpoint: str, tmp_path: Path
) -> None:
    env = {"SLIM_SHARED_SECRET": None, "XDG_CONFIG_HOME": str(tmp_path)}
    start("run", "agents/echo.py", "--endpoint", endpoint, **env).until("^joined")
    assert start("send", ALICE, "x", "--endpoint", endpoint, **env).wait() == 0
    secret = tmp_path / "slim-actors" / "secret"
    assert secret.stat().st_mode & 0o777 == 0o600
    other = {**env, "XDG_CONFIG_HOME": str(tmp_path / "somebody else")}
    refused(start("send", ALICE, "x", "--endpoint", endpoint, **other), 7, "another shared secret")


def test_the_secret_of_a_run_is_in_no_command_line(start: Starter, endpoint: str) -> None:
    run = start("run", "agents/echo.py", "--endpoint", endpoint)
    (joined,) = run.until(r"^joined.*pid (\d+)")
    words = Path(f"/proc/{joined[1]}/cmdline").read_bytes()
    assert os.environ["SLIM_SHARED_SECRET"].encode() not in words


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


@pytest.mark.parametrize("command", [[], ["run"], ["send"], ["node"], ["restart"], ["scale"], ["ps"]])
def test_help_has_examples(start: Starter, command: list[str]) -> None:
    shown = start(*command, "--help", TERMINAL_WIDTH="200", COLUMNS="200")
    assert shown.wait() == 0
    assert ("Examples" in shown.output) is bool(command)


def test_help_does_not_load_the_bindings(start: Starter) -> None:
    probe = (
        "import sys; sys.argv = ['slim-actors', '--help']\n"
        "from slim_actors.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print('LOADED', 'slim_bindings' in sys.modules)\n"
    )
    shown = start("-c", probe, python=True)
    assert shown.wait() == 0
    assert "LOADED False" in shown.output


def test_the_default_endpoint_is_where_the_documentation_says() -> None:
    assert DEFAULT_ENDPOINT == "http://127.0.0.1:46357"


@pytest.mark.parametrize(
    ("what", "unwanted"),
    [
        (
            "sys.argv = ['slim-actors', 'run', '--help']; main()",
            {"pydantic", "slim_bindings", "slim_actors.runtime", "slim_actors.cli.certs"},
        ),
        (
            "import slim_actors.runtime, slim_actors.transport.slim",
            {"sqlite3", "statistics", "tempfile", "typer"},
        ),
    ],
)
def test_what_is_not_needed_is_not_imported(start: Starter, what: str, unwanted: set[str]) -> None:
    script = f"""
import contextlib, sys
from slim_actors.cli import main
with contextlib.suppress(SystemExit):
    {what}
print('IMPORTED', *sorted({unwanted} & sys.modules.keys()))
"""
    run = start("-c", script, python=True)
    assert run.wait() == 0, run.output
    assert run.output.splitlines()[-1] == "IMPORTED"
