"""Spans and metrics: who is whose parent, how long they last, and how they say that something failed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest
from attrs import frozen
from opentelemetry import baggage, trace
from opentelemetry import context as otel
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from slim_actors import (
    Agent,
    Anycast,
    Context,
    Expired,
    Forward,
    Middleware,
    NoRoute,
    RemoteError,
    Request,
    Runtime,
    Sending,
    StreamRequest,
    every,
    handler,
)
from slim_actors.telemetry import Metering, Tracing
from tests.agents_for_tests import Fail, Gate, Note, Relay, Say, Wait, Worker
from tests.collector import Tree, tree
from tests.conftest import World, eventually
from tests.storing import Stores

WORKER = Anycast("test/ns/worker")


class Spans:
    """A provider that keeps its spans."""

    def __init__(self) -> None:
        self.provider = TracerProvider(shutdown_on_exit=False)
        self._exporter = InMemorySpanExporter()
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.middleware = Tracing(self.provider)
        self.tracer = self.provider.get_tracer("a user's")

    @property
    def all(self) -> tuple[ReadableSpan, ...]:
        return self._exporter.get_finished_spans()

    def __getitem__(self, name: str) -> ReadableSpan:
        (span,) = (span for span in self.all if span.name == name)
        return span

    @property
    def tree(self) -> list[Tree]:
        """The spans but for those in queues, which belong to every message."""
        return tree(
            (span.name, span.context.span_id, span.parent.span_id if span.parent else None)
            for span in self.all
            if not span.name.startswith("queue ")
        )

    def outcome(self, name: str) -> tuple[Any, Any, StatusCode]:
        span = self[name]
        assert span.attributes is not None
        return (
            span.attributes["slim_actors.outcome"],
            span.attributes.get("error.type"),
            span.status.status_code,
        )


@pytest.fixture
def spans() -> Spans:
    return Spans()


@pytest.fixture
async def runtime(world: World, spans: Spans) -> Runtime:
    return await world.runtime(middleware=[spans.middleware])


@frozen
class Count(StreamRequest[int]):
    to: int


@frozen
class Outer(Request[str]):
    text: str


class Front(Agent, name="test/ns/front"):
    def __init__(self, spans: Spans) -> None:
        self.spans = spans
        self.baggage: object = None

    @handler
    async def forward(self, message: Outer) -> Forward:
        return Forward(WORKER, Say(message.text))

    @handler
    async def count(self, message: Count) -> Forward:
        return Forward(Anycast("test/ns/counter"), message)

    @handler
    async def own_spans(self, message: str, ctx: Context) -> str:
        self.baggage = baggage.get_baggage("tenant")
        with self.spans.tracer.start_as_current_span("the user's own"):
            return await asyncio.create_task(_asks(ctx))

    @handler
    async def tells(self, message: Note, ctx: Context) -> None:
        await ctx.tell(WORKER, message)


class Counter(Agent, name="test/ns/counter"):
    @handler
    async def count(self, message: Count, ctx: Context) -> AsyncIterator[int]:
        for number in range(message.to):
            yield number


async def _asks(ctx: Context) -> str:
    return await ctx.ask(WORKER, Say("hi"))


async def test_the_span_of_a_sender_is_the_parent_of_its_message_and_of_what_the_handler_does(
    runtime: Runtime, spans: Spans
) -> None:
    await runtime.spawn(Worker)
    front = Front(spans)
    await runtime.spawn(lambda: front)
    with spans.tracer.start_as_current_span("request"):
        token = otel.attach(baggage.set_baggage("tenant", "acme"))
        assert await runtime.ask(Anycast("test/ns/front"), "go") == "hi"
        otel.detach(token)
    inner: Tree = ("ask test/ns/worker", [("handle test/ns/worker", [])])
    handled: Tree = ("handle test/ns/front", [("the user's own", [inner])])
    assert spans.tree == [("request", [("ask test/ns/front", [handled])])]
    assert front.baggage == "acme"
    # The worker of an agent keeps nothing of one message for the next.
    await runtime.tell(Anycast("test/ns/front"), Note("x"))
    await eventually(lambda: len([span for span in spans.all if span.name.startswith("handle")]) == 4)
    told: Tree = ("tell test/ns/worker", [("handle test/ns/worker", [])])
    assert spans.tree[1:] == [("tell test/ns/front", [("handle test/ns/front", [told])])]
    assert spans["tell test/ns/front"].kind is SpanKind.PRODUCER
    assert spans["ask test/ns/front"].kind is SpanKind.CLIENT


async def test_a_span_says_what_the_message_was(runtime: Runtime, spans: Spans) -> None:
    ref = await runtime.spawn(Worker)
    await runtime.ask(WORKER, Say("hi"))
    sent, queued, handled = (
        dict(spans[f"{verb} test/ns/worker"].attributes or {}) for verb in ("ask", "queue", "handle")
    )
    common = {
        "messaging.system": "slim",
        "messaging.destination.name": "test/ns/worker",
        "messaging.message.id": sent["messaging.message.id"],
        "slim_actors.message.type": "tests.agents_for_tests.Say",
    }
    me = sent["messaging.client.id"]
    assert sent == {
        **common,
        "messaging.operation.name": "ask",
        "messaging.operation.type": "send",
        "messaging.client.id": me,
        "slim_actors.peer": str(ref.address),
        "slim_actors.route": "Anycast",
        "slim_actors.outcome": "ok",
    }
    its = {**common, "messaging.client.id": str(ref.address), "slim_actors.peer": me}
    assert queued == {**its, "messaging.operation.name": "queue"}
    process = {"messaging.operation.name": "handle", "messaging.operation.type": "process"}
    assert handled == {**its, **process, "slim_actors.outcome": "ok"}
    assert spans["handle test/ns/worker"].kind is SpanKind.SERVER
    assert spans["queue test/ns/worker"].end_time == spans["handle test/ns/worker"].start_time


async def test_the_span_of_a_stream_lasts_until_its_last_item(runtime: Runtime, spans: Spans) -> None:
    await runtime.spawn(Counter)
    numbers = []
    async for number in runtime.stream(Anycast("test/ns/counter"), Count(1000)):
        numbers.append(number)
        assert "stream test/ns/counter" not in {span.name for span in spans.all}
    assert numbers == list(range(1000))
    assert spans.tree == [("stream test/ns/counter", [("handle test/ns/counter", [])])]
    assert spans.outcome("stream test/ns/counter") == ("ok", None, StatusCode.UNSET)
    assert not trace.get_current_span().get_span_context().is_valid


async def test_a_stream_that_its_reader_leaves_is_cancelled_and_no_error(
    runtime: Runtime, spans: Spans
) -> None:
    await runtime.spawn(Counter)
    async with aclosing(aiter(runtime.stream(Anycast("test/ns/counter"), Count(100_000)))) as numbers:
        assert await anext(numbers) == 0
    await eventually(lambda: len(spans.all) == 3)
    for span in ("stream test/ns/counter", "handle test/ns/counter"):
        assert spans.outcome(span) == ("cancelled", None, StatusCode.UNSET)


async def test_a_forward_goes_on_with_the_trace(runtime: Runtime, spans: Spans) -> None:
    await runtime.spawn(Worker)
    await runtime.spawn(Counter)
    await runtime.spawn(lambda: Front(spans))
    assert await runtime.ask(Anycast("test/ns/front"), Outer("hi")) == "hi"
    below: Tree = ("ask test/ns/worker", [("handle test/ns/worker", [])])
    assert spans.tree == [("ask test/ns/front", [("handle test/ns/front", [below])])]
    ids = {(span.attributes or {})["messaging.message.id"] for span in spans.all}
    assert len(ids) == 1
    assert [number async for number in runtime.stream(Anycast("test/ns/front"), Count(3))] == [0, 1, 2]
    below = ("stream test/ns/counter", [("handle test/ns/counter", [])])
    assert spans.tree[1:] == [("stream test/ns/front", [("handle test/ns/front", [below])])]


async def test_errors_are_on_the_spans_of_both_ends(
    runtime: Runtime, spans: Spans, caplog: pytest.LogCaptureFixture
) -> None:
    await runtime.spawn(Worker)
    with caplog.at_level("CRITICAL"), pytest.raises(RemoteError):
        await runtime.ask(WORKER, Fail("too bad"))
    assert spans.outcome("ask test/ns/worker") == ("failed", "RemoteError", StatusCode.ERROR)
    assert spans.outcome("handle test/ns/worker") == ("failed", "ValueError", StatusCode.ERROR)
    (event,) = spans["handle test/ns/worker"].events
    assert (event.attributes or {})["exception.message"] == "too bad"
    with pytest.raises(NoRoute):
        await runtime.ask(Anycast("test/ns/nobody", max_retries=1, timeout=0.1), "x")
    assert spans.outcome("ask test/ns/nobody") == ("no-route", "NoRoute", StatusCode.ERROR)


async def test_what_a_deadline_ended_is_expired(runtime: Runtime, spans: Spans) -> None:
    await runtime.spawn(Worker)
    with pytest.raises(Expired):
        await runtime.ask(WORKER, Wait("a"), timeout=0.5)
    await eventually(lambda: len(spans.all) == 3)
    assert spans.outcome("ask test/ns/worker") == ("expired", "Expired", StatusCode.ERROR)


async def test_what_a_caller_cancelled_is_cancelled_at_both_ends(runtime: Runtime, spans: Spans) -> None:
    gate = Gate()
    await runtime.spawn(lambda: Worker(gate))
    asking = asyncio.ensure_future(runtime.ask(WORKER, Wait("a")))
    await eventually(lambda: gate.began == ["a"])
    asking.cancel()
    await eventually(lambda: len(spans.all) == 3)
    for span in ("ask test/ns/worker", "handle test/ns/worker"):
        assert spans.outcome(span) == ("cancelled", None, StatusCode.UNSET)


async def test_a_tell_that_dies_says_so_in_its_trace(
    runtime: Runtime, spans: Spans, caplog: pytest.LogCaptureFixture
) -> None:
    gate = Gate()
    await runtime.spawn(lambda: Worker(gate))
    asking = asyncio.ensure_future(runtime.ask(WORKER, Wait("a")))
    await eventually(lambda: gate.began == ["a"])
    with caplog.at_level("CRITICAL"):
        await runtime.tell(WORKER, Note("late"), timeout=0.3)
        deadline = asyncio.get_running_loop().time() + 0.3
        await eventually(lambda: asyncio.get_running_loop().time() > deadline)
        gate.open.set()
        await asking
        await eventually(lambda: "dead_letter test/ns/worker" in {span.name for span in spans.all})
    assert ("tell test/ns/worker", [("dead_letter test/ns/worker", [])]) in spans.tree
    assert spans.outcome("dead_letter test/ns/worker") == ("expired", "Expired", StatusCode.ERROR)


async def test_a_durable_tell_is_in_the_trace_of_what_sent_it(
    world: World, stores: Stores, spans: Spans
) -> None:
    runtime = await world.runtime(middleware=[spans.middleware], store=stores("host"))
    await runtime.spawn(Worker)
    with spans.tracer.start_as_current_span("request"):
        await runtime.tell(WORKER, Note("x"), durable=True)
    await eventually(lambda: any(span.name.startswith("handle") for span in spans.all))
    told: Tree = ("tell test/ns/worker", [("handle test/ns/worker", [])])
    assert spans.tree == [("request", [told])]


async def test_a_trace_passes_through_an_agent_without_telemetry(world: World, spans: Spans) -> None:
    seeing = await world.runtime(middleware=[spans.middleware])
    blind = await world.runtime()
    await seeing.spawn(Worker)
    await blind.spawn(Worker, name="test/ns/blind")
    assert await seeing.ask(Anycast("test/ns/blind"), Relay("test/ns/worker", "hi")) == "hi"
    assert spans.tree == [("ask test/ns/blind", [("handle test/ns/worker", [])])]


@pytest.mark.parametrize(
    "garbage", ["nonsense", 7, b"\xff", {"a": 1}, "00-" + "0" * 32 + "-" + "0" * 16 + "-01"]
)
async def test_a_trace_that_makes_no_sense_changes_nothing(
    world: World, spans: Spans, garbage: Any, caplog: pytest.LogCaptureFixture
) -> None:
    class Hostile(Middleware):
        def sending(self, sending: Sending) -> None:
            for key in ("traceparent", "tracestate", "baggage"):
                sending.context[key] = garbage

    hostile = await world.runtime(middleware=[Hostile()])
    runtime = await world.runtime(middleware=[spans.middleware])
    await runtime.spawn(Worker)
    assert await hostile.ask(WORKER, Say("hi")) == "hi"
    assert spans.tree == [("handle test/ns/worker", [])]
    assert not [record for record in caplog.records if record.name == "slim_actors.middleware"]


async def test_timers_have_traces_of_their_own(runtime: Runtime, spans: Spans) -> None:
    ticked = asyncio.Event()

    class Ticking(Agent, name="test/ns/ticking"):
        @every(seconds=0.1)
        async def tick(self, ctx: Context) -> None:
            ticked.set()

        async def receive(self, message: Any) -> None: ...

    with spans.tracer.start_as_current_span("whoever spawned it"):
        ref = await runtime.spawn(Ticking)
    await ticked.wait()
    await ref.stop()
    assert spans.tree[0] == ("handle test/ns/ticking", [])


async def test_the_metrics_of_messages(world: World, caplog: pytest.LogCaptureFixture) -> None:
    reader = InMemoryMetricReader()
    runtime = await world.runtime(middleware=[Metering(MeterProvider([reader], shutdown_on_exit=False))])
    gate = Gate()
    ref = await runtime.spawn(lambda: Worker(gate))

    def points(name: str) -> list[Any]:
        data = reader.get_metrics_data()
        assert data is not None
        metrics = data.resource_metrics[0].scope_metrics[0].metrics
        return [point for metric in metrics if metric.name == name for point in metric.data.data_points]

    asking = asyncio.ensure_future(runtime.ask(WORKER, Wait("a")))
    await eventually(lambda: gate.began == ["a"])
    await runtime.tell_many(WORKER, [Note("b"), Note("c")])
    (depth,) = points("slim_actors.mailbox.depth")
    assert depth.value == 2
    assert depth.attributes["messaging.client.id"] == str(ref.address)
    (sessions,) = points("slim_actors.sessions")
    assert sessions.value == runtime.sessions > 0
    gate.open.set()
    await asking
    with caplog.at_level("CRITICAL"), pytest.raises(RemoteError):
        await runtime.ask(WORKER, Fail("x"))
    outcomes = {
        point.attributes["slim_actors.outcome"]: point.value for point in points("slim_actors.outcomes")
    }
    assert outcomes == {"ok": 3, "failed": 1}
    handled = {
        (
            point.attributes["slim_actors.message.type"].rpartition(".")[2],
            point.attributes.get("error.type"),
        ): point.count
        for point in points("messaging.process.duration")
    }
    assert handled == {("Wait", None): 1, ("Note", None): 2, ("Fail", "ValueError"): 1}
    (waited,) = points("slim_actors.queue.duration")
    assert waited.count == 4
    sent = {
        (point.attributes["messaging.operation.name"], point.attributes["slim_actors.outcome"]): point.count
        for point in points("messaging.client.operation.duration")
    }
    assert sent == {("ask", "ok"): 1, ("tell", "ok"): 2, ("ask", "failed"): 1}
    await runtime.stop()
    assert points("slim_actors.mailbox.depth") == []
