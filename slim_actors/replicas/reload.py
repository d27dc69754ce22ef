"""Development: replicas are replaced when the files change that they are made of."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

from slim_actors.errors import ConfigurationError
from slim_actors.replicas.events import ReplicaFailed
from slim_actors.replicas.supervisor import Supervisor

__all__ = ["check_reload", "reload_on_change"]

_LOOK_EVERY = 1.0
"""Seconds between two looks whether a folder has gone or come back: nobody tells of that."""


def check_reload() -> None:
    """See that what is needed for it is installed.

    Raises:
        ConfigurationError: It is not.
    """
    try:
        import watchfiles  # noqa: F401 (only whether it is there)
    except ImportError:
        raise ConfigurationError(
            "--reload needs watchfiles: install it with pip install 'slim-actors[reload]'."
        ) from None


async def reload_on_change(supervisor: Supervisor) -> None:
    """Restart the replicas whenever one of their files changes; a newer change takes over from an older one.

    The folders of the files are watched, not the files: many editors write a new file and rename it. A folder
    that comes back after it was removed is a change.
    """
    from watchfiles import awatch

    restarts = _Restarts(supervisor)
    watched: set[str] = set()
    gone: set[str] = set()
    moved = asyncio.Event()
    supervisor.on_files = lambda: moved.set() if _there(supervisor) != watched else None
    while True:
        watched = _there(supervisor)
        moved.clear()
        if back := gone & watched:
            restarts.begin(f"{', '.join(sorted(back))} came back")
        gone = (gone | _folders(supervisor)) - watched
        if not watched:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(moved.wait(), _LOOK_EVERY)
            continue
        watching = awatch(
            *watched,
            recursive=False,
            stop_event=moved,
            step=50,
            debounce=400,
            rust_timeout=int(1000 * _LOOK_EVERY),
            yield_on_timeout=True,
        )
        # A folder may go before it is watched.
        with contextlib.suppress(FileNotFoundError):
            async for changes in watching:
                restarts.take(changes)
                # Also where another one has its name already: that is not the one that is watched.
                gone |= {path for _, path in changes if path in watched}
                if gone & watched or _there(supervisor) != watched:
                    break
        await watching.aclose()


class _Restarts:
    """What changes lead to."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._last: asyncio.Task[bool] | None = None

    def take(self, changes: set[Any]) -> None:
        """Begin a restart if one of the files has changed."""
        changed = {path for _, path in changes if path.endswith(".py")}
        failed = self._last is not None and self._last.done() and not self._last.result()
        # What a file that fails imports is not known: any of its neighbours may be what was mended.
        if not failed:
            changed &= self._supervisor.files
        if changed:
            self.begin(f"{', '.join(sorted(Path(path).name for path in changed))} changed")

    def begin(self, why: str) -> None:
        """Begin a restart; it takes over from the last one."""
        self._last = asyncio.create_task(self._restart(why))

    async def _restart(self, why: str) -> bool:
        with contextlib.suppress(ReplicaFailed):
            await self._supervisor.restart(why)
            return True
        return False


def _folders(supervisor: Supervisor) -> set[str]:
    return {str(Path(file).parent) for file in supervisor.files}


def _there(supervisor: Supervisor) -> set[str]:
    return {folder for folder in _folders(supervisor) if Path(folder).is_dir()}
