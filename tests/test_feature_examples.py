"""Each feature has an example that a user can run, and it says what it is expected to say."""

from __future__ import annotations

import re

import pytest

from tests.conftest import ROOT, Starter, free_endpoint

OUTPUT = {
    "typed_messages": """\
Receipt(total=3, due=datetime.date(2026, 12, 24))
Hello, Ada
7
typed_messages.Order does not fit its declaration: Expected `int`, got `str` - at `$.lines[0].count`.
""",
    "pydantic_messages": """\
paid 12 EUR
pydantic_messages.Payment does not fit its declaration: amount: Input should be greater than 0.
""",
    "tell": "1 line\n501 lines\n",
    "stream": "7\n8\n9\n1\n4\n9\n16\n",
    "stream_into_an_agent": "500500\n1\n3\n6\n10\n",
    "forward": "maths says: 2 + 2 is 4\nmusic says: Yesterday is a song\n",
    "deadline_and_cancel": """\
expired
slow began
slow was stopped
unwanted began
unwanted was stopped
""",
    "back_pressure": """\
page 4: busy, with 2 pages waiting
printed page 1
printed page 2
printed page 3
printed page 4
""",
    "timers": "3\n2\n1\nSaturn V is up\n",
    "concurrency": "['page 0', 'page 1', 'page 2', 'page 3', 'page 4']\n",
    "middleware": """\
8.0
4.0
ZeroDivisionError: float division by zero
2.0
{'reply': 3, 'RemoteError': 1}
""",
    "allow": """\
acme/accounting/alice may see that 100 are left
7 are on their way
acme/sales/bob may see that 100 are left
acme/sales/bob may not call transfer of acme/ns/bank.
evil/ns/mallory may not call balance of acme/ns/bank.
evil/ns/mallory may not call transfer of acme/ns/bank.
""",
    "telemetry": """\
bonjour Ada
ask demo/ns/greeter
  queue demo/ns/greeter
  handle demo/ns/greeter
    ask demo/ns/translator
      queue demo/ns/translator
      handle demo/ns/translator
        look it up
""",
    "supervised_worker": """\
a fresh worker
by 2: 6.0
by 0: ZeroDivisionError: integer division or modulo by zero
by 2: 3.0
a worker ends
by -1: RuntimeError: the state is spoiled
a fresh worker
by 2: 6.0
a worker ends
a fresh worker
a worker ends
gave up: it failed 3 times within 60 s, last with RuntimeError: the state is spoiled.
""",
    "watch": """\
the child has stopped
demo/ns/child is gone: it was stopped
the child has stopped
the parent has stopped
""",
    "dead_letters": """\
hook: Mail(to='nobody')
Mail(to='nobody') to demo/ns/postman died of LookupError: no such address
""",
    "state": "1\n3\n6\n10\nValueError: less than nothing\n10\n",
    "durable_tell": """\
kept; nobody is there to take them
the balance is 12
{'amount': -1} died of ValueError: a deposit of -1
""",
    "idempotent_retry": "every ask was answered; the fragile replica ended with 3\n",
}
TESTS = "test_my_agent"
ELSEWHERE = {"quickstart", "bob", "demo"}
"""Run by test_examples.py."""


@pytest.mark.parametrize("name", OUTPUT)
def test_an_example_of_a_feature_runs_and_says_what_it_should(start: Starter, name: str) -> None:
    example = start(f"examples/{name}.py", python=True, SLIM_ENDPOINT=free_endpoint())
    assert example.wait() == 0, example.output
    assert example.output == OUTPUT[name]


@pytest.mark.parametrize("words", [[f"examples/{TESTS}.py"], ["-m", "pytest", "-q", f"examples/{TESTS}.py"]])
def test_the_example_of_testing_an_agent_passes(start: Starter, words: list[str]) -> None:
    example = start(*words, python=True)
    assert example.wait() == 0, example.output
    assert re.fullmatch(r"\.\. +\[100%\]\n2 passed in \S+s\n", example.output)


def test_no_example_is_left_out() -> None:
    assert {file.stem for file in (ROOT / "examples").glob("*.py")} == {*OUTPUT, TESTS, *ELSEWHERE}
