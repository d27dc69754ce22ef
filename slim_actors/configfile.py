"""The configuration file: ``slim-actors.toml``, or ``[tool.slim-actors]`` in a ``pyproject.toml``."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from attrs import field, frozen

from slim_actors.errors import ConfigurationError
from slim_actors.files import read_text, to_path

__all__ = ["COMMANDS", "VARIABLE", "ConfigFile", "find_file", "nearest", "private", "read_file"]

VARIABLE = "SLIM_ACTORS_CONFIG"
COMMANDS = ("run", "send")
"""The tables of a file: each has options of the command of its name."""

_NAME = "slim-actors.toml"
_PROJECT = "pyproject.toml"
_TOOL = "slim-actors"
_ROOTS = (".git", ".hg")


@frozen
class ConfigFile:
    """What a configuration file says.

    Attributes:
        path: Where it is.
        values: What stands at its top.
        commands: What stands in the table of each command.
    """

    path: Path
    # Secrets may be among these.
    values: Mapping[str, Any] = field(repr=False)
    commands: Mapping[str, Mapping[str, Any]] = field(repr=False)
    _text: str = field(repr=False)
    _prefix: str = ""

    def where(self, key: str, table: str = "") -> str:
        """Say where a key stands: ``FILE:LINE``."""
        wanted = ".".join(part for part in (self._prefix, table) if part)
        current = ""
        for number, line in enumerate(self._text.splitlines(), 1):
            header = re.match(r"\s*\[([^\[\]]+)\]", line)
            if header:
                current = re.sub(r"[\s\"']", "", header[1])
                if current == f"{wanted}.{key}".strip("."):
                    return f"{self.path}:{number}"
            elif current == wanted and re.match(rf"\s*[\"']?{re.escape(key)}[\"']?\s*[.=]", line):
                return f"{self.path}:{number}"
        return str(self.path)


def find_file() -> ConfigFile | None:
    """Give the configuration file that holds here, if there is one.

    That is the one which ``SLIM_ACTORS_CONFIG`` names (empty: none at all); else, in the current folder or
    the nearest one above it within the same project, ``slim-actors.toml`` or a ``pyproject.toml`` that has
    the table ``[tool.slim-actors]``. A project ends at the folder that has ``.git`` or ``.hg``, or else at
    the nearest with a ``pyproject.toml``; outside a project, only the current folder counts.

    Raises:
        ConfigurationError: The file cannot be read.
    """
    named = os.environ.get(VARIABLE)
    if named is not None:
        return read_file(Path(named)) if named else None
    try:
        here = Path.cwd()
    except FileNotFoundError:
        # Somebody has removed the folder from under this process.
        return None
    for folder in _project_folders(here):
        if _exists(folder / _NAME):
            return read_file(folder / _NAME)
        if _exists(folder / _PROJECT) and _has_table(folder / _PROJECT):
            return read_file(folder / _PROJECT)
    return None


def read_file(path: Path) -> ConfigFile:
    """Read a configuration file.

    Raises:
        ConfigurationError: It cannot be read, or is no TOML.
    """
    path = to_path(path)
    text, data = _parse(path)
    prefix = ""
    if path.name == _PROJECT:
        prefix = f"tool.{_TOOL}"
        tool = data.get("tool")
        table = tool.get(_TOOL) if isinstance(tool, dict) else None
        if not isinstance(table, dict):
            raise ConfigurationError(f"{path} has no table [tool.{_TOOL}].")
        data = table
    commands = {name: data.pop(name) for name in COMMANDS if isinstance(data.get(name), dict)}
    return ConfigFile(path, data, commands, text, prefix)


def nearest(wrong: str, right: Iterable[str]) -> str:
    """Give the right name that a wrong one was meant for, as the end of a sentence."""
    # Here, for a mistake is rare, and every command starts with this module.
    import difflib

    found = difflib.get_close_matches(wrong.replace("-", "_").lower(), list(right), n=1, cutoff=0.5)
    return f": did you mean {found[0]}?" if found else "."


def private(path: Path, what: str) -> None:
    """Refuse a file with a secret in it that others than its owner may read.

    Raises:
        ConfigurationError: They may.
    """
    if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigurationError(
            f"{path} has a secret ({what}) and is open to other users: run chmod 600 {path}, or keep the "
            "secret in an environment variable."
        )


def _project_folders(start: Path) -> list[Path]:
    folders = [start, *start.parents]
    for marks in (_ROOTS, (_PROJECT,)):
        for number, folder in enumerate(folders, 1):
            if any(_exists(folder / mark) for mark in marks):
                return folders[:number]
    return [start]


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        # A folder above that is closed to this user.
        return False


def _has_table(path: Path) -> bool:
    _, data = _parse(path)
    tool = data.get("tool")
    return isinstance(tool, dict) and _TOOL in tool


def _parse(path: Path) -> tuple[str, dict[str, Any]]:
    import tomllib

    text = read_text(path, "configuration file")
    try:
        return text, tomllib.loads(text)
    except RecursionError:
        raise ConfigurationError(f"The configuration file {path} is nested too deep.") from None
    except ValueError as error:
        raise ConfigurationError(f"The configuration file {path} is no TOML: {error}.") from None
