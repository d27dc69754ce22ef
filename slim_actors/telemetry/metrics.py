"""Metrics: how messages ended, how long they took and waited; mailboxes, sessions, restarts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from time import perf_counter
from typing import Any
from weakref import WeakKeyDictionary

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, Counter, MeterProvider, Observation

from slim_actors.context import Context
from slim_actors.deadletters import DeadLetter
from slim_actors.middleware import Middleware, Sending
from slim_actors.runtime import Runtime
from slim_actors.telemetry.conventions import handled, of_context, of_name, of_sending, outcome

__all__ = ["Metering", "restarts"]

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metering(Middleware):
    """Counts and times messages.

    Args:
        meter_provider: Where the metrics go; by default the program's global provider.

    Example:
        .. code-block:: python

            runtime = Runtime(middleware=[Metering(my_meter_provider)])
    """

    def __init__(self, meter_provider: MeterProvider | None = None) -> None:
        self._provider = meter_provider
        meter = metrics.get_meter("slim_actors", meter_provider=meter_provider)
        self._sent = meter.create_histogram(
            "messaging.client.operation.duration",
            "s",
            "From sending a message to its outcome at the sender.",
            explicit_bucket_boundaries_advisory=_SECONDS,
        )
        self._handled = meter.create_histogram(
            "messaging.process.duration",
            "s",
            "How long handlers run.",
            explicit_bucket_boundaries_advisory=_SECONDS,
        )
        self._waited = meter.create_histogram(
            "slim_actors.queue.duration",
            "s",
            "How long messages wait in a mailbox.",
            explicit_bucket_boundaries_advisory=_SECONDS,
        )
        self._outcomes = meter.create_counter(
            "slim_actors.outcomes", "{message}", "Messages that ended at an agent, by how."
        )
        self._dead_letters = meter.create_counter(
            "slim_actors.dead_letters", "{message}", "Messages that ended without anybody to tell."
        )

    @asynccontextmanager
    async def running(self, runtime: Runtime) -> AsyncIterator[None]:
        """Let the gauges show the runtime while it is open."""
        provider = self._provider or metrics.get_meter_provider()
        gauges = _gauges.get(provider)
        if gauges is None:
            gauges = _gauges[provider] = _Gauges(provider)
        gauges.runtimes.add(runtime)
        try:
            yield
        finally:
            gauges.runtimes.discard(runtime)

    @contextmanager
    def sending(self, sending: Sending) -> Iterator[None]:
        """Time a message from its sending to its outcome."""
        began = perf_counter()
        error: BaseException | None = None
        try:
            yield
        except BaseException as raised:
            error = raised
            raise
        finally:
            self._sent.record(perf_counter() - began, {**of_sending(sending), **outcome(error)})

    @contextmanager
    def handling(self, ctx: Context, message: Any) -> Iterator[None]:
        """Time the wait in the mailbox, and the handler."""
        attributes = of_context(ctx, message)
        if ctx.message_id:
            self._waited.record(ctx.waited, of_name(ctx.me.name))
        began = perf_counter()
        error: BaseException | None = None
        try:
            yield
        except BaseException as raised:
            error = handled(ctx, raised)
            raise
        finally:
            self._handled.record(perf_counter() - began, {**attributes, **outcome(error)})

    def outcome(self, ctx: Context, message: Any, error: Exception | None) -> None:
        """Count how a message ended."""
        self._outcomes.add(1, {**of_name(ctx.me.name), **outcome(error)})

    def dead_letter(self, letter: DeadLetter) -> None:
        """Count a dead letter."""
        self._dead_letters.add(1, {**of_name(letter.recipient.name), **outcome(letter.cause)})


class _Gauges:
    """What is read when metrics are collected, in whatever thread: one set for all runtimes of a provider.

    An instrument keeps the callbacks of whoever made it first, so each runtime cannot have its own.
    """

    def __init__(self, provider: MeterProvider) -> None:
        self.runtimes: set[Runtime] = set()
        meter = metrics.get_meter("slim_actors", meter_provider=provider)
        meter.create_observable_gauge(
            "slim_actors.mailbox.depth", [self._depths], "{message}", "Messages that wait, by instance."
        )
        meter.create_observable_gauge(
            "slim_actors.sessions", [self._sessions], "{session}", "Sessions to and from others."
        )

    def _depths(self, _: CallbackOptions) -> Iterable[Observation]:
        for runtime in tuple(self.runtimes):
            for ref in runtime.instances:
                attributes = {**of_name(ref.address.name), "messaging.client.id": str(ref.address)}
                yield Observation(ref.depth, attributes)

    def _sessions(self, _: CallbackOptions) -> Iterable[Observation]:
        yield Observation(sum(runtime.sessions for runtime in tuple(self.runtimes)), {})


_gauges: WeakKeyDictionary[MeterProvider, _Gauges] = WeakKeyDictionary()


def restarts() -> Counter:
    """Give the counter of replica processes that were started again."""
    return metrics.get_meter("slim_actors").create_counter(
        "slim_actors.replica.restarts", "{restart}", "Replica processes that were started again."
    )
