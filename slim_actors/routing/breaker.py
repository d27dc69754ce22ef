"""Circuit breaking: a replica that fails or is slow, unlike others, gets less, then none, then a probe."""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol, TypeVar

from slim_actors.backoff import Backoff
from slim_actors.errors import CallCycle, DeliveryError, Stopped, Untrusted
from slim_actors.names import Address

__all__ = ["Breaker", "Replica"]

_logger = logging.getLogger("slim_actors.routing")

_WEIGHT = 0.1
"""Of the newest outcome in the moving averages: about the last ten count."""
_LESS_ABOVE = 0.25
"""By how much a failure rate exceeds the others' when a replica gets less: after three failures in a row."""
_NONE_ABOVE = 0.5
"""And when it gets none: after seven in a row."""
_SLOW = 5.0
"""How many times the others' latency is slow. No distribution has more than a fifth of its values above five
times its mean, so replicas that are alike never take each other for slow half of the time."""
_NEVER_SLOW = 0.1
"""Seconds that are not slow, however quick the others are."""
_PAUSE = Backoff(1.0, 30.0)
_FORGOTTEN_AFTER = 30.0

_SAYS_NOTHING = (CallCycle, Stopped, Untrusted)


class Replica(Protocol):
    """What is known of a replica that messages are tried with."""

    uses: int
    """How many messages it was given, as the pool counts: of those that are as busy, the least is next."""

    @property
    def address(self) -> Address:
        """Who it is."""

    @property
    def is_lost(self) -> bool:
        """Whether nothing can be sent to it any more."""

    def is_idempotent(self, wire_type: str) -> bool:
        """Tell whether it may handle messages of this type twice."""


R = TypeVar("R", bound=Replica)


class _Circuit:
    """What one replica has made of one message type."""

    def __init__(self) -> None:
        self.failing = 0.0
        """The share of bad outcomes, as a moving average."""
        self.seconds: float | None = None
        """How long it takes, as a moving average."""
        self.slow_at = float("-inf")
        """When it was last found slow."""
        self.opened = 0
        """How often in a row it was opened."""
        self.opened_at = 0.0
        self.closed_at = float("-inf")
        self.probe_at = 0.0
        self.is_probed = False


