"""Development: replicas are replaced when the files change that they are made of."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

from slim_actors.errors import ConfigurationError
from slim_actors.replicas.events import ReplicaFailed
from slim_actors.replicas.supervisor import Supervisor

__all__ = ["check_reload", "reload_on_change"]


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

    The folders of the files are watched, not the files: many editors write a new file and rename it.
    """
    from watchfiles import awatch

    watched: set[str] = set()
    moved = asyncio.Event()
    supervisor.on_files = lambda: moved.set() if _folders(supervisor) != watched else None
    restarting: asyncio.Task[bool] | None = None
    while True:
        watched = _folders(supervisor)
        moved.clear()
        if not watched:
            await moved.wait()
            continue
        async for changes in awatch(*watched, recursive=False, stop_event=moved, step=50, debounce=400):
            changed = {path for _, path in changes if path.endswith(".py")}
            failed = restarting is not None and restarting.done() and not restarting.result()
            # What a file that fails imports is not known: any of its neighbours may be what was mended.
            if not failed:
                changed &= supervisor.files
            if changed:
                names = ", ".join(sorted(Path(path).name for path in changed))
                restarting = asyncio.create_task(_restart(supervisor, f"{names} changed"))


def _folders(supervisor: Supervisor) -> set[str]:
    return {str(Path(file).parent) for file in supervisor.files}


async def _restart(supervisor: Supervisor, why: str) -> bool:
    with contextlib.suppress(ReplicaFailed):
        await supervisor.restart(why)
        return True
    return False
