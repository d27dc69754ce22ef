"""Who an agent is, and whom it believes: the identities that a `Runtime` can have.

An identity is a plain value. What SLIM checks of each kind, what slim-actors checks besides, and what nobody
checks, is a table in ``docs/security.md``.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from attrs import Attribute, field, frozen
from attrs.converters import optional

from slim_actors.checks import is_number, is_passable
from slim_actors.errors import ConfigurationError
from slim_actors.files import to_path

__all__ = [
    "MIN_SECRET_BYTES",
    "Identity",
    "Jwt",
    "SharedSecret",
    "Spire",
    "StaticJwt",
    "audience_given",
    "check_audience",
    "check_secret",
    "to_names",
    "trusted",
]

MIN_SECRET_BYTES = 32
"""SLIM signs with HMAC-SHA256 and takes no shorter key."""


def check_secret(secret: str) -> str:
    """Return the secret if SLIM takes it.

    Raises:
        ConfigurationError: It is too short, or no text that can be passed on to replicas.
    """
    if not is_passable(secret):
        raise ConfigurationError(
            "The shared secret must be a text in Unicode (UTF-8), without a null character."
        )
    size = len(secret.encode())
    if size < MIN_SECRET_BYTES:
        raise ConfigurationError(
            f"The shared secret has {size} bytes, but SLIM needs at least {MIN_SECRET_BYTES}. "
            "Make one with: python3 -c 'import secrets; print(secrets.token_hex(32))'"
        )
    return secret


def to_names(value: str | Iterable[str]) -> tuple[str, ...]:
    """Give one or several words.

    Raises:
        ConfigurationError: It is neither.
    """
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, Iterable):
        raise ConfigurationError(f"{value!r} is neither a text nor several.")
    return tuple(value)


def audience_given(_: object, __: object, value: tuple[str, ...]) -> None:
    """Refuse no audience, and one that could not be in a variable, which is how replicas get theirs."""
    # SLIM refuses every token that names an audience when none is expected, and every token of ours does.
    if not value or not all(isinstance(one, str) and one for one in value):
        raise ConfigurationError(
            "A token identity needs an audience: the word, agreed between all agents, that says what its "
            'tokens are for, as in audience="slim".'
        )
    for one in value:
        check_audience(one)


def check_audience(audience: str) -> str:
    """Return the audience if it is one word.

    Raises:
        ConfigurationError: It has a space or a comma.
    """
    if "," in audience or audience.split() not in ([], [audience]):
        raise ConfigurationError(
            f"The audience {audience!r} has a space or a comma, but those are between audiences."
        )
    return audience


def _text(_: object, attribute: Attribute[str], value: str) -> None:
    if not isinstance(value, str):
        raise ConfigurationError(f"The {attribute.name} of a token is {value!r}, but must be a text.")


def _issuer_given(_: object, __: object, value: str) -> None:
    if not value:
        raise ConfigurationError("A token that is signed here needs an issuer, and it is empty.")


def _seconds(_: object, __: object, value: float) -> None:
    if not is_number(value) or value < 1:
        raise ConfigurationError(f"A token's duration is {value!r}, but must be a number of seconds from 1.")


@frozen
class SharedSecret:
    """All who know one secret belong together; anyone of them can take any name. For development.

    Args:
        secret: 32 bytes at least.

    Raises:
        ConfigurationError: The secret is too short.

    Example:
        >>> Runtime(identity=SharedSecret(secrets.token_hex(32)))  # doctest: +SKIP
    """

    secret: str = field(converter=check_secret, repr=False)


@frozen
class Jwt:
    """An identity that signs its own tokens (RFC 7519), and believes those signed by keys that it trusts.

    The algorithm follows from the key: ES256 or ES384 for elliptic curves, EdDSA for Ed25519, RS256 for RSA
    (which costs about 2.5 ms a round trip).

    Args:
        key: File with the private key that signs: PEM, PKCS#8.
        trust: File with the keys to believe: a public key or certificates in PEM, a JWKS (RFC 7517), or a
            bundle with a JWKS for each trust domain. Read again when it changes: a key that is removed is
            believed no longer, at once, and if it was the last one nobody is; a file that makes no sense, or
            is gone, changes nothing and is logged. One that is added counts from the next start, for SLIM,
            which checks the set-up of sessions, reads it then. Only what is shown to a node (``auth=``) can
            do without.
        audience: What the tokens are for; a peer's token must name one of them.
        issuer: Who vouches for the tokens; those of peers must come from the same.
        subject: Whom the tokens name. By default the SLIM name of each agent. In tokens it has an ending for
            each instance, ``#`` and 16 hexadecimal digits, for SLIM tells instances apart by it.
        duration: Seconds that a token is valid.

    Raises:
        ConfigurationError: A value is missing or wrong; a file is looked at when the identity is used.

    Example:
        >>> bob = Jwt("bob.key", trust="trusted.jwks", audience="slim", issuer="acme", subject="bob")
    """

    key: Path = field(converter=to_path)
    trust: Path | None = field(default=None, converter=optional(to_path), kw_only=True)
    audience: tuple[str, ...] = field(converter=to_names, validator=audience_given, kw_only=True)
    issuer: str = field(validator=[_text, _issuer_given], kw_only=True)
    subject: str = field(default="", validator=_text, kw_only=True)
    duration: float = field(default=3600.0, validator=_seconds, kw_only=True)


@frozen
class StaticJwt:
    """An identity by a token that somebody else issued and renews, as platforms do for their workloads.

    It is a bearer token: whoever sees it can use it until it expires, and whoever has the name that is called
    sees it. So use TLS, where the names are safe.

    Args:
        token: File with the token. Read again when it changes.
        trust: File with the keys to believe, as in `Jwt`; here a change counts at once.
        audience: What the tokens are for; each side's must name one of them.
        issuer: Who must have issued them; anyone that the keys vouch for, if empty.

    Raises:
        ConfigurationError: A value is missing or wrong; a file is looked at when the identity is used.

    Example:
        >>> bob = StaticJwt("/run/secrets/token", trust="/etc/agents/issuer.jwks", audience="slim")
    """

    token: Path = field(converter=to_path)
    trust: Path | None = field(default=None, converter=optional(to_path), kw_only=True)
    audience: tuple[str, ...] = field(converter=to_names, validator=audience_given, kw_only=True)
    issuer: str = field(default="", validator=_text, kw_only=True)


@frozen
class Spire:
    """An identity from a SPIFFE Workload API, as SPIRE's agent serves it: SLIM fetches and checks the tokens.

    slim-actors cannot check them once more, so `Address.subject` is known in MLS sessions only.

    Args:
        socket: Path of the Workload API's Unix socket.
        audience: What the tokens are for.
        trust_domains: Whose tokens to believe besides those of the own trust domain.

    Raises:
        ConfigurationError: A value is missing or wrong.

    Example:
        >>> bob = Spire("/run/spire/agent.sock", audience="slim")
    """

    socket: Path = field(converter=to_path)
    audience: tuple[str, ...] = field(converter=to_names, validator=audience_given, kw_only=True)
    trust_domains: tuple[str, ...] = field(default=(), converter=to_names, kw_only=True)


Identity = SharedSecret | Jwt | StaticJwt | Spire


def trusted(identity: Jwt | StaticJwt) -> Path:
    """Give the file with the keys that an identity believes.

    Raises:
        ConfigurationError: It has none.
    """
    if identity.trust is None:
        raise ConfigurationError(
            "A token identity needs the keys that it believes: give trust=FILE, or --bundle FILE."
        )
    return identity.trust
