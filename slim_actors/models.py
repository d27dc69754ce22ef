"""Pydantic models as messages, for those who have them; nothing is imported for those who have not."""

from __future__ import annotations

import sys
from typing import Any

__all__ = ["decode_hook", "encode_hook", "is_model"]


def is_model(cls: Any) -> bool:
    """Tell whether a class is a pydantic model."""
    pydantic = sys.modules.get("pydantic")
    return pydantic is not None and isinstance(cls, type) and issubclass(cls, pydantic.BaseModel)


def encode_hook(value: Any) -> Any:
    """Give what msgspec can encode for a value that it cannot.

    Raises:
        TypeError: It has no form on the wire.
    """
    if is_model(type(value)):
        return value.model_dump()
    raise TypeError(
        f"{type(value).__name__} has no form on the wire: messages are attrs classes, dataclasses, msgspec "
        "Structs, pydantic models and plain values"
    )


def decode_hook(cls: type[Any], value: Any) -> Any:
    """Make an object of a class that msgspec does not know.

    Raises:
        ValueError: The value does not fit; the text names each field and what is wrong with it.
    """
    assert is_model(cls), "other classes are refused where they are declared"
    import pydantic

    try:
        return cls.model_validate(value)
    except pydantic.ValidationError as error:
        wrong = (f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        raise ValueError("; ".join(wrong)) from None
