"""The documentation tells the truth: what it names is there."""

from __future__ import annotations

import re

import pytest

from slim_actors import wire
from tests.conftest import ROOT

SEMANTICS = (ROOT / "docs" / "semantics.md").read_text()
LINKED = sorted(set(re.findall(r"\[`(test_\w+\.py)(?:::(\w+))?`\]\(\.\./tests/(test_\w+\.py)\)", SEMANTICS)))


def test_each_promise_links_to_a_test() -> None:
    promises, _, _ = SEMANTICS.partition("## What is not promised")
    paragraphs = re.split(r"^\*\*", promises, flags=re.MULTILINE)[1:]
    assert len(paragraphs) > 10
    assert [paragraph[:40] for paragraph in paragraphs if "](../tests/" not in paragraph] == []


@pytest.mark.parametrize(("file", "test", "target"), LINKED)
def test_every_test_that_is_linked_exists(file: str, test: str, target: str) -> None:
    assert file == target
    source = (ROOT / "tests" / file).read_text()
    assert not test or f"def {test}(" in source


def test_every_frame_is_in_the_description_of_the_wire() -> None:
    described = dict(
        re.findall(r"^\| (\d+) \| (\w+) \|", (ROOT / "docs" / "wire.md").read_text(), re.MULTILINE)
    )
    frames = {str(frame.__struct_config__.tag): frame.__name__.lower() for frame in wire.Frame.__args__}
    assert described == frames
