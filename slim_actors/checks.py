"""Whether a value is of the right kind: a number (True and False are none), a text, or of a class."""

from __future__ import annotations

from math import isfinite
from types import UnionType
from typing import TypeGuard, get_args

from slim_actors.errors import ConfigurationError

__all__ = ["check_kind", "is_number", "is_passable", "is_whole"]


def check_kind(name: str, value: object, kind: type | UnionType) -> None:
    """Refuse an argument that is neither None nor of a class, or of one of several.

    Raises:
        ConfigurationError: It is something else. The value is not told: it may be a secret in a wrong place.
    """
    if value is not None and not isinstance(value, kind):
        names = " or ".join(f"{one.__name__}(...)" for one in get_args(kind) or (kind,))
        raise ConfigurationError(f"{name} is of type {type(value).__name__}, but must be {names}.")


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
