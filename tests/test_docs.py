"""The documentation tells the truth: what it names is there."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

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


def rooms() -> dict[str, int]:
    """Give how far down each module or folder stands in the table of the architecture."""
    table = (ROOT / "docs" / "architecture.md").read_text().split("```")[1].strip("\n")
    rows = re.split(r"\n(?! )", table)
    return {room: depth for depth, row in enumerate(rows) for room in re.findall(r"^\w+/|\b\w+\.py\b", row)}


def modules() -> Iterator[tuple[str, Path]]:
    package = ROOT / "slim_actors"
    for file in package.rglob("*.py"):
        inside = file.relative_to(package).parts
        if inside[0] not in {"__init__.py", "__main__.py"}:
            yield (f"{inside[0]}/" if len(inside) > 1 else inside[0]), file


def imported(file: Path) -> set[str]:
    """Give the rooms that a module imports at its top, when it runs."""
    found = set()
    for statement in ast.parse(file.read_text()).body:
        names = []
        if isinstance(statement, ast.ImportFrom) and (statement.module or "").startswith("slim_actors"):
            names = [f"{statement.module}.{name.name}" for name in statement.names]
        elif isinstance(statement, ast.Import):
            names = [name.name for name in statement.names if name.name.startswith("slim_actors.")]
        for name in names:
            room = name.split(".")[1]
            found.add(f"{room}/" if (ROOT / "slim_actors" / room).is_dir() else f"{room}.py")
    return found


def test_every_module_has_its_room_in_the_architecture() -> None:
    assert {room for room, _ in modules()} == set(rooms())


def test_no_module_imports_from_a_room_above_its_own() -> None:
    depths = rooms()
    upwards = [
        f"{file.name} imports {other}"
        for room, file in modules()
        for other in imported(file)
        if depths[other] < depths[room]
    ]
    assert upwards == []
