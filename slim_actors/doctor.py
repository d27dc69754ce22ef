"""What could keep agents from working here: one finding after the other, each with what to do about it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import ssl
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from enum import Enum
from typing import Any

from attrs import frozen

from slim_actors.credentials import Refused, credentials_of
from slim_actors.errors import ConfigurationError, NoRoute, SlimActorsError
from slim_actors.identity import Identity, Jwt, SharedSecret, StaticJwt
from slim_actors.names import Address
from slim_actors.settings import Settings
from slim_actors.transport.base import SessionOptions

__all__ = ["Finding", "Mark", "examine"]

_NAME = "slim-actors/local/doctor"
_SOON = 14.0
_TOKEN_SOON = 60.0
_DAY = 86_400.0
_MOST_REPLICAS = 64
_EXTRAS = {
    "pydantic": "pydantic",
    "yaml": "yaml",
    "otel": "opentelemetry.sdk",
    "reload": "watchfiles",
    "testing": "pytest_asyncio",
}


class Mark(Enum):
    """How a finding is."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@frozen
class Finding:
    """One finding.

    Attributes:
        subject: What it is about, in a word.
        text: What was found, and what to do about it.
        mark: How it is.
    """

    subject: str
    text: str
    mark: Mark = Mark.OK


async def examine(settings: Settings, name: str | None = None) -> AsyncIterator[Finding]:
    """Look at everything that agents with these settings need, and yield what is found.

    Args:
        settings: As a command got them.
        name: A name whose replicas are counted.
    """
    for finding in (*_versions(), _extras(), _sources(settings)):
        yield finding
    identity: Identity | None = None
    try:
        identity = settings.identity()
    except ConfigurationError as error:
        yield Finding("identity", str(error), Mark.PROBLEM)
    else:
        for finding in _identity(identity):
            yield finding
    for finding in _certificates(settings):
        yield finding
    async for finding in _node(settings, identity, name):
        yield finding


