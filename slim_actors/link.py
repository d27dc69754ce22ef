"""One session: frames go out in batches, frames come in, and a dead peer is noticed.

The writer sends at once when it is idle; what arrives while a payload is under way goes into the next one.
So a lone message pays nothing for batching, and a thousand cost little more than one. A frame that is too
long for a batch goes out in parts, with a batch between each two of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from itertools import groupby

from slim_actors import wire
from slim_actors.batches import Problem, decode_batch, decode_joined
from slim_actors.errors import ConfigurationError, DeliveryError, PeerLost, TooLarge
from slim_actors.limits import (
    BATCH_BYTES,
    BATCH_FRAMES,
    MAX_PAYLOAD,
    Limits,
    body_room,
    no_account,
    too_large,
)
from slim_actors.names import Address
from slim_actors.owner import LinkOwner, Takes, one_by_one
from slim_actors.parts import Joiner, Splitter
from slim_actors.pulse import Pulse
from slim_actors.transport.base import Payload, Session, SessionClosed

__all__ = ["Link"]

_logger = logging.getLogger("slim_actors.link")

_MOST_UNREADABLE = 16 * 1024 * 1024
_MOST_BACKLOG = 16 * 1024 * 1024
_PING = wire.join([wire.encode(wire.Ping())])
_LIMITS = Limits()
_CLOSE_WITHIN = 1.0
_MOST_FLUSHES = 8
_GOODBYE_WITHIN = 0.1
_WORTH_HALVING = 128
"""Frames; with fewer the second payload costs more than both ends gain by working at the same time."""


class Link:
    """One conversation with one peer.

    Args:
        session: The session that carries it. The link closes it.
        owner: Who takes what comes in.
        pulse: Who watches whether the peer is alive.
        limits: How much a payload, and a message, may bring.
        hold: Counts the bytes of parts in, or, below 0, out; says whether there is room for them.
        is_caller: Whether this side opened the session, and so sees to it that both know the other lives.
    """

    def __init__(
        self,
        session: Session,
        owner: LinkOwner,
        pulse: Pulse,
        limits: Limits = _LIMITS,
        hold: Callable[[int], bool] = no_account,
        *,
        is_caller: bool = True,
    ) -> None:
        self._session = session
        self._owner = owner
        self._takes: Takes = {**owner.takes, wire.Part: one_by_one(self._join)}
        self._pulse = pulse
        self._limits = limits
        self.is_caller = is_caller
        self._frames: deque[bytes] = deque()
        self._plain: deque[bytes] = deque()
        self._long = Splitter()
        self._joiner = Joiner(limits.max_payload, hold, lambda problem, size: self._report([problem], size))
        self.max_payload = limits.max_payload
        """How many bytes one message may have that is sent."""
        self._writer: asyncio.Task[None] | None = None
        self._is_writing = False
        # Of its own: that of whoever happens to wake the writer holds the message that is being handled.
        self._writer_context = Context()
        self._is_over = False
        self._unreadable = 0
        self.is_abused = False
        """Whether it was ended for what the peer sent."""
        self._reason = ""
        self._outcome: type[DeliveryError] = PeerLost
        self._version_told = False
        self.backlog = 0
        """Bytes that wait to be handed to the network."""
        self.has_heard = False
        """Whether the peer has sent anything that makes sense."""
        self._drained = asyncio.Event()
        self.last_heard = asyncio.get_running_loop().time()
        self.sender = session.peer
        """Who sent what came last, as the transport knew it then."""
        # Nor does the reader need the context of whoever opened the session, for as long as that is there.
        reader = asyncio.create_task(self._read(), name=f"link {session.peer}", context=Context())
        self._reader = reader
        pulse.watch(self)

    @property
    def peer(self) -> Address:
        """The other end, as the transport knows it."""
        return self._session.peer

    @property
    def mls(self) -> bool:
        """Whether the conversation is encrypted end to end."""
        return self._session.mls

    @property
    def framed(self) -> bool:
        """Whether both sides speak the wire format."""
        return self._session.framed

    @property
    def is_over(self) -> bool:
        """Whether nothing can be sent any more."""
        return self._is_over

    @property
    def busy(self) -> bool:
        """Whether the peer's death would matter now."""
        return self._owner.outstanding > 0

    def send(self, frame: wire.Frame) -> bytes:
        """Put a frame into the next batch, and give its bytes. On a link that is over it goes nowhere.

        Raises:
            TooLarge: The body has more bytes than one message may have.
            MalformedMessage: The body holds something that has no form on the wire.
        """
        try:
            # As `wire.encode_body` does, without a call more for every frame.
            encoded = wire.encode(frame)
        except wire.UNSENDABLE as error:
            raise wire.unsendable(error) from None
        size = len(encoded)
        if size <= BATCH_BYTES and size <= self.max_payload and not self._long.ids:
            # Nearly every frame: none is long, and none that is must stay before it.
            if not self._is_over:
                self._frames.append(encoded)
                self.backlog += size
                if not self._is_writing:
                    self._wake()
            return encoded
        if size > self.max_payload:
            size = wire.body_size(frame, encoded)
            if size > body_room(self.max_payload):
                raise TooLarge(too_large(size, self.max_payload))
        # What begins a message keeps its place among those that do, however long one takes.
        in_order = bool(self._long) and isinstance(frame, wire.Ask | wire.Tell | wire.Tells | wire.Stream)
        self.send_encoded(encoded, getattr(frame, "id", 0), in_order=in_order)
        return encoded

    def send_encoded(self, frame: bytes, message_id: int, *, in_order: bool = False) -> None:
        """Put a frame that is encoded already into the next batch; not before what is left of its message."""
        if self._is_over:
            return
        if len(frame) > BATCH_BYTES or message_id in self._long or (in_order and self._long):
            self._long.add(message_id, frame)
        else:
            self._frames.append(frame)
        self.backlog += len(frame)
        self._wake()

    @property
    def has_long(self) -> bool:
        """Whether a long frame waits to be sent, and perhaps others behind it."""
        return bool(self._long.ids)

    def forget(self, message_id: int) -> None:
        """Neither send nor take what is left of the long frames of a message."""
        if self._long.ids:
            self.backlog -= self._long.drop(message_id)
        if self._joiner.id == message_id:
            self._joiner.drop(message_id)

    def send_plain(self, data: bytes) -> None:
        """Send bytes as a payload of their own, for a peer that does not speak the wire format.

        Raises:
            TooLarge: There are more of them than one payload may have; such a peer could not join parts.
        """
        if len(data) > MAX_PAYLOAD:
            raise TooLarge(f"The message has {len(data)} bytes; one in plain bytes may have {MAX_PAYLOAD}.")
        if not self._is_over:
            self._plain.append(data)
            self.backlog += len(data)
            self._wake()

    def room(self) -> Awaitable[None] | None:
        """Give what to wait for until not too much is waiting to be sent; None if there is room."""
        return self._room() if self.backlog > _MOST_BACKLOG and not self._is_over else None

    async def _room(self) -> None:
        while self.backlog > _MOST_BACKLOG and not self._is_over:
            self._drained.clear()
            await self._drained.wait()

    async def flush(self) -> None:
        """Wait until everything that was put into batches has been handed to the network."""
        while self._writer is not None and not self._writer.done():
            await asyncio.wait([self._writer])

    async def close(self) -> None:
        """Send what is waiting, as long as that makes headway, then end the session."""
        try:
            await self._flush_while_it_moves()
        finally:
            # Also if whoever closes it is cancelled: nobody else would.
            self.end("the link was closed")
        # The goodbye is on its way. A port that was withdrawn never hears the answer, so do not wait long.
        try:
            await asyncio.wait([self._reader], timeout=_GOODBYE_WITHIN)
        finally:
            self._reader.cancel()

    async def _flush_while_it_moves(self) -> None:
        for _ in range(_MOST_FLUSHES):
            before = self.backlog
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_CLOSE_WITHIN):
                    await self.flush()
            if not self.backlog or self.backlog >= before:
                break

    def lost(self, *, may_have_run: bool) -> DeliveryError:
        """Make the error that the peer is gone, and why."""
        error = self._outcome(f"{self.peer} is lost: {self._reason.rstrip('.')}.")
        error.may_have_run = may_have_run
        return error

    def end(self, reason: str, outcome: type[DeliveryError] = PeerLost) -> None:
        """End the session now and tell the owner. Does nothing the second time.

        Args:
            reason: Why.
            outcome: What it means for those who wait for the peer.
        """
        if self._is_over:
            return
        self._is_over = True
        self._reason, self._outcome = reason, outcome
        self._frames.clear()
        self._plain.clear()
        self._long.clear()
        self._joiner.close()
        self._drained.set()
        self._pulse.forget(self)
        self._pulse.close_soon(self._session)
        self._owner.closed()

    async def is_there(self) -> bool:
        """Ask the peer for a sign of life; tell whether it gave one. Without one the link is over."""
        await self._pulse.probe(self)
        return not self._is_over

    async def alive(self, within: float) -> bool:
        """Tell whether the peer's process acknowledges a ping within so many seconds."""
        return await self._session.alive(_PING if self.framed else None, wire.PAYLOAD_TYPE, within)

    def _wake(self) -> None:
        if not self._is_writing:
            self._is_writing = True
            self._writer = asyncio.create_task(self._write(), context=self._writer_context)

    async def _write(self) -> None:
        try:
            while self._frames or self._plain or self._long:
                if self._frames:
                    await self._session.send(wire.join(self._gather()), wire.PAYLOAD_TYPE)
                if self._long:
                    payload, size = self._long.next()
                    self.backlog -= size
                    await self._session.send(payload, wire.PAYLOAD_TYPE)
                if self._plain:
                    data = self._plain.popleft()
                    self.backlog -= len(data)
                    await self._session.send(data, None)
                if self.backlog <= _MOST_BACKLOG:
                    self._drained.set()
        except SessionClosed as error:
            self.end(str(error), error.outcome)
        except ConfigurationError as error:
            self.end(str(error))
        except Exception as error:
            _logger.exception("The link with %s stumbled while it sent", self.peer)
            self.end(f"it could not be sent to ({type(error).__name__})")
        finally:
            self._is_writing = False

    def _gather(self) -> list[bytes]:
        frames, most = self._frames, BATCH_FRAMES
        if self.is_caller and len(frames) >= _WORTH_HALVING and len(frames) == self._owner.outstanding:
            # Nothing else is under way: in one payload each end would wait while the other works.
            most = len(frames) // 2
        elif self.backlog <= BATCH_BYTES and len(frames) <= most and not (self._long or self._plain):
            # All that waits is frames that go together, so they need not be counted one by one.
            every = list(frames)
            frames.clear()
            self.backlog = 0
            return every
        batch = [frames.popleft()]
        size = len(batch[0])
        while frames and len(batch) < most and size + len(frames[0]) <= BATCH_BYTES:
            batch.append(frames.popleft())
            size += len(batch[-1])
        self.backlog -= size
        return batch

    async def _read(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while True:
                payload = await self._session.receive()
                self.last_heard = loop.time()
                self.sender = self._session.peer
                if self._is_over:
                    continue
                if wire.is_ours(payload.type):
                    self._unpack(payload)
                else:
                    self.has_heard = True
                    self._owner.plain(payload)
        except SessionClosed as error:
            self.end(str(error), error.outcome)
        except Exception as error:
            _logger.exception("The link with %s stumbled over what it received", self.peer)
            self.end(f"what it sent could not be taken ({type(error).__name__})")

    def _unpack(self, payload: Payload) -> None:
        if payload.type != wire.PAYLOAD_TYPE and wire.version_of(payload.type) != wire.VERSION:
            if not self._version_told:
                # Once: two that do not understand each other must not go on saying so.
                self._version_told = True
                what = f"{payload.type[:100]!r} is not understood here; this is {wire.PAYLOAD_TYPE}."
                self.send(wire.Error(0, "version", what))
            self._bear(len(payload.data))
            return
        batch = decode_batch(payload.data, self._limits)
        self.has_heard = self.has_heard or bool(batch.frames)
        self._pass_on(batch.frames)
        if batch.problems:
            self._report(batch.problems, len(payload.data))

    def _pass_on(self, frames: Sequence[wire.Frame]) -> None:
        for kind, together in groupby(frames, type):
            take = self._takes.get(kind)
            if take is not None:
                take(list(together))

    def _report(self, problems: Sequence[Problem], size: int) -> None:
        for problem in problems:
            self._owner.problem(problem)
        self._bear(size)

    def _bear(self, size: int) -> None:
        """Bear with a peer that sends what cannot be taken, for a while.

        What it sends faster than it is looked at here waits inside SLIM, and only the end of the session
        bounds that.
        """
        self._unreadable += size
        if self._unreadable > _MOST_UNREADABLE and not self._is_over:
            self.is_abused = True
            text = f"it sent more than {_MOST_UNREADABLE // 2**20} MiB of what cannot be taken"
            _logger.warning("%s loses its session: %s.", self.peer, text)
            self.end(text)

    def _join(self, part: wire.Part) -> None:
        joined = self._joiner.add(part)
        if joined is None:
            return
        batch = decode_joined(joined, part.id, self._limits)
        # A part among them would be nobody's.
        self._pass_on([frame for frame in batch.frames if type(frame) is not wire.Part])
        if batch.problems:
            self._report(batch.problems, len(joined))
