"""The examples run as the README writes them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections import Counter

import pytest

from tests.conftest import OTHER_SECRET, ROOT, Starter, free_endpoint

ALICE = "agntcy/ns/alice"


@pytest.mark.parametrize(
    ("switches", "counts"),
    [([], [4, 4, 4]), (["--mls"], [4, 4, 4]), (["--unicast"], [12]), (["--unicast", "--mls"], [12])],
)
def test_bob_asks_alice_in_every_mode(
    start: Starter, endpoint: str, switches: list[str], counts: list[int]
) -> None:
    start("run", "agents/echo.py", "--replicas", "3", "--endpoint", endpoint).until("^joined", times=3)
    bob = start("examples/bob.py", "--iterations", "12", "--endpoint", endpoint, *switches, python=True)
    assert bob.wait() == 0, bob.output
    replies = re.findall(rf"^ *\d+  hello \d+  from {ALICE}/(\S+)$", bob.output, re.MULTILINE)
    assert sorted(Counter(replies).values()) == counts


def test_bob_has_the_switches_of_the_seed(start: Starter, endpoint: str) -> None:
    start("run", "agents/echo.py", "--name", "my/ns/alice", "--endpoint", endpoint).until("^joined")
    words = ["--message", "ahoy", "--remote", "my/ns/alice", "--endpoint", endpoint]
    bob = start("examples/bob.py", *words, python=True)
    assert bob.wait() == 0
    assert "ahoy 1  from my/ns/alice/" in bob.output
    wrong = start("examples/bob.py", *words, "--shared-secret", OTHER_SECRET, python=True)
    assert wrong.wait() == 7
    assert "another shared secret" in wrong.output


def test_bob_says_in_a_sentence_what_is_wrong(start: Starter, endpoint: str) -> None:
    nowhere = start("examples/bob.py", "--endpoint", free_endpoint(), python=True)
    assert nowhere.wait() == 3
    assert nowhere.output.startswith("error: No SLIM node listens at")
    start("run", "tests/agents_for_tests.py:Breaking", "--name", ALICE, "--endpoint", endpoint).until(
        "^joined"
    )
    broken = start("examples/bob.py", "--endpoint", endpoint, python=True)
    assert broken.wait() == 1
    assert "RemoteError: RuntimeError: no hello 1 today" in broken.output
    assert "Traceback" not in nowhere.output + broken.output


def test_bob_stops_cleanly_at_ctrl_c(start: Starter, endpoint: str) -> None:
    start("run", "agents/echo.py", "--endpoint", endpoint).until("^joined")
    bob = start("examples/bob.py", "--iterations", "1000000", "--endpoint", endpoint, python=True)
    bob.until("hello 5 ")
    assert bob.stop(signal.SIGINT) == 0
    bob.wait()
    assert "Traceback" not in bob.output


def test_the_demo_shows_who_answered_what() -> None:
    demo = subprocess.run(
        [sys.executable, "examples/demo.py"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ,
        check=False,
    )
    assert demo.returncode == 0, demo.stdout + demo.stderr
    assert re.search(r"Anycast +│ +4 │ +4 │ +4", demo.stdout)
    assert re.search(r"Unicast \+ MLS", demo.stdout)


@pytest.mark.parametrize("example", ["quickstart.py"])
def test_an_example_in_one_process_runs(start: Starter, example: str) -> None:
    run = start(f"examples/{example}", python=True, SLIM_ENDPOINT=free_endpoint())
    assert run.wait() == 0
    assert run.output == "HELLO!\n"
