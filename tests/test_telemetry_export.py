"""What an OpenTelemetry collector gets from real processes over a real node; and life without one."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator

import pytest

from tests.collector import Collector, Tree, attributes, tree
from tests.conftest import ROOT, Starter, eventually, free_endpoint

DOCUMENTED = dict(
    re.findall(
        r"^\| `([a-z_.]+)` \| (histogram|counter|gauge)",
        (ROOT / "docs" / "telemetry.md").read_text(),
        re.MULTILINE,
    )
)


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    yield collector
    collector.stop()


async def test_a_chain_of_agents_in_many_processes_is_one_trace(
    start: Starter, endpoint: str, collector: Collector
) -> None:
    env = {**collector.env, "SLIM_ENDPOINT": endpoint}
    start("run", "tests/tracing_agents.py:Leaf", "--replicas", "3", "--otel", **env).until("^joined", times=3)
    start("run", "tests/tracing_agents.py:Router", **env, SLIM_ACTORS_OTEL="1").until("^joined")
    bob = start("examples/bob.py", "--remote", "test/ns/router", "--enable-opentelemetry", python=True, **env)
    assert bob.wait() == 0, bob.output
    leaf: Tree = ("ask test/ns/leaf", [("handle test/ns/leaf", []), ("queue test/ns/leaf", [])])
    expected = [
        (
            "ask agntcy/ns/bob",
            [
                (
                    "handle agntcy/ns/bob",
                    [
                        (
                            "ask test/ns/router",
                            [("handle test/ns/router", [leaf] * 3), ("queue test/ns/router", [])],
                        )
                    ],
                ),
                ("queue agntcy/ns/bob", []),
            ],
        )
    ]
    await eventually(lambda: len(collector.spans) >= 15)
    assert tree((span.name, span.span_id, span.parent_span_id) for span in collector.spans) == expected
    assert len({span.trace_id for span in collector.spans}) == 1
    handled = [attributes(span) for span in collector.spans if span.name == "handle test/ns/leaf"]
    assert len({one["messaging.client.id"] for one in handled}) == 3
    assert collector.services == {"slim-actors", "test/ns/router", "test/ns/leaf"}


async def test_every_metric_of_the_documentation_is_exported(
    start: Starter, endpoint: str, collector: Collector
) -> None:
    assert len(DOCUMENTED) == 8
    env = {**collector.env, "SLIM_ENDPOINT": endpoint}
    run = start("run", "tests/tracing_agents.py:Leaf", "--otel", **env)
    (joined,) = run.until(r"^joined.*pid (\d+)")
    script = """
import asyncio
from slim_actors import Anycast, Runtime

async def main():
    leaf = Anycast("test/ns/leaf")
    async with Runtime(enable_opentelemetry=True) as runtime:
        await runtime.ask(leaf, "hello")
        await runtime.tell(leaf, "boom")
        await runtime.ask(leaf, "there")

asyncio.run(main())
"""
    asked = start("-c", script, python=True, **env)
    assert asked.wait() == 0, asked.output

    def outcomes() -> dict[str, int]:
        points = collector.points("slim_actors.outcomes")
        return {point["slim_actors.outcome"]: point["value"] for point in points}

    # Before the kill, or they were never exported.
    await eventually(lambda: outcomes() == {"ok": 2, "failed": 1})
    os.kill(int(joined[1]), signal.SIGKILL)
    run.until("^restarted")
    await eventually(lambda: {metric.name for metric in collector.metrics} >= set(DOCUMENTED))
    kinds = {metric.name: metric.WhichOneof("data") for metric in collector.metrics}
    assert {name: kinds[name] for name in DOCUMENTED} == {
        name: {"counter": "sum"}.get(kind, kind) for name, kind in DOCUMENTED.items()
    }
    (restarts,) = {
        point["messaging.destination.name"] for point in collector.points("slim_actors.replica.restarts")
    }
    assert restarts == "test/ns/leaf"
    sent = {
        (point["messaging.operation.name"], point["slim_actors.outcome"]): point["value"]
        for point in collector.points("messaging.client.operation.duration")
    }
    assert sent == {("ask", "ok"): 2, ("tell", "ok"): 1}
    assert run.stop() == 0
    assert not re.search("^Traceback", run.output, re.MULTILINE)


async def test_without_a_collector_all_goes_on_and_it_is_said_once(start: Starter, endpoint: str) -> None:
    env = {"SLIM_ENDPOINT": endpoint, "OTEL_EXPORTER_OTLP_ENDPOINT": free_endpoint(), "no_proxy": "127.0.0.1"}
    run = start("run", "tests/tracing_agents.py:Leaf", "--otel", **env)
    run.until("^joined")
    send = start("send", "test/ns/leaf", "hello", "--iterations", "3", "--otel", **env)
    assert send.wait() == 0
    *replies, said = send.output.splitlines()
    assert len(replies) == 3
    assert "OpenTelemetry data does not get through" in said
    assert run.stop() == 0
    run.wait()
    assert "Traceback" not in run.output
    assert (
        run.output.count("does not get through") == 1
    )  # the replica; the command itself had nothing to send


OFF = """
import asyncio, sys
from slim_actors import Agent, Anycast, Runtime

