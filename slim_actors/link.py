"""One session: frames go out in batches, frames come in, and a dead peer is noticed.

The writer sends at once when it is idle; what arrives while a payload is under way goes into the next one.
So a lone message pays nothing for batching, and a thousand cost little more than one.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import defaultdict, deque
from typing import Protocol

from slim_actors import wire
from slim_actors.errors import ConfigurationError, DeliveryError, PeerLost, TooLarge
from slim_actors.limits import BATCH_BYTES, BATCH_FRAMES, Limits
from slim_actors.names import Address
from slim_actors.transport.base import MAX_PAYLOAD, Payload, Session, SessionClosed, Transport

__all__ = ["Link", "LinkOwner", "Pulse"]

_logger = logging.getLogger("slim_actors.link")

_FRAME_ROOM = MAX_PAYLOAD - 8
_MOST_BACKLOG = 16 * 1024 * 1024
_PING = wire.join([wire.encode_frame(wire.Ping())])
_LIMITS = Limits()
_CLOSE_WITHIN = 1.0
_GOODBYE_WITHIN = 0.1
_MOST_IDLE_PINGS = 12
"""A second; one costs 0.3 ms of each side's processor."""


class LinkOwner(Protocol):
    """Who does something with what a link brings."""

    @property
    def busy(self) -> bool:
        """Whether the owner waits for something from the peer, so that its death matters now."""

    def frame(self, frame: wire.Frame) -> None:
        """Take a frame."""

    def problem(self, problem: wire.Problem) -> None:
        """Take note of a frame that cannot be read."""

    def plain(self, payload: Payload) -> None:
        """Take a payload that is not in the wire format."""

    def closed(self) -> None:
        """Take note that the link is over, `Link.lost` says why; called once."""


class Link:
    """One conversation with one peer.

    Args:
        session: The session that carries it. The link closes it.
        owner: Who takes what comes in.
        pulse: Who watches whether the peer is alive.
        limits: How much a payload may bring.
        is_caller: Whether this side opened the session, and so sees to it that both know the other lives.
    """

    def __init__(
        self,
        session: Session,
        owner: LinkOwner,
        pulse: Pulse,
        limits: Limits = _LIMITS,
        *,
        is_caller: bool = True,
    ) -> None:
        self._session = session
        self._owner = owner
        self._pulse = pulse
        self._limits = limits
        self.is_caller = is_caller
        self._frames: deque[bytes] = deque()
        self._plain: deque[bytes] = deque()
        self._writer: asyncio.Task[None] | None = None
        self._is_over = False
        self._reason = ""
        self._outcome: type[DeliveryError] = PeerLost
        self._version_told = False
        self.backlog = 0
        """Bytes that wait to be handed to the network."""
        self.has_heard = False
        """Whether the peer has sent anything that makes sense."""
        self._drained = asyncio.Event()
        self.last_heard = asyncio.get_running_loop().time()
        self._reader = asyncio.create_task(self._read(), name=f"link {session.peer}")
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
        """Whether something is expected from the peer."""
        return self._owner.busy

    def send(self, frame: wire.Frame) -> bytes:
        """Put a frame into the next batch, and give its bytes. On a link that is over it goes nowhere.

        Raises:
            TooLarge: The frame alone is more than one payload may be.
            MalformedMessage: The body holds something that has no form on the wire.
        """
        encoded = wire.encode_frame(frame)
        if len(encoded) > _FRAME_ROOM:
            raise TooLarge(f"The message has {len(encoded)} bytes; one message may have {_FRAME_ROOM}.")
        self.send_encoded(encoded)
        return encoded

    def send_encoded(self, frame: bytes) -> None:
        """Put a frame that is encoded already into the next batch."""
        if not self._is_over:
            self._frames.append(frame)
            self.backlog += len(frame)
            self._wake()

    def send_plain(self, data: bytes) -> None:
        """Send bytes as a payload of their own, for a peer that does not speak the wire format.

        Raises:
            TooLarge: There are more of them than one payload may have.
        """
        if len(data) > MAX_PAYLOAD:
            raise TooLarge(f"The message has {len(data)} bytes; one message may have {MAX_PAYLOAD}.")
        if not self._is_over:
            self._plain.append(data)
            self.backlog += len(data)
            self._wake()

    async def room(self) -> None:
        """Wait until not too much is waiting to be sent; returns at once on a link that is over."""
        while self.backlog > _MOST_BACKLOG and not self._is_over:
            self._drained.clear()
            await self._drained.wait()

    async def flush(self) -> None:
        """Wait until everything that was put into batches has been handed to the network."""
        while self._writer is not None and not self._writer.done():
            await asyncio.wait([self._writer])

    async def close(self) -> None:
        """Send what is waiting, then end the session."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_WITHIN):
                await self.flush()
        self.end("the link was closed")
        # The goodbye is on its way. A port that was withdrawn never hears the answer, so do not wait long.
        await asyncio.wait([self._reader], timeout=_GOODBYE_WITHIN)
        self._reader.cancel()

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
        self._drained.set()
        self._pulse.forget(self)
        self._pulse.close_soon(self._session)
        self._owner.closed()

    async def alive(self, within: float) -> bool:
        """Tell whether the peer's process acknowledges a ping within so many seconds."""
        return await self._session.alive(_PING if self.framed else None, wire.PAYLOAD_TYPE, within)

    def _wake(self) -> None:
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write())

    async def _write(self) -> None:
        try:
            while self._frames or self._plain:
                if self._frames:
                    await self._session.send(wire.join(self._gather()), wire.PAYLOAD_TYPE)
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

    def _gather(self) -> list[bytes]:
        frames = self._frames
        batch = [frames.popleft()]
        size = len(batch[0])
        while frames and len(batch) < BATCH_FRAMES and size + len(frames[0]) <= BATCH_BYTES:
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
        version = wire.version_of(payload.type)
        if version != wire.VERSION:
            if not self._version_told:
                # Once: two that do not understand each other must not go on saying so.
                self._version_told = True
                what = f"{payload.type[:100]!r} is not understood here; this is {wire.PAYLOAD_TYPE}."
                self.send(wire.Error(0, "version", what))
            return
        batch = wire.decode_batch(payload.data, self._limits)
        self.has_heard = self.has_heard or bool(batch.frames)
        for frame in batch.frames:
            self._owner.frame(frame)
        for problem in batch.problems:
            self._owner.problem(problem)


