"""Reloads: which folders are watched, and that nobody waits in vain for one."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from slim_actors.replicas import reload
from tests.conftest import ROOT, Starter, eventually


class Restarted:
    """What a reload sees of a supervisor, and why it was restarted."""

    def __init__(self, *files: Path) -> None:
        self.files = {str(file) for file in files}
        self.on_files = lambda: None
        self.why: list[str] = []

    async def restart(self, why: str) -> int:
        self.why.append(why)
        return 1


async def test_a_folder_that_goes_and_comes_back_is_a_change_and_is_watched_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched: list[set[str]] = []
    changes: asyncio.Queue[set[Any]] = asyncio.Queue()

    async def awatch(*paths: str, **options: Any) -> AsyncIterator[set[Any]]:
        watched.append(set(paths))
        while True:
            yield await changes.get()

    monkeypatch.setattr("watchfiles.awatch", awatch)
    monkeypatch.setattr(reload, "_LOOK_EVERY", 0.01)
    one, other = tmp_path / "one", tmp_path / "other"
    for folder in (one, other):
        folder.mkdir()
    agents: Any = Restarted(one / "a.py", other / "b.py")
    reloading = asyncio.create_task(reload.reload_on_change(agents))
    both = {str(one), str(other)}
    await eventually(lambda: watched == [both])
    # As another branch has it, and then this one again.
    shutil.rmtree(other)
    changes.put_nowait(set())
    await eventually(lambda: watched[1:] == [{str(one)}])
    other.mkdir()
    changes.put_nowait(set())
    await eventually(lambda: watched[2:] == [both])
    await eventually(lambda: agents.why == [f"{other} came back"])
    # So quickly that it is there again before anybody looks.
    changes.put_nowait({(3, str(one))})
    await eventually(lambda: watched[3:] == [both])
    await eventually(lambda: agents.why[1:] == [f"{one} came back"])
    for folder in (one, other):
        shutil.rmtree(folder)
    changes.put_nowait(set())
    await eventually(changes.empty)
    for folder in (one, other):
        folder.mkdir()
    await eventually(lambda: set().union(*watched[4:]) == both)
    changes.put_nowait({(2, str(one / "a.py")), (2, str(one / "unknown.py"))})
    await eventually(lambda: agents.why[-1] == "a.py changed")
    reloading.cancel()


def test_a_reload_that_cannot_go_on_is_said(start: Starter, endpoint: str, tmp_path: Path) -> None:
    (tmp_path / "watchfiles.py").write_text(
        "def awatch(*paths, **options):\n    raise OSError('no watches left')\n"
    )
    path = f"{tmp_path}{os.pathsep}{ROOT}"
    agents = start("run", "agents/echo.py", "--endpoint", endpoint, "--reload", PYTHONPATH=path)
    agents.until("^reload +changes are not seen any more: OSError: no watches left; start the run anew")
    assert agents.stop() == 0


def test_reload_without_watchfiles_says_what_to_install(start: Starter, tmp_path: Path) -> None:
    (tmp_path / "watchfiles.py").write_text("raise ImportError\n")
    agents = start("run", "agents/echo.py", "--reload", PYTHONPATH=str(tmp_path))
    assert agents.wait() == 2
    assert (
        "error: --reload needs watchfiles: install it with pip install 'slim-actors[reload]'."
        in agents.output
    )
