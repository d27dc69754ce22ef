"""Turns: the senders one after the other, whatever comes and goes meanwhile."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from slim_actors.mailbox import Envelope
from slim_actors.names import Address
from slim_actors.turns import Turns

SENDERS = [Address("t/t/t", str(number)) for number in range(3)]
steps = st.one_of(
    st.tuples(st.just("add"), st.integers(0, 2)),
    st.tuples(st.just("next"), st.just(0)),
    st.tuples(st.just("remove"), st.integers(0, 20)),
)


class Model:
    """The same, slowly: a queue for each sender, and the senders in a row."""

    def __init__(self) -> None:
        self.queues: dict[Address, list[Envelope]] = {}

    def add(self, envelope: Envelope) -> None:
        self.queues.setdefault(envelope.sender, []).append(envelope)

    def next(self) -> Envelope:
        sender = next(iter(self.queues))
        queue = self.queues.pop(sender)
        if queue[1:]:
            self.queues[sender] = queue[1:]
        return queue[0]

    def remove(self, envelope: Envelope) -> None:
        queue = self.queues[envelope.sender]
        queue.remove(envelope)
        if not queue:
            del self.queues[envelope.sender]


@given(st.lists(steps, max_size=60))
def test_senders_take_turns_and_each_keeps_its_order(script: list[tuple[str, int]]) -> None:
    turns, model = Turns(), Model()
    waiting: list[Envelope] = []
    for number, (step, which) in enumerate(script):
        if step == "add":
            # An address of its own for each message: those of one sender need only be equal.
            sender = Address(SENDERS[which].name, SENDERS[which].instance)
            envelope = Envelope(number, None, None, sender, 0.0, origin=None)  # type: ignore[arg-type]
            turns.add(envelope)
            model.add(envelope)
            waiting.append(envelope)
        elif waiting and step == "next":
            envelope = turns.next()
            assert envelope is model.next()
            waiting.remove(envelope)
        elif waiting:
            envelope = waiting.pop(which % len(waiting))
            turns.remove(envelope)
            turns.remove(envelope)
            model.remove(envelope)
        assert list(turns.all) == waiting
    assert turns.clear() == waiting
    assert not turns.all
