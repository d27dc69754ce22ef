"""What is so unless the user says otherwise: the endpoint, and the secret that local agents share."""

from __future__ import annotations

import os
import secrets
import stat
import tempfile
from pathlib import Path

from slim_actors.endpoints import DEFAULT_ENDPOINT
from slim_actors.errors import ConfigurationError

__all__ = [
    "ENDPOINT_VARIABLE",
    "MIN_SECRET_BYTES",
    "SECRET_VARIABLE",
    "check_secret",
    "config_folder",
    "default_endpoint",
    "local_secret",
]

ENDPOINT_VARIABLE = "SLIM_ENDPOINT"
SECRET_VARIABLE = "SLIM_SHARED_SECRET"  # noqa: S105 (the name of the variable, not a secret)

MIN_SECRET_BYTES = 32
"""SLIM signs with HMAC-SHA256 and takes no shorter key."""


def default_endpoint() -> str:
    """Give the node's endpoint: what ``SLIM_ENDPOINT`` says, else ``http://127.0.0.1:46357``."""
    return os.environ.get(ENDPOINT_VARIABLE) or DEFAULT_ENDPOINT


def config_folder() -> Path:
    """Give the folder for this user's settings (XDG Base Directory Specification)."""
    base = os.environ.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path.home() / ".config") / "slim-actors"


def local_secret() -> str:
    """Give the shared secret: what ``SLIM_SHARED_SECRET`` says, else this user's own.

    The user's own is random, made at the first use, and readable by the user alone. So commands on one
    machine find each other without set-up, and other users of the machine stay out.

    Raises:
        ConfigurationError: The file cannot be made or read, or others could read it.
    """
    given = os.environ.get(SECRET_VARIABLE)
    if given:
        return given
    file = config_folder() / "secret"
    try:
        if not file.exists():
            _make(file)
        mode = file.stat().st_mode
        text = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"The local secret {file} cannot be used: {error}. Give one with {SECRET_VARIABLE}."
        ) from None
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigurationError(f"The local secret {file} is open to other users: run chmod 600 {file}.")
    if not text:
        raise ConfigurationError(f"The local secret {file} is empty: remove it, and a new one is made.")
    return text


def check_secret(secret: str) -> str:
    """Return the secret if SLIM takes it.

    Raises:
        ConfigurationError: It is too short.
    """
    size = len(secret.encode())
    if size < MIN_SECRET_BYTES:
        raise ConfigurationError(
            f"The shared secret has {size} bytes, but SLIM needs at least {MIN_SECRET_BYTES}. "
            "Make one with: python3 -c 'import secrets; print(secrets.token_hex(32))'"
        )
    return secret


def _make(file: Path) -> None:
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Readable by the user alone from the first moment on.
    descriptor, draft = tempfile.mkstemp(prefix=".secret.", dir=file.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(secrets.token_hex(32) + "\n")
        # A link fails where the file exists: of several commands that start at once, one makes the secret.
        os.link(draft, file)
    except FileExistsError:
        pass
    finally:
        Path(draft).unlink()
