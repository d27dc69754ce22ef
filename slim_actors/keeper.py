"""The keeper: keeps what one instance must not lose.

Its state, the durable messages that it has handled, and the durable tells that its handlers send go to the
store together, in one transaction for each message. While one transaction is under way, the instance goes on
with the next messages, and what those change goes into the next transaction; only the outcomes wait. So a
busy instance pays for the disk once for many messages.

When a transaction fails, everything since the last good one is void: the state is again what the store has,
and each message whose effect was in it fails with the cause.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Annotated, Any

import msgspec
from msgspec import Struct

from slim_actors import wire
from slim_actors.agent import Agent
from slim_actors.errors import (
    Busy,
    Cancelled,
    ConfigurationError,
    DeliveryError,
    StoreError,
    UnhandledMessage,
    from_wire,
    to_wire,
)
from slim_actors.forward import Forward
from slim_actors.mailbox import Envelope, State
from slim_actors.outbox import NO_STORE, Outbox
from slim_actors.routes import Route
from slim_actors.state import slot, state_of
from slim_actors.store import Change, Handled, Hold, Parcel, Put, Released, Save, Snapshot, Token

__all__ = ["Keeper"]

_MOST_UNSETTLED = 256
_RETRY_AFTER = 0.2
_DURABLE = "durable"
_Claim = tuple[Annotated[str, msgspec.Meta(max_length=64)], wire.Id, wire.Id]

_logger = logging.getLogger("slim_actors.keeper")


class _Batch(Struct, eq=False):
    """What goes to the store together."""

    kept: asyncio.Future[None]
    changes: list[Change] = []
    state: Snapshot | None = None
    """The state with these changes."""
    messages: int = 0


class Keeper:
    """Keeps what one instance must not lose.

    Args:
        agent: The instance.
        name: Its SLIM name.
        outbox: The runtime's, with its store; None where it has none.
    """

    def __init__(self, agent: Agent, name: str, outbox: Outbox | None) -> None:
        self._agent = agent
        self._name = name
        self._outbox = outbox
        self.has_store = outbox is not None
        """Whether there is anything to be done for a message."""
        self._state = state_of(type(agent))
        self._now: Snapshot | None = None
        """The state after the last message that ended well."""
        self._kept: Snapshot | None = None
        """The state that the store has."""
        self._hold: Hold | None = None
        self._open: _Batch | None = None
        self._flying: _Batch | None = None
        self._parcels: dict[Envelope, list[Parcel]] = {}
        self._running: set[Envelope] = set()
        self._void: dict[Envelope, StoreError] = {}
        self._writer: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def restore(self, agent: Agent) -> None:
        """Give the agent the state that was kept, and keep others from writing it.

        A fresh instance that takes the place of one that failed gets the state as that one left it.

        Raises:
            StoreError: It cannot be restored, or another live process has it.
            ConfigurationError: There is a state, and no store.
        """
        self._agent = agent
        if self._state is None:
            return
        if self._hold is not None:
            self._revert()
            return
        who = type(self._agent).__name__
        if self._outbox is None:
            raise ConfigurationError(
                f"{who} keeps a state, so its runtime needs a store: Runtime(store=...), or run --store FILE."
            )
        key = f"{self._name}/{slot()}"
        try:
            self._hold = self._outbox.store.hold(key)
        except StoreError as error:
            raise StoreError(
                f"The state of {who} cannot be used: {error} One live instance may have it: give each "
                "replica its own SLIM_ACTORS_SLOT, or another name."
            ) from None
        found = await self._outbox.store.load(key)
        if found is not None:
            self._state.restore(self._agent, found)
        self._now = self._kept = self._state.snapshot(self._agent)

    async def close(self) -> None:
        """Finish what is under way, and let another process have the state."""
        while self._tasks:
            await asyncio.wait(self._tasks)
        if self._hold is not None:
            self._hold.release()

    def claims(self, envelope: Envelope, deliver: Callable[[Envelope], None]) -> bool:
        """Tell whether a message is a durable one that must be claimed first; then it is delivered later."""
        if _DURABLE not in envelope.context or envelope.release is not None:
            return False
        if not envelope.wants_reply or envelope.outlet is not None:
            return False
        try:
            _, _, below = msgspec.convert(envelope.context[_DURABLE], _Claim)
        except msgspec.ValidationError:
            return False
        if self._outbox is None:
            envelope.fail(
                UnhandledMessage(
                    "This agent takes no durable messages, because its runtime has no store: "
                    "Runtime(store=...), or run --store FILE."
                )
            )
            return True
        self._start(self._claim(self._outbox, envelope, self._named(envelope), below, deliver))
        return True

    def outlives_its_sender(self, envelope: Envelope) -> bool:
        """Tell whether a message goes on when its sender has gone: a durable one that was begun."""
        return envelope.release is not None and envelope.state is State.RUNNING

    def ready(self, envelope: Envelope) -> Awaitable[object] | None:
        """Give what to wait for until what earlier messages changed is not too far ahead of the store."""
        if self._outbox is None:
            return None
        if self._flying is not None and self._open is not None and self._open.messages >= _MOST_UNSETTLED:
            return self._ready_after(self._flying, envelope)
        self._running.add(envelope)
        return None

    async def _ready_after(self, batch: _Batch, envelope: Envelope) -> None:
        await asyncio.wait([batch.kept])
        self._running.add(envelope)

    async def post(
        self,
        envelope: Envelope | None,
        route: Route,
        messages: Iterable[object],
        timeout: float | None,
        context: dict[str, Any],
    ) -> None:
        """Take durable tells: those of a handler are sent when it ends well, others at once."""
        if self._outbox is None:
            raise ConfigurationError(NO_STORE)
        parcels = [self._outbox.parcel(route, message, timeout, dict(context)) for message in messages]
        if envelope is not None and envelope in self._running:
            self._parcels.setdefault(envelope, []).extend(parcels)
        else:
            await self._outbox.put(parcels)

    def stage(
        self,
        envelope: Envelope | None,
        value: Any = None,
        forwarded: Callable[[], dict[str, Any]] = dict,
    ) -> Any:
        """Take what a handler changed and sent, as it ends well; give what is left of its value.

        Args:
            envelope: Its message; None after ``started``.
            value: What it returned.
            forwarded: Gives what goes along with the message if it is forwarded.

        Raises:
            StoreError: What it was built on could not be kept.
            Cancelled: It is a durable message that was given back meanwhile.
            Exception: Its state or what it forwards has no form in which it can be kept.
        """
        if self._outbox is None:
            return value
        changes: list[Change] = []
        parcels: list[Parcel] = []
        if envelope is not None:
            if envelope in self._void:
                raise self._void[envelope]
            parcels = self._parcels.get(envelope, [])
            token = self._token(envelope)
            if token is not None:
                if envelope.state is State.DONE:
                    raise Cancelled("The durable message was given back while it was handled.")
                if isinstance(value, Forward):
                    # Sent on as a durable message of its own, in the transaction that ends this one.
                    parcels = [*parcels, self._outbox.parcel(value.route, value.message, None, forwarded())]
                changes.append(Handled(token, self._outbox.owner))
                value = None
        if self._state is not None:
            now = self._state.snapshot(self._agent)
            if now != self._now:
                self._state.check(now)
                self._now = now
                changes.append(Save(f"{self._name}/{slot()}", now))
        if parcels:
            changes.append(Put(self._outbox.owner, tuple(parcels)))
        self._end(envelope)
        self._add(changes)
        return value

    def reject(self, envelope: Envelope, error: DeliveryError) -> StoreError | None:
        """Undo what a handler changed, as it ends badly; give the error of the store that was the cause."""
        if self._outbox is None:
            return None
        void = self._void.get(envelope)
        token = self._token(envelope)
        self._end(envelope)
        self._revert()
        if token is not None and envelope.state is not State.DONE and void is None:
            # It had its outcome: it is not run again, and whoever sends it again gets the same error.
            self._add([Handled(token, self._outbox.owner, msgspec.msgpack.encode(to_wire(error)))])
        return void

    async def keep_first(self) -> None:
        """Keep what ``started`` changed.

        Raises:
            StoreError: It cannot be kept.
        """
        self.stage(None)
        if self._open is not None:
            # Others wait for it too.
            await asyncio.shield(self._open.kept)

    def when_kept(
        self, end: Callable[[], None], lost: Callable[[DeliveryError], None]
    ) -> asyncio.Task[None] | None:
        """Call ``end`` when everything so far is kept, or ``lost`` if it cannot be.

        What is returned is done after that; it is None if all is kept already, and ``end`` was called.
        """
        batch = self._open or self._flying
        if batch is None:
            end()
            return None
        return asyncio.create_task(self._wait(batch, end, lost))

    async def _wait(
        self, batch: _Batch, end: Callable[[], None], lost: Callable[[DeliveryError], None]
    ) -> None:
        try:
            # Others wait for it too.
            await asyncio.shield(batch.kept)
        except StoreError as error:
            lost(error)
        else:
            end()

    def _end(self, envelope: Envelope | None) -> None:
        if envelope is not None:
            self._running.discard(envelope)
            self._parcels.pop(envelope, None)
            self._void.pop(envelope, None)

    def _revert(self) -> None:
        if self._state is not None and self._now is not None:
            self._state.restore(self._agent, self._now)

    def _add(self, changes: list[Change]) -> None:
        if not changes:
            return
        if self._open is None:
            self._open = _Batch(asyncio.get_running_loop().create_future())
        self._open.changes.extend(changes)
        self._open.state = self._now
        self._open.messages += 1
        if self._writer is None or self._writer.done():
            self._writer = self._start(self._write())

    async def _write(self) -> None:
        assert self._outbox is not None, "nothing is kept without a store"
        while self._open is not None:
            batch, self._flying, self._open = self._open, self._open, None
            try:
                await self._outbox.store.commit(*batch.changes)
            except Exception as error:  # noqa: BLE001 (whatever a store raises, nobody may wait for ever)
                self._undo(batch, error)
            else:
                self._kept = batch.state
                self._outbox.claimed -= {one.token for one in batch.changes if isinstance(one, Handled)}
                for change in batch.changes:
                    if isinstance(change, Put):
                        self._outbox.look(change.parcels)
                batch.kept.set_result(None)
            self._flying = None

    def _undo(self, batch: _Batch, error: Exception) -> None:
        """Take back everything that the store has not, here and in what was built on it since."""
        cause = StoreError(f"What the handler changed could not be kept: {error}")
        cause.__cause__ = error
        self._now = self._kept
        self._revert()
        if self._state is not None:
            self._void.update(dict.fromkeys(self._running, cause))
        for lost in (batch, self._open):
            if lost is not None:
                lost.kept.set_exception(cause)
                # Looked at, so that asyncio does not report it where nobody waits.
                lost.kept.exception()
        self._open = None

    def _token(self, envelope: Envelope) -> Token | None:
        """Give what a message is claimed by, if it is a durable one."""
        return None if envelope.release is None else self._named(envelope)

    def _named(self, envelope: Envelope) -> Token:
        sender, (source, number, _) = envelope.sender, envelope.context[_DURABLE]
        if sender.issuer or sender.subject != sender.name:
            # Or whoever knows the id of a store could have its messages taken for handled.
            source = msgspec.json.encode((source, sender.issuer, sender.subject)).decode()
        return Token(self._name, source, number)

    async def _claim(
        self,
        outbox: Outbox,
        envelope: Envelope,
        token: Token,
        below: int,
        deliver: Callable[[Envelope], None],
    ) -> None:
        elsewhere = Busy("The message is being handled already.", _RETRY_AFTER)
        if token in outbox.claimed:
            envelope.fail(elsewhere)
            return
        outbox.claimed.add(token)
        try:
            verdict = await outbox.store.claim(token, below, outbox.owner)
        except Exception as raised:  # noqa: BLE001 (as above)
            outbox.claimed.discard(token)
            error = StoreError(str(raised))
            error.may_have_run = False
            envelope.fail(error)
            return
        if verdict.kind != "mine":
            outbox.claimed.discard(token)
            if verdict.kind == "elsewhere":
                envelope.fail(elsewhere)
            elif verdict.error is not None:
                envelope.fail(from_wire(*msgspec.msgpack.decode(verdict.error)))
            else:
                envelope.reply(None)
            return

        def release() -> None:
            outbox.claimed.discard(token)
            self._start(self._release(outbox, Released(token, outbox.owner)))

        if envelope.state is State.DONE:
            release()
            return
        envelope.release = release
        deliver(envelope)

    async def _release(self, outbox: Outbox, change: Released) -> None:
        try:
            await outbox.store.commit(change)
        except StoreError as error:
            # This process may take it again all the same, and another one when this one has ended.
            _logger.warning("%s could not give back a durable message: %s", self._name, error)

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
