"""Limits: what an agent takes from one peer, and from all, so that a hostile one hurts only itself."""

from __future__ import annotations

import math
from typing import Any

from attrs import Attribute, field, frozen

from slim_actors.errors import ConfigurationError

__all__ = ["BATCH_BYTES", "BATCH_FRAMES", "MAX_PAYLOAD", "Limits", "body_room", "no_account", "too_large"]

MAX_PAYLOAD = 4 * 1024 * 1024 - 8 * 1024
"""The most bytes that one payload may have. SLIM's limit is 4 MiB with its header, and one payload above it
would cost the sender its whole connection."""

BATCH_BYTES = 256 * 1024
BATCH_FRAMES = 4096
"""How large our own batches become: nobody may be refused for one of these."""

_MIB = 1024 * 1024
_HEAD = 5


def _check(_: object, attribute: Attribute[float], value: object) -> None:
    least, most = attribute.metadata["range"]
    whole = isinstance(attribute.default, int)
    kind = int if whole else int | float
    if isinstance(value, bool) or not isinstance(value, kind) or not least <= value <= most:
        span = f"from {least} up" if math.isinf(most) else f"from {least} to {most}"
        raise ConfigurationError(
            f"Limits: {attribute.name} is {value!r}, but must be a {'whole ' * whole}number {span}."
        )


def _limit(default: float, least: float = 1, most: float = math.inf) -> Any:
    return field(default=default, validator=_check, metadata={"range": (least, most)})


@frozen(kw_only=True)
class Limits:
    """What a runtime takes from its peers; every bound has a default.

    A peer that goes over one gets one error (`TooLarge`, `Busy` or `MalformedMessage`) or loses its session,
    and the reason is logged, not more than once a minute. *One peer* is one instance, as SLIM knows it. Who
    makes many instances under one verified subject gets half of what all peers together may have.

    Attributes:
        max_payload: Bytes of one message, reply or item, without the five that MessagePack may put before
            them. What has more than 256 KiB travels in parts.
        max_batch: Bytes of one SLIM payload, which may hold many messages.
        max_frames: Frames in one SLIM payload.
        max_depth: How deep lists and maps may stand in each other in one message.
        max_waiting: Bytes of messages of one peer, with what travels along, and of items that have come and
            have no outcome yet. Our own callers are told, and wait; a peer that does not gets `Busy`.
        max_waiting_in_all: The same for all peers of one agent instance together.
        max_streams: Streams, of replies or of items, that one peer may have open.
        max_sessions: Sessions that one peer may have with one agent instance.
        max_sessions_in_all: Sessions that all peers together may have with one agent instance.
        max_new_sessions: Sessions that one peer may open in a second.
        handshake_timeout: Seconds within which a new session must bring something valid.
        stream_patience: Seconds for which a stream may keep other messages waiting although its other end
            takes or sends nothing; then the session is closed.

    Raises:
        ConfigurationError: A value is out of range.

    Example:
        >>> Limits(max_payload=64 * 1024).max_payload
        65536
    """

    max_payload: int = _limit(64 * _MIB)
    max_batch: int = _limit(MAX_PAYLOAD, BATCH_BYTES + 8, MAX_PAYLOAD)
    max_frames: int = _limit(10_000, BATCH_FRAMES)
    max_depth: int = _limit(100)
    max_waiting: int = _limit(64 * _MIB)
    max_waiting_in_all: int = _limit(256 * _MIB)
    max_streams: int = _limit(100)
    max_sessions: int = _limit(64)
    max_sessions_in_all: int = _limit(1_000, 2)
    max_new_sessions: int = _limit(100)
    handshake_timeout: float = _limit(30.0, 0.1)
    stream_patience: float = _limit(5.0, 0.1)


def body_room(max_payload: int) -> int:
    """Give how many bytes a body may have, with what MessagePack puts before a text or bytes."""
    return max_payload + _HEAD


def no_account(_: int) -> bool:
    """Count nothing: there is always room."""
    return True


def too_large(size: int, max_payload: int) -> str:
    """Say that a message has too many bytes."""
    return f"The message has {size} bytes; one message may have {max_payload} (Limits.max_payload)."
