"""Each example in docs/security.md and docs/testing.md runs as it stands."""

from __future__ import annotations

import re

import pytest

from tests.conftest import ROOT, Starter

PAGES = ("security.md", "testing.md")
EXAMPLES = [
    (page, example)
    for page in PAGES
    for example in re.findall(
        r"^```python\n(.*?)^```", (ROOT / "docs" / page).read_text(), re.MULTILINE | re.DOTALL
    )
]


def test_there_are_examples() -> None:
    assert {page for page, _ in EXAMPLES} == set(PAGES)


@pytest.mark.parametrize(("page", "source"), EXAMPLES, ids=[page for page, _ in EXAMPLES])
def test_an_example_runs(start: Starter, page: str, source: str) -> None:
    example = start("-c", source, python=True)
    assert example.wait() == 0, example.output