class Breaker:
    """The circuits of one Anycast pool for one message type, one circuit for each replica.

    A bad outcome is an error, a deadline that passed, or an answer that took many times as long as the
    others take. What counts is how much more of them a replica has than the median of the others *for the
    same type of message*: so bad input, a hard question and an overload say nothing against anybody, and a
    type that only one replica does not know costs it no other work.

    A circuit is closed, and then open, and after a pause half-open: one message goes there as a probe, whose
    outcome closes it or opens it again for twice as long. When all circuits are open, messages go where it
    is least bad. A replica that is lost is none of this module's business: the set-up of a session is its
    probe.

    Args:
        about: Which messages, in words for the log.
    """

    def __init__(self, about: str) -> None:
        self._about = about
        self._loop = asyncio.get_running_loop()
        self._circuits: dict[Replica, _Circuit] = {}
        self.open: dict[Replica, _Circuit] = {}
        """The circuits that are open; with none, everybody may be chosen."""

    def fit(self, candidates: list[R]) -> list[R]:
        """Give those among whom the next message has its choice: at least one, if there are any."""
        if not self.open:
            return candidates
        now = self._loop.time()
        for peer in candidates:
            circuit = self.open.get(peer)
            if circuit is not None and not circuit.is_probed and now >= circuit.probe_at:
                circuit.is_probed = True
                return [peer]
        closed = [peer for peer in candidates if peer not in self.open]
        if closed or not candidates:
            return closed
        least = min(self.open[peer].opened for peer in candidates)
        return [peer for peer in candidates if self.open[peer].opened == least]

    def forget(self, peer: Replica) -> None:
        """Take note that a replica is lost."""
        self._circuits.pop(peer, None)
        self.open.pop(peer, None)

    def record(
        self, peer: Replica, began: float, expires: float, error: BaseException | None = None, count: int = 1
    ) -> None:
        """Take note of what became of a message that was tried with a replica, or of several alike.

        Args:
            peer: The replica.
            began: When it was tried, on the clock of the event loop.
            expires: Its deadline.
            error: How it ended; None if well.
            count: How many messages have ended like that.
        """
        seconds = self._loop.time() - began
        weight = _WEIGHT if count == 1 else 1 - (1 - _WEIGHT) ** count
        circuit = self._circuits.get(peer)
        if error is None and seconds <= _NEVER_SLOW and circuit is not None and not self.open:
            # A good and quick outcome, as nearly all are: nothing need be compared.
            known = seconds if circuit.seconds is None else circuit.seconds
            circuit.seconds = known + weight * (seconds - known)
            circuit.failing -= weight * circuit.failing
        elif not peer.is_lost:
            circuit = circuit or self._circuits.setdefault(peer, _Circuit())
            self._weigh(peer, circuit, began, expires, error, weight)

    def _weigh(
        self,
        peer: Replica,
        circuit: _Circuit,
        began: float,
        expires: float,
        error: BaseException | None,
        weight: float,
    ) -> None:
        """Compare what became of a message with what others make of theirs."""
        now = self._loop.time()
        seconds = now - began
        has_failed = error is not None and (
            (isinstance(error, DeliveryError) and not isinstance(error, _SAYS_NOTHING)) or now >= expires
        )
        usual = self._usual(peer) if seconds > _NEVER_SLOW else seconds
        is_slow = seconds > _SLOW * usual
        if is_slow and not has_failed and began < circuit.slow_at:
            # What was under way together was held up together, by one stall.
            return
        if is_slow and not has_failed:
            weight = _WEIGHT
        if error is not None and not has_failed and not is_slow:
            circuit.is_probed = False
            return
        if error is None or is_slow:
            known = circuit.seconds if circuit.seconds is not None else seconds
            circuit.seconds = known + weight * (seconds - known)
        is_bad = has_failed or is_slow
        circuit.slow_at = now if is_slow else circuit.slow_at
        if peer in self.open:
            # What was sent before the circuit was opened is old news.
            if began >= circuit.opened_at:
                self._probed(peer, circuit, is_bad=is_bad)
            return
        circuit.failing += weight * (is_bad - circuit.failing)
        if is_bad:
            excess = circuit.failing - self._others_failing(peer)
            if excess > _NONE_ABOVE:
                slow = f"it takes {seconds:.3g} s where others take {usual:.3g} s"
                self._trip(peer, circuit, f"{type(error).__name__}: {error}" if has_failed else slow)
            elif excess > _LESS_ABOVE:
                # As if it had had two messages: so the others have their turns first.
                peer.uses += 1

    def _probed(self, peer: Replica, circuit: _Circuit, *, is_bad: bool) -> None:
        if is_bad and self._others_failing(peer) < _NONE_ABOVE:
            if circuit.is_probed:
                self._open_for_a_while(circuit)
            return
        del self.open[peer]
        circuit.failing, circuit.is_probed = 0.0, False
        circuit.closed_at = self._loop.time()
        # It takes its part from now on, and is not made to catch up.
        others = [other.uses for other in self._circuits if other is not peer]
        peer.uses = max(peer.uses, min(others, default=0))
        _logger.info("%s gets %s again.", peer.address, self._about)

    def _trip(self, peer: Replica, circuit: _Circuit, why: str) -> None:
        if self._loop.time() - circuit.closed_at > _FORGOTTEN_AFTER:
            circuit.opened = 0
        self.open[peer] = circuit
        pause = self._open_for_a_while(circuit)
        _logger.warning(
            "%s gets no %s for %.1f s, since it does worse than the other replicas: %.300s",
            peer.address,
            self._about,
            pause,
            why,
        )

    def _open_for_a_while(self, circuit: _Circuit) -> float:
        pause = _PAUSE.pause(circuit.opened)
        circuit.opened += 1
        circuit.opened_at = self._loop.time()
        circuit.probe_at = circuit.opened_at + pause
        circuit.is_probed = False
        return pause

    def _usual(self, peer: Replica) -> float:
        """Give how long the others take; for ever if nobody knows."""
        others = [
            circuit.seconds
            for other, circuit in self._circuits.items()
            if other is not peer and circuit.seconds is not None
        ]
        return _median(others) if others else float("inf")

    def _others_failing(self, peer: Replica) -> float:
        """Give the failure rate of the others; with nobody to compare with, a replica is as good as any."""
        others = [circuit.failing for other, circuit in self._circuits.items() if other is not peer]
        return _median(others) if others else 1.0


def _median(values: list[float]) -> float:
    # By hand: the module statistics, with fractions and decimals, would cost every start 3 ms.
    return sorted(values)[(len(values) - 1) // 2]
