"""The secret that one user's agents on one machine share: made at its first use, kept private."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from slim_actors.errors import ConfigurationError

__all__ = ["config_folder", "local_secret"]


def config_folder() -> Path:
    """Give the folder for this user's settings (XDG Base Directory Specification).

    Raises:
        ConfigurationError: This user has no home folder.
    """
    base = Path(os.environ.get("XDG_CONFIG_HOME", ""))
    # As the specification says: one that is relative would be another one in each folder.
    if base.is_absolute():
        return base / "slim-actors"
    try:
        return Path.home() / ".config" / "slim-actors"
    except RuntimeError:
        raise ConfigurationError(
            "This user has no home folder, where the settings of slim-actors would be: set HOME or "
            "XDG_CONFIG_HOME to an absolute path."
        ) from None


def local_secret() -> str:
    """Give this user's own secret.

    It is random, made at the first use, and readable by the user alone. So commands on one machine find each
    other without set-up, and other users of the machine stay out.

    Raises:
        ConfigurationError: The file has no place, or cannot be made or read, or others could read it.
    """
    file = config_folder() / "secret"
    try:
        if not file.exists():
            _make(file)
        mode = file.stat().st_mode
        text = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"The local secret {file} cannot be used: {error}. Give one with SLIM_SHARED_SECRET."
        ) from None
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigurationError(f"The local secret {file} is open to other users: run chmod 600 {file}.")
    if not text:
        raise ConfigurationError(f"The local secret {file} is empty: remove it, and a new one is made.")
    return text


def _make(file: Path) -> None:
    # Here, not at the top: it is needed once.
    import tempfile

    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Readable by the user alone from the first moment on.
    descriptor, draft = tempfile.mkstemp(prefix=".secret.", dir=file.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(os.urandom(32).hex() + "\n")
        # A link fails where the file exists: of several commands that start at once, one makes the secret.
        os.link(draft, file)
    except FileExistsError:
        pass
    finally:
        Path(draft).unlink()