class Pulse:
    """Notices peers that are gone without a word.

    A peer that has been silent for a while gets a ping. SLIM acknowledges it from inside the peer's process,
    whatever its Python is doing: so a busy agent stays, and a process that was killed, frozen or cut off is
    lost.

    A session with something under way is pinged by both its ends, for itself. One that is idle is pinged by
    the caller, and one stands for all idle ones between the same two instances: what came over any of them is
    a sign of life. With very many instances the pings to idle ones are spread over a longer time, so that
    they cost little however many there are.

    Args:
        transport: Asked whether it is the network itself that is away; then nobody is blamed.
        lost_after: Seconds from the last sign of life to the loss.
    """

    def __init__(self, transport: Transport, lost_after: float) -> None:
        self._transport = transport
        self._tick = lost_after / 12
        self._silence = lost_after / 4
        self._patience = lost_after * 7 / 12
        self._idle = lost_after / 3
        self._unheard = lost_after * 5
        self._lost_after = lost_after
        self._links: dict[Link, asyncio.Task[None] | None] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._task: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        """How many links are watched."""
        return len(self._links)

    def watch(self, link: Link) -> None:
        """Watch a link from now on."""
        self._links[link] = None
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="pulse")

    def forget(self, link: Link) -> None:
        """Watch a link no longer."""
        probe = self._links.pop(link, None)
        if probe is not None and probe is not asyncio.current_task():
            probe.cancel()

    def close_soon(self, session: Session) -> None:
        """Close a session without waiting for it."""
        task = asyncio.create_task(session.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def stop(self) -> None:
        """Watch nothing any more."""
        watching = [task for task in (self._task, *self._links.values()) if task is not None]
        for task in watching:
            task.cancel()
        tasks = [*watching, *self._closing]
        if tasks:
            await asyncio.wait(tasks, timeout=_CLOSE_WITHIN)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self._tick)
            now = loop.time()
            idle: defaultdict[tuple[str, bool, bool], list[Link]] = defaultdict(list)
            for link in list(self._links):
                if not link.busy:
                    idle[link.peer.instance, link.framed, link.is_caller].append(link)
                elif now - link.last_heard > self._silence:
                    self._ping(link)
            # So that the loss is known in time, unless that would be more pings than cost next to nothing.
            silence = max(self._idle, len(idle) / _MOST_IDLE_PINGS)
            for (_, _, is_caller), links in idle.items():
                if now - max(link.last_heard for link in links) > (silence if is_caller else self._unheard):
                    self._ping(links[0])

    def _ping(self, link: Link) -> None:
        probe = self._links.get(link)
        if probe is None or probe.done():
            self._links[link] = asyncio.create_task(self._probe(link))

    async def _probe(self, link: Link) -> None:
        began = asyncio.get_running_loop().time()
        if await link.alive(self._patience):
            link.last_heard = asyncio.get_running_loop().time()
        elif not await self._transport.check():
            await self._transport.available()
        else:
            link.end(f"it gave no sign of life for {self._lost_after:.3g} s (killed, frozen or cut off)")
            # Is it the session or the peer? The others with it are asked at once.
            for other in list(self._links):
                if other.peer.instance == link.peer.instance and other.last_heard <= began:
                    self._ping(other)
