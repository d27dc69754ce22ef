"""The logs of commands and replicas: JSON for programs, short lines for people."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import pty
import re
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import pytest
from attrs import define

from slim_actors import Agent, Context, Unicast, handler
from slim_actors.logs import JsonFormatter
from slim_actors.testing import TestRuntime
from tests.conftest import Starter, eventually

LEAF = "tests/tracing_agents.py:Leaf"
TRACE = "0af7651916cd43dd8448eb211c80319c"
ASK = f"""
import asyncio
from slim_actors import Anycast, Middleware, RemoteError, Runtime

class Traced(Middleware):
    def sending(self, sending):
        sending.context["traceparent"] = "00-{TRACE}-b7ad6b7169203331-01"

async def main():
    async with Runtime(middleware=[Traced()]) as runtime:
        await runtime.ask(Anycast("test/ns/leaf"), "hello")
        try:
            await runtime.ask(Anycast("test/ns/leaf"), "boom")
        except RemoteError:
            pass

asyncio.run(main())
"""


@define
class Note:
    pass


def lines(output: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.splitlines() if line.startswith("{")]


@pytest.mark.parametrize("otel", [False, True])
def test_a_line_of_json_says_which_message_and_which_trace_it_is_about(
    start: Starter, endpoint: str, otel: bool
) -> None:
    env = {"SLIM_ENDPOINT": endpoint, "OTEL_TRACES_EXPORTER": "none", "OTEL_METRICS_EXPORTER": "none"}
    run = start("run", LEAF, *(["--otel"] if otel else []), **env)
    (joined,) = run.until(r"^joined +replica 1 (\S+)")
    assert start("-c", ASK, python=True, SLIM_ENDPOINT=endpoint).wait() == 0
    assert run.stop() == 0
    run.wait()
    hello, boom, failure = lines(run.output)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", hello.pop("time"))
    assert re.fullmatch(r"[0-9a-f-]{36}:1", hello.pop("message_id"))
    assert hello == {
        "level": "WARNING",
        "logger": "somebody.elses",
        "message": "working on hello",
        "agent": joined[1],
        "trace_id": TRACE,
        "span_id": "b7ad6b7169203331",
    }
    assert failure["message_id"] == boom["message_id"] != ""
    assert failure["trace_id"] == TRACE
    assert failure["exception"].startswith("Traceback")
    assert failure["exception"].endswith("ValueError: boom it is")


def test_options_say_how_logs_look_and_how_much_is_logged(start: Starter, endpoint: str) -> None:
    run = start("--log-format", "text", "--log-level", "error", "run", LEAF, "--endpoint", endpoint)
    run.until("^joined")
    start("-c", ASK, python=True, SLIM_ENDPOINT=endpoint).wait()
    run.stop()
    run.wait()
    assert lines(run.output) == []
    assert re.search(
        r"^\d\d:\d\d:\d\d ERROR   slim_actors\.agent: \S+ failed on str$", run.output, re.MULTILINE
    )
    assert "working on" not in run.output
    wrong = start("send", "a/b/c", "x", SLIM_ACTORS_LOG_LEVEL="loud")
    assert wrong.wait() == 2
    assert wrong.output == (
        "error: SLIM_ACTORS_LOG_LEVEL is 'loud', but must be one of debug, info, warning, error, critical.\n"
    )


@pytest.mark.parametrize("terminal", [True, False])
def test_a_terminal_gets_text_and_a_pipe_gets_json(terminal: bool) -> None:
    script = "import logging; from slim_actors.logs import configure; configure(); logging.warning('look')"
    reading, writing = pty.openpty() if terminal else os.pipe()
    subprocess.run(
        [sys.executable, "-c", script], stderr=writing, check=True, cwd=Path(__file__).parent.parent
    )
    said = os.read(reading, 1000).decode()
    os.close(reading)
    os.close(writing)
    if terminal:
        assert re.fullmatch(r"\d\d:\d\d:\d\d WARNING root: look\s+", said)
    else:
        assert json.loads(said)["message"] == "look"


def test_what_a_program_adds_is_in_the_line_whatever_it_is() -> None:
    script = (
        "import logging; from slim_actors.logs import configure; configure()\n"
        "logging.warning('%s', 'x', extra={'order': 7, 'what': object, 'bad': '\\ud800'})"
    )
    run = subprocess.run([sys.executable, "-c", script], stderr=subprocess.PIPE, check=True, text=True)
    line = json.loads(run.stderr)
    assert (line["order"], line["what"], line["message"]) == (7, "<class 'object'>", "x")


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ("{'who': {('t', 1): 2}}", {"who": "{('t', 1): 2}"}),
        ("{('t', 1): 2}", {"('t', 1)": 2}),
        ("{'bad': Bad(), 'order': 7}", {"order": 7}),
        ("{'time': 'never', 'level': 'low', 'logger': 'me', 'stack': 'none'}", {"stack": "none"}),
    ],
)
def test_nothing_that_a_program_adds_loses_the_line_or_what_is_in_each(
    extra: str, said: dict[str, Any]
) -> None:
    script = (
        "import logging; from slim_actors.logs import configure; configure()\n"
        "class Bad:\n"
        "    def __repr__(self): raise ValueError('no text')\n"
        f"logging.warning('x', extra={extra})"
    )
    run = subprocess.run([sys.executable, "-c", script], stderr=subprocess.PIPE, check=True, text=True)
    line = json.loads(run.stderr)
    assert said.items() <= line.items()
    assert (line["level"], line["logger"], line["message"]) == ("WARNING", "root", "x")
    assert line["time"].startswith("20")


def test_a_stack_that_a_program_asks_for_is_in_the_line() -> None:
    script = (
        "import logging; from slim_actors.logs import configure; configure()\n"
        "logging.warning('x', stack_info=True)"
    )
    run = subprocess.run([sys.executable, "-c", script], stderr=subprocess.PIPE, check=True, text=True)
    assert json.loads(run.stderr)["stack"].startswith("Stack (most recent call last):")


async def test_a_program_keeps_its_own_logging(start: Starter, endpoint: str) -> None:
    script = """
