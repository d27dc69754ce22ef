"""What can go wrong with payloads in memory."""

from __future__ import annotations

import random

from attrs import define, frozen

from slim_actors.names import Address

__all__ = ["Fate", "Fault", "parts"]


@define(eq=False)
class Fault:
    """Something that goes wrong with payloads; made by the methods of `MemoryNetwork`.

    Attributes:
        source: The name or instance that a payload must come from; empty for any.
        target: The name or instance that it must go to; empty for any.
        nth: Strike only the nth payload that fits, counted from 1; None for every one.
        probability: Strike a payload that fits with this probability.
        seen: How many payloads have fitted so far.
        struck: How many of them it struck.
    """

    source: str = ""
    target: str = ""
    nth: int | None = None
    probability: float = 1.0
    copies: int = 1
    delay: float = 0.0
    seen: int = 0
    struck: int = 0

    def strikes(self, source: Address, target: Address, chance: random.Random) -> bool:
        """Tell whether a payload is struck."""
        if self.source not in ("", *parts(source)) or self.target not in ("", *parts(target)):
            return False
        self.seen += 1
        hit = self.seen == self.nth if self.nth is not None else chance.random() < self.probability
        self.struck += hit
        return hit


def parts(address: Address) -> tuple[str, str]:
    """Give the name and the instance."""
    return address.name, address.instance


@frozen
class Fate:
    """What becomes of a payload: how often it arrives, and how much later."""

    copies: int
    delay: float = 0.0
