"""Identities in the terms of the bindings."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from slim_actors.errors import ConfigurationError
from slim_actors.identity import Identity, Jwt, SharedSecret, Spire
from slim_actors.transport.bindings import innermost, slim
from slim_actors.trust import Trust, read_text, signing_algorithm

__all__ = ["DOOR_SECRET", "create_app", "create_open_app"]

DOOR_SECRET = "slim-actors: no secret, who is there is asked and checked"  # noqa: S105 (it says so itself)
"""What apps share whose peers are checked by slim-actors alone: it keeps nobody out."""

_ALGORITHMS = {
    "ES256": slim.JwtAlgorithm.ES256,
    "ES384": slim.JwtAlgorithm.ES384,
    "RS256": slim.JwtAlgorithm.RS256,
    "EdDSA": slim.JwtAlgorithm.ED_DSA,
}


def create_app(service: slim.Service, name: str, identity: Identity) -> slim.App:
    """Make an app with this identity.

    A token from a file is not among what SLIM can do: the bindings sign each set-up of a session with a key
    that the token must name, and a token that somebody else issued names none. Such an app is open to all as
    far as SLIM is concerned, and each side introduces itself instead.

    Raises:
        ConfigurationError: SLIM does not take it, or a file that it needs cannot be used.
    """
    match identity:
        case SharedSecret():
            return _create(service, name, *_by_secret(name, identity.secret))
        case Jwt():
            return _create(service, name, *_by_key(name, identity))
        case Spire():
            return _create(service, name, *_by_spire(identity))
        case _:
            return create_open_app(service, name)


def create_open_app(service: slim.Service, name: str) -> slim.App:
    """Make an app to which everybody can open a session."""
    # Not by its name, which may have a space that SLIM does not take here.
    return _create(service, name, *_by_secret("slim-actors", DOOR_SECRET))


def _create(service: slim.Service, name: str, provider: Any, verifier: Any) -> slim.App:
    # The synchronous constructor: the asynchronous one panics in the bindings.
    try:
        return service.create_app(slim.Name(*name.split("/")), provider, verifier)
    except slim.SlimError as error:
        raise ConfigurationError(f"SLIM refuses the identity of {name}: {innermost(error)}.") from None


def _by_secret(name: str, secret: str) -> tuple[Any, Any]:
    return (
        slim.IdentityProviderConfig.SHARED_SECRET(id=name, data=secret),
        slim.IdentityVerifierConfig.SHARED_SECRET(id=name, data=secret),
    )


def _by_key(name: str, identity: Jwt) -> tuple[Any, Any]:
    algorithm = _ALGORITHMS[signing_algorithm(identity.key)]
    # Their text, not their path: the bindings panic on a file that is missing.
    text = read_text(identity.key, "private key")
    signing: Any = slim.JwtKeyType.ENCODING(key=_key(text, algorithm, slim.JwtKeyFormat.PEM))
    # With a JWKS the algorithm of each key is its own; this one is only to be there.
    jwks = Trust(identity.trust).jwks
    trusted: Any = slim.JwtKeyType.DECODING(key=_key(jwks, algorithm, slim.JwtKeyFormat.JWKS))
    audience, duration = list(identity.audience), timedelta(seconds=identity.duration)
    return (
        slim.IdentityProviderConfig.JWT(
            config=slim.ClientJwtAuth(
                key=signing,
                audience=audience,
                issuer=identity.issuer,
                subject=identity.subject or name,
                duration=duration,
            )
        ),
        slim.IdentityVerifierConfig.JWT(
            config=slim.JwtAuth(
                key=trusted,
                audience=audience,
                issuer=identity.issuer,
                subject=None,
                duration=duration,
            )
        ),
    )


def _key(text: str, algorithm: slim.JwtAlgorithm, form: slim.JwtKeyFormat) -> slim.JwtKeyConfig:
    data: Any = slim.JwtKeyData.DATA(value=text)
    return slim.JwtKeyConfig(algorithm=algorithm, format=form, key=data)


def _by_spire(identity: Spire) -> tuple[Any, Any]:
    config = slim.SpireConfig(
        socket_path=f"unix://{identity.socket.absolute()}",
        target_spiffe_id=None,
        jwt_audiences=list(identity.audience),
        trust_domains=list(identity.trust_domains),
    )
    return (
        slim.IdentityProviderConfig.SPIRE(config=config),
        slim.IdentityVerifierConfig.SPIRE(config=config),
    )
