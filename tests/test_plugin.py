"""The pytest plugin: it is loaded wherever the package is installed, and may stop nobody's tests."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

_WITHOUT = """
import importlib.util, sys
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *more: None if name == "pytest_asyncio" else find(name, *more)
import pytest
sys.exit(pytest.main(sys.argv[1:]))
"""


def run(folder: Path, test: str, program: list[str]) -> tuple[int, str]:
    (folder / "test_it.py").write_text(test)
    command = [
        sys.executable,
        *program,
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        "--rootdir=.",
        "test_it.py",
    ]
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=50)
    return ended.returncode, ended.stdout + ended.stderr


def test_without_pytest_asyncio_other_tests_run(tmp_path: Path) -> None:
    code, said = run(tmp_path, "def test_it(): pass", ["-c", _WITHOUT, "-p", "no:asyncio"])
    assert (code, "1 passed" in said) == (0, True), said


def test_without_pytest_asyncio_the_fixture_says_what_is_missing(tmp_path: Path) -> None:
    code, said = run(tmp_path, "def test_it(test_runtime): pass", ["-c", _WITHOUT, "-p", "no:asyncio"])
    assert code == 1
    assert "pip install 'slim-actors[testing]'" in said


@pytest.mark.parametrize("mode", ["auto", "strict"])
def test_with_it_the_fixture_is_there(tmp_path: Path, mode: str) -> None:
    mark = "import pytest\n@pytest.mark.asyncio\n" if mode == "strict" else ""
    test = f"{mark}async def test_it(test_runtime): assert test_runtime.network.is_up"
    code, said = run(tmp_path, test, ["-m", "pytest", "-o", f"asyncio_mode={mode}"])
    assert (code, "1 passed" in said) == (0, True), said
