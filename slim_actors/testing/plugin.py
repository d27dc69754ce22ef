"""The pytest plugin that comes with the package: the fixture ``test_runtime``."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

pytest_asyncio = pytest.importorskip("pytest_asyncio")


@pytest_asyncio.fixture  # type: ignore[untyped-decorator]
async def test_runtime() -> AsyncIterator[object]:
    """Give a `TestRuntime` on a virtual clock."""
    # Here, so that a test run which does not use the fixture does not import the package.
    from slim_actors.testing.runtime import TestRuntime

    async with TestRuntime() as runtime:
        yield runtime


test_runtime.__test__ = False
