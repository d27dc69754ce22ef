"""Memory: how much a process uses, and how amounts of it are written."""

from __future__ import annotations

import re

from slim_actors.errors import ConfigurationError

__all__ = ["in_mebibytes", "parse_bytes", "resident"]

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "KI": 2**10, "MI": 2**20, "GI": 2**30}


def resident(pid: int) -> int:
    """Give the bytes of memory that a process has in RAM; 0 if there is no such process."""
    # Here, for those who set a limit.
    import psutil

    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0


def parse_bytes(text: str) -> int:
    """Read an amount as a user writes it.

    Raises:
        ConfigurationError: It is not one.

    Example:
        >>> parse_bytes("500MiB")
        524288000
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMG]I?|)B?", text.strip().upper())
    amount = float(match[1]) * _UNITS[match[2]] if match else 0.0
    if not 1 <= amount < float("inf"):
        raise ConfigurationError(f"{text!r} is not an amount of memory: write it like 500MiB, 2GiB or 800MB.")
    return int(amount)


def in_mebibytes(amount: int) -> str:
    """Write an amount of bytes for a person."""
    return f"{amount / 2**20:.0f} MiB"
