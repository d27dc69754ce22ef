"""Finds the agent class that a user named: ``FILE``, ``FILE:Class``, ``module`` or ``module:Class``."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import traceback
from pathlib import Path
from types import ModuleType

from slim_actors.agent import Agent
from slim_actors.errors import ConfigurationError, SlimActorsError

__all__ = ["check_file", "load_agent", "local_files"]


def load_agent(target: str) -> type[Agent]:
    """Import what the target names and give the agent class in it.

    A file is loaded as ``python FILE`` would: its folder comes first on the import path, then the current
    one.

    Raises:
        ConfigurationError: The file is missing, does not parse, fails on import, has no agent, or has
            several and none is named.

    Example:
        .. code-block:: python

            load_agent("agents/echo.py:Echo")
    """
    place, _, class_name = target.partition(":")
    module = _guarded(_from_file if _is_file(place) else _from_name, place)
    return _named(module, class_name, place) if class_name else _only(module, place)


def check_file(target: str) -> None:
    """Refuse a target whose file is not there, without looking into it.

    Raises:
        ConfigurationError: There is no such file.
    """
    place = target.partition(":")[0]
    if _is_file(place) and not Path(place).is_file():
        raise ConfigurationError(f"There is no file {place}.")


def _is_file(place: str) -> bool:
    return place.endswith(".py") or "/" in place or Path(place).is_file()


def local_files() -> set[str]:
    """Give the files of the modules imported so far that are the user's own, not installed ones.

    Those are the ones below the folders that `load_agent` put on the import path.
    """
    files = (getattr(module, "__file__", None) for module in list(sys.modules.values()))
    return {file for file in files if file is not None and _is_local(Path(file))}


def _is_local(file: Path) -> bool:
    # An environment may be in the middle of the user's folder.
    return any(
        file.is_relative_to(folder) and not {"site-packages", "dist-packages"}.intersection(file.parts)
        for folder in _local_folders
    )


def _from_file(place: str) -> ModuleType:
    check_file(place)
    path = Path(place).resolve()
    package: list[str] = []
    folder = path.parent
    while (folder / "__init__.py").is_file():
        package.insert(0, folder.name)
        folder = folder.parent
    _search(folder, Path.cwd())
    if package:
        return importlib.import_module(".".join([*package, path.stem]))
    # A file called like a module that is loaded already (random.py) must not take that one's place.
    name = path.stem if path.stem not in sys.modules else f"{path.parent.name}.{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ConfigurationError(f"{place} is not a Python file.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _from_name(place: str) -> ModuleType:
    _search(Path.cwd())
    try:
        return importlib.import_module(place)
    except ModuleNotFoundError as error:
        if error.name is not None and (place == error.name or place.startswith(error.name + ".")):
            raise ConfigurationError(f"There is no file and no module {place}.") from None
        raise


_local_folders: set[Path] = set()

_RUNS = "asyncio.run() cannot be called"


def _search(*folders: Path) -> None:
    _local_folders.update(folders)
    for folder in reversed(folders):
        if str(folder) not in sys.path:
            sys.path.insert(0, str(folder))


def _guarded(load: object, place: str) -> ModuleType:
    assert callable(load), "a loader is a function"
    try:
        module = load(place)
    except SlimActorsError:
        raise
    except SyntaxError as error:
        raise ConfigurationError(
            f"{error.filename or place}, line {error.lineno or 1}, does not parse: {error.msg}."
        ) from None
    except (Exception, SystemExit) as error:  # noqa: BLE001 (a user's module may raise anything)
        frames = traceback.extract_tb(error.__traceback__)
        # That of the user, who does not look for his mistake in a library that he calls.
        own = [frame for frame in frames if _is_local(Path(frame.filename))] or frames
        where = f"{own[-1].filename}, line {own[-1].lineno}" if own else place
        hint = ' Put what starts it under if __name__ == "__main__".' if _RUNS in str(error) else ""
        raise ConfigurationError(
            f"{place} fails on import with {type(error).__name__}: {error} ({where}).{hint}"
        ) from None
    assert isinstance(module, ModuleType), "a loader gives a module"
    return module


def _named(module: ModuleType, class_name: str, place: str) -> type[Agent]:
    found = getattr(module, class_name, None)
    if found is None:
        raise ConfigurationError(f"{place} has no {class_name}; it has {_list(_agents(module))}.")
    if not (isinstance(found, type) and issubclass(found, Agent)):
        raise ConfigurationError(
            f"{class_name} in {place} is not an agent: derive it from slim_actors.Agent."
        )
    return found


def _only(module: ModuleType, place: str) -> type[Agent]:
    agents = _agents(module)
    if not agents:
        raise ConfigurationError(
            f"{place} has no agent: declare a class that derives from slim_actors.Agent."
        )
    if len(agents) > 1:
        raise ConfigurationError(
            f"{place} has several agents ({_list(agents)}): name one, as in {place}:{agents[0].__name__}."
        )
    return agents[0]


def _agents(module: ModuleType) -> list[type[Agent]]:
    found = (value for value in vars(module).values() if isinstance(value, type) and issubclass(value, Agent))
    return [cls for cls in dict.fromkeys(found) if cls.__module__ == module.__name__]


def _list(agents: list[type[Agent]]) -> str:
    return ", ".join(cls.__name__ for cls in agents) or "no agent"
