"""The files that a user names: their paths, and what is in them."""

from __future__ import annotations

import os
from pathlib import Path

from slim_actors.errors import ConfigurationError

__all__ = ["check_readable", "read_text", "to_path"]


def to_path(value: str | os.PathLike[str]) -> Path:
    """Give a path as a user writes it.

    Raises:
        ConfigurationError: It is none, or begins with a home folder that cannot be found.
    """
    if not isinstance(value, str | os.PathLike) or not str(value):
        raise ConfigurationError(f"{value!r} is no path.")
    path = Path(value)
    try:
        is_path = b"\0" not in os.fsencode(path)
    except UnicodeEncodeError:
        is_path = False
    if not is_path:
        raise ConfigurationError(f"{str(path)!r} is no path: it has a character that no path can have.")
    try:
        return path.expanduser()
    except RuntimeError:
        raise ConfigurationError(f"The home folder that {path} begins with cannot be found.") from None


def read_text(file: Path, what: str) -> str:
    """Give what is in a file.

    Args:
        file: Where it is.
        what: What it is, in words.

    Raises:
        ConfigurationError: It cannot be read.
    """
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(file, what, error) from None


def check_readable(file: Path, what: str) -> None:
    """Refuse a file that cannot be read, for those who say less about it.

    Raises:
        ConfigurationError: It cannot be read.
    """
    try:
        with file.open("rb"):
            return
    except OSError as error:
        raise _unreadable(file, what, error) from None


def _unreadable(file: Path, what: str, error: OSError | UnicodeDecodeError) -> ConfigurationError:
    why = error.strerror if isinstance(error, OSError) else "it is no text"
    return ConfigurationError(f"The {what} {file} cannot be read: {why}.")