class Echo(Agent, name="a/b/c"):
    async def receive(self, message):
        return message

async def main():
    async with Runtime() as runtime:
        await runtime.spawn(Echo)
        await runtime.ask(Anycast("a/b/c"), "x")

asyncio.run(main())
print(sorted(name for name in sys.modules if name.partition(".")[0] in ("opentelemetry", "grpc", "google")))
"""


def test_nothing_of_it_is_imported_unless_it_is_wanted(start: Starter, endpoint: str) -> None:
    off = start("-c", OFF, python=True, SLIM_ENDPOINT=endpoint)
    assert off.wait() == 0, off.output
    assert off.output == "[]\n"


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("sys.modules['opentelemetry'] = None", "run pip install 'slim-actors[otel]'"),
        ("os.environ['OTEL_EXPORTER_OTLP_TIMEOUT'] = 'soon'", "An OTEL_ variable cannot be used: .*'soon'"),
        (
            "os.environ['OTEL_EXPORTER_OTLP_PROTOCOL'] = 'http/protobuf'",
            "(?<=error: )OTEL_EXPORTER_OTLP_PROTOCOL is .*exported by 'grpc' here",
        ),
        ("os.environ['OTEL_EXPORTER_OTLP_COMPRESSION'] = 'zip'", "An OTEL_ variable cannot be used: .*zip"),
        ("os.environ['OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT'] = 'x'", "An OTEL_ variable cannot be used: .*got x"),
        ("os.environ['OTEL_PROPAGATORS'] = 'nosuch'", "An OTEL_ variable cannot be used: .*nosuch"),
        ("os.environ['OTEL_PYTHON_TRACER_PROVIDER'] = 'nosuch'", "OTEL_PYTHON_TRACER_PROVIDER is 'nosuch'"),
        ("os.environ['OTEL_PYTHON_METER_PROVIDER'] = 'nosuch'", "OTEL_PYTHON_METER_PROVIDER is 'nosuch'"),
        ("os.environ['OTEL_BSP_MAX_QUEUE_SIZE'] = '-5'", "An OTEL_ variable cannot be used: "),
    ],
)
def test_what_is_missing_or_wrong_is_said_in_a_sentence(
    start: Starter, endpoint: str, setting: str, sentence: str
) -> None:
    words = f"'send', 'a/b/c', 'x', '--otel', '--endpoint', '{endpoint}'"
    script = f"""
import os, sys
sys.argv = ['slim-actors', {words}]
{setting}
from slim_actors.cli import main
main()
"""
    wrong = start("-c", script, python=True)
    assert wrong.wait() == 2, wrong.output
    sentence = re.escape(sentence) if "[" in sentence else sentence
    assert re.fullmatch(f"error: .*{sentence}.*(?<![.])\\.\n", wrong.output)


def test_providers_of_the_program_are_used_and_never_replaced(start: Starter, endpoint: str) -> None:
    script = """
import asyncio
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from slim_actors import Agent, Anycast, Runtime

spans, tracing, reader = InMemorySpanExporter(), TracerProvider(), InMemoryMetricReader()
tracing.add_span_processor(SimpleSpanProcessor(spans))
metering = MeterProvider([reader])
trace.set_tracer_provider(tracing)
metrics.set_meter_provider(metering)

class Echo(Agent, name="a/b/c"):
    async def receive(self, message):
        return message

async def main():
    async with Runtime(enable_opentelemetry=True) as runtime:
        await runtime.spawn(Echo)
        with trace.get_tracer("program").start_as_current_span("request"):
            await runtime.ask(Anycast("a/b/c"), "x")
        assert trace.get_tracer_provider() is tracing and metrics.get_meter_provider() is metering
        assert reader.get_metrics_data().resource_metrics
    print([span.name for span in spans.get_finished_spans()])

asyncio.run(main())
"""
    # The protocol of an exporter is nothing to who makes none.
    run = start(
        "-c", script, python=True, SLIM_ENDPOINT=endpoint, OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf"
    )
    assert run.wait() == 0, run.output
    assert run.output == "['queue a/b/c', 'handle a/b/c', 'ask a/b/c', 'request']\n"


def test_a_protocol_that_is_not_used_is_not_refused(start: Starter) -> None:
    script = """
import asyncio
from slim_actors.telemetry.export import exporting

async def main():
    async with exporting():
        print("goes on")

asyncio.run(main())
"""
    run = start(
        "-c", script, python=True, OTEL_SDK_DISABLED="true", OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf"
    )
    assert run.wait() == 0, run.output
    assert run.output == "goes on\n"
