"""SLIM names: which agents there are, and which instance of one is meant.

A *name* is ``org/namespace/service``: every replica of an agent has the same. An *instance* is the id that
SLIM gives to one running replica. Both together are an `Address`.
"""

from __future__ import annotations

import re
from uuid import UUID

from attrs import field, frozen

from slim_actors.errors import ConfigurationError

__all__ = ["Address", "check_instance", "check_name"]

_PART = r"[^\s/\x00-\x1f\x7f]+"
_NAME = re.compile(rf"{_PART}/{_PART}/{_PART}")


def check_name(name: str) -> str:
    """Return the name if it is ``org/namespace/service``.

    Raises:
        ConfigurationError: It has not exactly three parts, or an empty one, or one with a space in it.

    Example:
        >>> check_name("agntcy/ns/alice")
        'agntcy/ns/alice'
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConfigurationError(
            f"{name!r} is not a name: write three parts, org/namespace/service, as in agntcy/ns/alice."
        )
    return name


def check_instance(instance: str) -> str:
    """Return the instance id if it is one (RFC 9562).

    Raises:
        ConfigurationError: It is not a UUID.
    """
    try:
        UUID(instance)
    except (ValueError, TypeError, AttributeError):
        raise ConfigurationError(
            f"{instance!r} is not the id of an instance: ids look like 75052dae-8788-cfe9-1e5a-a23914510d7f."
        ) from None
    return instance


def printable(text: str) -> str:
    """Give a text of a stranger's as it may stand in a log, where it must make no lines of its own."""
    return text if text.isprintable() else ascii(text)


@frozen(cache_hash=True, unsafe_hash=True)
class Address:
    """One running instance of an agent, as SLIM knows it.

    Attributes:
        name: ``org/namespace/service``.
        instance: The id that SLIM gave to this replica; empty where SLIM did not say.
        subject: Whom its verified identity names: the ``sub`` of a token, or the name itself where all share
            a secret. Empty where nothing is verified, as in a route.
        issuer: Who vouches for that: the ``iss`` of a token; empty where all share a secret.
    """

    name: str
    instance: str = ""
    subject: str = field(default="", eq=False, repr=False, kw_only=True)
    issuer: str = field(default="", eq=False, repr=False, kw_only=True)

    def __str__(self) -> str:
        return f"{self.name}/{self.instance}" if self.instance else self.name
