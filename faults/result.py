"""What a scenario counts, and what it found."""

from __future__ import annotations

from collections import Counter, deque
from statistics import quantiles

from attrs import Factory, define, field, frozen

__all__ = ["Ask", "Result", "Tally"]

_PERCENT = 100


@frozen
class Ask:
    """One ask that has ended.

    Attributes:
        began: When it was sent, in seconds on the monotonic clock.
        seconds: How long its outcome took.
        outcome: The class of its error; empty if it was answered.
        process: Who answered; 0 if nobody did.
    """

    began: float
    seconds: float
    outcome: str = ""
    process: int = 0

    @property
    def ended(self) -> float:
        """When its outcome came."""
        return self.began + self.seconds


@define
class Tally:
    """Counts messages when they are sent, and again when they have an outcome.

    Attributes:
        sent: How many were sent.
        answered: How many got the right answer.
        wrong: How many got another one.
        failed: How many ended in each class of error.
        asks: Those that have ended, or the last of them.
    """

    sent: int = 0
    answered: int = 0
    wrong: int = 0
    failed: Counter[str] = Factory(Counter)
    asks: deque[Ask] = Factory(deque)

    @property
    def outcomes(self) -> int:
        """How many have ended, in whatever way."""
        return self.answered + self.wrong + self.failed.total()

    def add(self, other: Tally) -> None:
        """Count what somebody else has counted."""
        self.sent += other.sent
        self.answered += other.answered
        self.wrong += other.wrong
        self.failed += other.failed
        self.asks += other.asks

    def percentile(self, percent: int) -> float:
        """Give the seconds within which so many in a hundred had their outcome; 0 without any."""
        seconds = [ask.seconds for ask in self.asks]
        return quantiles(seconds, n=_PERCENT, method="inclusive")[percent - 1] if len(seconds) > 1 else 0.0


@define
class Result:
    """What a scenario found.

    Attributes:
        tally: The messages.
        facts: What was done and measured, for a person.
        broken: What should have held and did not, each in a sentence. Empty if all is well.
    """

    tally: Tally = Factory(Tally)
    facts: list[str] = Factory(list)
    broken: list[str] = field(factory=list)

    def expect(self, holds: bool, otherwise: str) -> None:  # noqa: FBT001 (a condition, as in assert)
        """Note what is broken unless it holds."""
        if not holds:
            self.broken.append(otherwise)

    def expect_all_answered(self) -> None:
        """Note every message that was not answered rightly."""
        failed = ", ".join(f"{count} {name}" for name, count in self.tally.failed.items())
        self.expect(not self.tally.failed, f"asks failed: {failed}")
        self.expect_one_outcome_each()

    def expect_one_outcome_each(self) -> None:
        """Note every message that has no outcome, more than one, or the wrong answer."""
        sent, outcomes = self.tally.sent, self.tally.outcomes
        self.expect(sent == outcomes, f"{sent} messages were sent, and {outcomes} outcomes came")
        self.expect(not self.tally.wrong, f"{self.tally.wrong} answers were wrong")
        self.expect(self.tally.answered > 0, "nothing was answered at all")
