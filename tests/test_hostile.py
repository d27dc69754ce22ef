"""A hostile peer, written with bare slim-bindings, over a real node: it hurts only itself."""

from __future__ import annotations

import pytest

from tests.conftest import Starter


@pytest.mark.timeout(180)
def test_a_hostile_peer_hurts_only_itself(start: Starter) -> None:
    only = [word for name in ("sessions", "claims", "streams") for word in ("--only", name)]
    run = start("-m", "benchmarks.hostile", "--sessions", "200", "--seconds", "1", *only, python=True)
    run.process.wait(150)
    assert run.wait() == 0, run.output
    assert "only the hostile peer was hurt" in run.output
