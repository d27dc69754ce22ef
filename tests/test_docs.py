"""The documentation tells the truth: what it names is there, and its examples run."""

from __future__ import annotations

import ast
import asyncio
import doctest
import importlib
import re
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import typer

import slim_actors
from slim_actors import testing, wire
from slim_actors.cli.app import application
from slim_actors.exits import Exit
from slim_actors.testing import TestRuntime
from tests.conftest import ROOT

README = (ROOT / "README.md").read_text()
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
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


def anchors(page: Path) -> set[str]:
    """Give the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    broken = []
    for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", page.read_text()):
        file, _, anchor = link.partition("#")
        target = page.parent / file if file else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


def options() -> Iterator[tuple[str, str, str]]:
    """Give command, option and variable of whatever on the command line may be a variable too."""
    group = typer.main.get_group(application())
    everything = [("", group), *group.commands.items()]
    for command, one in everything:
        for parameter in one.params:
            if parameter.envvar:
                flag = next((name for name in parameter.opts if name.startswith("--")), "")
                yield command, flag or str(parameter.human_readable_name).strip("[]"), str(parameter.envvar)


def described_options() -> set[tuple[str, str]]:
    """Give option and variable of each row of the tables of the configuration."""
    text = (ROOT / "docs" / "configuration.md").read_text()
    settings = re.findall(r"^\| `(\w+)` \| `(SLIM_\w+)` \|", text, re.MULTILINE)
    own = re.findall(r"^\|[^|]*\| `([\w-]+)` \| `(SLIM_\w+)` \|", text, re.MULTILINE)
    return {(f"--{name.replace('_', '-')}", variable) for name, variable in settings} | set(own)


def test_every_option_and_its_variable_is_in_the_tables_of_the_configuration() -> None:
    there = {(option, variable) for _, option, variable in options()}
    assert there == described_options()


def test_every_exit_code_is_in_the_readme() -> None:
    assert re.findall(r"^\| (\d+) \|", README, re.MULTILINE) == [str(int(code)) for code in Exit]


def test_the_figures_of_the_readme_are_those_of_the_measurements() -> None:
    measured = (ROOT / "docs" / "performance.md").read_text()
    claim = README.partition("**It is quick**")[2].partition("[How that was measured]")[0]
    figures = re.findall(r"\d+,\d+|\d+(?= µs)", claim)
    assert len(figures) == 4
    assert [figure for figure in figures if f"| {figure}" not in measured] == []


def test_every_documented_outcome_is_an_error_and_the_other_way_round() -> None:
    table = SEMANTICS.partition("| outcome |")[2].partition("\n\n")[0]
    named = set(re.findall(r"`([A-Z]\w+)`", "".join(row.split("|")[1] for row in table.splitlines()[2:])))
    delivery = {
        name
        for name in slim_actors.__all__
        if isinstance(error := getattr(slim_actors, name), type)
        and issubclass(error, slim_actors.DeliveryError)
    }
    # What nothing is sent to is at the set-up, and is of another class that is in the table.
    assert named == delivery - {"DeliveryError", "NotANode"}


def test_every_logger_is_in_the_description_of_the_logs() -> None:
    sources = [file.read_text() for file in (ROOT / "slim_actors").rglob("*.py")]
    loggers = {name for source in sources for name in re.findall(r'getLogger\("([\w.]+)"\)', source)}
    described = (ROOT / "docs" / "telemetry.md").read_text().partition("| logger |")[2].partition("\n\n")[0]
    assert set(re.findall(r"`(slim_actors\.\w+)`", described)) == loggers


@pytest.mark.parametrize("package", [slim_actors, testing])
def test_every_public_name_says_what_it_is(package: object) -> None:
    silent = []
    for name in vars(package)["__all__"]:
        value = getattr(package, name)
        if not isinstance(value, type):
            continue
        silent += [name] if not value.__doc__ else []
        for method, found in vars(value).items():
            function = getattr(found, "fget", found)
            if callable(function) and not method.startswith("_") and not function.__doc__:
                silent.append(f"{name}.{method}")
    assert silent == []


EXAMPLES = sorted(
    f"slim_actors.{'.'.join(file.relative_to(ROOT / 'slim_actors').with_suffix('').parts)}"
    for file in (ROOT / "slim_actors").rglob("*.py")
    if ">>> " in file.read_text()
)


@pytest.mark.parametrize("module", EXAMPLES)
def test_the_examples_in_docstrings_run(module: str) -> None:
    found = importlib.import_module(module)
    names = {name: getattr(slim_actors, name) for name in slim_actors.__all__} | vars(found)
    outcome = doctest.testmod(found, extraglobs=names)
    assert outcome.attempted
    assert not outcome.failed


def test_the_first_agent_of_the_readme_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    files = {match[1]: block for block in blocks if (match := re.match(r"# (\w+\.py)\n", block))}
    for name, source in files.items():
        (tmp_path / name).write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    shout = importlib.import_module("shout")
    monkeypatch.delitem(sys.modules, "shout")
    (test,) = (block for block in blocks if "def test_shout" in block)

    async def run() -> None:
        async with TestRuntime() as runtime:
            await runtime.spawn(shout.Shout)
            monkeypatch.setattr(slim_actors, "Runtime", lambda: nullcontext(runtime))
            names: dict[str, Any] = {}
            exec(files["ask.py"].replace("asyncio.run(main())", ""), names)  # noqa: S102 (it is our own README)
            await names["main"]()
        async with TestRuntime() as runtime:
            exec(test, names)  # noqa: S102
            await names["test_shout"](runtime)

    asyncio.run(run())
    assert capsys.readouterr().out == "HELLO\n"
