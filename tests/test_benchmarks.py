"""The benchmarks measure what they say; how fast anything is, no test asks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from attrs import evolve

from benchmarks.cases import SERIES, TABLE, Case, Series
from benchmarks.plots import draw
from benchmarks.report import as_json, comparison, ratios, table
from benchmarks.runner import Effort, Samples, measure
from benchmarks.systems import BARE, OURS, PEERS, SKETCH
from benchmarks.systems.base import Setup
from tests.conftest import ROOT, Starter

TINY = Effort(rounds=1, seconds=0.0)


def test_the_quick_mode_prints_both_systems_and_their_ratio(start: Starter, tmp_path: Path) -> None:
    words = ("--quick", "--rounds", "1", "--seconds", "0", "--only", "in one process", "--out", str(tmp_path))
    run = start("-m", "benchmarks", *words, python=True)
    assert run.wait() == 0, run.output
    assert "slim-actors divided by others" in run.output
    assert "not measured" not in run.output
    (figure,) = json.loads((tmp_path / "table.json").read_text())["figures"]
    assert figure["unit"] == "µs"
    assert [len(values) for values in figure["values"].values()] == [1, 1]
    assert all(value > 0 for values in figure["values"].values() for value in values)


def test_every_figure_of_one_setup_is_measured_on_both_systems() -> None:
    cases = [case for case in TABLE if case.setup == Setup()]
    samples = measure(cases, [BARE, OURS], TINY, lambda _: None)
    assert dict(samples.errors) == {}
    for case in cases:
        assert all(value is not None and value > 0 for (value,) in samples.values[case].values()), case.title


def test_the_sketch_is_measured_where_it_can_do_the_same() -> None:
    cases = [case for case in TABLE if case.measure in {"latency", "asks", "one_way"}]
    samples = measure(cases, [SKETCH], TINY, lambda _: None)
    assert dict(samples.errors) == {}
    measured = {case.title for case in cases if samples.values[case][SKETCH] != [None]}
    without = {"one ask at a time, in one process", "64 in flight, 3 replicas"}
    assert measured == {case.title for case in cases} - without


def test_bare_bindings_are_measured_without_slim_actors(start: Starter) -> None:
    script = "import sys, benchmarks.driver, benchmarks.systems.bare; print('slim_actors' in sys.modules)"
    run = start("-c", script, python=True)
    assert (run.wait(), run.output) == (0, "False\n")


def test_a_system_that_fails_is_reported_and_others_are_measured() -> None:
    case = Case("nothing", "asks/s", "no such measure", Setup(transport="process"))
    samples = measure([case, evolve(case, measure="latency")], [BARE], TINY, lambda _: None)
    assert samples.values[case][BARE] == [None]
    assert samples.values[evolve(case, measure="latency")][BARE] != [None]
    assert dict(samples.errors) == {"bare slim-bindings, nothing: KeyError: 'no such measure'": 1}


def filled(case: Case) -> Samples:
    samples = Samples()
    samples.values[case][BARE] = [10.0, None, 20.0]
    samples.values[case][OURS] = [30.0, 30.0, 80.0]
    return samples


def test_ratios_are_taken_within_a_round() -> None:
    samples = filled(TABLE[0])
    assert ratios(samples, TABLE[0], BARE) == [3.0, 4.0]
    assert table(samples, [BARE, OURS]).row_count == comparison(samples, [BARE, OURS]).row_count == 1
    assert json.loads(as_json(samples, TINY))["figures"][0]["values"]["slim-actors"] == [30.0, 30.0, 80.0]


def test_a_series_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    case = TABLE[0]
    path = draw(Series("Some cost", "agents", {1: case}), filled(case), [BARE, OURS], tmp_path)
    assert path.name == "some-cost.svg"
    assert "slim-actors" in path.read_text() or "<svg" in path.read_text()


def test_each_system_is_a_module_and_each_series_grows() -> None:
    for system in (BARE, OURS, *PEERS):
        assert (ROOT / "benchmarks" / "systems" / f"{system.key}.py").exists()
        assert system.differs or system is OURS
    for series in SERIES:
        assert sorted(series.cases) == list(series.cases)
