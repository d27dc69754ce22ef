"""The pytest plugin that comes with the package: the fixture ``test_runtime``."""

from __future__ import annotations

from collections.abc import AsyncIterator
from importlib.util import find_spec
from typing import Any

import pytest


async def _in_memory() -> AsyncIterator[object]:
    """Give a `TestRuntime` on a virtual clock."""
    # Here, so that a test run which does not use the fixture does not import the package.
    from slim_actors.testing.runtime import TestRuntime

    async with TestRuntime() as runtime:
        yield runtime


def _missing() -> None:
    """Say what is missing."""
    needs = "The fixture test_runtime needs pytest-asyncio: pip install 'slim-actors[testing]'"
    pytest.fail(needs, pytrace=False)


test_runtime: Any
# pytest loads this wherever the package is installed, also for those who test nothing asynchronous.
if find_spec("pytest_asyncio") is None:
    test_runtime = pytest.fixture(name="test_runtime")(_missing)
else:
    import pytest_asyncio

    test_runtime = pytest_asyncio.fixture(name="test_runtime")(_in_memory)
test_runtime.__test__ = False
