"""Whether a value that was given is a number (True and False are none), or a text to be passed on."""

from __future__ import annotations

from math import isfinite
from typing import TypeGuard

__all__ = ["is_number", "is_passable", "is_whole"]


def is_whole(value: object) -> TypeGuard[int]:
    """Tell whether a value is a whole number."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: object) -> TypeGuard[float]:
    """Tell whether a value is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)


def is_passable(value: object) -> TypeGuard[str]:
    """Tell whether a value is a text that another process can get as a variable, and that is Unicode."""
    if not isinstance(value, str) or "\0" in value:
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
