"""The store: where what must survive a process is kept, as an interface.

`slim_actors.sqlite` has the one that comes with the package. What a store keeps is little: a snapshot of the
state of each agent, the outbox of durable messages, and which durable messages were handled here.
"""

from __future__ import annotations

from typing import Literal, Protocol

from msgspec import Struct

__all__ = [
    "OWNER",
    "Adopted",
    "Change",
    "Died",
    "Ended",
    "Handled",
    "Hold",
    "Parcel",
    "Put",
    "Released",
    "Save",
    "Snapshot",
    "Store",
    "Token",
    "Verdict",
    "Waiting",
]

OWNER = "owner/"
"""How the keys of the owners of messages begin; each is used by one process, once."""


class Snapshot(Struct, frozen=True):
    """The state of an agent, as bytes, and the version of the class that wrote it."""

    version: int
    data: bytes


class Token(Struct, frozen=True):
    """One durable message, the same in every life of its sender and receiver.

    Attributes:
        receiver: The name of the agent that it is for.
        source: The id of the store that it was sent from.
        number: Its number there.
    """

    receiver: str
    source: str
    number: int


class Parcel(Struct, frozen=True):
    """A durable message in the outbox.

    Attributes:
        target: The name that it is for.
        route: The route, as text.
        type: The wire name of its type.
        body: The encoded message.
        context: What travels along, encoded.
        expires: The time of day (Unix) from which it is not delivered any more; None: never.
        number: Given by the store; 0 before.
        cause: Why it died, encoded; None while it waits.
    """

    target: str
    route: str
    type: str
    body: bytes
    context: bytes
    expires: float | None = None
    number: int = 0
    cause: bytes | None = None


class Save(Struct, frozen=True):
    """Change: this is the state now."""

    key: str
    snapshot: Snapshot


class Put(Struct, frozen=True):
    """Change: these messages are to be delivered by the owner."""

    owner: str
    parcels: tuple[Parcel, ...]


class Ended(Struct, frozen=True):
    """Change: these messages need not be kept any more."""

    numbers: tuple[int, ...]


class Died(Struct, frozen=True):
    """Change: this message will not be delivered; it is kept with its cause."""

    number: int
    cause: bytes


class Handled(Struct, frozen=True):
    """Change: the holder of this message has handled it, and with which error, if any, it ended."""

    token: Token
    holder: str
    error: bytes | None = None


class Released(Struct, frozen=True):
    """Change: the holder of this message gives it back unhandled."""

    token: Token
    holder: str


Change = Save | Put | Ended | Died | Handled | Released


class Verdict(Struct, frozen=True):
    """What is known of a durable message that arrives.

    Attributes:
        kind: ``"mine"``: it is new, and now the holder's; ``"elsewhere"``: another live process has it;
            ``"handled"``: it had its outcome.
        error: The error that it ended with, encoded, if it was handled and failed.
    """

    kind: Literal["mine", "elsewhere", "handled"]
    error: bytes | None = None


class Waiting(Struct, frozen=True):
    """What an owner is to deliver next.

    Attributes:
        parcels: The oldest ones.
        below: Every number for this target below it has its outcome, and is never sent again.
    """

    parcels: list[Parcel]
    below: int


class Adopted(Struct, frozen=True):
    """What an owner has to do with, now that those of dead owners are its own too.

    Attributes:
        routes: The routes for which it has messages.
        has_dead: Whether messages that died were among those of dead owners.
    """

    routes: list[str]
    has_dead: bool


class Hold(Protocol):
    """Something that one process has for itself."""

    def release(self) -> None:
        """Let others have it."""


class Store(Protocol):
    """Keeps things across the lives of processes. Several processes may share one.

    Guarantee of every method: it is atomic, and what it has returned is known to every process that shares
    the store. What `commit` has returned survives a power cut too, but for `Ended` and `Released` alone,
    which may come back after one. Every method raises `StoreError` where the store is damaged, full or
    cannot be reached.
    """

    @property
    def id(self) -> str:
        """Made with the store, and never the same for two."""

    async def open(self) -> None:
        """Get ready."""

    async def close(self) -> None:
        """Finish what is under way, and let go."""

    def hold(self, key: str) -> Hold:
        """Take a key for this process alone. It is free again when the process ends, however it ends.

        Raises:
            StoreError: A live process has it; the text says which.
        """

    async def load(self, key: str) -> Snapshot | None:
        """Give the state saved last under a key; None where none was."""

    async def commit(self, *changes: Change) -> None:
        """Make all these changes, or none.

        Raises:
            Busy: The outbox is full.
        """

    async def claim(self, token: Token, below: int, holder: str) -> Verdict:
        """Take a durable message for a holder, unless it was handled or another live holder has it.

        Args:
            token: The message.
            below: The sender's word that lower numbers will not come again, so that they can be forgotten.
            holder: A key that this process holds.
        """

    async def waiting(self, owner: str, route: str, known: frozenset[int], limit: int) -> Waiting:
        """Give those of an owner's oldest messages for a route that it does not know yet."""

    async def adopt(self, owner: str) -> Adopted:
        """Make the messages of dead owners this owner's."""

    async def dead(self, owner: str, after: int, limit: int) -> list[Parcel]:
        """Give those of an owner's messages that died: the first ones with a higher number than ``after``."""
