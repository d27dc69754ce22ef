"""Whether a value that was given is a number. True and False are none, though they are to Python."""

from __future__ import annotations

from math import isfinite
from typing import TypeGuard

__all__ = ["is_number", "is_whole"]


def is_whole(value: object) -> TypeGuard[int]:
    """Tell whether a value is a whole number."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: object) -> TypeGuard[float]:
    """Tell whether a value is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)