def _versions() -> Iterator[Finding]:
    yield Finding("python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    yield Finding("version", f"slim-actors {importlib.metadata.version('slim-actors')}")
    bindings = f"slim-bindings {importlib.metadata.version('slim-bindings')}"
    try:
        from slim_actors.transport.bindings import calls
        from slim_actors.transport.direct import Direct
    except ImportError as error:
        yield Finding("bindings", f"{bindings} cannot be loaded: {error}.", Mark.PROBLEM)
        return
    if isinstance(calls, Direct):
        yield Finding("bindings", f"{bindings}, payloads are copied in blocks")
    else:
        slow = "copies payloads byte by byte: large messages are slow; use a version that slim-actors knows."
        yield Finding("bindings", f"{bindings} {slow}", Mark.WARNING)


def _extras() -> Finding:
    there = [extra for extra, module in _EXTRAS.items() if _is_installed(module)]
    missing = [extra for extra in _EXTRAS if extra not in there]
    text = f"installed: {', '.join(there) or 'none'}"
    if missing:
        text += f"; to add: pip install 'slim-actors[{','.join(missing)}]'"
    return Finding("extras", text)


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _sources(settings: Settings) -> Finding:
    ours = [one.metadata["variable"] for one in Settings.each()]
    variables = [variable for variable in ours if os.environ.get(variable)]
    found = [*settings.sources, *([f"the environment ({', '.join(variables)})"] if variables else [])]
    return Finding(
        "settings",
        f"from {', '.join(found)}" if found else "from no file and no variable: options and defaults",
    )


def _identity(identity: Identity) -> Iterator[Finding]:
    if isinstance(identity, SharedSecret):
        yield Finding("identity", "a shared secret, which is for development")
        return
    try:
        # Two of them: nobody believes a token of its own.
        credentials, peer = credentials_of(identity, _NAME), credentials_of(identity, _NAME)
        if credentials is None or peer is None:
            yield Finding("identity", f"by {identity}; only SLIM can check it", Mark.WARNING)
            return
        token = credentials.token()
        claims = peer.verify(token)
    except ConfigurationError as error:
        yield Finding("identity", str(error), Mark.PROBLEM)
        return
    except Refused as refused:
        why = str(refused).replace("its token", "the own token", 1)
        yield Finding("identity", f"it is not believed by its own keys: {why}.", Mark.PROBLEM)
        yield from _clock(token)
        return
    left = claims.expires - time.time()
    if isinstance(identity, Jwt):
        yield Finding("identity", f"{identity.key} signs tokens that {identity.trust} vouches for")
    elif left < _TOKEN_SOON:
        yield Finding("identity", f"its token expires in {left:.0f} s: renew it.", Mark.WARNING)
    else:
        yield Finding("identity", f"{claims.subject}, by a token that is valid for {_span(left)}")
    if isinstance(identity, StaticJwt):
        yield from _clock(token)


def _clock(token: str) -> Iterator[Finding]:
    """Compare with the issuer's clock, as far as its token tells."""
    import jwt

    try:
        claims: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    except jwt.InvalidTokenError:
        return
    issued = claims.get("iat")
    if isinstance(issued, int | float):
        ahead = issued - time.time()
        if ahead > 1:
            text = (
                f"the token is from {ahead:.0f} s in the future: this clock is behind its issuer's; set it."
            )
            yield Finding("clock", text, Mark.PROBLEM)
        else:
            yield Finding("clock", "not behind that of the token's issuer")


def _certificates(settings: Settings) -> Iterator[Finding]:
    try:
        tls = settings.tls()
        if tls is not None:
            tls.context(ssl.Purpose.SERVER_AUTH)
    except ConfigurationError as error:
        yield Finding("tls", str(error), Mark.PROBLEM)
        return
    if tls is None:
        return
    for what, file in (("CA", tls.ca), ("own certificate", tls.cert)):
        if file is not None:
            yield _validity(f"the {what} {file}", file.read_bytes())


def _validity(what: str, pem: bytes) -> Finding:
    from cryptography import x509

    certificate = x509.load_pem_x509_certificates(pem)[0]
    now = datetime.now(UTC)
    left = (certificate.not_valid_after_utc - now).total_seconds()
    if certificate.not_valid_before_utc > now:
        text = f"{what} is not valid before {certificate.not_valid_before_utc}: compare the clocks."
        return Finding("tls", text, Mark.PROBLEM)
    if left < 0:
        return Finding("tls", f"{what} expired {_span(-left)} ago: make a new one.", Mark.PROBLEM)
    mark = Mark.WARNING if left < _SOON * _DAY else Mark.OK
    return Finding("tls", f"{what} is valid for {_span(left)}", mark)


async def _node(settings: Settings, identity: Identity | None, name: str | None) -> AsyncIterator[Finding]:
    from slim_actors.transport.security import Connection, node_certificate
    from slim_actors.transport.slim import SlimTransport

    try:
        connection = Connection(settings.node, settings.tls(), settings.auth())
        connection.check()
        if connection.endpoint.is_secure:
            pem = await node_certificate(connection)
            if pem is not None:
                yield _validity("the node's certificate", pem)
        # The node asks nobody's identity, so without one of our own any will do.
        transport = SlimTransport(connection, identity or SharedSecret("x" * 32))
    except ConfigurationError as error:
        yield Finding("node", str(error), Mark.PROBLEM)
        return
    try:
        port = await transport.open(_NAME)
        yield Finding("node", f"a SLIM node answers at {connection.endpoint}")
        if name is not None and identity is not None:
            yield await _replicas(port, name)
    except SlimActorsError as error:
        yield Finding("node", str(error), Mark.PROBLEM)
    finally:
        await transport.close()


async def _replicas(port: Any, name: str) -> Finding:
    """Count the replicas of a name. Discovery goes round: one that comes again ends the round."""
    found: set[str] = set()
    for _ in range(_MOST_REPLICAS):
        try:
            session = await port.connect(Address(name), SessionOptions(max_retries=2))
        except NoRoute as error:
            if not found:
                return Finding("name", f"{name} is free: {error}")
            break
        except SlimActorsError as error:
            return Finding("name", f"{name} cannot be asked: {error}", Mark.PROBLEM)
        instance = str(session.peer)
        await session.close()
        if instance in found:
            break
        found.add(instance)
    count = f"{len(found)} replica{'s' if len(found) > 1 else ''}"
    # Discovery goes round for all who ask: meanwhile it may have given others to somebody else.
    return Finding("name", f"{name} is served by at least {count}: {', '.join(sorted(found))}")


def _span(seconds: float) -> str:
    if seconds >= 2 * _DAY:
        return f"{seconds / _DAY:.0f} days"
    return f"{seconds / 3600:.0f} hours" if seconds >= 2 * 3600 else f"{seconds:.0f} s"