import asyncio, logging
from slim_actors import Agent, Anycast, Runtime

class Echo(Agent, name="a/b/c"):
    async def receive(self, message):
        return message

async def main():
    async with Runtime() as runtime:
        await runtime.spawn(Echo)
        await runtime.ask(Anycast("a/b/c"), "x")
    print(logging.getLogger().handlers, logging.getLogger().level == logging.WARNING)

asyncio.run(main())
"""
    run = start("-c", script, python=True, SLIM_ENDPOINT=endpoint)
    assert run.wait() == 0
    assert run.output == "[] True\n"


def test_what_a_replica_logs_outside_of_its_handlers_names_its_agent(
    start: Starter, endpoint: str, tmp_path: Path
) -> None:
    (tmp_path / "ticking.py").write_text(
        "import asyncio, logging\n"
        "from slim_actors import Agent\n"
        "class Ticking(Agent, name='t/t/ticking'):\n"
        "    async def started(self, ctx): self.task = asyncio.create_task(self.tick())\n"
        "    async def receive(self, message): ...\n"
        "    async def tick(self):\n"
        "        while True:\n"
        "            await asyncio.sleep(2)\n"
        "            logging.warning('tick')\n"
    )
    run = start("run", str(tmp_path / "ticking.py"), "--endpoint", endpoint)
    (joined,) = run.until(r"^joined +replica 1 (\S+)")
    run.until("tick", times=2)
    assert run.stop() == 0
    run.wait()
    assert lines(run.output)[-1]["agent"] == joined[1]


async def test_a_message_is_let_go_when_it_has_its_reply() -> None:
    handled: list[weakref.ref[Note]] = []

    class Keeper(Agent, name="test/ns/keeper"):
        @handler
        async def note(self, note: Note) -> None:
            handled.append(weakref.ref(note))

    async with TestRuntime() as runtime:
        await runtime.spawn(Keeper)
        await runtime.ask(Unicast("test/ns/keeper"), Note())
        # Not by the garbage collector: an agent that is idle makes nothing that would start it.
        gc.disable()
        try:
            await runtime.ask(Unicast("test/ns/keeper"), Note())
            await eventually(lambda: handled[1]() is None)
        finally:
            gc.enable()


async def test_a_message_is_let_go_whatever_its_handler_has_opened() -> None:
    handled: list[weakref.ref[Note]] = []

    class Asking(Agent, name="test/ns/asking"):
        @handler
        async def note(self, note: Note, ctx: Context) -> None:
            handled.append(weakref.ref(note))
            # A session, which stays, and the first deadline, which is far away.
            await ctx.ask(Unicast("test/ns/echo"), "hi")

    class Answering(Agent, name="test/ns/echo"):
        async def receive(self, message: str) -> str:
            return message

    async with TestRuntime() as runtime:
        await runtime.spawn(Asking)
        await runtime.spawn(Answering)
        await runtime.ask(Unicast("test/ns/asking"), Note())
        await eventually(lambda: gc.collect() >= 0 and handled[0]() is None)


async def test_a_line_about_a_message_that_expired_names_no_other() -> None:
    ids: list[str] = []
    texts: list[str] = []

    class Format(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            texts.append(JsonFormatter().format(record))

    class Slow(Agent, name="test/ns/slow"):
        async def receive(self, message: str, ctx: Context) -> None:
            ids.append(ctx.message_id)
            await asyncio.sleep(2)

    logger, lines_of = logging.getLogger("slim_actors.dead_letters"), Format()
    logger.addHandler(lines_of)
    try:
        async with TestRuntime() as runtime:
            await runtime.spawn(Slow)
            await runtime.tell(Unicast("test/ns/slow"), "first")
            await runtime.tell(Unicast("test/ns/slow"), "second", timeout=1)
            await eventually(lambda: len(texts) > 0)
    finally:
        logger.removeHandler(lines_of)
    (line,) = map(json.loads, texts)
    instance, _, number = ids[0].rpartition(":")
    assert line["message_id"] == f"{instance}:{int(number) + 1}"
