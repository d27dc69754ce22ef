"""The dedupe window: tells that were accepted together are remembered together, and each of them is found."""

from __future__ import annotations

from slim_actors.mailbox import Envelope
from slim_actors.names import Address
from slim_actors.outcomes import ACCEPTED, Outcomes
from slim_actors.testing import VirtualClock

BOB = Address("a/b/c", "bob")


def envelope(number: int) -> Envelope:
    return Envelope(number, None, None, BOB, 0.0, origin=None)  # type: ignore[arg-type]


async def test_each_of_a_run_is_found_and_none_beside_it() -> None:
    outcomes = Outcomes()
    outcomes.accept_all(BOB, range(10, 20))
    assert outcomes.are_new(BOB, 20)
    assert not outcomes.are_new(BOB, 19)
    assert outcomes.ids(BOB) == [*range(10, 20)]
    assert [number for number in range(30) if outcomes.begin(envelope(number)) is ACCEPTED] == [
        *range(10, 20)
    ]


async def test_what_waited_and_was_accepted_is_no_longer_under_way() -> None:
    outcomes = Outcomes()
    waiting = [envelope(number) for number in range(1, 6)]
    outcomes.begin_all(BOB, {one.id: one for one in waiting})
    assert outcomes.begin(envelope(3)) is waiting[2]
    outcomes.accept_all(BOB, range(1, 4))
    outcomes.accept_all(BOB, range(4, 5))
    assert [outcomes.begin(envelope(number)) for number in range(1, 5)] == [ACCEPTED] * 4
    assert outcomes.begin(envelope(5)) is waiting[4]


async def test_the_last_4096_are_remembered_however_they_came() -> None:
    outcomes = Outcomes()
    outcomes.accept_all(BOB, range(1, 1001))
    for number in range(1001, 1010):
        outcomes.begin(envelope(number))
        outcomes.end(envelope(number), b"reply")
    for start in range(1010, 10_010, 1000):
        outcomes.accept_all(BOB, range(start, start + 1000))
    remembered = outcomes.ids(BOB)
    assert remembered == [*range(10_010 - len(remembered), 10_010)]
    assert 4096 <= len(remembered) < 4096 + 1000
    assert outcomes.begin(envelope(1)) is None
    assert outcomes.begin(envelope(1005)) is None


async def test_who_sends_all_the_time_is_not_forgotten_for_many_who_send_once() -> None:
    outcomes = Outcomes()
    outcomes.accept_all(BOB, range(1, 3))
    for number in range(3, 2200, 2):
        outcomes.accept_all(BOB, range(number, number + 2))
        outcomes.accept_all(Address("a/b/c", f"peer {number}"), range(1, 3))
    assert outcomes.begin(envelope(1)) is ACCEPTED


async def test_each_of_many_runs_is_found_until_it_is_forgotten() -> None:
    outcomes = Outcomes()
    for first in range(1, 9000, 3):
        outcomes.accept_all(BOB, range(first, first + 2))
    last = range(9000 - 3 * 2048, 9000)
    assert [number for number in last if outcomes.begin(envelope(number)) is ACCEPTED] == [
        number for number in last if number % 3
    ]


async def test_an_outcome_is_remembered_for_120_seconds() -> None:
    with VirtualClock() as clock:
        outcomes = Outcomes()
        outcomes.accept_all(BOB, range(1, 3))
        clock.advance(119)
        outcomes.accept_all(BOB, range(3, 5))
        assert outcomes.begin(envelope(1)) is ACCEPTED
        clock.advance(121)
        outcomes.accept_all(BOB, range(5, 7))
        assert outcomes.ids(BOB) == [3, 4, 5, 6]


async def test_no_more_than_64_mib_of_outcomes_are_remembered() -> None:
    outcomes, reply = Outcomes(), bytes(1024 * 1024)
    for number in range(1, 101):
        outcomes.begin(envelope(number))
        outcomes.end(envelope(number), reply)
    assert outcomes.ids(BOB) == [*range(37, 101)]
