"""Each example in docs/security.md runs as it stands."""

from __future__ import annotations

import re

import pytest

from tests.conftest import ROOT, Starter

TEXT = (ROOT / "docs" / "security.md").read_text()
EXAMPLES = re.findall(r"^```python\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


def test_there_are_examples() -> None:
    assert EXAMPLES


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_an_example_runs(start: Starter, number: int) -> None:
    example = start("-c", EXAMPLES[number], python=True)
    assert example.wait() == 0, example.output
