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
    st.tuples(st.just("hold"), st.integers(0, 2)),
    st.tuples(st.just("put back"), st.just(0)),
    st.tuples(st.just("let go"), st.integers(0, 2)),
)


class Model:
    """The same, slowly: a queue for each sender, and the senders in a row."""

    def __init__(self) -> None:
        self.queues: dict[Address, list[Envelope]] = {}
        self.held: set[Address] = set()

    def add(self, envelope: Envelope) -> None:
        self.queues.setdefault(envelope.sender, []).append(envelope)

    def next(self) -> Envelope | None:
        sender = next((one for one in self.queues if one not in self.held), None)
        if sender is None:
            return None
        queue = self.queues.pop(sender)
        if queue[1:]:
            self.queues[sender] = queue[1:]
        return queue[0]

    def remove(self, envelope: Envelope) -> None:
        queue = self.queues[envelope.sender]
        queue.remove(envelope)
        if not queue:
            del self.queues[envelope.sender]

    def hold(self, sender: Address, first: Envelope | None = None) -> None:
        self.held.add(sender)
        if first is not None:
            self.queues.setdefault(sender, []).insert(0, first)

    def let_go(self, sender: Address) -> None:
        self.held.remove(sender)
        if sender in self.queues:
            self.queues[sender] = self.queues.pop(sender)


@given(st.lists(steps, max_size=60))
def test_senders_take_turns_and_each_keeps_its_order(script: list[tuple[str, int]]) -> None:
    turns, model = Turns(), Model()
    waiting: list[Envelope] = []
    for number, (step, which) in enumerate(script):
        # An address of its own for each message: those of one sender need only be equal.
        sender = Address(SENDERS[which % 3].name, SENDERS[which % 3].instance)
        if step == "add":
            envelope = Envelope(number, None, None, sender, 0.0, origin=None)  # type: ignore[arg-type]
            turns.add(envelope)
            model.add(envelope)
            waiting.append(envelope)
        elif step == "hold" and sender not in model.held:
            turns.hold(sender)
            model.hold(sender)
        elif step == "let go" and sender in model.held:
            turns.let_go(sender)
            model.let_go(sender)
        elif step in ("next", "put back"):
            taken = turns.next()
            assert taken is model.next()
            if taken is not None:
                waiting.remove(taken)
                if step == "put back":
                    turns.hold(taken.sender, taken)
                    model.hold(taken.sender, taken)
                    waiting.insert(0, taken)
        elif waiting and step == "remove":
            envelope = waiting.pop(which % len(waiting))
            turns.remove(envelope)
            turns.remove(envelope)
            model.remove(envelope)
        assert list(turns.all) == waiting
        assert [sender for sender in SENDERS if turns.has(sender)] == [
            sender for sender in SENDERS if sender in model.queues
        ]
    assert turns.clear() == waiting
    assert not turns.all
